"""A KMS's bootstrap record: its CA key and its root, bound to a quote of the VM that created them.

At bootstrap a KMS gets a quote with the report data ::

    Keccak-256("dstack-kms-genereted-keys-v1:" ‖ hex(CA key, SPKI) ‖ ";" ‖ hex(root, compressed) ‖ ";")

padded with zeros to 64 bytes, in dstack's own spelling (``kms/src/onboard_service.rs``). ``kmsInfo()`` of
a KMS contract has the record. Phala publishes that of the Cloud KMS.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from phala_secrets.dstack.event_log import MAX_LOG
from phala_secrets.errors import EvidenceError, InputError

_PREFIX = "dstack-kms-genereted-keys-v1:"
_SPKI = re.compile(
    r"(?:0x)?(3059301306072a8648ce3d020106082a8648ce3d03010703420004[0-9a-f]{128})", re.IGNORECASE
)
"""An uncompressed P-256 key as SubjectPublicKeyInfo (RFC 5480): 91 bytes, the last 64 are the point."""

_HEX = re.compile(r"0x((?:[0-9a-fA-F]{2})*)")
_HINT = "use the record that the KMS contract or Phala publishes"


class KmsRecord(NamedTuple):
    """A record: CA key (SPKI hex), root (compressed SEC1 hex) and the unparsed evidence."""

    ca: str
    root: str
    quote: Any
    event_log: Any


def parse_ca(text: Any, what: str = "the CA key of the KMS") -> str:
    """Return a KMS's CA key as 182 lower-case hex digits of SPKI, P-256.

    Raises:
        InputError: it is anything else. The message quotes nothing.
    """
    match = _SPKI.fullmatch(text.strip()) if isinstance(text, str) else None
    if not match:
        raise InputError(
            f"{what} is not a P-256 key in SPKI form", hint="use 91 bytes in hex that begin with 3059"
        )
    return match[1].lower()


def is_kms_record(content: Any) -> bool:
    """Return whether parsed JSON looks like a KMS's bootstrap record."""
    return isinstance(content, dict) and bool(_NAMES["root"] & content.keys())


def parse_kms_record(content: Any) -> KmsRecord:
    """Return a bootstrap record, from JSON with the published names or those of ``kmsInfo()``.

    Raises:
        EvidenceError: a field is missing or malformed.
    """
    from phala_secrets.dstack.key_proof import parse_signer

    if not isinstance(content, dict):
        raise EvidenceError("the record of the KMS is not an object", hint=_HINT)
    values = {field: _field(content, names) for field, names in _NAMES.items()}
    if not isinstance(values["root"], str):
        raise EvidenceError("the record of the KMS has no root", hint=_HINT)
    try:
        ca, root = parse_ca(values["ca"]), parse_signer(values["root"])
    except InputError as error:
        raise EvidenceError(f"the record of the KMS: {error.message}", hint=error.hint) from None
    return KmsRecord(ca, root, values["quote"], _unpacked(values["event_log"]))


def bound(ca: str, root: str) -> bytes:
    """Return the report data, 64 bytes, of a quote that binds a KMS's CA key and root.

    Args:
        ca: SPKI hex.
        root: compressed SEC1 hex without ``0x``.
    """
    from sha3 import keccak_256

    return bytes(keccak_256(f"{_PREFIX}{ca};{root};".encode()).digest()).ljust(64, b"\0")


_NAMES = {
    "ca": {"ca_pubkey", "caPubkey"},
    "root": {"k256_pubkey", "k256Pubkey"},
    "quote": {"quote"},
    "event_log": {"event_log", "eventlog", "eventLog"},
}


def _field(content: dict[str, Any], names: set[str]) -> Any:
    found = [content[name] for name in sorted(names) if content.get(name) is not None]
    if len(found) > 1:
        raise EvidenceError(f"the record of the KMS has {' and '.join(sorted(names))}", hint=_HINT)
    return found[0] if found else None


def _unpacked(log: Any) -> Any:
    """Return the event log, which the contract stores as bytes of JSON text."""
    if isinstance(log, str) and len(log) <= 2 * MAX_LOG and (match := _HEX.fullmatch(log)):
        return bytes.fromhex(match[1]).decode(errors="replace")
    return log
