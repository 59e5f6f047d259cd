"""After an update was accepted: following its operation to its end, and the CVM until it runs.

The state that shows just after an update may still be the old ``running``, so it never
counts: only the update's own operation says when it is over.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from phala_secrets.cloud import requests
from phala_secrets.cloud.call import MAX_PAUSE
from phala_secrets.errors import (
    AnswerError,
    ApiError,
    BootError,
    PhalaSecretsError,
    RateLimitError,
    ServerError,
    TransportError,
    WaitTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from phala_secrets.cloud.client import Client
    from phala_secrets.cloud.models import CvmOperation, CvmState

_INTERVAL = 5.0
_QUICK_AT_FIRST = (0.3, 0.5, 1.0, 2.0, 3.0)
_AFTER_STREAM = 1.0
_SILENCE = _INTERVAL + 1.0
"""Seconds: the API tells the state at the interval, changed or not."""
_LAST_LOOK = 2.0
"""Seconds before the end of the time to wait."""

_SHORTEST_STREAM = 10.0
"""Seconds: the API streams no shorter, and the time to wait is kept to the second."""

_PASSING = (TransportError, ServerError, RateLimitError)
"""Failures that may pass while there is time left."""

_MAX_NONSENSE = 4
"""Answers in a row that are none, until it is taken for lasting."""


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
        self._state: CvmState | None = None
        self._told = ""
        self._old_error: str | None = None
        self._over = False
        self._streams = True
        self._live = False
        self._nonsense = 0
        self._not_before = 0.0

    def until_running(self) -> None:
        """Returns when the operation is completed and the CVM runs.

        Raises BootError with the guest's reason, WaitTimeoutError with what was last seen.
        """
        checked = 0.0
        for state in self._states():
            self._state = state
            arrived = state.status == "running"
            if not self._over and (arrived or time.monotonic() - checked >= _INTERVAL):
                checked = time.monotonic()
                self._over = self._operation_over()
            self._show(state)
            if self._over and arrived:
                return
            self._check_boot(state)
        raise WaitTimeoutError(
            f"not running after {self._seconds:.0f} s; last seen: {self._told or 'nothing'}",
            hint="it may still come up: look at the CVM's logs, or raise wait-timeout",
        )

    def _states(self) -> Iterator[CvmState]:
        """States as they come, streamed or polled, until the time is up."""
        pauses = iter(_QUICK_AT_FIRST)
        while (left := self._left()) > 0:
            self._live = False
            try:
                if self._streams and left >= _SHORTEST_STREAM:
                    yield from self._streamed(left)
                else:
                    yield self._client.send(requests.get_cvm_state(self._cvm_id), within=left)
                self._nonsense = 0
            except _PASSING as error:
                self._passes(error)
                self._nonsense += isinstance(error, AnswerError)
                if self._nonsense >= _MAX_NONSENSE:
                    raise
            self._streams = self._live  # where a stream gave nothing, the state is asked for
            pause = next(pauses, _INTERVAL)
            pause = min(pause, _AFTER_STREAM) if self._live else pause
            pause = max(pause, self._not_before - time.monotonic())
            if pause > self._left() - _LAST_LOOK:  # whatever was asked for, it is looked at once more
                pause, self._not_before = max(_LAST_LOOK / 4, self._left() - _LAST_LOOK), 0.0
            time.sleep(max(0.0, min(pause, self._left())))

    def _passes(self, error: PhalaSecretsError) -> None:
        """Keeps the pause that a refusal may ask for."""
        asked = error.retry_after if isinstance(error, ApiError) else None
        self._not_before = max(self._not_before, time.monotonic() + min(asked or 0.0, MAX_PAUSE))

    def _streamed(self, left: float) -> Iterator[CvmState]:
        """The states of one stream; ``_live`` is whether they come as they happen."""
        call = requests.stream_cvm_state(self._cvm_id, "running", 5, min(600, int(left)))
        with self._client.stream(call, within=min(left, _SILENCE)) as stream:
            for event in stream.events:
                if event.state:
                    self._live = stream.live
                    yield event.state
                if self._left() <= 0 or event.type in ("complete", "timeout"):
                    return

    def _show(self, state: CvmState) -> None:
        words = [state.status, state.boot_progress, state.shutdown_progress]
        if state.status == "running":
            words = ["running", "" if self._over else "but the update is not over"]
        what = ", ".join(filter(None, words))
        if what != self._told:
            self._told = what
            self._tell(what)

    def _check_boot(self, state: CvmState) -> None:
        """BootError for an error that is new: one that was there at first may be of the boot before."""
        error = state.boot_error or ""
        if self._old_error is None:
            self._old_error = error
        elif error != self._old_error:
            self._old_error = ""
        if error and (self._over or error != self._old_error) and state.status != "running":
            raise BootError(f"the CVM failed to boot: {error}", hint="look at the CVM's serial log")

    def _operation_over(self) -> bool:
        if time.monotonic() < self._not_before:
            return False
        try:
            operation = self._operation()
        except _PASSING as error:
            self._passes(error)
            return False
        if operation and operation.status == "failed":
            reason = operation.error_message or (self._state and self._state.boot_error) or "no reason given"
            raise BootError(f"the update failed: {reason}", hint="look at the CVM's serial log")
        return bool(operation and operation.status == "completed")

    def _operation(self) -> CvmOperation | None:
        call = requests.get_cvm_operations(self._cvm_id, limit=20)
        page = self._client.send(call, within=max(0.1, self._left()))
        found = (item for item in page.items if item.correlation_id == self._correlation_id)
        return next(found, None)

    def _left(self) -> float:
        return self._deadline - time.monotonic()
