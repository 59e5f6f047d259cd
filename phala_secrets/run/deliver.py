"""Sending the update of one CVM, with an outcome that is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets import flow
from phala_secrets.cloud import records
from phala_secrets.cloud.records import Accepted, Precondition
from phala_secrets.cloud.refusals import is_busy, may_have_happened, retry_after
from phala_secrets.errors import ApiError, Finding, PhalaSecretsError, TransportError
from phala_secrets.flow import Flow, Pause, ask

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from phala_secrets.cloud.call import Call
    from phala_secrets.run.context import Target


def deliver(
    target: Target, update: Call[Accepted | Precondition], tell: Callable[[Finding], None]
) -> Flow[Accepted | Precondition]:
    """Send the update. Find out about a lost response, and send again an update that did not happen.

    The set is replaced whole, so the same ciphertext twice does no harm. Raise TransportError when
    it cannot be found out whether it happened.
    """
    before = target.last_operation
    if before is None:
        before = yield from ask(records.newest_operation(target.id))
    target.stage = "sending"
    lost: PhalaSecretsError | None = None
    for tries in range(1, flow.TRIES + 1):
        try:
            return (yield from ask(update))
        except PhalaSecretsError as refusal:
            error, failed = refusal, flow.clock.monotonic()
        if may_have_happened(error):
            tell(Finding(f"the answer to the update was lost: {error.marked}", "its outcome is looked up"))
            lost = error
        looks = flow.LOOKS if error is lost else flow.LOOKS[:1]
        if lost and (correlation_id := (yield from _find_out(target, before, lost, looks))):
            tell(
                Finding(
                    f"Phala Cloud shows an operation that began meanwhile, taken for ours: {correlation_id}",
                    "another run's would look alike: let one run at a time update this CVM (concurrency:)",
                )
            )
            return Accepted(correlation_id, inferred=True)
        pause = None
        if error is lost or is_busy(error):
            pause = flow.pause_before(tries, retry_after(error))
        if pause is None:
            if error is lost:
                raise error.saying(f"{error.marked} (and the CVM's operations show that it did not happen)")
            if lost:
                raise error.saying(
                    f"{error.marked} (and the answer to an earlier try was lost: {lost.marked})"
                )
            raise error
        if error is lost:
            tell(Finding("Phala Cloud's operations show that the update did not happen", "it is sent again"))
        yield Pause(max(0.0, failed + pause - flow.clock.monotonic()))
        if not lost:  # what is in the way is not ours
            before = yield from ask(records.newest_operation(target.id))
    raise AssertionError("pause_before ends the tries")


def _find_out(
    target: Target, before: str, lost: PhalaSecretsError, looks: Sequence[float]
) -> Flow[str | None]:
    """Return the correlation id of an operation that came after ``before``, or None when there is none."""
    for seconds in looks:
        yield Pause(seconds)
        try:
            newest = yield from ask(records.newest_operation(target.id))
        except (TransportError, ApiError):
            raise TransportError(
                f"it is not known whether the update of {target.name!a} was accepted: {lost.marked}",
                hint="look at the CVM's operations before running again; sending it twice does no harm",
            ) from None
        if newest and newest != before:
            return newest
    return None
