"""What a CVM's newest revisions hold. They show whose change Phala Cloud took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets import flow
from phala_secrets.cloud import progress, records, trust
from phala_secrets.errors import AnswerError, PhalaSecretsError
from phala_secrets.flow import Pause, ask

if TYPE_CHECKING:
    from collections.abc import Callable

    from phala_secrets.cloud.progress import Revision
    from phala_secrets.flow import Flow

_REVISIONS = 10
"""Newest revisions of a CVM to search: no ten others appear within half a minute."""


def find(
    app_id: str, vm_uuid: str | None, is_ours: Callable[[Revision], Flow[bool]], others: set[str]
) -> Flow[Revision | None]:
    """Look once through a CVM's newest revisions. Return the first that is ours, or None.

    ``others`` are the ids of those that are not. They are not asked about again, and the look adds to them.
    """
    uuid = progress.bare_uuid(vm_uuid)
    listed = yield from ask(progress.revisions(app_id))
    for revision in [one for one in listed if uuid and one.vm_uuid == uuid][:_REVISIONS]:
        if revision.id in others:
            continue
        if (yield from is_ours(revision)):
            return revision
        others.add(revision.id)
    return None


def holds(app_id: str, revision: Revision, ciphertext: str) -> Flow[bool]:
    """Return whether a revision contains a ciphertext (hex), which its nonce makes unique."""
    sealed = yield from ask(progress.revision_ciphertext(app_id, revision.id))
    return bool(sealed == ciphertext.lower())


def confirm(cvm_id: str, ciphertext: str) -> Flow[None]:
    """Return once a revision of the CVM contains a ciphertext (hex).

    Another preparation with the same names and compose file has the same compose hash and replaces this
    one. Raise AnswerError if no revision appears within half a minute.
    """
    others: set[str] = set()
    for seconds in flow.LOOKS:
        yield Pause(seconds)
        try:
            if (yield from _shows(cvm_id, ciphertext, others)):
                return
        except PhalaSecretsError:  # there may be time for another look
            continue
    raise AnswerError(
        "Phala Cloud may have committed another run's ciphertext: no revision contains this one",
        hint="let one run at a time change this CVM, then send the change again",
    )


def _shows(cvm_id: str, ciphertext: str, others: set[str]) -> Flow[bool]:
    cvm: records.Cvm = yield from ask(records.cvm(cvm_id))
    app_id = trust.app_of(cvm, None)
    found = yield from find(app_id, cvm.vm_uuid, lambda one: holds(app_id, one, ciphertext), others)
    return found is not None
