"""The state of a CVM as server-sent events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from phala_secrets.simulator.cvm_shapes import cvm_state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from phala_secrets.simulator.cloud import Cloud
    from phala_secrets.simulator.cvm import Cvm

_PAUSE = 0.25  # seconds between looks at whether the reader, or the server, has gone


class Stream:
    """An open stream: ``state`` at once, at each change and every ``interval`` seconds, until the end.

    It ends with ``complete`` when the CVM shows the status ``target``, even the old one from before an
    update, or with ``timeout`` after ``timeout`` seconds. The constructor raises a 429 if the user has too
    many. `close` frees the place.
    """

    def __init__(self, cloud: Cloud, cvm: Cvm, target: str, interval: float, timeout: float) -> None:
        cloud.limits.open_stream()
        self._cloud = cloud
        self._now = cloud.clock.monotonic
        self._cvm = cvm
        self._target = target
        self._interval = interval
        self._timeout = timeout

    def close(self) -> None:
        self._cloud.limits.close_stream()

    def __iter__(self) -> Iterator[bytes]:
        """Yield each event as sent, or an empty one if nothing happened for a while."""
        deadline = self._now() + self._timeout
        shown, due = None, 0.0
        while self._now() < deadline:
            state, status = self._look()
            if status != shown or self._now() >= due:
                shown, due = status, self._now() + self._interval
                yield _event("state", state)
            if status == self._target:
                yield _event("complete", state)
                return
            if not self._wait(min(due, deadline)):
                yield b""
        yield _event("timeout", {"message": f"Not {self._target} after {self._timeout} s"})

    def _look(self) -> tuple[dict[str, Any], str]:
        with self._cloud.changed:
            state = cvm_state(self._cvm)
        return state, state["status"]

    def _wait(self, until: float) -> bool:
        """Wait for a change or the next event. Return False after a mere pause."""
        with self._cloud.changed:
            next_change = self._cvm.next_change
            until = until if next_change is None else min(until, next_change)
            seconds = until - self._now()
            notified = self._cloud.clock.wait(self._cloud.changed, max(0.0, min(seconds, _PAUSE)))
            return notified or self._now() >= until


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
