"""Collateral: what Intel publishes about a platform, and a quote is verified with.

Certificates, revocation lists, TCB info and the identity of the quoting enclave, as a PCCS serves them.
Each signature is over the exact bytes of the inner JSON object, so these are kept as they were sent.
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
"""Bytes of one part: the largest, a TCB info, has some ten thousand."""

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
        """Return it as evidence is stored: bytes in hex."""
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
            raise EvidenceError(f"the stored collateral has no {name}", hint="leave --at out to fetch it")
        parts.append(_hex(value, name) if name in _BINARY else value)
    return Collateral(*parts)


def issuer_chain(headers: Mapping[str, str], *names: str) -> str:
    """Return the certificates in a response's header, URL-encoded PEM; the first name that is there counts.

    Raises:
        EvidenceError: none of the headers is there, or it holds no PEM.
    """
    text = next((headers[name.lower()] for name in names if name.lower() in headers), "")
    if len(text) > MAX_TEXT:
        raise EvidenceError(f"the PCCS sends a {names[0]} that is too large", hint=_HINT)
    chain = unquote(text)
    if _PEM not in chain:
        raise EvidenceError(f"the PCCS sends no {names[0]}", hint=_HINT)
    return chain


def signed_object(body: bytes, name: str) -> tuple[str, bytes]:
    """Return the exact text of the object ``name`` in ``{name: {…}, "signature": hex}``, and the signature.

    Raises:
        EvidenceError: the body is not of that form, or too large.
    """
    try:
        members = _members(_text(body, name))
    except ValueError:
        raise EvidenceError(f"the PCCS sends a {name} that is not JSON", hint=_HINT) from None
    inner, signature = members.get(name, ""), members.get("signature", "")
    if not inner.startswith("{") or not signature.startswith('"'):
        raise EvidenceError(f"the PCCS sends no signed {name}", hint=_HINT)
    return inner, _hex(json.loads(signature), f"signature of {name}")


def crl(body: bytes, name: str) -> bytes:
    """Return a revocation list in DER, which a PCCS sends as it is or as hex.

    Raises:
        EvidenceError: it is neither.
    """
    if len(body) > MAX_TEXT:
        raise EvidenceError(f"the PCCS sends a {name} that is too large", hint=_HINT)
    text = body.decode("ascii", "replace").strip()
    if _HEX.fullmatch(text):
        return bytes.fromhex(text)
    if body[:1] == b"\x30":  # a DER sequence
        return body
    raise EvidenceError(f"the PCCS sends a {name} that is not a revocation list", hint=_HINT)


def _members(text: str) -> dict[str, str]:
    """Return the members of a JSON object, each as the text that it is written as.

    Raises ``ValueError`` for what is not one object, or names a member twice.
    """
    loads(text)  # raises what is nested too deeply for the decoder, too
    decoder = json.JSONDecoder()
    found: dict[str, str] = {}
    at = _after(text, 0, "{")
    while True:
        name, at = decoder.raw_decode(text, _after(text, at))
        if not isinstance(name, str) or name in found:
            raise ValueError("a member is named twice, or not by a string")
        begin = _after(text, _after(text, at, ":"))
        _, at = decoder.raw_decode(text, begin)
        found[name] = text[begin:at]
        at = _after(text, at)
        if text[at : at + 1] != ",":
            break
        at += 1
    if _after(text, _after(text, at, "}")) != len(text):
        raise ValueError("something follows the object")
    return found


def _after(text: str, at: int, expected: str = "") -> int:
    """Return where the next token begins, behind ``expected`` if that is there."""
    found = _SPACE.match(text, at)
    at = found.end() if found else at
    if text[at : at + len(expected)] != expected:
        raise ValueError(f"no {expected}")
    return at + len(expected)


def _text(body: bytes, name: str) -> str:
    if len(body) > MAX_TEXT:
        raise EvidenceError(f"the PCCS sends a {name} that is too large", hint=_HINT)
    return body.decode()


def _hex(text: Any, name: str) -> bytes:
    if not isinstance(text, str) or not _HEX.fullmatch(text):
        raise EvidenceError(f"the {name} is not hex", hint=_HINT)
    return bytes.fromhex(text)
