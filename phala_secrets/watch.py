"""Following a CVM's state through streams that end, break off, or are none. No I/O."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from phala_secrets import api
from phala_secrets.errors import ApiError, InputError, PhalaSecretsError, RateLimitError, ServerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from phala_secrets.calls import Call
    from phala_secrets.models import CvmState, CvmStateEvent

_MAX_BREAKS = 4


class Watch:
    """One wait for a target state: which stream to open next, what an event means, when it is over."""

    def __init__(
        self,
        request: Mapping[str, Any] | str | None = None,
        *,
        id: str | None = None,  # noqa: A002 (the API's own name)
        target: str | None = None,
        interval: int | None = None,
        timeout: int | None = None,
    ) -> None:
        given: dict[str, Any] = {"id": id, "target": target, "interval": interval, "timeout": timeout}
        if isinstance(request, str):
            given["id"] = request
        elif request is not None:
            given.update(request)
        self._id = given["id"] or ""
        self._target = given["target"] or "running"
        self._interval = _within("interval", given["interval"], 5, 30, 5)
        timeout = _within("timeout", given["timeout"], 10, 600, 300)
        self._call_for(timeout)  # checks the id before anything is sent
        self._deadline = time.monotonic() + timeout
        self._breaks = 0
        self.over = False

    def _call_for(self, seconds: int) -> Call[CvmState]:
        return api.stream_cvm_state(self._id, self._target, self._interval, seconds)

    def call(self) -> Call[CvmState]:
        """The stream to open next."""
        return self._call_for(min(600, max(10, int(self._left()))))

    def saw(self, event: CvmStateEvent) -> Iterator[CvmStateEvent]:
        """The events that the watcher gets for one that came in: all but the end of a stream that goes on."""
        self._breaks = 0
        self.over = event.type == "complete" or (event.type == "timeout" and self._left() <= 0)
        if self.over or event.type != "timeout":
            yield event

    def broke(self, error: PhalaSecretsError) -> None:
        """A stream broke off; raises the error when that is no use trying again."""
        self._breaks += 1
        lasting = isinstance(error, ApiError) and not isinstance(error, ServerError | RateLimitError)
        if lasting or self._breaks >= _MAX_BREAKS or self._left() <= 0:
            raise error

    def pause(self) -> float:
        """Seconds until the next stream; when the time is up, the watch is over."""
        self.over = self.over or self._left() <= 0
        return max(0.0, min(float(self._interval), self._left()))

    def _left(self) -> float:
        return self._deadline - time.monotonic()


def _within(name: str, value: Any, low: int, high: int, default: int) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"{name} has to be a whole number from {low} to {high}", hint=f"change {name}")
    return value
