"""Waiting for a CVM: until another operation has ended, and until an update has and the CVM runs.

Just after an update the state may still be the old one, ``running`` or ``error``. So it never counts:
only the update's own operation says when it has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from phala_secrets import flow
from phala_secrets.cloud import progress
from phala_secrets.cloud.call import Within
from phala_secrets.cloud.progress import Operation
from phala_secrets.cloud.refusals import is_busy, may_have_happened, retry_after
from phala_secrets.errors import (
    AnswerError,
    BootError,
    ConflictError,
    NotFoundError,
    PhalaSecretsError,
    RateLimitError,
    ServerError,
    TransportError,
    WaitTimeoutError,
    untrusted,
)
from phala_secrets.flow import Flow, Pause, ask

PASSING = (TransportError, ServerError, RateLimitError)
"""Failures that may pass before the time is up."""

_SHORTEST = 0.001
"""Minimum seconds of a pause, so that rounding never causes an endless loop."""

STOPPED = "stopped"
"""The status of a stopped CVM."""

_MINUTE = 60.0
_TEXT = 300
"""Characters of a guest's or a service's text that a message quotes."""

_GUEST_LOG = "look at the CVM's serial console: phala logs --serial --cvm-id {}"

Show: TypeAlias = Callable[[str], None]
Pick: TypeAlias = Callable[[Sequence[Operation]], Operation | None]
"""Picks the operation to follow from a CVM's newest ones. None until it appears."""


class Seen(NamedTuple):
    """The result of one look at a CVM. ``in_progress`` is None if unknown."""

    status: str
    doing: str = ""
    boot_error: str = ""
    in_progress: bool | None = None
    compose_hash: str = ""


Look: TypeAlias = Callable[[float, float], Flow[Seen]]
"""One look, within the first number of seconds. Its data may be as old as the second number of seconds."""


