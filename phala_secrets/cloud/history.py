"""What was deployed to a CVM before: its revisions, as far as a run names one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from phala_secrets.cloud import requests
from phala_secrets.cloud.fields import Fields
from phala_secrets.dstack.ids import bare

if TYPE_CHECKING:
    from phala_secrets.cloud.call import Call

_REVISIONS = 100
"""Newest revisions of an app looked through for those of one CVM: a fleet makes one for each of its own."""


def revision_with(app_id: str, vm_uuid: str, compose_hash: str) -> Call[str]:
    """The id of a CVM's newest revision with this compose hash, empty where it is not among the newest."""

    def read(answer: Any) -> str:
        listed = Fields(answer, "list of revisions").optional("revisions", list) or []
        for row in listed[:_REVISIONS]:
            fields = Fields(row, "revision")
            of_cvm = _bare_uuid(fields.optional("vm_uuid", str)) == _bare_uuid(vm_uuid)
            if of_cvm and bare(fields.optional("compose_hash", str)) == compose_hash:
                return fields.identifier("revision_id")
        return ""

    return requests.revisions(app_id, str(_REVISIONS)).read_by(read)


def _bare_uuid(text: str | None) -> str:
    return (text or "").replace("-", "").lower()
