"""What an update would do, as far as ``plan`` can know it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.cloud import records
from phala_secrets.cloud.wait import STOPPED
from phala_secrets.errors import ApprovalRequiredError, PhalaSecretsError
from phala_secrets.run import names, reports
from phala_secrets.run.advice import advice
from phala_secrets.run.asked import approvals
from phala_secrets.runners.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable

    from phala_secrets.run.context import Run, Target

_MOST_DEVICES = 8
"""Machines of one CVM that the API is asked about."""


def refusal(run: Run, look_ahead: Callable[[], None]) -> PhalaSecretsError | None:
    """Return the error that would refuse an update, or None. Output whether it needs an approval."""
    try:
        _note_approvals(run)
        look_ahead()
    except PhalaSecretsError as error:
        return error
    if run.job.prepare_only or _can_approve(run):
        return None
    return next((_unapproved(target) for target in run.targets if target.approval_needed), None)


def _note_approvals(run: Run) -> None:
    asked: dict[tuple[str, str, tuple[str, ...]], bool | None] = {}
    for target in run.targets:
        kind = (target.app_id, target.plan.compose_hash, target.cvm.device_ids)
        if kind not in asked:
            asked[kind] = _needs_approval(run, target)
        needed = target.approval_needed = asked[kind]
        run.output_of(target, {"approval-needed": "" if needed is None else needed})


def _needs_approval(run: Run, target: Target) -> bool | None:
    """Return whether the owner has to approve something first, or None if unknown."""
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
        f"the compose hash of {target.name!a} changes, and its app's contract on chain "
        f"{target.key.chain_id} does not allow the new one yet",
        hint="set private-key and rpc-url to approve it in the update, or prepare-only: true to do it "
        "elsewhere",
    )


# -- the report ------------------------------------------------------------------------------------


def planned(run: Run, refused: PhalaSecretsError | None) -> Report:
    """Return the report of ``plan``: what an update would do, and the exit code that it would have."""
    code = refused.exit_code if refused else 0
    report = Report(f"Plan for {run.whom}: {_verdict(run, refused)} (exit code {code})", not refused)
    report.title += reports.doubt(run.targets)
    report.glance = [_restart(run, "Once that is fixed, it" if refused else "It")]
    report.names, report.names_asked_for = names.diffs(run.targets, done=False), True
    first = run.targets[0]
    report.diff = first.change.diff if first.change else []
    report.facts = reports.facts(run)
    report.facts.append(("on-chain approval", _approval(run)))
    report.advice = advice(run)
    return report


def _verdict(run: Run, refused: PhalaSecretsError | None) -> str:
    if refused:
        return "update would be refused"
    if run.job.prepare_only and run.targets[0].approval_needed:
        return "update would prepare an approval"
    return "update would go through"


def _restart(run: Run, it: str) -> str:
    whom = "the CVMs, one after another" if run.fleet else "the CVM"
    if run.fleet and run.job.max_parallel > 1:
        whom = f"the CVMs, {run.job.max_parallel} at a time"
    if run.job.prepare_only and run.targets[0].approval_needed:
        return f"{it} would change nothing yet. The update that follows restarts the CVM."
    if all(target.cvm.status == STOPPED for target in run.targets):
        return f"{it} would start {whom}." if run.job.start else f"{it} may leave the CVM stopped."
    return f"{it} would restart {whom}, even if no value is new."


def _approval(run: Run) -> str:
    target = run.targets[0]
    if not target.plan.changes_hash:
        return "not needed: compose file and names stay the same"
    if not target.key.chain_id:
        return "not needed: the app has a Cloud KMS"
    if target.approval_needed is None:
        return "needed, unless already given; rpc-url checks it"
    said = "" if run.job.policy.rpc_url else " according to the API"
    if not target.approval_needed:
        return f"already given{said}"
    return "needed; private-key gives it" if _can_approve(run) else f"needed{said}"


def _can_approve(run: Run) -> bool:
    return bool(run.job.private_key and run.job.policy.rpc_url)
