"""After an update was accepted: following its operation to its end, and the CVM until it runs.

The state that shows just after an update may still be the old ``running``, so it never counts:
only the update's own operation says when it is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets import flow
from phala_secrets.cloud import records
from phala_secrets.cloud.call import Within
from phala_secrets.cloud.refusals import retry_after
from phala_secrets.errors import (
    AnswerError,
    BootError,
    PhalaSecretsError,
    RateLimitError,
    ServerError,
    TransportError,
    WaitTimeoutError,
    untrusted,
)
from phala_secrets.flow import Flow, Pause

if TYPE_CHECKING:
    from collections.abc import Callable

    from phala_secrets.cloud.records import State

_PASSING = (TransportError, ServerError, RateLimitError)
"""Failures that may pass while there is time left."""


def until_running(
    cvm_id: str, correlation_id: str, seconds: float, show: Callable[[str], None]
) -> Flow[None]:
    """Return when the operation is completed and the CVM runs. ``show`` gets each change of its state.

    Raise BootError with the guest's reason, WaitTimeoutError with what was last seen.
    """
    watch = _Watch(seconds, show)
    while watch.left > 0:
        try:
            watch.see((yield Within(records.state(cvm_id), watch.left)))
            if watch.due:
                watch.follow((yield Within(records.operation(cvm_id, correlation_id), watch.left)))
            watch.show_state()
            if watch.over and watch.arrived:
                return
            watch.check_boot()
        except _PASSING as error:
            watch.missed(error)
        yield Pause(watch.pause())
    raise WaitTimeoutError(
        f"not running after {seconds:.0f} s; last seen: {untrusted(watch.shown or 'nothing')}",
        hint="it may still come up: look at the CVM's logs, or raise wait-timeout",
    )


class _Watch:
    """What was seen of one CVM, and when to look again."""

    def __init__(self, seconds: float, show: Callable[[str], None]) -> None:
        self._deadline = flow.clock.monotonic() + seconds
        self._show = show
        self._pauses = iter(flow.POLL_AT_FIRST)
        self._state: State | None = None
        self._old_error: str | None = None
        self._not_before = 0.0
        self._checked = 0.0
        self._nonsense = 0
        self.shown = ""
        self.over = False

    @property
    def left(self) -> float:
        """Seconds until the time is up."""
        return max(0.0, self._deadline - flow.clock.monotonic())

    @property
    def arrived(self) -> bool:
        """Whether the CVM shows that it runs, which may still be the state before the update."""
        return self._state is not None and self._state.status == "running"

    @property
    def due(self) -> bool:
        """Whether to look at the operation: when the CVM runs, and every few seconds."""
        now = flow.clock.monotonic()
        if self.over or not (self.arrived or now - self._checked >= flow.POLL):
            return False
        self._checked = now
        return True

    def see(self, state: State) -> None:
        """Take in the state of the CVM."""
        self._state, self._nonsense = state, 0

    def follow(self, operation: records.Operation | None) -> None:
        """Take in the update's own operation. Raise BootError where it failed."""
        if operation and operation.status == "failed":
            reason = operation.error or (self._state and self._state.boot_error) or "no reason given"
            raise BootError(f"the update failed: {untrusted(reason)}", hint="look at the CVM's serial log")
        self.over = bool(operation and operation.status == "completed")

    def missed(self, error: PhalaSecretsError) -> None:
        """Keep the pause that a refusal asks for. Raise malformed responses that last."""
        asked = min(retry_after(error) or 0.0, flow.LONGEST_PAUSE)
        self._not_before = max(self._not_before, flow.clock.monotonic() + asked)
        self._nonsense += isinstance(error, AnswerError)
        if self._nonsense >= flow.NONSENSE:
            raise error

    def show_state(self) -> None:
        """Show the state, if it has changed."""
        if not self._state:
            return
        words = [self._state.status, self._state.boot_progress, self._state.shutdown_progress]
        if self.arrived:
            words = ["running", "" if self.over else "but the update is not over"]
        what = ", ".join(filter(None, words))
        if what != self.shown:
            self.shown = what
            self._show(what)

    def check_boot(self) -> None:
        """Raise BootError for an error that is new: one that was there at first may be of the boot before."""
        if not self._state:
            return
        error = self._state.boot_error
        if self._old_error is None:
            self._old_error = error
        elif error != self._old_error:
            self._old_error = ""
        if error and (self.over or error != self._old_error) and not self.arrived:
            raise BootError(
                f"the CVM failed to boot: {untrusted(error)}", hint="look at the CVM's serial log"
            )

    def pause(self) -> float:
        """Return the seconds until the next look: the last one is shortly before the time is up."""
        now = flow.clock.monotonic()
        seconds = max(next(self._pauses, flow.POLL), self._not_before - now)
        if seconds > self.left - flow.LAST_LOOK:  # whatever was asked for, there is one more look
            seconds, self._not_before = max(flow.LAST_LOOK / 4, self.left - flow.LAST_LOOK), 0.0
        return max(0.0, min(seconds, self.left))
