"""A clock that a test moves, for the simulator and for a client alike."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOOK_AGAIN = 0.05
"""Seconds of real time after which a waiter looks around: a reader may have hung up."""

_QUIET = 0.001
"""Seconds of real time without a look at the clock, after which nobody is taken to be at work."""

_AT_MOST = 0.05
"""Seconds of real time that any sleep takes, however busy the others are."""


class ManualClock:
    """A clock that stands still until a test moves it, or until all that is left to do is to sleep on it.

    Then it goes on to the moment at which the first of the sleepers wakes, so that threads sleep side by
    side. It starts at the machine's time, so that what is signed by it is fresh. It serves as
    ``flow.clock`` and as the simulator's.
    """

    def __init__(self, now: float | None = None) -> None:
        self._epoch = time.time() if now is None else now
        self._moved = 0.0
        self._running = 0
        self._running_since = 0.0
        self._lock = threading.Lock()
        self._looked = 0.0
        self._wakes: list[float] = []
        self._waiting: list[threading.Condition] = []
        self.slept: list[float] = []
        """The pauses that were made on it, in order."""

    def monotonic(self) -> float:
        """Return the seconds that it was moved by."""
        with self._lock:
            self._looked = time.monotonic()
            return self._now()

    def _now(self) -> float:
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
        """Let ``seconds`` pass, which takes next to no time."""
        with self._sleeping(seconds) as awake:
            while not awake():
                time.sleep(_QUIET)

    async def asleep(self, seconds: float) -> None:
        """As ``sleep``, while other tasks have their turn."""
        with self._sleeping(seconds) as awake:
            while not awake():
                await asyncio.sleep(_QUIET)

    @contextmanager
    def _sleeping(self, seconds: float) -> Iterator[Callable[[], bool]]:
        began = time.monotonic()
        with self._lock:
            self.slept.append(seconds)
            wake = self._now() + seconds
            self._wakes.append(wake)

        def awake() -> bool:
            now = time.monotonic()
            with self._lock:
                left = wake - self._now()
                first = wake <= min(self._wakes)
                quiet = now - self._looked >= _QUIET or now - began >= _AT_MOST
            if left > 0 and first and quiet:
                self.advance(left)
                return True
            return left <= 0

        try:
            yield awake
        finally:
            with self._lock:
                self._wakes.remove(wake)

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
