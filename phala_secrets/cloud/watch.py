"""Following a CVM's state through streams that end, break off or do not exist. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from phala_secrets import flow
from phala_secrets.cloud import readers, requests
from phala_secrets.cloud.arguments import Arguments, merged, required
from phala_secrets.errors import InputError, PhalaSecretsError, RateLimitError, ServerError, TransportError

if TYPE_CHECKING:
    from phala_secrets.cloud.call import Call
    from phala_secrets.cloud.models import CvmState, CvmStateEvent


class Watch:
    """One wait for a target state: the next stream to open, the meaning of an event, and the end."""

    def __init__(
        self,
        request: Arguments | str | None = None,
        *,
        id: str | None = None,
        target: str | None = None,
        interval: int | None = None,
        timeout: int | None = None,
    ) -> None:
        keywords = {"id": id, "target": target, "interval": interval, "timeout": timeout}
        given = merged(request, "id", keywords)
        (self._id,) = required(given, "id")
        self._target = given.get("target", "running")
        self._interval = _within("interval", given.get("interval", 5), 5, 30)
        timeout = _within("timeout", given.get("timeout", 300), 10, 600)
        self._seconds = timeout
        self._call_for(timeout)  # checks the id before anything is sent
        self._deadline = flow.clock.monotonic() + timeout
        self._breaks = 0
        self._pause = float(self._interval)
        self.complete = False

    def _call_for(self, seconds: int) -> Call[CvmState]:
        return requests.state_stream(self._id, self._target, self._interval, seconds).read_by(
            readers.read("CvmState")
        )

    @property
    def over(self) -> bool:
        """Whether the target is reached, or the time is up."""
        return self.complete or self._left() <= 0

    def call(self) -> Call[CvmState]:
        """Return the stream to open next."""
        return self._call_for(min(600, max(10, int(self._left()))))

    def silence(self) -> float:
        """Return the seconds that the stream may be silent: it sends the state at the interval."""
        return max(0.1, min(2.0 * self._interval, self._left()))

    def saw(self, event: CvmStateEvent) -> bool:
        """Return whether the watcher gets this event: any but the end of a stream before the time is up."""
        if event.type == "state":
            self._breaks = 0
        self.complete = event.type == "complete"
        ended_in_time = event.type == "timeout"
        self._pause = flow.FIRST_PAUSE if ended_in_time else self._interval
        return not ended_in_time

    def broke(self, error: PhalaSecretsError) -> None:
        """Note that a stream broke off. Raise the error if a retry is pointless."""
        self._breaks += 1
        if not isinstance(error, TransportError | ServerError | RateLimitError):
            raise error
        if self._breaks >= flow.STREAM_BREAKS and self._left() > 0:
            raise error
        self._pause = flow.FIRST_PAUSE * 2 ** (self._breaks - 1)
        if isinstance(error, RateLimitError):
            self._pause = self._interval if error.retry_after is None else max(self._pause, error.retry_after)

    def pause(self) -> float:
        """Return the seconds until the next stream."""
        return 0.0 if self.over else min(self._pause, self._left())

    def timed_out(self) -> CvmStateEvent:
        """Return the last event once the time is up."""
        from phala_secrets.cloud.models import CvmStateEvent

        message = f"not {self._target} after {self._seconds} s"
        return CvmStateEvent(type="timeout", data={"message": message})

    def _left(self) -> float:
        return self._deadline - flow.clock.monotonic()


def _within(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"invalid {name}", hint=f"use a whole number from {low} to {high}")
    return value
