"""``verify --evidence-file``: what a run kept, or a KMS's bootstrap record. Needs no CVM and no key."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phala_secrets.cloud import attest, known
from phala_secrets.cloud.driver import Driver
from phala_secrets.cloud.requests import DEFAULT_URL
from phala_secrets.dstack import evidence as forms
from phala_secrets.dstack.attestation import Attestation, Expected
from phala_secrets.dstack.collateral import stored_collateral
from phala_secrets.dstack.environment import Origin
from phala_secrets.dstack.ids import parse_app_id, parse_hash
from phala_secrets.dstack.kms_record import KmsRecord
from phala_secrets.dstack.nested import loads
from phala_secrets.errors import EvidenceError, ProofError
from phala_secrets.inputs.attest import Attesting, parse_time, read_attesting
from phala_secrets.inputs.files import Files
from phala_secrets.inputs.place import root_of
from phala_secrets.run.attest_report import chain_table, headline
from phala_secrets.runners.report import Report

if TYPE_CHECKING:
    from phala_secrets.inputs.given import Given
    from phala_secrets.runners.base import Runner

MAX_FILE = 16 * 1024 * 1024
"""Bytes of an evidence file: quote, log and collateral have about a hundred thousand."""


def verify_file(given: Given, runner: Runner) -> None:
    """Verify an evidence file, and report it link by link.

    Raises:
        InputError: An input is invalid, or the file is unreadable.
        ProofError: A link does not hold, the quote is not verified, or ``require`` is not met.
    """
    wanted = read_attesting(given, given.text("api-url") or DEFAULT_URL)
    read = _read(wanted.evidence_file, Files(Path(), root_of(runner.environ, Path())))
    at = given.text("at")
    moment = parse_time(at) if at else int(time.time())
    found = _judged(read, wanted, _expected(given, wanted, read), moment, stored=bool(at))
    runner.output("attested", found.attested)
    runner.output("os-measurements", found.os_measurements or "")
    runner.output("attestation", found.as_text())
    runner.report(_report(read, found))
    wrong = [link for link in found.broken if link.ok is False or link.name == "quote" or wanted.required]
    if wrong or not found.links:
        said = "; ".join(f"{link.name}: {link.what}" for link in wrong[:3]) or "it is empty"
        raise ProofError(f"the evidence does not hold: {said}", hint="see the report for every link")
    runner.output("status", "verified")


def _judged(
    read: forms.Evidence | KmsRecord, wanted: Attesting, expected: Expected, moment: int, *, stored: bool
) -> Attestation:
    if stored and isinstance(read, forms.Evidence) and read.collateral:
        return attest.judge(read, stored_collateral(read.collateral), expected, moment)
    with Driver("none", wanted.pccs_url) as client:  # a PCCS gets no key
        return attest.judge(read, client.run(attest.collateral_for(read, wanted.pccs_url)), expected, moment)


def _expected(given: Given, wanted: Attesting, read: forms.Evidence | KmsRecord) -> Expected:
    app_ids = given.lines("app-id")
    compose_hash = given.text("compose-hash")
    cas = dict.fromkeys(wanted.kms_cas, "trusted-kms-ca")
    return Expected(
        app_id=parse_app_id(app_ids[0]) if app_ids else None,
        compose_hash=parse_hash(compose_hash, "compose-hash") if compose_hash else None,
        instance_id=(read.instance_id or None) if isinstance(read, forms.Evidence) else None,
        trusted_os=wanted.trusted_os,
        kms_cas=cas or {known.published.ca: "the published record of the Cloud KMS"},
        allow_tcb=wanted.allow_tcb,
        root=wanted.root,
    )


def _read(path: str, files: Files) -> forms.Evidence | KmsRecord:
    content = files.read(path, Origin("evidence-file", path), most=MAX_FILE)
    try:
        parsed: Any = loads(content)
    except (ValueError, RecursionError):
        raise EvidenceError(
            "evidence-file is not JSON", hint="pass a file that evidence-file wrote"
        ) from None
    return forms.read(parsed)


def _report(read: forms.Evidence | KmsRecord, found: Attestation) -> Report:
    report = Report(f"Evidence: {headline(found)}")
    if isinstance(read, KmsRecord):
        published = read.root == known.published.root
        report.facts.append(("KMS root", read.root))
        report.facts.append(
            ("published", "the root that ships with phala-secrets" if published else "another root")
        )
    if found.tcb_status:
        report.facts.append(("TCB", found.tcb_status))
    report.tables.append(chain_table(found))
    return report
