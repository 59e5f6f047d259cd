"""The simulator's only clock, which reads the time and lets it pass."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """A clock for the simulator. Tests replace the real one to move the time themselves."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        ...

    def time(self) -> float:
        """Return seconds since the epoch."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        ...

    def wait(self, condition: threading.Condition, seconds: float) -> bool:
        """Wait, with ``condition`` held, until it is notified or ``seconds`` have passed.

        Return whether it was notified. A caller must check again in any case: a clock moved by a test may
        return earlier.
        """
        ...


class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        return time.monotonic()

    def time(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def wait(self, condition: threading.Condition, seconds: float) -> bool:
        return condition.wait(seconds)
