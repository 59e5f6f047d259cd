"""A clock that a test moves, for the simulator and for a client alike."""

from __future__ import annotations

import threading
import time

_LOOK_AGAIN = 0.05  # seconds of real time after which a waiter looks around: a reader may have hung up


class ManualClock:
    """A clock that stands still until somebody moves it: a test, or whoever sleeps on it.

    It starts at the machine's time, so that what is signed by it is fresh. All of it may be called
    from several threads.
    """

    def __init__(self, now: float | None = None) -> None:
        self._epoch = time.time() if now is None else now
        self._elapsed = 0.0
        self._lock = threading.Lock()
        self._waiting: list[threading.Condition] = []
        self.slept: list[float] = []
        """The pauses that were made on it, in order."""

    def monotonic(self) -> float:
        """Return the seconds that it was moved by."""
        with self._lock:
            return self._elapsed

    def time(self) -> float:
        """Return seconds since the epoch."""
        with self._lock:
            return self._epoch + self._elapsed

    def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass at once."""
        with self._lock:
            self.slept.append(seconds)
        self.advance(seconds)

    async def asleep(self, seconds: float) -> None:
        """Let ``seconds`` pass at once."""
        self.sleep(seconds)

    def advance(self, seconds: float) -> None:
        """Move it forward, and wake those who wait on it."""
        if seconds < 0:
            raise ValueError("time does not go back")
        with self._lock:
            self._elapsed += seconds
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
            return condition.wait(_LOOK_AGAIN)
        finally:
            with self._lock:
                self._waiting.remove(condition)
