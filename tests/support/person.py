"""A person at a terminal, who reads what a command shows and types."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from types import TracebackType
from typing import Self

from tests.support.command import Command

_SOON = 20


class Person:
    """``phala-secrets …`` in a process of its own, on a terminal that is all of its streams."""

    def __init__(self, run: Command, *arguments: str, columns: int = 80) -> None:
        self._hands, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "phala_secrets", *arguments],
            cwd=run.folder,
            env=run.variables({"TERM": "xterm", "NO_COLOR": "1"}),
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(terminal)
        self.seen = ""

    def sees(self, text: str) -> bool:
        """Whether a text comes up before the command ends, or a while has passed."""
        while text not in self.seen and select.select([self._hands], [], [], _SOON)[0]:
            try:
                self.seen += os.read(self._hands, 65536).decode()
            except OSError:  # Linux says so when the other end is closed
                break
        return text in self.seen

    def types(self, text: str) -> None:
        """What is typed reaches the command as a line."""
        os.write(self._hands, f"{text}\n".encode())

    def presses_ctrl_c(self) -> None:
        os.write(self._hands, b"\x03")

    def code(self) -> int:
        """The exit code, once all was read."""
        self.sees("\0")
        return self._process.wait(_SOON)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._hands)
        self._process.kill()
        self._process.wait()
