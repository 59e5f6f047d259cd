"""Evidence from the API, from a KMS or from a file that a run kept. All of it is untrusted."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from phala_secrets.dstack.event_log import Claims, parse_event_log
from phala_secrets.dstack.kms_record import KmsRecord, is_kms_record, parse_kms_record
from phala_secrets.errors import EvidenceError

KIND = "phala-secrets evidence"
_INSTANCE = re.compile(r"[0-9a-f]{40}")
_MOST = 256
"""Limit for the certificates of one CVM and the instances of one app."""


class Evidence(NamedTuple):
    """A CVM's evidence: a quote and an event log as they came. ``missing`` says why there are none.

    ``collateral`` and ``instance_id`` come from an evidence file. ``other_quotes`` are those that the API
    shows for other certificates of the CVM.
    """

    quote: Any
    event_log: Any
    missing: str = ""
    collateral: Any = None
    instance_id: str = ""
    other_quotes: tuple[Any, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the content of an evidence file."""
        return {
            "kind": KIND,
            "version": 1,
            "quote": self.quote,
            "event_log": self.event_log,
            "collateral": self.collateral,
        }


def of_cvm(body: Any) -> Evidence:
    """Return the evidence in ``GET /cvms/{id}/attestation``."""
    if not isinstance(body, dict):
        return Evidence(None, None, "Phala Cloud's response is not an attestation")
    if not body.get("is_online"):
        return Evidence(None, None, "the CVM is not online")
    certificates = body.get("app_certificates")
    tcb = body.get("tcb_info")
    found = [one for one in _rows(certificates) if one.get("quote")]
    leaves = [one for one in found if not one.get("is_ca")] or found
    log = tcb.get("event_log") if isinstance(tcb, dict) else None
    missing = "" if leaves or body.get("is_public", True) else "the app's public_tcbinfo is false"
    others = tuple(one["quote"] for one in found if one is not leaves[0])
    return Evidence(leaves[0]["quote"] if leaves else None, log, missing, other_quotes=others)


def of_app(body: Any, instance_id: str) -> Evidence:
    """Return the evidence in ``GET /apps/{app}/attestations`` whose log names this instance."""
    rows = _rows(body.get("instances")) if isinstance(body, dict) else []
    for row in rows:
        tcb = row.get("tcb_info")
        log = row.get("eventlog") or (tcb.get("event_log") if isinstance(tcb, dict) else None)
        try:
            if Claims(parse_event_log(log)).one("instance-id").hex() == instance_id:
                return Evidence(row.get("quote"), log)
        except EvidenceError:
            continue
    return Evidence(None, None, f"the app's attestations do not include the instance {instance_id}")


def read(content: Any) -> Evidence | KmsRecord:
    """Return evidence from an evidence file, from the API, or from a KMS's bootstrap record.

    Raises:
        EvidenceError: the form is unknown.
    """
    if is_kms_record(content):
        return parse_kms_record(content)
    if not isinstance(content, dict):
        raise EvidenceError("the evidence is not a JSON object", hint="use a file that evidence-file wrote")
    if "is_online" in content:
        return of_cvm(content)
    if "quote" not in content:
        raise EvidenceError("the evidence has no quote", hint="use a file that evidence-file wrote")
    log = content.get("event_log", content.get("eventlog"))
    named = content.get("instance_id")
    instance = named if isinstance(named, str) and _INSTANCE.fullmatch(named) else ""
    return Evidence(content["quote"], log, collateral=content.get("collateral"), instance_id=instance)


def _rows(value: Any) -> list[dict[str, Any]]:
    return [one for one in value[:_MOST] if isinstance(one, dict)] if isinstance(value, list) else []
