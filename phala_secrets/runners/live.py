"""Progress on a terminal: a spinner, and in a fleet a line for each CVM under way."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, NamedTuple

from phala_secrets import flow

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TextIO

_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_MOST_LINES = 16


class Doing(NamedTuple):
    """What is under way, since when (``flow.clock``), and for how many seconds at most; 0 has no clock."""

    text: str
    began: float = 0.0
    limit: float = 0.0

    def line(self, width: int | None = None) -> str:
        """Return it as a line with its clock, which stays where the text is cut to ``width``."""
        clock = f"  {on_clock(self.age)} of {on_clock(self.limit)}" if self.limit else ""
        room = None if width is None else max(0, width - len(clock))
        return (self.text[:room] + clock)[:width]

    def from_now(self) -> Doing:
        """Return it as something that begins now."""
        return self._replace(began=flow.clock.monotonic())

    @property
    def age(self) -> float:
        """Seconds since it began."""
        return flow.clock.monotonic() - self.began


def on_clock(seconds: float) -> str:
    """Return a time as a clock shows it: 0:42, 10:00, 1:00:00."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


class Live:
    """Lines that are redrawn ten times a second, from here until ``stop``."""

    def __init__(self, stream: TextIO, lines: Iterable[Doing]) -> None:
        self._stream = stream
        self._lines = list(lines)
        self._drawn = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def show(self, lines: Iterable[Doing]) -> None:
        """Replace the lines."""
        self._lines = list(lines)

    def stop(self) -> None:
        """Clear the lines."""
        self._over.set()
        self._thread.join()
        self._stream.write(self._cleared())
        self._stream.flush()

    def _spin(self) -> None:
        turn = 0
        while not self._over.wait(0.1):
            lines = self._lines
            hidden = len(lines) - _MOST_LINES
            width = terminal_width(self._stream)
            room = max(0, width - 2)
            shown = [
                f"{_FRAMES[turn % len(_FRAMES)]} {one.line(room)}"[:width] for one in lines[:_MOST_LINES]
            ]
            shown += [f"  and {hidden} more"[:width]] if hidden > 0 else []
            self._stream.write(self._cleared() + "\n".join(shown))
            self._stream.flush()
            self._drawn = len(shown)
            turn += 1

    def _cleared(self) -> str:
        """Return the escapes that go back to the first line and clear all below."""
        up = f"\x1b[{self._drawn - 1}A" if self._drawn > 1 else ""
        return f"\r{up}\x1b[J"


def terminal_width(stream: TextIO) -> int:
    """Return one less than the terminal has: a line that wraps could not be taken back."""
    try:
        return max(0, os.get_terminal_size(stream.fileno()).columns - 1) or 79
    except (OSError, ValueError):
        return 79
