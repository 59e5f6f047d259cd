"""Collateral: Intel's published data about a platform, which verifies a quote.

Certificates, revocation lists, TCB info and the identity of the quoting enclave, as a PCCS serves them.
Each signature covers the exact bytes of the inner JSON object, so the module keeps them as sent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from phala_secrets.dstack.nested import loads
from phala_secrets.errors import EvidenceError

MAX_TEXT = 1024 * 1024
"""Bytes of one part: the largest is a TCB info with about ten thousand."""

_BINARY = ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature")
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})+")
_SPACE = re.compile(r"[ \t\r\n]*")
_PEM = "-----BEGIN CERTIFICATE-----"
_HINT = "check pccs-url"


class Collateral(NamedTuple):
    """The parts, in the order in which ``dcap-qvl`` takes them: chains in PEM, lists in DER."""

    pck_crl_issuer_chain: str
    root_ca_crl: bytes
    pck_crl: bytes
    tcb_info_issuer_chain: str
    tcb_info: str
    tcb_info_signature: bytes
    qe_identity_issuer_chain: str
    qe_identity: str
    qe_identity_signature: bytes

    def as_json(self) -> dict[str, str]:
        """Return the form in which an evidence file stores it: bytes in hex."""
        return {
            name: part.hex() if isinstance(part, bytes) else part for name, part in self._asdict().items()
        }


def stored_collateral(content: Any) -> Collateral:
    """Return the collateral that ``Collateral.as_json`` made.

    Raises:
        EvidenceError: a part is missing, malformed or too large.
    """
    parts: list[Any] = []
    for name in Collateral._fields:
        value = content.get(name) if isinstance(content, Mapping) else None
        if not isinstance(value, str) or not 0 < len(value) <= 2 * MAX_TEXT:
            raise EvidenceError(f"the stored collateral has no {name}", hint="leave out --at to fetch it")
        parts.append(_hex(value, name) if name in _BINARY else value)
    return Collateral(*parts)


def issuer_chain(headers: Mapping[str, str], *names: str) -> str:
    """Return the certificates in a response's header (URL-encoded PEM). The first header present counts.

    Raises:
        EvidenceError: every header is missing, or the first has no PEM.
    """
    text = next((headers[name.lower()] for name in names if name.lower() in headers), "")
    if len(text) > MAX_TEXT:
        raise EvidenceError(f"the {names[0]} of the PCCS is too large", hint=_HINT)
    chain = unquote(text)
    if _PEM not in chain:
        raise EvidenceError(f"the PCCS sent no {names[0]}", hint=_HINT)
    return chain


def signed_object(body: bytes, name: str) -> tuple[str, bytes]:
    """Return the exact text of the object ``name`` in ``{name: {…}, "signature": hex}``, and the signature.

    Raises:
        EvidenceError: the body has another form or is too large.
    """
    try:
        members = _members(_text(body, name))
    except ValueError:
        raise EvidenceError(f"the {name} of the PCCS is not JSON", hint=_HINT) from None
    inner, signature = members.get(name, ""), members.get("signature", "")
    if not inner.startswith("{") or not signature.startswith('"'):
        raise EvidenceError(f"the PCCS sent no signed {name}", hint=_HINT)
    return inner, _hex(json.loads(signature), f"signature of {name}")


def crl(body: bytes, name: str) -> bytes:
    """Return a revocation list in DER. A PCCS sends DER or hex.

    Raises:
        EvidenceError: it is neither.
    """
    if len(body) > MAX_TEXT:
        raise EvidenceError(f"the {name} of the PCCS is too large", hint=_HINT)
    text = body.decode("ascii", "replace").strip()
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    if body[:1] == b"\x30":  # a DER sequence
        return body
    raise EvidenceError(f"the {name} of the PCCS is not a revocation list", hint=_HINT)


def _members(text: str) -> dict[str, str]:
    """Return the members of a JSON object, each as its exact text.

    Raise ValueError for anything but one object and for a member that appears twice.
    """
    loads(text)  # raises for nesting too deep for the decoder, too
    decoder = json.JSONDecoder()
    found: dict[str, str] = {}
    at = _after(text, 0, "{")
    while True:
        name, at = decoder.raw_decode(text, _after(text, at))
        if not isinstance(name, str) or name in found:
            raise ValueError("a member name is duplicate or not a string")
        begin = _after(text, _after(text, at, ":"))
        _, at = decoder.raw_decode(text, begin)
        found[name] = text[begin:at]
        at = _after(text, at)
        if text[at : at + 1] != ",":
            break
        at += 1
    if _after(text, _after(text, at, "}")) != len(text):
        raise ValueError("trailing data after the object")
    return found


def _after(text: str, at: int, expected: str = "") -> int:
    """Return where the next token begins. Skip ``expected`` and raise ValueError if it is missing."""
    found = _SPACE.match(text, at)
    at = found.end() if found else at
    if text[at : at + len(expected)] != expected:
        raise ValueError(f"no {expected}")
    return at + len(expected)


def _text(body: bytes, name: str) -> str:
    if len(body) > MAX_TEXT:
        raise EvidenceError(f"the {name} of the PCCS is too large", hint=_HINT)
    return body.decode()


def _hex(text: Any, name: str) -> bytes:
    if not isinstance(text, str) or not _HEX.fullmatch(text):
        raise EvidenceError(f"the {name} is not hex", hint=_HINT)
    return bytes.fromhex(text)
