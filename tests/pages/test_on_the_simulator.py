"""The README and each page of docs/ can be tried on ``phala-secrets simulate``: what they show runs there.

A block that starts a simulator sets the stage for those after it, the page's first one for those before it
as well. All of a page happens in one terminal, where what the simulator prints was pasted.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from phala_secrets.inputs.command_line import Command, parse
from phala_secrets.simulator.lies import LIES
from phala_secrets.simulator.serve import describe
from phala_secrets.simulator.stage import COMPOSE, Scene, Stage
from tests.simulator.test_stage import CAUGHT
from tests.support.clock import ManualClock

ROOT = Path(__file__).parents[2]
PAGES = ("../README", "approvals", "deploy", "library", "migrate", "performance", "trust", "troubleshooting")
SIMULATE = "phala-secrets simulate"
DEFAULT_ORIGIN = f"http://127.0.0.1:{Stage().port}"
ACTIVATE = ". .venv-try/bin/activate"
"""Here the command is on the path already."""
OTHERS = ("phala ", "docker run ", "git clone ")
"""What begins with these is somebody else's command."""

CURL = f"""#!{sys.executable}
import sys, urllib.request
url, data = sys.argv[-1], sys.argv[-2].encode() if len(sys.argv) > 2 else None
print(urllib.request.urlopen(url, data).read().decode())
"""
"""As much of curl as the pages use: a machine may have none."""

EXIT_CODE = re.compile(r"^(.*?) +# exit code (\d+)$", re.MULTILINE)


def text_of(page: str) -> str:
    return (ROOT / f"docs/{page}.md").read_text()


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of each block that a reader would run."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL)
    return [(language, code) for language, code in found if language not in ("yaml", "text")]


class Terminal:
    """A shell in ``folder`` that keeps what was exported, beside a simulator that can be another one."""

    def __init__(self, folder: Path, clock: ManualClock) -> None:
        self.folder = folder
        self._clock = clock
        self._scenes = ExitStack()
        self._bin = folder / "bin"
        self._bin.mkdir()
        (self._bin / "curl").write_text(CURL)
        (self._bin / "curl").chmod(0o755)
        (self._bin / "phala-secrets").write_text(f'#!/bin/sh\nexec {sys.executable} -m phala_secrets "$@"\n')
        (self._bin / "phala-secrets").chmod(0o755)
        (folder / ".env").write_text("GREETING=hello\n")
        (folder / "docker-compose.yml").write_text(COMPOSE)
        (folder / "state").write_text("")
        self._origin = ""

    def simulate(self, line: str) -> None:
        """Start the simulator of the command, on a free port and in a hurry, and paste what it prints."""
        self.close()
        parsed = parse([*shlex.split(line)[1:], "--port=0"])
        assert isinstance(parsed, Command)
        assert parsed.stage
        scene = self._scenes.enter_context(Scene(replace(parsed.stage, boot_seconds=0.1), self._clock))
        self._origin = scene.simulator.origin
        (root := self.folder / "root.pem").write_text(scene.cloud.tee.root_pem)
        exports = [line for line in describe(scene, str(root)).splitlines() if line.startswith("export ")]
        self.sh("\n".join(exports))

    def sh(self, code: str) -> None:
        code = EXIT_CODE.sub(r'code=0; \1 || code=$?; [ "$code" = \2 ]', code.replace("\\\n", " "))
        code = code.replace(DEFAULT_ORIGIN, self._origin).replace(ACTIVATE, ":")
        self._run(["bash", "-c", f"set -eu\n. ./state\n{code}\nexport -p > state"])

    def python(self, code: str) -> None:
        names = f"import os\nAPP_ID, KMS_ROOT = os.environ['APP_ID'], os.environ['KMS_ROOT']\n{code}"
        quoted = shlex.join([sys.executable, "-W", "error", "-c", names])
        self._run(["bash", "-c", f"set -eu\n. ./state\n{quoted}"])

    def console(self, code: str) -> None:
        """Look that what is to be made can be made: it may take minutes."""
        targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
        for line in code.splitlines():
            assert re.match(r"make ([a-z-]+)", line).group(1) in targets  # type: ignore[union-attr]

    def close(self) -> None:
        self._scenes.close()

    def _run(self, command: list[str]) -> None:
        environ = {"PATH": f"{self._bin}:/usr/bin:/bin", "HOME": str(self.folder), "LANG": "C.UTF-8"}
        done = subprocess.run(
            command, cwd=self.folder, env=environ, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"


@pytest.fixture
def terminal(tmp_path: Path, clock: ManualClock) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path, clock)
    with clock.running():
        yield terminal
    terminal.close()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_as_it_stands(page: str, terminal: Terminal) -> None:
    steps = blocks(page)
    terminal.simulate(next(code for _, code in steps if code.startswith(SIMULATE)))
    for language, code in steps:
        if code.startswith(SIMULATE):
            terminal.simulate(code)
        elif not code.startswith(OTHERS):
            getattr(terminal, language)(code)


def test_the_readme_tries_what_the_simulator_says_to_try() -> None:
    with Scene(Stage(port=0)) as scene:
        recipe = re.findall(r"^  (export .+|phala-secrets .+)$", describe(scene), re.MULTILINE)
    (tried,) = (code for _, code in blocks("../README") if code.startswith(ACTIVATE))
    assert tried.splitlines()[1:-1] == recipe


def test_the_lies_to_try_are_those_that_there_are() -> None:
    rows = re.findall(r"^\| `([\w-]+)`.* \| (.+) \| (\d) \|$", text_of("trust"), re.MULTILINE)
    told = {lie: (int(code), flag.strip("`")) for lie, flag, code in rows}
    caught = {lie: (code, flag or "every run") for lie, (code, flag, _) in CAUGHT.items()}
    assert told == caught
    assert told.keys() == LIES.keys()
