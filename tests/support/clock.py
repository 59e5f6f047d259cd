"""A clock that a test moves, for the simulator and for a client alike."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_LOOK_AGAIN = 0.05  # seconds of real time after which a waiter looks around: a reader may have hung up


class ManualClock:
    """A clock that stands still until somebody moves it: a test, or whoever sleeps on it.

    It starts at the machine's time, so that what is signed by it is fresh. All of it may be called
    from several threads. It serves as ``flow.clock`` and as the simulator's.
    """

    def __init__(self, now: float | None = None) -> None:
        self._epoch = time.time() if now is None else now
        self._moved = 0.0
        self._running = 0
        self._running_since = 0.0
        self._lock = threading.Lock()
        self._waiting: list[threading.Condition] = []
        self.slept: list[float] = []
        """The pauses that were made on it, in order."""

    def monotonic(self) -> float:
        """Return the seconds that it was moved by."""
        with self._lock:
            return self._moved + (time.monotonic() - self._running_since if self._running else 0.0)

    def time(self) -> float:
        """Return seconds since the epoch."""
        return self._epoch + self.monotonic()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let real time pass on it as well: for a process of its own, which knows no other."""
        with self._lock:
            if not self._running:
                self._running_since = time.monotonic()
            self._running += 1
        try:
            yield
        finally:
            with self._lock:
                self._running -= 1
                if not self._running:
                    self._moved += time.monotonic() - self._running_since

    def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass at once."""
        with self._lock:
            self.slept.append(seconds)
        self.advance(seconds)

    async def asleep(self, seconds: float) -> None:
        """As ``sleep``, and let other tasks have their turn."""
        self.sleep(seconds)
        await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        """Move it forward, and wake those who wait on it."""
        if seconds < 0:
            raise ValueError("time does not go back")
        with self._lock:
            self._moved += seconds
            waiting = list(self._waiting)
        for condition in waiting:
            with condition:
                condition.notify_all()

    def wait(self, condition: threading.Condition, seconds: float) -> bool:
        """Wait, with ``condition`` held, until it is notified or the clock is moved.

        Return false where neither happened for a moment of real time: nobody waits on a clock that
        stands still for ever.
        """
        if seconds <= 0:
            return False
        with self._lock:
            self._waiting.append(condition)
        try:
            return condition.wait(min(seconds, _LOOK_AGAIN))
        finally:
            with self._lock:
                self._waiting.remove(condition)
