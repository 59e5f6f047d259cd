"""Attest the CVMs of a run: what runs is a genuine TEE with an accepted OS, this app, code and KMS.

The run reads the evidence before the update. Evidence with the same report data afterwards is of the old
boot, so the run polls on. A run that does not attest loads nothing of this.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from phala_secrets import flow
from phala_secrets.chain import rpc
from phala_secrets.cloud import attest, known, requests
from phala_secrets.cloud.call import Within
from phala_secrets.cloud.chain_root import kms_contract
from phala_secrets.dstack.attestation import Attestation, Expected, Link
from phala_secrets.dstack.compose_hash import candidates
from phala_secrets.dstack.event_log import Claims, parse_event_log
from phala_secrets.dstack.evidence import Evidence
from phala_secrets.dstack.ids import bare
from phala_secrets.dstack.quote import need_library, parse_quote
from phala_secrets.errors import (
    AnswerError,
    AttestationError,
    AuthError,
    EvidenceError,
    Finding,
    InputError,
    NotFoundError,
    PhalaSecretsError,
    ProofError,
    untrusted,
)
from phala_secrets.flow import Flow, Pause
from phala_secrets.runners.live import Doing

if TYPE_CHECKING:
    from phala_secrets.dstack.collateral import Collateral
    from phala_secrets.inputs.attest import Attesting
    from phala_secrets.run.context import Run, Target

_FRESH = "fresh"
_READING = 60.0
"""Seconds for reading the evidence as it is, before anything is sent or where nothing is."""

_MOST_KEPT = 2 * 1024 * 1024
"""Characters of evidence that is kept: quote, log and collateral have some hundred thousand."""

_DO_NOT_TRUST = "find out why before you trust this CVM; the output attestation has every link"


class Seen(NamedTuple):
    """What was read of one CVM, and what it shows."""

    evidence: Evidence
    collateral: Collateral | EvidenceError
    attestation: Attestation


def passed_over(run: Run) -> None:
    """Warn that a mode that changes nothing attests nothing."""
    run.tell(
        Finding(
            f"attest has no effect: {run.job.mode} does not attest",
            "use verify or update",
            severity="notice",
        )
    )


def check(run: Run) -> None:
    """Raise InputError if no library can verify evidence, or one file is for multiple CVMs."""
    need_library()
    if _wanted(run).evidence_file and run.fleet:
        raise InputError(
            "evidence-file holds one CVM, but there are multiple", hint="leave it out, or name one CVM"
        )


def before(run: Run, target: Target) -> None:
    """Note the evidence that a CVM has just before its update is sent: all of it, by either route."""
    target.old_report_data = run.client.run(_of_old_boot(target))


def after(run: Run, target: Target) -> None:
    """Attest one CVM after its update, and keep what was found.

    Raises:
        AttestationError: ``attest`` is ``require``, and it is not attested.
    """
    wanted = _wanted(run)
    hashes = _named(run) or _hashes_sent(target)
    doing = Doing(f"{run.place(target)}  waiting for its attestation", limit=run.job.wait_timeout)
    run.runner.progress(doing.text, cvm=run.in_fleet(target), doing=doing.from_now())
    try:
        cas = _accepted_cas(run, target)
    except PhalaSecretsError as error:
        run.tell(Finding(f"reading the CA key of the KMS failed: {error.marked}", error.marked_hint))
        cas = {}
    seen = run.client.run(_until_fresh(target, wanted, hashes, cas, run.job.wait_timeout))
    said = _keep(run, target, wanted, seen)
    if said and wanted.required:
        accepted = f"the update was accepted ({target.correlation_id})"
        raise AttestationError(
            f"{target.name}: {accepted} and the CVM runs, but it is not attested: {said}", hint=_DO_NOT_TRUST
        )


def now(run: Run) -> None:
    """Attest the CVMs as they are, with the compose hash that is named, or that the API says they have.

    Raises:
        ProofError: ``attest`` is ``require``, and one is not attested.
    """
    wanted = _wanted(run)
    for target in run.targets:
        hashes = _named(run) or ([bare(target.cvm.compose_hash)] if target.cvm.compose_hash else [])
        cas = _accepted_cas(run, target)
        seen = run.client.run(_look(target, wanted, hashes, cas))
        said = _keep(run, target, wanted, seen)
        if said and wanted.required:
            target.error = ProofError(f"{target.name} is not attested: {said}", hint=_DO_NOT_TRUST)


def _wanted(run: Run) -> Attesting:
    if run.job.attest is None:
        raise AssertionError("a run that does not ask is not attested")
    return run.job.attest


def _until_fresh(
    target: Target, wanted: Attesting, hashes: list[str], cas: dict[str, str], seconds: float
) -> Flow[Seen]:
    """Return what the CVM shows once its evidence is another than before, or the time is up."""
    deadline = flow.clock.monotonic() + seconds
    pauses = iter(flow.POLL_AT_FIRST)
    seen: Seen | None = None
    problem, nonsense = "no evidence", 0
    while (left := deadline - flow.clock.monotonic()) > 0:
        try:
            evidence = yield from _read(target, left)
            report_data = _report_data(evidence)
            if report_data and report_data not in target.old_report_data:
                seen = yield from _judge(evidence, target, wanted, hashes, cas)
                how = (
                    "not from the previous boot"
                    if target.old_report_data
                    else "there was none before the update"
                )
                return seen._replace(attestation=seen.attestation.and_link(Link(_FRESH, True, how)))
            problem = "the evidence is from the boot before the update" if report_data else _missing(evidence)
            if report_data:
                seen = Seen(evidence, EvidenceError("it is not from this boot"), Attestation(()))
        except PhalaSecretsError as error:  # whatever it is, the update was accepted
            problem = error.message
            nonsense += isinstance(error, AnswerError | AuthError)
            if nonsense >= flow.NONSENSE:
                break
        yield Pause(max(0.0, min(next(pauses, flow.POLL), deadline - flow.clock.monotonic())))
    else:
        problem = f"{problem} after {seconds:.0f} s"
    if seen is None:
        nothing = Attestation((Link("quote", None, problem),)).and_link(Link(_FRESH, False, problem))
        return Seen(Evidence(None, None, problem), EvidenceError(problem), nothing)
    stale = yield from _judge(seen.evidence, target, wanted, hashes, cas)
    return stale._replace(attestation=stale.attestation.and_link(Link(_FRESH, False, problem)))


def _look(target: Target, wanted: Attesting, hashes: list[str], cas: dict[str, str]) -> Flow[Seen]:
    evidence = yield from _read(target, _READING)
    return (yield from _judge(evidence, target, wanted, hashes, cas))


def _of_old_boot(target: Target) -> Flow[frozenset[str]]:
    """Return the report data of each quote that there is of a CVM before its update.

    A boot has several quotes: one for each certificate, and the one that the public route shows.
    """
    quotes: list[Any] = []
    if target.cvm.instance_id:
        with suppress(NotFoundError):
            public = attest.app_evidence(target.app_id, target.cvm.instance_id.lower())
            quotes.append((yield Within(public, _READING)).quote)
    evidence: Evidence = yield Within(attest.cvm_evidence(target.id), _READING)
    quotes += [evidence.quote, *evidence.other_quotes]
    return frozenset(filter(None, map(_report_data_of, quotes)))


def _read(target: Target, seconds: float) -> Flow[Evidence]:
    """Return the evidence of a CVM; where the owner's route has no quote, that of the app's public one."""
    evidence: Evidence = yield Within(attest.cvm_evidence(target.id), seconds)
    instance = target.cvm.instance_id
    if _report_data(evidence) or not instance:
        return evidence
    try:
        public: Evidence = yield Within(attest.app_evidence(target.app_id, instance.lower()), seconds)
    except NotFoundError:
        return evidence
    return public if _report_data(public) else evidence


def _judge(
    evidence: Evidence, target: Target, wanted: Attesting, hashes: list[str], cas: dict[str, str]
) -> Flow[Seen]:
    collateral = yield from attest.collateral_for(evidence, wanted.pccs_url)
    claimed = _claimed_hash(evidence)
    expected = Expected(
        app_id=target.app_id,
        compose_hash=claimed if claimed in hashes else next(iter(hashes), None),
        instance_id=(target.cvm.instance_id or "").lower() or None,
        trusted_os=wanted.trusted_os,
        kms_cas=cas,
        allow_tcb=wanted.allow_tcb,
        root=wanted.root,
    )
    return Seen(evidence, collateral, attest.judge(evidence, collateral, expected, int(time.time())))


def _named(run: Run) -> list[str]:
    """Return the compose hash that the user named, if any: it counts, whatever the API says."""
    return [run.job.compose_hash] if run.job.compose_hash else []


def _hashes_sent(target: Target) -> list[str]:
    """Return the compose hashes of what this run sent: the one computed, then other orders of the names."""
    first = target.approval.compose_hash if target.approval else target.plan.compose_hash
    compose = target.compose
    if not first or compose is None or compose.form is None or not target.plan.changes_names:
        return [first] if first else []
    return list(dict.fromkeys([first, *candidates(compose.content, target.plan.names, compose.form)]))


def _claimed_hash(evidence: Evidence) -> str:
    try:
        return Claims(parse_event_log(evidence.event_log)).one("compose-hash").hex()
    except EvidenceError:
        return ""


def _report_data(evidence: Evidence) -> str:
    return _report_data_of(evidence.quote)


def _report_data_of(quote: Any) -> str:
    try:
        return parse_quote(quote).report_data.hex()
    except EvidenceError:
        return ""


def _missing(evidence: Evidence) -> str:
    if evidence.missing:
        return evidence.missing
    try:
        parse_quote(evidence.quote)
    except EvidenceError as error:
        return error.message
    return "no evidence"


def _accepted_cas(run: Run, target: Target) -> dict[str, str]:
    """Return the CA keys of a KMS that the CVM may have its keys from, and what vouches for each."""
    wanted, key, policy = _wanted(run), target.key, run.job.policy
    if wanted.kms_cas:
        return dict.fromkeys(wanted.kms_cas, "trusted-kms-ca")
    if key.chain_id and policy.rpc_url:
        contract = kms_contract(key.chain_id, policy.kms_contract)
        ca = run.client.send(requests.rpc(policy.rpc_url, rpc.kms_ca(contract)))
        return {ca: f"the KMS contract {contract}"}
    if key.signer == known.published.root:
        return {known.published.ca: "the published record of the Cloud KMS"}
    return {}


def _with_os_image(run: Run, target: Target, found: Attestation) -> Attestation:
    """Return an attestation with what the KMS contract says of the OS image, if it can be asked."""
    chain_id, policy = target.key.chain_id, run.job.policy
    if found.os_image and chain_id and policy.rpc_url:
        asked = rpc.os_image_allowed(kms_contract(chain_id, policy.kms_contract), found.os_image)
        with suppress(PhalaSecretsError):  # nothing rests on it
            return replace(found, os_image_allowed=run.client.send(requests.rpc(policy.rpc_url, asked)))
    return found


def _keep(run: Run, target: Target, wanted: Attesting, seen: Seen) -> str:
    """Report, output and store what was seen. Return what does not hold, or nothing."""
    found = target.attestation = _with_os_image(run, target, seen.attestation)
    run.output_of(
        target,
        {
            "attested": found.attested,
            "os-measurements": found.os_measurements or "",
            "attestation": found.as_text(),
        },
    )
    if wanted.evidence_file:
        _store(run, target, wanted.evidence_file, seen)
    said = "; ".join(f"{link.name}: {untrusted(link.what)}" for link in found.broken[:3])
    if found.attested:
        run.runner.say(f"{target.name}: attested{' (simulated TEE)' if found.simulated else ''}")
        return ""
    if not wanted.required:
        run.tell(Finding(f"{target.name} is not attested: {said}", hint=_DO_NOT_TRUST))
    return said or "a link is missing"


def _store(run: Run, target: Target, path: str, seen: Seen) -> None:
    from phala_secrets.runners.files import overwrite

    collateral = None if isinstance(seen.collateral, EvidenceError) else seen.collateral.as_json()
    content: dict[str, Any] = {
        **seen.evidence._replace(collateral=collateral).as_json(),
        "app_id": target.app_id,
        "instance_id": target.cvm.instance_id,
        "read_at": int(time.time()),
    }
    text = json.dumps(content, indent=1) + "\n"
    hint = "check the app: it may have written the value to its event log, which anyone can read"
    if len(text) > _MOST_KEPT:
        run.tell(Finding("evidence-file is not written: the evidence is too large", _DO_NOT_TRUST))
        return
    if owner := run.runner.secrets.owner_in(text):
        run.tell(Finding(f"evidence-file is not written: it would contain the value of {owner}", hint))
        return
    try:
        overwrite(path, text, f"evidence-file {path[:200]!a}")
    except PhalaSecretsError as error:
        if not run.sent:
            raise
        run.tell(Finding(error.message, error.hint))