class Patience:
    """The time limit of one phase, and its pauses."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.began = flow.clock.monotonic()
        self.paused = 0.0
        """Seconds of the previous pause."""
        self._pauses = iter(flow.POLL_AT_FIRST)
        self._not_before = 0.0
        self._nonsense = 0
        self._hurried = False

    @property
    def age(self) -> float:
        """Seconds since it began."""
        return flow.clock.monotonic() - self.began

    @property
    def left(self) -> float:
        """Seconds until the time is up."""
        return max(0.0, self.seconds - self.age)

    def heard(self) -> None:
        """Note a valid response."""
        self._nonsense = 0

    def hurry(self) -> None:
        """Let the next pause be short."""
        self._hurried = True

    def missed(self, error: PhalaSecretsError) -> None:
        """Keep the pause that a refusal requests. Raise an error for repeated malformed responses."""
        asked = min(retry_after(error) or 0.0, flow.LONGEST_PAUSE)
        self._not_before = max(self._not_before, flow.clock.monotonic() + asked)
        self._nonsense += isinstance(error, AnswerError)
        if self._nonsense >= flow.NONSENSE:
            raise error

    def pause(self, *, growing: bool = False, steady: bool = False) -> Pause:
        """Return the pause until the next look. The last look is shortly before the time is up.

        ``growing`` pauses lengthen with the elapsed time, for looks at many CVMs. ``steady`` pauses have
        the same length from the start.
        """
        if growing:
            seconds = min(max(flow.POLL_AT_FIRST[0], self.age / flow.POLL_GROWTH), flow.POLL_LATER)
        else:
            seconds = flow.POLL if steady else next(self._pauses, flow.POLL)
        if self._hurried:
            seconds, self._hurried = flow.FIRST_PAUSE, False
        seconds = max(seconds, self._not_before - flow.clock.monotonic())
        if seconds > self.left - flow.LAST_LOOK:  # whatever was asked for, there is one more look
            seconds, self._not_before = max(flow.LAST_LOOK / 4, self.left - flow.LAST_LOOK), 0.0
        self.paused = max(_SHORTEST, min(seconds, self.left))
        return Pause(self.paused)


# -- another operation in the way ------------------------------------------------------------------


def until_free(cvm_id: str, patience: Patience, show: Show) -> Flow[None]:
    """Return when the CVM has no operation in progress, or when the time is up.

    ``show`` gets the operation in the way: its type, its user and its age. Pause at least once.
    """
    followed, said = "", 0.0
    while patience.left > 0:
        try:
            listed: Sequence[Operation] = yield Within(progress.operations(cvm_id), patience.left)
            patience.heard()
            other = next((one for one in listed if not one.over), None)
            if other is None and followed:
                return
            if other and (other.correlation_id != followed or patience.age - said >= _MINUTE):
                followed, said = other.correlation_id, patience.age
                show(f"waiting for another operation: {in_words(other)}")
        except NotFoundError:  # it was replaced: a new attempt finds the new one
            return
        except PASSING as error:
            other = None
            patience.missed(error)
        yield patience.pause()
        if other is None and not followed:
            return


def in_words(operation: Operation) -> str:
    """Return an operation in words: its type, its user and its age."""
    words = operation.kind[:60].replace("_", " ") or "of an unknown type"
    if operation.by:
        words += f" by {operation.by[:60]}"
    if operation.started is None:
        return words
    seconds = max(0.0, flow.clock.time() - operation.started)
    took = f"{seconds:.0f} s" if seconds < 2 * _MINUTE else f"{seconds // _MINUTE:.0f} min"
    return f"{words}, for {took} so far"


# -- the update ------------------------------------------------------------------------------------


def by_id(correlation_id: str) -> Pick:
    """Follow the operation with this id."""
    return lambda listed: next((one for one in listed if one.correlation_id == correlation_id), None)


def newer_than(correlation_id: str) -> Pick:
    """Follow the newest operation unless it is this one."""
    return lambda listed: listed[0] if listed and listed[0].correlation_id != correlation_id else None


class Current:
    """Follow the operation in progress at the first look. Without one, count as completed."""

    def __init__(self) -> None:
        self._followed: str | None = None

    def __call__(self, listed: Sequence[Operation]) -> Operation | None:
        if self._followed is None:
            self._followed = next((one.correlation_id for one in listed if not one.over), "")
        return by_id(self._followed)(listed) if self._followed else Operation("", "completed", "")


def own_look(cvm_id: str) -> Look:
    """Return a look at the state of one CVM."""

    def look(left: float, _age: float) -> Flow[Seen]:
        state: progress.State = yield Within(progress.state(cvm_id), left)
        doing = " · ".join(filter(None, (state.boot_progress, state.shutdown_progress)))
        return Seen(state.status, doing, state.boot_error)

    return look


def until_up(
    cvm_id: str,
    ours: Pick,
    seconds: float,
    show: Show,
    *,
    look: Look | None = None,
    may_rest: bool = False,
    what: str = "the update",
) -> Flow[Seen]:
    """Return the last look once the operation has completed and the CVM runs.

    With ``may_rest`` a stopped CVM counts too. ``show`` gets each change of the state. Raise BootError
    with ``what`` and the guest's reason, and WaitTimeoutError with the last state.
    """
    watch = _Watch(seconds, show)
    take = look or own_look(cvm_id)
    while watch.patience.left > 0:
        yield watch.patience.pause(growing=look is not None)
        left = watch.patience.left
        try:
            watch.see((yield from take(left, watch.patience.paused)))
            if watch.due:
                listed: Sequence[Operation] = yield Within(progress.operations(cvm_id), left)
                watch.follow(ours(listed))
            watch.show_state()
            if watch.ended(may_rest=may_rest):
                return watch.seen
            if (failure := watch.failure()) is not None:
                reason = failure or (yield from _reason(cvm_id, watch.seen))
                raise BootError(f"{what} failed: {untrusted(reason[:_TEXT])}", hint=_GUEST_LOG.format(cvm_id))
            watch.patience.heard()
        except PASSING as error:
            watch.patience.missed(error)
    raise WaitTimeoutError(
        f"not running after {seconds:.0f} s; last seen: {untrusted(watch.last)}",
        hint=f"{_GUEST_LOG.format(cvm_id)}; or raise wait-timeout: it may still come up",
    )


def _reason(cvm_id: str, seen: Seen) -> Flow[str]:
    """Return the guest's reason for a failed boot."""
    if seen.boot_error:
        return seen.boot_error
    try:
        state = yield from ask(progress.state(cvm_id))
    except PhalaSecretsError:
        return "no reason given"
    return state.boot_error or "no reason given"


