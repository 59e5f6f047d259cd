"""The check after a commit: whether Phala Cloud committed this run's ciphertext."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets import flow
from phala_secrets.cloud import progress, records, trust
from phala_secrets.cloud.progress import bare_uuid
from phala_secrets.errors import AnswerError, PhalaSecretsError
from phala_secrets.flow import Pause, ask

if TYPE_CHECKING:
    from phala_secrets.flow import Flow

_REVISIONS = 10
"""Newest revisions of a CVM to search: no ten others appear within half a minute."""


def confirm(cvm_id: str, ciphertext: str) -> Flow[None]:
    """Return once a revision of the CVM contains a ciphertext (hex), which its nonce makes unique.

    Another preparation with the same names and compose file has the same compose hash and replaces this
    one. Raise AnswerError if no revision appears within half a minute.
    """
    looked_at: set[str] = set()
    for seconds in flow.LOOKS:
        yield Pause(seconds)
        try:
            if (yield from _shows(cvm_id, ciphertext.lower(), looked_at)):
                return
        except PhalaSecretsError:  # there may be time for another look
            continue
    raise AnswerError(
        "Phala Cloud may have committed another run's ciphertext: no revision contains this one",
        hint="let one run at a time change this CVM, then send the change again",
    )


def _shows(cvm_id: str, ciphertext: str, looked_at: set[str]) -> Flow[bool]:
    cvm: records.Cvm = yield from ask(records.cvm(cvm_id))
    app_id, uuid = trust.app_of(cvm, None), bare_uuid(cvm.vm_uuid)
    listed = yield from ask(progress.revisions(app_id))
    for revision in [one for one in listed if uuid and one.vm_uuid == uuid][:_REVISIONS]:
        if revision.id in looked_at:
            continue
        sealed = yield from ask(progress.revision_ciphertext(app_id, revision.id))
        if sealed == ciphertext:
            return True
        looked_at.add(revision.id)
    return False
