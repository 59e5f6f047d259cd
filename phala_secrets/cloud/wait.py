"""Waiting for a CVM: until an operation in the way is over, and until an update is and the CVM runs.

The state that shows just after an update may still be that of before, a ``running`` as well as an
``error``, so it never counts: only the update's own operation says when it is over.
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
"""Failures that may pass while there is time left."""

_SHORTEST = 0.001
"""Seconds of a pause at least: what rounding leaves of the time never becomes an endless loop."""

STOPPED = "stopped"
"""What a CVM shows that was stopped."""

_MINUTE = 60.0
_TEXT = 300
"""Characters of a guest's or a service's text that a message quotes."""

_GUEST_LOG = "look at the CVM's serial console: phala logs --serial --cvm-id {}"

Show: TypeAlias = Callable[[str], None]
Pick: TypeAlias = Callable[[Sequence[Operation]], Operation | None]
"""Which of a CVM's newest operations is the one to follow; None while it does not show."""


class Seen(NamedTuple):
    """What one look shows of a CVM. ``in_progress`` is None where the look does not tell."""

    status: str
    doing: str = ""
    boot_error: str = ""
    in_progress: bool | None = None
    compose_hash: str = ""


Look: TypeAlias = Callable[[float, float], Flow[Seen]]
"""One look, within so many seconds; it may be as old as the second number, in seconds."""


class Patience:
    """The time that one phase may take, and the pauses in it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.began = flow.clock.monotonic()
        self.paused = 0.0
        """Seconds of the pause before."""
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
        """Note a response that was one."""
        self._nonsense = 0

    def hurry(self) -> None:
        """Let the next pause be short."""
        self._hurried = True

    def missed(self, error: PhalaSecretsError) -> None:
        """Keep the pause that a refusal asks for. Raise malformed responses that last."""
        asked = min(retry_after(error) or 0.0, flow.LONGEST_PAUSE)
        self._not_before = max(self._not_before, flow.clock.monotonic() + asked)
        self._nonsense += isinstance(error, AnswerError)
        if self._nonsense >= flow.NONSENSE:
            raise error

    def pause(self, *, growing: bool = False, steady: bool = False) -> Pause:
        """Return the pause until the next look: the last one is shortly before the time is up.

        ``growing`` pauses become longer with the time that has gone by, for looks at many CVMs;
        ``steady`` ones are as long from the start.
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
    """Return when no operation of the CVM shows that is under way, or the time is up.

    ``show`` gets what is in the way: type, whose, and for how long. There is a pause in any case.
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
        except NotFoundError:  # it was replaced: whoever begins again finds the new one
            return
        except PASSING as error:
            other = None
            patience.missed(error)
        yield patience.pause()
        if other is None and not followed:
            return


def in_words(operation: Operation) -> str:
    """Return what an operation is, whose, and for how long it has been under way."""
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
    """Follow the newest operation, if it is another than this one."""
    return lambda listed: listed[0] if listed and listed[0].correlation_id != correlation_id else None


class Current:
    """Follow the operation that is under way at the first look. If there is none, all is over."""

    def __init__(self) -> None:
        self._followed: str | None = None

    def __call__(self, listed: Sequence[Operation]) -> Operation | None:
        if self._followed is None:
            self._followed = next((one.correlation_id for one in listed if not one.over), "")
        return by_id(self._followed)(listed) if self._followed else Operation("", "completed", "")


def own_look(cvm_id: str) -> Look:
    """Return looks at the state of one CVM."""

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
    """Return what was seen when our operation is completed and the CVM runs.

    With ``may_rest`` also when the CVM is stopped then. ``show`` gets each change of its state. Raise
    BootError with ``what`` failed and the guest's reason, WaitTimeoutError with what was last seen.
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
        hint=f"it may still come up: {_GUEST_LOG.format(cvm_id)}; or raise wait-timeout",
    )


def _reason(cvm_id: str, seen: Seen) -> Flow[str]:
    """Return what the CVM says of its boot."""
    if seen.boot_error:
        return seen.boot_error
    try:
        state = yield from ask(progress.state(cvm_id))
    except PhalaSecretsError:
        return "no reason given"
    return state.boot_error or "no reason given"


class _Watch:
    """What was seen of one CVM, and when to look at its operations."""

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
        """Whether our operation is."""
        return self._operation is not None and self._operation.over

    @property
    def last(self) -> str:
        """What was seen last, in words."""
        if self.seen.status == "running":
            return "running" if self.over else "running, but the update is not over"
        seen = (self.seen.status, self.seen.doing, self.seen.boot_error[:_TEXT])
        return ", ".join(filter(None, seen)) or "nothing"

    @property
    def due(self) -> bool:
        """Whether to look at the operations: when the CVM has come to rest, and now and then."""
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
        """Take in our operation."""
        if not self.over and operation and operation.over:
            # Looks from before it was over do not count.
            self._broken, self._stopped = int(self._in_error), int(self._is_stopped)
        self._operation, self._asked, self._under_way = operation, self.patience.age, False

    def ended(self, *, may_rest: bool) -> bool:
        """Whether there is nothing left to wait for."""
        completed = self._operation is not None and self._operation.completed
        running = self.seen.status == "running" and not self.seen.in_progress
        if completed and may_rest and self._stopped == 1:
            self.patience.hurry()  # a second look makes sure
        return completed and (running or (may_rest and self._stopped > 1))

    def failure(self) -> str | None:
        """Return why our operation failed, or the boot after it; empty where a reason is to be looked for.

        An error that was there at first may be of the boot before, so it has to stay for a while.
        """
        if not self._operation or not self.over:
            return None
        if self._operation.failed:
            return self._operation.error
        lasts = self._broken >= (2 if self._sound else flow.IN_A_ROW)
        return self.seen.boot_error if lasts else None

    def show_state(self) -> None:
        """Show the state, if it has changed. What may be left of the boot before is waited over."""
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
    """Start a CVM that is stopped. What is in the way is waited for; then it may run already.

    Whether it comes up is for ``until_up`` to see, after a lost response as well.
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