class _Watch:
    """The observed state of one CVM, and when to look at its operations."""

    def __init__(self, seconds: float, show: Show) -> None:
        self.patience = Patience(seconds)
        self.seen = Seen("")
        self.shown = ""
        self._show = show
        self._operation: Operation | None = None
        self._asked: float | None = None
        self._under_way = False
        self._sound = False
        self._moved = False
        self._broken = 0
        self._stopped = 0

    @property
    def over(self) -> bool:
        """Whether the followed operation has ended."""
        return self._operation is not None and self._operation.over

    @property
    def last(self) -> str:
        """The last state in words."""
        if self.seen.status == "running":
            return "running" if self.over else "running, but the update has not ended"
        seen = (self.seen.status, self.seen.doing, self.seen.boot_error[:_TEXT])
        return ", ".join(filter(None, seen)) or "nothing"

    @property
    def due(self) -> bool:
        """Whether to look at the operations: when the CVM is at rest, and now and then."""
        if self.over:
            return False
        since = self.patience.age - (self._asked or 0.0)
        if self.seen.in_progress:
            self._under_way = True
            return since >= _MINUTE
        if self.seen.in_progress is None:
            resting = self.seen.status == "running" or not self.seen.status.endswith("ing")
            return resting or since >= flow.POLL_LATER
        return self._asked is None or self._under_way or since >= 2 * flow.POLL

    def see(self, seen: Seen) -> None:
        """Take in the state of the CVM."""
        self.seen = seen
        self._stopped = self._stopped + 1 if self._is_stopped else 0
        self._broken = self._broken + 1 if self._in_error else 0
        self._sound = self._sound or not self._in_error
        resting = self._in_error or seen.status in ("running", STOPPED)
        self._moved = self._moved or not resting

    def follow(self, operation: Operation | None) -> None:
        """Take in the followed operation."""
        if not self.over and operation and operation.over:
            # Looks from before its end do not count.
            self._broken, self._stopped = int(self._in_error), int(self._is_stopped)
        self._operation, self._asked, self._under_way = operation, self.patience.age, False

    def ended(self, *, may_rest: bool) -> bool:
        """Return whether there is nothing left to wait for."""
        completed = self._operation is not None and self._operation.completed
        running = self.seen.status == "running" and not self.seen.in_progress
        if completed and may_rest and self._stopped == 1:
            self.patience.hurry()  # a second look makes sure
        return completed and (running or (may_rest and self._stopped > 1))

    def failure(self) -> str | None:
        """Return why the operation or its boot failed: "" if the reason is elsewhere, else None.

        An error from the beginning may be of the previous boot, so it must persist for a while.
        """
        if not self._operation or not self.over:
            return None
        if self._operation.failed:
            return self._operation.error
        lasts = self._broken >= (2 if self._sound else flow.IN_A_ROW)
        return self.seen.boot_error if lasts else None

    def show_state(self) -> None:
        """Show the state if it has changed. Hide what may be left of the previous boot."""
        words = [self.seen.status, self.seen.doing]
        if not self.over and not self._moved:
            words = ["waiting for the restart"]
        elif self.seen.status == "running":
            words = ["running", "" if self.over else "waiting for the operation to end"]
        elif self._in_error:
            words.append(self.seen.boot_error[:_TEXT])
        what = " · ".join(filter(None, words))
        if what != self.shown:
            self.shown = what
            self._show(what)

    @property
    def _is_stopped(self) -> bool:
        return self.seen.status == STOPPED

    @property
    def _in_error(self) -> bool:
        return self.seen.status == "error" or (bool(self.seen.boot_error) and self.seen.status != "running")


# -- a start ---------------------------------------------------------------------------------------


def start(cvm_id: str, seconds: float, show: Show) -> Flow[None]:
    """Start a stopped CVM. Wait for another operation first, after which it may already run.

    ``until_up`` sees whether it comes up, even after a lost response.
    """
    patience = Patience(seconds)
    while True:
        try:
            return (yield from ask(progress.start(cvm_id)))
        except ConflictError as error:
            if not is_busy(error) or patience.left <= 0:
                raise
        except PhalaSecretsError as error:
            if not may_have_happened(error):
                raise
            return None
        yield from until_free(cvm_id, patience, show)
        state = yield from ask(progress.state(cvm_id))
        if state.status != STOPPED:
            return None
