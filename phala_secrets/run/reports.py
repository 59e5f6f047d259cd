"""What a run has to say when it is over: names, counts, what vouches for the key, what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.runners.report import Report, Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from phala_secrets.cloud.trust import ProvenKey
    from phala_secrets.run.approve import Preparation
    from phala_secrets.run.find import Target
    from phala_secrets.run.fleet import Row
    from phala_secrets.run.plan import Plan

_VOUCHERS = {
    "pinned": "pinned: the signer is in trusted-signers",
    "chain": "chain: the signer is the root in the KMS contract, as rpc-url says",
    "api": "api: the signer is the root that Phala Cloud's API publishes",
}


def proof_line(key: ProvenKey) -> str:
    """One line about a proven key."""
    how = "" if key.proof.version == "v1" else " (its signature has no date)"
    return f"key of the app {key.app_id} is signed by the KMS root {key.signer}{how}; {_VOUCHERS[key.trust]}"


def told(
    status: str, targets: Sequence[Target], plans: Sequence[Plan], keys: Mapping[str, ProvenKey]
) -> Report:
    """The report of ``verify``, ``encrypt`` and ``plan``, which change nothing."""
    report = Report(
        {"verified": "Key proven", "encrypted": "Encrypted", "planned": "Plan"}.get(status, status)
    )
    report.facts = _facts(targets, keys)
    if status == "planned":
        report.tables = [plan.table() for plan in plans[:1]]
        report.facts += _changes(plans[0], keys[plans[0].target.app_id])
        if len(plans) > 1:
            report.tables.append(_differences(plans))
    report.advice = _advice(targets, keys)
    return report


def updated(rows: Sequence[Row], keys: Mapping[str, ProvenKey]) -> Report:
    """The report of ``update``."""
    statuses = tuple({row.status for row in rows})
    titles: dict[tuple[str, ...], str] = {
        ("running",): "Delivered: the CVM runs with the new environment",
        ("in_progress",): "Accepted: the CVM is restarting with the new environment",
    }
    title = titles.get(statuses, "Updated")
    if len(rows) > 1:
        done = sum(row.status != "failed" for row in rows)
        title = f"{done} of {len(rows)} CVMs updated"
    targets = [row.target for row in rows]
    report = Report(title, facts=_facts(targets, keys))
    report.facts += _changes(rows[0].plan, None)
    if len(rows) == 1 and rows[0].correlation_id:
        report.facts.append(("operation", rows[0].correlation_id))
    if len(rows) == 1 and rows[0].approval:
        transaction = rows[0].approval.transaction_hash
        report.facts.append(("approval", transaction))
        report.links = _transaction(transaction, keys[targets[0].app_id])
    if len(rows) > 1:
        cells = [(row.target.cvm.name, row.status, row.remark) for row in rows]
        report.tables.append(Table(("CVM", "status", "error"), cells))
    report.advice = _advice(targets, keys)
    return report


def _transaction(transaction: str, key: ProvenKey) -> list[tuple[str, str]]:
    from phala_secrets.chain.networks import transaction_link

    link = transaction_link(key.chain_id or 0, transaction) if transaction.startswith("0x") else None
    return [("The approval in the explorer", link)] if link else []


def prepared(plan: Plan, key: ProvenKey, preparation: Preparation) -> Report:
    """The report of ``prepare-only``: for those who approve."""
    from phala_secrets.chain.networks import chain_name

    asked, outputs = preparation.asked, preparation.outputs
    report = Report("Prepared: an approval on chain is needed")
    report.facts = _facts([plan.target], {key.app_id: key})
    report.facts += [
        ("chain", chain_name(asked.chain_id)),
        ("app contract", f"0x{asked.app_id}"),
        ("compose hash", f"0x{asked.compose_hash}"),
        ("device", f"0x{asked.device_id}" if asked.device_id else "not named"),
        ("digest", outputs["prepared-digest"]),
    ]
    report.facts += _changes(plan, None)
    if preparation.explorer:
        report.links = [("The app's contract in the explorer", preparation.explorer)]
    added = "addDevice and then addComposeHash" if preparation.device else "addComposeHash"
    approve = (
        f"1. The app's owner approves: a Safe imports the output safe-transaction ({added}), "
        "a wallet sends this calldata to the app contract with value 0:"
    )
    compare = (
        "2. Whoever approves compares hash and device with those above, and passes the digest on, "
        "apart from the ciphertext:"
    )
    commit = (
        "3. Within 14 days another run commits this very ciphertext: encrypted-env, env-keys, "
        "compose-hash, transaction-hash and prepared-digest."
    )
    report.advice = [
        (approve, outputs["calldata"]),
        (compare, f"prepared-digest: {outputs['prepared-digest']}"),
        (commit, ""),
    ]
    report.advice += [(remark, "") for remark in asked.remarks]
    report.advice += _advice([plan.target], {key.app_id: key})
    return report


def _facts(targets: Sequence[Target], keys: Mapping[str, ProvenKey]) -> list[tuple[str, str]]:
    facts = [("CVM", targets[0].cvm.name if len(targets) == 1 else f"{len(targets)} CVMs")]
    for app_id, key in keys.items():
        facts += [
            ("app", app_id),
            ("KMS", key.kms),
            ("KMS root", key.signer),
            ("trust", _VOUCHERS[key.trust]),
        ]
    return facts


def _changes(plan: Plan, key: ProvenKey | None) -> list[tuple[str, str]]:
    facts = [("variables", str(len(plan.names)))]
    facts += [("added", ", ".join(plan.added))] if plan.added else []
    facts += [("removed", ", ".join(plan.removed))] if plan.removed else []
    if key:
        needed = "not needed: the names stay the same"
        if plan.changes_names:
            needed = (
                "needed, unless it was given before" if key.chain_id else "not needed: the KMS is central"
            )
        facts.append(("approval on chain", needed))
    return facts


def _differences(plans: Sequence[Plan]) -> Table:
    rows = [(plan.target.cvm.name, str(len(plan.added)), str(len(plan.removed))) for plan in plans]
    return Table(("CVM", "added", "removed"), rows)


def _advice(targets: Sequence[Target], keys: Mapping[str, ProvenKey]) -> list[tuple[str, str]]:
    advice = []
    named = next((target for target in targets if target.named), None)
    if named:
        advice.append(
            (
                "Which app this CVM belongs to is the API's word. To have any other refused, add:",
                f"app-id: {named.app_id}",
            )
        )
    signers = sorted({key.signer for key in keys.values() if key.trust == "api"})
    if signers:
        advice.append(
            (
                "The KMS root is the API's word, too. To have any other refused, pin it (check it first):",
                "\n".join(f"trusted-signers: 0x{signer}" for signer in signers),
            )
        )
    return advice
