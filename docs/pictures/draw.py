"""Draw the README's pictures anew, from what the command shows on the simulator: ``make pictures``.

A terminal becomes an SVG of text. A summary becomes a PNG, through GitHub's own Markdown and a browser.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Self

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.server import Simulator

HERE = Path(__file__).parent
COLUMNS = 80
WIDTH, HEIGHT, MARGIN = 8.4, 20, 16  # of a character, of a line, around them
INK, PAPER = "#e6edf3", "#0d1117"
FONTS = "ui-monospace,SFMono-Regular,Menlo,Consolas,Liberation Mono,monospace"
COLOURS = {"31": "#ff7b72", "32": "#7ee787", "33": "#e3b341", "36": "#79c0ff"}
MARK = re.compile(r"\x1b\[([\d;]*)m")
CLEARED = re.compile(r"\r(?:\x1b\[\d+A)?\x1b\[J")

COMPOSE = """\
services:
  web:
    image: ghcr.io/my-org/web@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
    environment: [API_TOKEN, DATABASE_URL, STRIPE_KEY]
"""
GIVEN = "DATABASE_URL=postgres://db\nAPI_TOKEN=t0ken-of-a-sample\n"
MISSING = "STRIPE_KEY=sk-of-a-sample\n"
REASON = "docker login failed: 401 unauthorized"
WORDS = "--cvm my-app --env-file .env"


def main() -> None:
    (HERE / "plan.svg").write_text(svg(*on_terminal(f"plan {WORDS}", GIVEN)))
    (HERE / "waiting.svg").write_text(
        svg(*on_terminal(f"update {WORDS} --yes", GIVEN + MISSING, "booting  0:0"))
    )
    summary = in_a_job(f"update {WORDS}", GIVEN + MISSING)
    photograph(page(summary), HERE / "failed.png")


class Stage:
    """A CVM on a simulator, a folder with ``.env``, and the variables of a command that is pinned."""

    def __init__(self, dotenv: str, boot_seconds: float = 0.1) -> None:
        self.simulator = Simulator(Cloud(restart_seconds=boot_seconds, seed=b"pictures", v1_signatures=True))
        environment = {"DATABASE_URL": "1", "STRIPE_KEY": "2"}
        self.cvm = self.simulator.cloud.add_cvm(
            "my-app", docker_compose_file=COMPOSE, environment=environment
        )
        self._folder = tempfile.TemporaryDirectory()
        self.folder = Path(self._folder.name)
        (self.folder / ".env").write_text(dotenv)

    def __enter__(self) -> Self:
        self.simulator.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.simulator.__exit__(None, None, None)
        self._folder.cleanup()

    def variables(self) -> dict[str, str]:
        return {
            "PATH": os.defpath,
            "PYTHONPATH": str(HERE.parents[1]),
            "LANG": "C.UTF-8",
            "PHALA_CLOUD_API_PREFIX": self.simulator.url,
            "PHALA_CLOUD_API_KEY": self.simulator.cloud.api_key,
            "CLOUD_URL": "https://cloud.phala.com",
            "PHALA_SECRETS_APP_ID": self.cvm.app_id,
            "PHALA_SECRETS_TRUSTED_SIGNERS": self.cvm.kms.root_public_key,
        }


def on_terminal(words: str, dotenv: str, until: str = "\0") -> tuple[str, str]:
    """Return a command, and what a terminal shows once it ended, or once ``until`` is there."""
    with Stage(dotenv, 12) as stage:
        hands, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        process = subprocess.Popen(
            [sys.executable, "-m", "phala_secrets", *words.split()],
            cwd=stage.folder,
            env=stage.variables() | {"TERM": "xterm-256color"},
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=terminal,
        )
        os.close(terminal)
        shown = ""
        while until not in shown:
            try:
                shown += os.read(hands, 65536).decode(errors="replace")
            except OSError:  # Linux says so when the other end is closed
                break
        process.kill()
        process.wait()
        os.close(hands)
    return words, settled(shown)


def settled(shown: str) -> str:
    """Return what is left on the screen, where each frame takes the place of the one before."""
    *before, last = CLEARED.split(shown)
    return "".join(part[: part.rfind("\n") + 1] for part in before) + last


def in_a_job(words: str, dotenv: str) -> str:
    """Return the summary of a job on GitHub whose CVM does not boot."""
    with Stage(dotenv) as stage:
        stage.cvm.boot_fails(REASON)
        (summary := stage.folder / "summary.md").touch()
        subprocess.run(
            [sys.executable, "-m", "phala_secrets", *words.split()],
            cwd=stage.folder,
            env=stage.variables() | {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)},
            capture_output=True,
            check=False,
        )
        return summary.read_text()


def svg(words: str, shown: str) -> str:
    """Return a terminal as a picture whose text can be selected and read aloud."""
    lines = [f"$ phala-secrets {words}", *shown.replace("\r", "").rstrip("\n").split("\n")]
    width, height = COLUMNS * WIDTH + 2 * MARGIN, len(lines) * HEIGHT + 2 * MARGIN
    rows = [
        f'<text x="{MARGIN}" y="{MARGIN + 15 + number * HEIGHT}">{"".join(spans(line))}</text>'
        for number, line in enumerate(lines)
        if line
    ]
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" width="{width:g}">',
            f'<rect width="100%" height="100%" rx="8" fill="{PAPER}"/>',
            f'<g fill="{INK}" font-family="{FONTS}" font-size="14">',
            *rows,
            "</g></svg>\n",
        )
    )


def spans(line: str) -> Iterator[str]:
    """Yield a line in pieces of one colour, each as wide as its columns in any font."""
    at, style = 0, ""
    for number, part in enumerate(MARK.split(line)):
        if number % 2:
            codes = part.split(";")
            colour = next((COLOURS[code] for code in codes if code in COLOURS), "")
            style = f' fill="{colour}"' if colour else ""
            style += ' font-weight="bold"' if "1" in codes else ""
            style += ' opacity=".6"' if "2" in codes else ""
        elif part:
            x, wide = MARGIN + at * WIDTH, len(part) * WIDTH
            text = escape(part.replace(" ", "\N{NO-BREAK SPACE}"), quote=False)
            yield f'<tspan x="{x:g}" textLength="{wide:g}"{style}>{text}</tspan>'
            at += len(part)


def page(markdown: str) -> str:
    """Return Markdown as the page that GitHub makes of it."""
    html = subprocess.run(
        ["cmark-gfm", "--unsafe", "--extension", "table", "--extension", "autolink"],
        input=markdown,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    html = re.sub(r"(^|>)(\+ .*)", r'\1<span class="added">\2</span>', html, flags=re.MULTILINE)
    return f"<!doctype html><meta charset=utf-8><style>{(HERE / 'github.css').read_text()}</style>{html}"


def photograph(html: str, picture: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (source := Path(folder) / "page.html").write_text(html)
        subprocess.run(
            [
                *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *("--window-size=760,745", f"--screenshot={picture}", source.as_uri()),
            ],
            capture_output=True,
            check=True,
        )


if __name__ == "__main__":
    main()
