"""What a run has to say when it is over: names, counts, what vouches for the key, what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.cloud.trust import UNKNOWN_ROOT
from phala_secrets.runners.report import Report, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phala_secrets.cloud.trust import ProvenKey
    from phala_secrets.run.approve import Preparation
    from phala_secrets.run.context import Run, Target
    from phala_secrets.run.plan import Plan

_VOUCHERS = {
    "pinned": "pinned: the signer is in trusted-signers",
    "chain": "chain: the signer is the root in the KMS contract, as rpc-url says",
    "known": "known: the signer is the published root of the Cloud KMS",
    "api": "api: the signer is the root that Phala Cloud's API publishes",
}


def proof_line(key: ProvenKey) -> str:
    """One line about a proven key."""
    how = "" if key.proof.version == "v1" else " (its signature has no date)"
    return f"key of the app {key.app_id} is signed by the KMS root {key.signer}{how}; {_VOUCHERS[key.trust]}"


def told(run: Run, status: str) -> Report:
    """The report of ``verify``, ``encrypt`` and ``plan``, which change nothing."""
    report = Report(
        {"verified": "Key proven", "encrypted": "Encrypted", "planned": "Plan", "failed": "Key proven"}.get(
            status, status
        )
    )
    report.title += _doubt(run.targets)
    report.facts = _facts(run.targets)
    if status == "planned":
        first = run.targets[0]
        report.tables = [first.plan.table()]
        report.diff = first.change.diff if first.change else []
        report.facts += _changes(first.plan, first.key)
        report.facts.append(("restart", "an update always restarts the CVM"))
        if run.fleet:
            report.tables.append(_differences(run.targets))
    _add_attestations(report, run.targets)
    report.advice = _advice(run.targets)
    return report


def updated(run: Run) -> Report:
    """The report of ``update``."""
    targets = run.targets
    statuses = tuple({target.status for target in targets})
    titles: dict[tuple[str, ...], str] = {
        ("running",): "Delivered: the CVM runs with the new environment",
        ("in_progress",): "Accepted: the CVM is restarting with the new environment",
    }
    title = titles.get(statuses, "Updated")
    if run.fleet:
        done = sum(target.status != "failed" for target in targets)
        title = f"{done} of {len(targets)} CVMs updated"
    first = targets[0]
    report = Report(title + _doubt(targets), facts=_facts(targets))
    report.facts += _changes(first.plan, None)
    if run.fleet:
        cells = [(target.name, target.status, target.remark) for target in targets]
        report.tables.append(Table(("CVM", "status", "error"), cells))
    elif first.correlation_id:
        report.facts.append(("operation", first.correlation_id))
    if not run.fleet and first.approval:
        transaction = first.approval.transaction_hash
        report.facts.append(("approval", transaction))
        report.links = _transaction(transaction, first.key)
    _add_attestations(report, targets)
    report.advice = _advice(targets)
    return report


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


def prepared(target: Target, preparation: Preparation, file: str) -> Report:
    """The report of ``prepare-only``: for those who approve. ``file`` is the prepared-file, if any."""
    from phala_secrets.chain.networks import chain_name

    asked, outputs = preparation.asked, preparation.outputs
    report = Report("Prepared: an approval on chain is needed")
    report.facts = _facts([target])
    report.facts += [
        ("chain", chain_name(asked.chain_id)),
        ("app contract", f"0x{asked.app_id}"),
        ("compose hash", f"0x{asked.compose_hash}"),
        ("device", ", ".join(f"0x{device}" for device in asked.devices) or "not named"),
        *asked.code,
        ("digest", outputs["prepared-digest"]),
    ]
    report.facts += _changes(target.plan, None)
    if preparation.explorer:
        report.links = [("The app's contract in the explorer", preparation.explorer)]
    added = "addDevice and then addComposeHash" if preparation.devices else "addComposeHash"
    approve = (
        f"1. The app's owner approves: a Safe imports this as a file ({added}), which is the output "
        "safe-transaction too:"
    )
    wallet = "Or a wallet sends this calldata to the app contract, with value 0:"
    compare = (
        "2. Whoever approves compares hash and device with those above, and passes the digest on, "
        "apart from the ciphertext:"
    )
    if file:
        what = f"prepared-file: {file}, prepared-digest and transaction-hash (or rpc-url)."
    else:
        what = "encrypted-env, env-keys, compose-hash, transaction-hash and prepared-digest."
    commit = f"3. Within 14 days another run commits this very ciphertext: {what}"
    report.advice = [
        (approve, outputs["safe-transaction"]),
        (wallet, outputs["calldata"]),
        (compare, f"prepared-digest: {outputs['prepared-digest']}"),
        (commit, ""),
    ]
    report.advice += [(remark, "") for remark in asked.remarks]
    report.advice += _advice([target])
    return report


def _facts(targets: Sequence[Target]) -> list[tuple[str, str]]:
    facts = [("CVM", targets[0].name if len(targets) == 1 else f"{len(targets)} CVMs")]
    for app_id, key in {target.app_id: target.key for target in targets}.items():
        facts += [
            ("app", app_id),
            ("KMS", key.kms),
            ("KMS root", key.signer),
            ("trust", _VOUCHERS[key.trust]),
        ]
    return facts


def _doubt(targets: Sequence[Target]) -> str:
    """Return what the first line of a report says of a root that is not the published one, or nothing."""
    told = (finding.message for target in targets for finding in target.key.findings)
    return f" — {UNKNOWN_ROOT}" if any(one.startswith(UNKNOWN_ROOT) for one in told) else ""


def _changes(plan: Plan, key: ProvenKey | None) -> list[tuple[str, str]]:
    facts = [("variables", str(len(plan.names)))]
    facts += [("added", ", ".join(plan.added))] if plan.added else []
    facts += [("removed", ", ".join(plan.removed))] if plan.removed else []
    facts += [("order of the names", "another one, which is another compose hash")] if plan.reordered else []
    facts += [("compose file", "another one")] if plan.changes_file else []
    if plan.changes_hash and plan.compose_hash:
        facts.append(("compose hash", f"{plan.previous_hash} → {plan.compose_hash}"))
    if key:
        needed = "not needed: compose file and names stay the same"
        if plan.changes_hash:
            needed = (
                "needed, unless it was given before" if key.chain_id else "not needed: the KMS is central"
            )
        facts.append(("approval on chain", needed))
    return facts


def _differences(targets: Sequence[Target]) -> Table:
    rows = [(one.name, str(len(one.plan.added)), str(len(one.plan.removed))) for one in targets]
    return Table(("CVM", "added", "removed"), rows)


def _advice(targets: Sequence[Target]) -> list[tuple[str, str]]:
    advice = []
    named = next((target for target in targets if target.named), None)
    if named:
        advice.append(
            (
                "Which app this CVM belongs to is the API's word. To have any other refused, add:",
                f"app-id: {named.app_id}",
            )
        )
    if any(target.key.trust == "known" for target in targets):
        advice.append(
            (
                "That this app is of the Cloud KMS is the API's word. To have any other root refused, add:",
                "require-trust: known",
            )
        )
    signers = sorted({target.key.signer for target in targets if target.key.trust == "api"})
    if signers:
        advice.append(
            (
                "The KMS root is the API's word, too. To have any other refused, pin it (check it first):",
                "\n".join(f"trusted-signers: 0x{signer}" for signer in signers),
            )
        )
    return advice
