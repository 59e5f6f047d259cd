"""The command as a user runs it: with an environment of its own, in a folder of its own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack, chdir, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phala_secrets.run import command
from phala_secrets.simulator.server import Simulator
from tests.support.clock import ManualClock

ROOT = Path(__file__).parents[2]
ENTRYPOINT = ROOT / "entrypoint.py"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left behind: its exit code, and all that it printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def printed(self) -> str:
        """Both streams."""
        return self.stdout + self.stderr

    @property
    def lines(self) -> list[str]:
        """Those of standard error, where people are talked to."""
        return self.stderr.splitlines()

    @property
    def errors(self) -> list[str]:
        """The lines that say what is wrong."""
        return [line for line in self.lines if line.startswith("error: ")]

    @property
    def hints(self) -> list[str]:
        """The lines that say what to do."""
        return [line for line in self.lines if line.startswith("hint: ")]

    @property
    def json(self) -> Any:
        """Standard output, which with ``--json`` is one JSON document and nothing else."""
        return json.loads(self.stdout)


class _Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


class Command:
    """``phala-secrets …`` in ``folder``, with the variables of a shell that is logged in to a simulator.

    ``environ`` is what every run has; a run adds to it, and takes away with ``None``. With
    ``one_stream`` both streams are one, as in a log: then it is all in the outcome's ``stdout``.
    """

    def __init__(self, simulator: Simulator, folder: Path, *, one_stream: bool = False) -> None:
        self.folder = folder
        self._one_stream = one_stream
        self._clock = simulator.cloud.clock
        home = folder.parent / f"{folder.name}-home"
        home.mkdir(exist_ok=True)
        self.environ: dict[str, str | None] = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PHALA_CLOUD_API_KEY": simulator.cloud.api_key,
            "PHALA_CLOUD_API_PREFIX": simulator.url,
        }

    def variables(self, environ: Mapping[str, str | None] | None = None) -> dict[str, str]:
        """The environment of a run."""
        merged = {**self.environ, **(environ or {})}
        return {name: value for name, value in merged.items() if value is not None}

    def __call__(
        self,
        *arguments: str,
        environ: Mapping[str, str | None] | None = None,
        stdin: bytes = b"",
        person: bool = False,
    ) -> Outcome:
        """A run in this process, which is quick: the real command, its environment and folder its own.

        With a ``person``, standard input and standard error are a terminal.
        """
        before = dict(os.environ)
        stream = _Terminal if person else io.TextIOWrapper
        environ = {**({"TERM": "dumb"} if person else {}), **(environ or {})}
        written = io.BytesIO(), io.BytesIO()
        stdout, stderr = (stream(buffer, "utf-8", write_through=True) for buffer in written)
        stdin_before, sys.stdin = sys.stdin, stream(io.BytesIO(stdin), "utf-8")
        with ExitStack() as stack:
            stack.callback(os.environ.update, before)
            stack.callback(os.environ.clear)
            stack.callback(setattr, sys, "stdin", stdin_before)
            stack.enter_context(chdir(self.folder))
            stack.enter_context(redirect_stdout(stdout))
            stack.enter_context(redirect_stderr(stdout if self._one_stream else stderr))
            os.environ.clear()
            os.environ.update(self.variables(environ))
            code = command.main(arguments)
        return Outcome(code, *(buffer.getvalue().decode() for buffer in written))

    def apart(
        self,
        *arguments: str,
        environ: Mapping[str, str | None] | None = None,
        stdin: bytes = b"",
        python: tuple[str, ...] = (sys.executable, "-m", "phala_secrets"),
    ) -> Outcome:
        """The same in a process of its own, as a shell starts it, and in real time."""
        with self._clock.running() if isinstance(self._clock, ManualClock) else nullcontext():
            done = subprocess.run(
                [*python, *arguments],
                cwd=self.folder,
                env=self.variables(environ),
                input=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT if self._one_stream else subprocess.PIPE,
                timeout=60,
                check=False,
            )
        return Outcome(done.returncode, done.stdout.decode(), (done.stderr or b"").decode())

    def write(self, name: str, content: str | bytes) -> Path:
        """A file in the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path
