"""The attestation of a CVM or a KMS: its evidence, Intel's collateral, and what both show."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from phala_secrets.cloud import pccs, requests
from phala_secrets.cloud.ids import parse_url
from phala_secrets.dstack import evidence as forms
from phala_secrets.dstack.attestation import TCB_STATUSES, Attestation, Expected, check_cvm, check_kms
from phala_secrets.dstack.collateral import Collateral, stored_collateral
from phala_secrets.dstack.ids import parse_app_id, parse_hash
from phala_secrets.dstack.kms_record import KmsRecord, parse_ca
from phala_secrets.dstack.quote import parse_quote, platform_of
from phala_secrets.errors import EvidenceError, InputError

if TYPE_CHECKING:
    from phala_secrets.cloud.call import Call
    from phala_secrets.dstack.evidence import Evidence
    from phala_secrets.flow import Flow


def cvm_evidence(cvm_id: str) -> Call[Evidence]:
    """Request the API's evidence of a CVM."""
    return requests.attestation(cvm_id).read_by(forms.of_cvm)


def app_evidence(app_id: str, instance_id: str) -> Call[Evidence]:
    """Request the same evidence by a route that needs no key."""
    return requests.app_attestations(app_id).read_by(lambda body: forms.of_app(body, instance_id))


def collateral_for(evidence: Evidence | KmsRecord, pccs_url: str) -> Flow[Collateral | EvidenceError]:
    """Return the collateral for some evidence, or the error if it is missing."""
    try:
        platform = platform_of(parse_quote(evidence.quote))
        return (yield from pccs.fetch(pccs_url, platform))
    except EvidenceError as error:
        return error


def judge(
    evidence: Evidence | KmsRecord, collateral: Collateral | EvidenceError, expected: Expected, now: int
) -> Attestation:
    """Return what evidence shows with this collateral at this time (Unix seconds)."""
    if isinstance(evidence, KmsRecord):
        return check_kms(evidence, collateral, expected, now=now)
    return check_cvm(evidence.quote, evidence.event_log, collateral, expected, now=now)


def verify_attestation(
    evidence: Mapping[str, Any] | Any,
    *,
    app_id: str | None = None,
    compose_hash: str | None = None,
    instance_id: str | None = None,
    trusted_os: str | Iterable[str] = (),
    trusted_kms_ca: str | Iterable[str] = (),
    allow_tcb: str | Iterable[str] = (),
    collateral: Mapping[str, Any] | None = None,
    pccs_url: str = pccs.DEFAULT_URL,
    root: bytes | None = None,
    now: float | None = None,
    timeout: float = 30.0,
) -> Attestation:
    """Return what the evidence of a CVM or a KMS shows, link by link. ``attested`` is whether all hold.

    A missing or wrong link does not raise: it says what is wrong. If you leave out an expectation, its
    link is not compared and nothing is attested.

    Args:
        evidence: the result of ``get_cvm_attestation``, the content of an evidence file, or a KMS's
            bootstrap record (``k256_pubkey``, ``ca_pubkey``, ``quote``, ``event_log``).
        app_id: the app, 40 hex digits, with or without ``0x``.
        compose_hash: the compose hash, 64 hex digits.
        instance_id: the CVM's instance, 40 hex digits.
        trusted_os: accepted ``os_measurements`` (64 hex digits). In one string, separate with white space.
        trusted_kms_ca: accepted CA keys of the KMS, SPKI hex. Likewise.
        allow_tcb: TCB statuses to accept in addition to ``UpToDate``. Likewise.
        collateral: Intel's collateral from an evidence file, in place of that from ``pccs_url``.
        pccs_url: the PCCS that serves the collateral.
        root: a root certificate (DER) in place of Intel's. The TEE then counts as simulated.
        now: the time to verify at, in Unix seconds.
        timeout: seconds for one request.

    Raises:
        InputError: an argument is malformed, or ``dcap-qvl`` is not installed.
        EvidenceError: the form of the evidence is unknown.
    """
    content = evidence.model_dump(mode="json") if hasattr(evidence, "model_dump") else evidence
    read = forms.read(content)
    expected = Expected(
        app_id=parse_app_id(app_id, "app_id") if app_id else None,
        compose_hash=parse_hash(compose_hash, "compose_hash") if compose_hash else None,
        instance_id=parse_app_id(instance_id, "instance_id") if instance_id else None,
        trusted_os=frozenset(parse_hash(one, "trusted_os") for one in _listed(trusted_os)),
        kms_cas={parse_ca(one, "trusted_kms_ca"): "trusted_kms_ca" for one in _listed(trusted_kms_ca)},
        allow_tcb=parse_statuses(_listed(allow_tcb), "allow_tcb"),
        root=root,
    )
    moment = int(time.time() if now is None else now)
    if collateral is not None:
        return judge(read, stored_collateral(collateral), expected, moment)
    from phala_secrets.cloud.client import Client

    url = parse_url(pccs_url, "pccs_url")
    with Client("none", url, timeout=timeout) as client:  # a PCCS gets no key
        return judge(read, client.run(collateral_for(read, url)), expected, moment)


def parse_statuses(statuses: Iterable[str], what: str) -> frozenset[str]:
    """Return the TCB statuses. Raise InputError for unknown ones and for ``Revoked``."""
    given = frozenset(statuses)
    if unknown := sorted(given - {"UpToDate", *TCB_STATUSES}):
        raise InputError(
            f"{what}: {unknown[0][:60]!a} is not a TCB status that can be accepted",
            hint=f"use one of {', '.join(TCB_STATUSES)}",
        )
    return given


def _listed(given: str | Iterable[str]) -> list[str]:
    return given.replace(",", " ").split() if isinstance(given, str) else list(given)
