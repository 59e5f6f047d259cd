"""After an update was accepted: following its operation to its end, and the CVM until it runs.

The state that shows just after an update may still be the old ``running``, so it never
counts: only the update's own operation says when it is over.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from phala_secrets import api
from phala_secrets.errors import (
    AnswerError,
    BootError,
    RateLimitError,
    ServerError,
    TransportError,
    WaitTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from phala_secrets.client import Client
    from phala_secrets.models import CvmOperation, CvmState

_INTERVAL = 5.0
_QUICK_AT_FIRST = (0.3, 0.5, 1.0, 2.0, 3.0)
_PASSING = (TransportError, ServerError, RateLimitError)
"""Failures that may pass while there is time left."""


class Wait:
    """One CVM on its way to the new environment."""

    def __init__(
        self, client: Client, cvm_id: str, correlation_id: str, seconds: float, tell: Callable[[str], None]
    ) -> None:
        self._client = client
        self._cvm_id = cvm_id
        self._correlation_id = correlation_id
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._tell = tell
        self._status = ""
        self._seen = ""
        self._old_error: str | None = None
        self._changed = False
        self._over = False

    def until_running(self) -> None:
        """Returns when the operation is completed and the CVM runs.

        Raises BootError with the guest's reason, WaitTimeoutError with what was last seen.
        """
        checked = 0.0
        for state in self._states():
            if state:
                self._observe(state)
            arrived = state is None or state.status == "running"
            if not self._over and (arrived or time.monotonic() - checked >= _INTERVAL):
                checked = time.monotonic()
                self._over = self._operation_over()
            if self._over and self._status == "running":
                return
        raise WaitTimeoutError(
            f"not running after {self._seconds:.0f} s; last seen: {self._seen or 'nothing'}",
            hint="it may still come up: look at the CVM's logs, or raise wait-timeout",
        )

    def _states(self) -> Iterator[CvmState | None]:
        """States as they come, streamed or polled, until the time is up; None where one says complete."""
        pauses = iter(_QUICK_AT_FIRST)
        while (left := self._left()) > 0:
            live = False
            try:
                call = api.stream_cvm_state(self._cvm_id, "running", 5, min(600, max(10, int(left))))
                with self._client.stream(call, within=min(left, 2 * _INTERVAL)) as stream:
                    live = stream.live
                    for event in stream.events:
                        yield event.state
                        if self._left() <= 0 or event.type in ("complete", "timeout"):
                            break
            except _PASSING as error:
                self._give_up_on_lasting(error)
            pause = 1.0 if live else next(pauses, _INTERVAL)
            time.sleep(max(0.0, min(pause, self._left())))

    def _give_up_on_lasting(self, error: Exception) -> None:
        if isinstance(error, AnswerError) and not self._seen:
            raise error

    def _observe(self, state: CvmState) -> None:
        self._status = state.status
        what = ", ".join(filter(None, [state.status, state.boot_progress, state.shutdown_progress]))
        if what != self._seen:
            self._changed = self._changed or bool(self._seen)
            self._seen = what
            self._tell(what)
        if not state.boot_error:
            self._changed = True
        elif self._old_error is None and not self._changed:
            self._old_error = state.boot_error  # may be of the boot before the update
        if state.boot_error and (self._over or self._changed or state.boot_error != self._old_error):
            raise BootError(
                f"the CVM failed to boot: {state.boot_error[:500]}", hint="look at the CVM's serial log"
            )

    def _operation_over(self) -> bool:
        try:
            operation = self._operation()
        except _PASSING:
            return False
        status = operation.status if operation else None
        if status == "failed":
            reason = (operation and operation.error_message) or "no reason given"
            raise BootError(f"the update failed: {reason[:500]}", hint="look at the CVM's serial log")
        return status == "completed"

    def _operation(self) -> CvmOperation | None:
        call = api.get_cvm_operations(self._cvm_id, limit=20)
        page = self._client.send(call, within=max(0.1, self._left()))
        found = (item for item in page.items if item.correlation_id == self._correlation_id)
        return next(found, None)

    def _left(self) -> float:
        return self._deadline - time.monotonic()
