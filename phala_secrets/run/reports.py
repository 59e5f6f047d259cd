"""The report of a run: names, counts, what vouches for the key, what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.cloud.trust import UNKNOWN_ROOT
from phala_secrets.run import names
from phala_secrets.run.advice import advice
from phala_secrets.runners.report import Id, Report, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phala_secrets.cloud.trust import ProvenKey
    from phala_secrets.run.approve import Preparation
    from phala_secrets.run.context import Run, Target
    from phala_secrets.run.plan import Plan

_LONGEST = 20
"""Hex digits that are shown whole."""

_HEX = frozenset("0123456789abcdef")
_VOUCHERS = {
    "pinned": "pinned: the signer is in trusted-signers",
    "chain": "chain: the signer is the root in the KMS contract, read through rpc-url",
    "known": "known: the signer is the published root of the Cloud KMS",
    "api": "api: the signer is the root that Phala Cloud's API publishes",
}


def proof_line(run: Run, app_id: str, key: ProvenKey) -> str:
    """Return one line about a proven key."""
    how = "" if key.proof.version == "v1" else " (its signature has no date)"
    app, root = short(run, app_id), short(run, key.signer)
    return f"key of the app {app}: signed by the KMS root {root}{how}, trust: {key.trust}"


_TITLES = {"verified": "Key proven", "encrypted": "Encrypted", "failed": "Key proven"}


def proven(run: Run, status: str) -> Report:
    """Return the report of ``verify`` and ``encrypt``, which change nothing."""
    report = Report(f"{_TITLES[status]}: {run.whom}{doubt(run.targets)}", status != "failed")
    report.facts = facts(run)
    _add_attestations(report, run.targets)
    report.advice = advice(run)
    return report


_ENDS = {
    "running": "{} runs with the new environment",
    "in_progress": "{} is restarting with the new environment",
}


def updated(run: Run) -> Report:
    """Return the report of ``update``."""
    targets = run.targets
    ends = {target.status for target in targets}
    title = _ENDS.get(targets[0].status, "{} is updated").format(targets[0].name)
    if run.fleet:
        done = sum(target.status in _ENDS for target in targets)
        title = f"{done} of {len(targets)} CVMs updated"
    report = Report(title + doubt(targets), ends <= set(_ENDS))
    add_outcome(run, report, targets[0])
    report.advice = advice(run)
    return report


def add_outcome(run: Run, report: Report, looked_at: Target) -> None:
    """Add what was sent, to whom, what became of it, and the page of the CVM to look at."""
    targets = run.targets
    known = [target for target in targets if hasattr(target, "plan")]
    if len(known) == len(targets):
        report.names = names.diffs(targets, done=run.sent)
    report.facts = facts(run)
    if run.fleet:
        report.tables.append(Table(("CVM", "status", "exit code", "what"), [_row(one) for one in targets]))
    elif targets[0].correlation_id:
        report.facts.append(("operation", Id(targets[0].correlation_id)))
    if not run.fleet and targets[0].approval:
        transaction = targets[0].approval.transaction_hash
        report.facts.append(("approval", short(run, transaction)))
        report.links += _transaction(transaction, targets[0].key)
    if link := run.dashboard(looked_at):
        report.links.append((f"{looked_at.name} in the dashboard", link))
    _add_attestations(report, targets)


def _row(target: Target) -> tuple[str, ...]:
    reached = target.result_code is not None
    remark = target.remark.removeprefix(f"{target.name}: ")
    return Id(target.name), target.status, str(target.result_code) if reached else "", remark


def _add_attestations(report: Report, targets: Sequence[Target]) -> None:
    """Add the chain of each CVM that was attested, link by link, and say so in the first line."""
    for target in targets:
        if target.attestation:
            from phala_secrets.run.attest_report import chain_table, headline

            name = f"{target.name}: " if len(targets) > 1 else ""
            report.title += f" — {name}{headline(target.attestation)}"
            report.tables.append(chain_table(target.attestation))


def _transaction(transaction: str, key: ProvenKey) -> list[tuple[str, str]]:
    from phala_secrets.chain.networks import transaction_link

    link = transaction_link(key.chain_id or 0, transaction) if transaction.startswith("0x") else None
    return [("The approval in the explorer", link)] if link else []


def prepared(run: Run, target: Target, preparation: Preparation) -> Report:
    """Return the report of ``prepare-only``, with full hashes for the approver to compare."""
    from phala_secrets.chain.networks import chain_name

    asked, outputs = preparation.asked, preparation.outputs
    report = Report(f"Prepared for {target.name}: an on-chain approval is needed")
    file = run.job.prepared_file
    report.names = names.diffs([target], done=False)
    report.facts = [
        ("CVM", Id(target.name)),
        ("KMS root", Id(target.key.signer)),
        ("trust", _VOUCHERS[target.key.trust]),
        ("chain", chain_name(asked.chain_id)),
        ("app contract", Id(f"0x{asked.app_id}")),
        ("compose hash", Id(f"0x{asked.compose_hash}")),
        ("device", Id(", ".join(f"0x{device}" for device in asked.devices)) or "unknown"),
        *((label, Id(value)) for label, value in asked.code),
        ("digest", Id(outputs["prepared-digest"])),
    ]
    if preparation.explorer:
        report.links = [("The app's contract in the explorer", preparation.explorer)]
    added = "addDevice and then addComposeHash" if preparation.devices else "addComposeHash"
    approve = (
        f"1. The app's owner approves. Import this file into a Safe ({added}); it is also the output "
        "safe-transaction:"
    )
    wallet = "Or send this calldata from a wallet to the app contract, with value 0:"
    compare = (
        "2. Before approving, compare hash and device with those above. Pass on the digest, apart from the "
        "ciphertext:"
    )
    if file:
        what = f"prepared-file: {file}, prepared-digest and transaction-hash (or rpc-url)."
    else:
        what = "encrypted-env, env-keys, compose-hash, transaction-hash and prepared-digest."
    commit = f"3. Within 14 days, commit this same ciphertext in another run with {what}"
    report.advice = [
        (approve, outputs["safe-transaction"]),
        (wallet, outputs["calldata"]),
        (compare, f"prepared-digest: {outputs['prepared-digest']}"),
        (commit, ""),
    ]
    report.advice += [(remark, "") for remark in asked.remarks]
    report.advice += advice(run)
    return report


def short(run: Run, text: str) -> str:
    """Return an id or a hash, its middle left out where it is long and ``full`` does not ask for it."""
    bare = text.removeprefix("0x")
    if run.full or len(bare) <= _LONGEST or not set(bare.lower()) <= _HEX:
        return Id(text)
    return Id(f"{text[: len(text) - len(bare)]}{bare[:8]}…{bare[-4:]}")


def facts(run: Run) -> list[tuple[str, str]]:
    """Return what vouches for what: CVM, app, KMS, and the compose hash that comes."""
    targets = run.targets
    known = [("CVM", f"{len(targets)} CVMs" if run.fleet else Id(run.whom))]
    for app_id in dict.fromkeys(target.app_id for target in targets):
        known.append(("app", short(run, app_id)))
        if key := run.keys.get(app_id):
            known += [("KMS", Id(key.kms)), ("KMS root", short(run, key.signer))]
            known.append(("trust", _VOUCHERS[key.trust]))
    plan = getattr(targets[0], "plan", None)
    return known + (_changes(run, plan) if plan else [])


def doubt(targets: Sequence[Target]) -> str:
    """Return what the first line of a report says of a root that is not the published one, or nothing."""
    told = (finding.message for target in targets for finding in target.key.findings)
    return f" — {UNKNOWN_ROOT}" if any(one.startswith(UNKNOWN_ROOT) for one in told) else ""


def _changes(run: Run, plan: Plan) -> list[tuple[str, str]]:
    changes = [("order of the names", "changed, and so is the compose hash")] if plan.reordered else []
    changes += [("compose file", "changed")] if plan.changes_file else []
    if plan.changes_hash and plan.compose_hash:
        before = short(run, plan.previous_hash)
        changes.append(("compose hash", Id(f"{before} → {short(run, plan.compose_hash)}")))
    return changes
