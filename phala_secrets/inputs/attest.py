"""The inputs about attestation. Only a run that attests imports this."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from phala_secrets.cloud.attest import parse_statuses
from phala_secrets.cloud.ids import is_loopback, parse_url
from phala_secrets.dstack.environment import Origin
from phala_secrets.dstack.ids import parse_hash
from phala_secrets.dstack.kms_record import parse_ca
from phala_secrets.errors import InputError
from phala_secrets.inputs.files import Files

if TYPE_CHECKING:
    from phala_secrets.inputs.given import Given

MAX_ROOT = 64 * 1024
"""Bytes of a root certificate: they have about a thousand."""


class Attesting(NamedTuple):
    """What a run must attest, and against what.

    ``kms_cas`` are the CA keys that the user named (SPKI hex), ``root`` the root certificate (DER) of
    simulated quotes, ``evidence_file`` where the evidence goes, or comes from.
    """

    required: bool
    pccs_url: str
    trusted_os: frozenset[str] = frozenset()
    kms_cas: tuple[str, ...] = ()
    allow_tcb: frozenset[str] = frozenset()
    root: bytes | None = None
    evidence_file: str = ""


def read_attesting(given: Given, api_url: str) -> Attesting:
    """Return what the inputs say about attestation.

    Raises:
        InputError: An input is invalid, ``require`` has no OS to accept, or there is a root for
            simulated quotes but the API is not on this machine.
    """
    required = given.choice("attest") == "require"
    trusted_os = frozenset(parse_hash(line, "trusted-os") for line in given.lines("trusted-os"))
    if required and not trusted_os:
        raise InputError(
            "attest is require, but trusted-os is empty, so no OS would be accepted",
            hint="get os-measurements from verify with attest: warn, and compare it with a second source",
        )
    return Attesting(
        required=required,
        pccs_url=parse_url(given.text("pccs-url"), "pccs-url"),
        trusted_os=trusted_os,
        kms_cas=tuple(parse_ca(line, "trusted-kms-ca") for line in given.lines("trusted-kms-ca")),
        allow_tcb=parse_statuses(given.lines("allow-tcb"), "allow-tcb"),
        root=_root(given.text("attestation-root"), api_url),
        evidence_file=given.text("evidence-file"),
    )


def parse_time(text: str) -> int:
    """Return Unix seconds from Unix seconds or ISO 8601 (UTC unless it names a zone)."""
    if text.isascii() and text.isdigit() and len(text) <= 10:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise InputError(
            f"invalid at {text[:60]!a}", hint="use Unix seconds, or a time such as 2026-09-24T12:00:00Z"
        ) from None


def _root(path: str, api_url: str) -> bytes | None:
    if not path:
        return None
    if not is_loopback(urlsplit(api_url).hostname or ""):
        raise InputError(
            "attestation-root is set, but api-url is not a loopback address",
            hint="leave it out: Intel's root verifies quotes of real hardware",
        )
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    content = Files(Path()).read(path, Origin("attestation-root", path), most=MAX_ROOT)
    try:
        load = (
            x509.load_pem_x509_certificate if content.startswith(b"-----") else x509.load_der_x509_certificate
        )
        return load(content).public_bytes(Encoding.DER)
    except ValueError:
        raise InputError(
            "attestation-root is not a certificate", hint="pass PEM or DER, as simulate prints it"
        ) from None
