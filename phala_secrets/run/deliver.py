"""Send the update of one CVM, and find out its outcome.

If the response is lost, the update counts as accepted only if a revision of the CVM has the same
ciphertext, which the nonce makes unique. An operation does not say what it brought.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets import flow
from phala_secrets.cloud import progress, revisions
from phala_secrets.cloud.records import Accepted, Precondition
from phala_secrets.cloud.refusals import may_have_happened
from phala_secrets.errors import AnswerError, Finding, PhalaSecretsError, TransportError
from phala_secrets.flow import Flow, Pause, ask

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from phala_secrets.cloud.call import Call
    from phala_secrets.cloud.progress import Operation, Revision
    from phala_secrets.run.context import Target

_NEAR = 120.0
"""Seconds that an operation and its revision may be apart: both are made while the update is accepted."""


def deliver(
    target: Target,
    update: Call[Accepted | Precondition],
    tell: Callable[[Finding], None],
    *,
    prepared: bool = False,
) -> Flow[Accepted | Precondition]:
    """Send the update once. If the response is lost, find out the outcome.

    ``prepared`` is whether an earlier run made the ciphertext, and may have sent it.

    Raises:
        ConflictError: Another operation is in the way.
        TransportError: The outcome stays unknown.
    """
    keeps = target.change is not None and target.change.keeps_secrets
    before = (yield from _earlier(target)) if prepared or keeps else frozenset[str]()
    target.stage = "sending"
    try:
        return (yield from ask(update))
    except PhalaSecretsError as error:
        if not may_have_happened(error):
            target.stage = "waiting"  # it was not read, or refused
            raise
        lost = error
    tell(
        Finding(f"the response to the update was lost: {lost.marked}", "wait: the run looks for its outcome")
    )
    if before is None:
        raise _unknown(target, lost, "its earlier revisions are unknown")
    revision = yield from _find(target, lost, before)
    operation = yield from _operation_of(target, revision)
    tell(
        Finding(
            f"Phala Cloud accepted the update: revision {revision.id} holds what was sent",
            "",
            severity="notice",
        )
    )
    return Accepted(operation.correlation_id if operation else "", revision=revision)


def _earlier(target: Target) -> Flow[frozenset[str] | None]:
    """Return the CVM's revisions of today, which are not this run's; None where they cannot be read."""
    try:
        listed = yield from ask(progress.revisions(target.app_id))
    except PhalaSecretsError:
        return None
    return frozenset(one.id for one in listed)


def confirm_commit(target: Target, accepted: Accepted) -> Flow[None]:
    """Raise AnswerError where a commit, which has no body, may have brought what another run prepared.

    With the same names and compose file its compose hash is ours, and its preparation took the place of ours.
    """
    if target.change is None or not target.asked or accepted.revision:
        return
    lost = TransportError("its approval was committed")
    try:
        revision = yield from _find(target, lost, frozenset())
        same = bool(target.sealed) or (yield from _keeps_secrets(target, revision))
    except PhalaSecretsError:
        same = False
    if not same:
        raise AnswerError(
            "the committed update may be from another run: no revision holds what was sent",
            hint="limit updates of this CVM to one run at a time (concurrency:), and run again",
        )


def _keeps_secrets(target: Target, revision: Revision) -> Flow[bool]:
    """Return whether a revision has no other ciphertext than the one before it, as far as both show."""
    listed = yield from ask(progress.revisions(target.app_id))
    of_cvm = [one for one in listed if one.vm_uuid == revision.vm_uuid]
    found = []
    for one in of_cvm[of_cvm.index(revision) :][:2] if revision in of_cvm else ():
        found.append((yield from ask(progress.revision_ciphertext(target.app_id, one.id))))
    return len(set(filter(None, found))) <= 1


def _find(target: Target, lost: PhalaSecretsError, before: frozenset[str]) -> Flow[Revision]:
    """Return the revision that has our ciphertext. Raise TransportError when none shows in time."""
    others, why = set(before), "no recent revision holds what was sent"
    for seconds in flow.LOOKS:
        yield Pause(seconds)
        try:
            found = yield from revisions.find(
                target.app_id, target.cvm.vm_uuid, lambda one: _is_ours(target, one), others
            )
            if found:
                return found
        except PhalaSecretsError as error:  # there may be time for another look
            why = f"reading its revisions failed: {error.marked}"
    raise _unknown(target, lost, why)


def _is_ours(target: Target, revision: Revision) -> Flow[bool]:
    """Return whether a revision has our ciphertext. If the update keeps it, only the compose hash tells."""
    if not target.sealed:
        return revision.compose_hash == target.expected_hash != ""
    return (yield from revisions.holds(target.app_id, revision, target.sealed))


def _unknown(target: Target, lost: PhalaSecretsError, why: str) -> TransportError:
    return TransportError(
        f"the outcome of the update of {target.name!a} is unknown: {lost.marked}; {why}",
        hint="check the CVM's operations and revisions, then run again; sending it twice does no harm",
    )


def _operation_of(target: Target, revision: Revision) -> Flow[Operation | None]:
    try:
        listed = yield from ask(progress.operations(target.id))
    except PhalaSecretsError:
        return None  # the wait will look again
    return operation_of(revision, listed)


def operation_of(revision: Revision, listed: Sequence[Operation]) -> Operation | None:
    """Return the operation that made a revision, or None: an update of the same user, at the same time."""
    fitting = [one for one in listed if _fits(revision, one)]
    other_hash = {one.correlation_id: one.compose_hash != revision.compose_hash for one in fitting}
    return min(fitting, key=lambda one: (other_hash[one.correlation_id], _apart(revision, one)), default=None)


def _fits(revision: Revision, one: Operation) -> bool:
    same_kind = "env" in one.kind or "update" in one.kind
    same_user = one.by == revision.by or not one.by or not revision.by
    return same_kind and same_user and _apart(revision, one) <= _NEAR


def _apart(revision: Revision, one: Operation) -> float:
    """Return the seconds between the two; what does not say when is far from all."""
    if revision.created is None or one.started is None:
        return float("inf")
    return abs(revision.created - one.started)
