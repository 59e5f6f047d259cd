"""What an update would do, as far as that can be known without it: for ``plan``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.cloud import records
from phala_secrets.cloud.wait import STOPPED
from phala_secrets.errors import ApprovalRequiredError, PhalaSecretsError
from phala_secrets.run import names, reports
from phala_secrets.run.asked import approvals
from phala_secrets.runners.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable

    from phala_secrets.run.context import Run, Target

_MOST_DEVICES = 8
"""Machines of one CVM that the API is asked about."""


def refusal(run: Run, look_ahead: Callable[[], None]) -> PhalaSecretsError | None:
    """Return what an update would be refused with, or None. Output whether it needs an approval."""
    needed: dict[tuple[str, str, tuple[str, ...]], bool | None] = {}
    for target in run.targets:
        kind = (target.app_id, target.plan.compose_hash, target.cvm.device_ids)
        if kind not in needed:
            needed[kind] = _needs_approval(run, target)
        target.approval_needed = needed[kind]
        known = target.approval_needed is not None
        run.output_of(target, {"approval-needed": bool(target.approval_needed) if known else ""})
    try:
        look_ahead()
    except PhalaSecretsError as error:
        return error
    if run.job.prepare_only or (run.job.private_key and run.job.policy.rpc_url):
        return None
    return next((_unapproved(target) for target in run.targets if target.approval_needed), None)


def _needs_approval(run: Run, target: Target) -> bool | None:
    """Return whether the owner has to approve something first, None where nobody says so."""
    key, plan, devices = target.key, target.plan, target.cvm.device_ids
    if not key.chain_id or not plan.changes_hash:
        return False
    if not plan.compose_hash:
        return None
    if run.job.policy.rpc_url:
        today = approvals(run, target.app_id, key.chain_id, plan.compose_hash, devices)
        return not (today and today.compose_hash and devices and not today.missing_devices)
    asked = devices[:_MOST_DEVICES] or (None,)
    calls = tuple(records.is_allowed(target.app_id, plan.compose_hash, device) for device in asked)
    try:
        allowed = [run.client.send(call) for call in calls]
    except PhalaSecretsError:  # an update does not ask, so it is no reason to refuse one
        return None
    return None if None in allowed else not all(allowed)


def _unapproved(target: Target) -> ApprovalRequiredError:
    return ApprovalRequiredError(
        f"the compose hash of {target.name!a} changes, and the new one is not approved "
        f"on chain {target.key.chain_id}",
        hint="approve it in the update: private-key and rpc-url, both; "
        "or elsewhere: prepare-only: true outputs all that it takes",
    )


# -- the report ------------------------------------------------------------------------------------


def planned(run: Run, refused: PhalaSecretsError | None) -> Report:
    """Return the report of ``plan``: what an update would do, and the exit code that it would have."""
    code = refused.exit_code if refused else 0
    report = Report(f"Plan for {run.whom}: {_verdict(run, refused)} (exit code {code})", not refused)
    report.title += reports.doubt(run.targets)
    if not refused:
        report.glance = [_restart(run)]
    report.names, report.names_asked_for = names.diffs(run.targets, done=False), True
    first = run.targets[0]
    report.diff = first.change.diff if first.change else []
    report.facts = reports.facts(run)
    report.facts.append(("approval on chain", _approval(run)))
    return reports.with_advice(report, run.targets)


def _verdict(run: Run, refused: PhalaSecretsError | None) -> str:
    if refused:
        return "update would be refused"
    if run.job.prepare_only and run.targets[0].approval_needed:
        return "update would prepare an approval"
    return "update would go through"


def _restart(run: Run) -> str:
    whom = "the CVMs, one after another" if run.fleet else "the CVM"
    if run.fleet and run.job.max_parallel > 1:
        whom = f"the CVMs, {run.job.max_parallel} at a time"
    if run.job.prepare_only and run.targets[0].approval_needed:
        return "It would change nothing yet. The update that follows restarts the CVM."
    if all(target.cvm.status == STOPPED for target in run.targets):
        return f"It would start {whom}." if run.job.start else "It may leave the CVM stopped."
    return f"It would restart {whom}, whether or not a value is new."


def _approval(run: Run) -> str:
    target = run.targets[0]
    if not target.plan.changes_hash:
        return "not needed: compose file and names stay the same"
    if not target.key.chain_id:
        return "not needed: the app is of the Cloud KMS"
    if target.approval_needed is None:
        return "needed, unless it was given before: rpc-url checks it"
    return "needed" if target.approval_needed else "given already"
