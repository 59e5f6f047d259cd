"""What is going on, on a terminal: a spinner, and in a fleet a line for each CVM under way."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TextIO

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_MOST_LINES = 16


class Live:
    """Lines that are drawn anew ten times a second, from here until ``stop``."""

    def __init__(self, stream: TextIO, lines: Iterable[str]) -> None:
        self._stream = stream
        self._lines = list(lines)
        self._drawn = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def show(self, lines: Iterable[str]) -> None:
        """What is under way, from now on."""
        self._lines = list(lines)

    def stop(self) -> None:
        """Clears the lines."""
        self._over.set()
        self._thread.join()
        self._stream.write(self._cleared())
        self._stream.flush()

    def _spin(self) -> None:
        turn = 0
        while not self._over.wait(0.1):
            lines = self._lines
            hidden = len(lines) - _MOST_LINES
            shown = [f"{_FRAMES[turn % len(_FRAMES)]} {line}" for line in lines[:_MOST_LINES]]
            shown += [f"  and {hidden} more"] if hidden > 0 else []
            width = self._width()
            self._stream.write(self._cleared() + "\n".join(line[:width] for line in shown))
            self._stream.flush()
            self._drawn = len(shown)
            turn += 1

    def _cleared(self) -> str:
        """Back to where the first line began, and nothing below."""
        up = f"\x1b[{self._drawn - 1}A" if self._drawn > 1 else ""
        return f"\r{up}\x1b[J"

    def _width(self) -> int:
        """One less than the terminal has: a line that wraps could not be taken back."""
        try:
            return max(0, os.get_terminal_size(self._stream.fileno()).columns - 1) or 79
        except (OSError, ValueError):
            return 79
