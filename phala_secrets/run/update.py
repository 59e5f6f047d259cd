"""Carrying the plans out: each CVM's update, the approval if it takes one, the wait, and how it all ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.cloud import records
from phala_secrets.cloud.records import Accepted, Precondition
from phala_secrets.cloud.refusals import is_busy
from phala_secrets.cloud.wait import Patience
from phala_secrets.errors import ApprovalRefusedError, ConflictError, Finding, PhalaSecretsError
from phala_secrets.run import prepare, reports, wait
from phala_secrets.run.aftermath import look
from phala_secrets.run.approve import again, obtain
from phala_secrets.run.compose import confirm, is_approved, outgoing, with_way_back
from phala_secrets.run.context import Approval
from phala_secrets.run.deliver import confirm_commit, deliver
from phala_secrets.run.fleet import work_through
from phala_secrets.runners.live import on_clock

if TYPE_CHECKING:
    from phala_secrets.run.context import Run, Target

_LAST_LOOK = 5.0
"""Seconds for looking at the CVM again after a wait that has failed already."""

_READING = 60.0
"""Seconds for that otherwise: the update is done, and a job should end."""


_NOT_ATTESTED, _BEFORE_8 = 9, 7.5
"""A CVM that did not come up (8) is worse than one that runs and was not attested (9)."""


def update_all(run: Run) -> None:
    """Update every CVM, and wait. Raise the worst error."""
    job, runner = run.job, run.runner
    try:
        with runner.group("The update"):
            work_through(
                run.targets,
                lambda target: _work(run, target),
                at_once=job.max_parallel,
                fail_fast=job.fail_fast,
            )
    except KeyboardInterrupt:
        for target in run.targets:
            target.interrupt()
        raise
    finally:
        run.output("status", run.targets[0].status)
        if run.fleet:
            run.output("results", [target.as_output(runner.clean) for target in run.targets])
    _look_for_newcomers(run)
    _close(run)


# -- one CVM ---------------------------------------------------------------------------------------


def _work(run: Run, target: Target) -> None:
    """Update one CVM. In a fleet it has a line of its own in a log."""
    try:
        _update(run, target)
    except PhalaSecretsError as error:
        _done(run, target, f"failed (exit code {error.exit_code})")
        raise
    done = sum(other.stage == "over" for other in run.targets)
    _done(run, target, f"{target.status} ({done} of {len(run.targets)})")


def _update(run: Run, target: Target) -> None:
    """Send the update, however long another operation is in the way, and wait for it."""
    result = _send_when_free(run, target)
    if result is None:
        return
    _accepted(run, target, result)
    try:
        run.client.run(confirm_commit(target, result))
        seen = wait.for_update(run, target, result) if run.job.wait else None
    except PhalaSecretsError as error:
        run.client.run(look(run, target, _LAST_LOOK))
        raise with_way_back(run, target, error, _LAST_LOOK) from None
    run.client.run(look(run, target, _READING, seen))
    try:
        run.client.run(confirm(target, _READING))
    except PhalaSecretsError as error:
        raise with_way_back(run, target, error, _LAST_LOOK) from None
    target.stage = "over"
    if run.job.attest:
        from phala_secrets.run import attest

        try:
            attest.after(run, target)
        except PhalaSecretsError as error:
            raise with_way_back(run, target, error, _LAST_LOOK) from None


def _send_when_free(run: Run, target: Target) -> Accepted | None:
    """Send the update; while another operation is in the way, follow that to its end, and begin again."""
    patience: Patience | None = None
    while True:
        try:
            return _send(run, target)
        except ConflictError as error:
            if not is_busy(error):
                raise
            if patience is None:
                patience = Patience(run.job.wait_timeout)
                limit = on_clock(patience.seconds)
                run.runner.say(
                    f"{target.name} is busy with another operation: waiting up to {limit} min for its end"
                )
            if patience.left <= 0:
                raise error.saying(
                    f"{target.name} is still busy after {patience.seconds:.0f} s, "
                    f"so nothing was sent: {error.marked}"
                ) from None
            wait.until_free(run, target, patience, error)
            prepare.begin_again(run, target)


def _send(run: Run, target: Target) -> Accepted | None:
    """Send the update, and get an approval if it takes one; None where that was prepared for others."""
    result = _deliver(run, target)
    if isinstance(result, Precondition):
        target.stage = "waiting"
        target.asked = target.approval_needed = True
        run.output_of(target, {"approval-needed": True})
        if not is_approved(target, result):
            target.approval = _approve(run, target, result)
        if not target.approval:
            return None
        result = _deliver(run, target)
    if isinstance(result, Precondition):
        raise ApprovalRefusedError(
            "Phala Cloud asks again for the approval that it has just been shown",
            status_code=465,
            hint="run again later: nothing that is approved by then is sent again",
        )
    return result


def _deliver(run: Run, target: Target) -> Accepted | Precondition:
    """Send the update once. Approve once more where the service wants an older approval's transaction."""
    if run.job.attest:
        from phala_secrets.run import attest

        attest.before(run, target)
    prepared = run.job.prepared is not None
    try:
        return run.client.run(deliver(target, outgoing(run, target), run.tell, prepared=prepared))
    except ApprovalRefusedError as refused:
        if not (target.approval and target.approval.made_before):
            raise
        target.approval = again(run, target, refused)
        return run.client.run(deliver(target, outgoing(run, target), run.tell, prepared=prepared))


def _approve(run: Run, target: Target, asked: Precondition) -> Approval | None:
    """Return the approval to commit with, or None where it was prepared for others to give."""
    got = obtain(run, target, asked)
    if isinstance(got, Approval):
        return got
    target.status, target.stage = "precondition_required", "over"
    run.report(reports.prepared(run, target, got))
    return None


def _accepted(run: Run, target: Target, result: Accepted) -> None:
    target.stage, target.status, target.correlation_id = "accepted", "in_progress", result.correlation_id
    run.output_of(target, {"correlation-id": result.correlation_id, "status": "in_progress"})
    run.output_of(target, {"approval-needed": target.asked})
    if result.allowed_envs_changed is not None:
        run.output_of(target, {"allowed-envs-changed": result.allowed_envs_changed})
    if not run.fleet or not run.job.wait:
        operation = result.correlation_id or "its operation does not show yet"
        run.runner.say(f"{target.name}: update accepted ({operation})")


def _done(run: Run, target: Target, became: str) -> None:
    """Say the one line that each CVM of a fleet has in a log."""
    if cvm := run.in_fleet(target):
        run.runner.progress("", cvm=cvm)
        run.runner.say(f"{target.name}: {became}")


# -- the end ---------------------------------------------------------------------------------------


def _look_for_newcomers(run: Run) -> None:
    """With ``app``, name each replica that came meanwhile and was not reached."""
    if not run.job.app:
        return
    known = {target.id for target in run.targets}
    try:
        now = run.client.send(records.app_cvms(run.job.app))
    except PhalaSecretsError as error:  # what became of the others is still to be told
        run.runner.tell(
            Finding(f"replicas that came meanwhile could not be looked for: {error.marked}", "run again")
        )
        return
    for cvm in now:
        if cvm.id not in known:
            run.runner.tell(
                Finding(f"the CVM {cvm.name} ({cvm.id}) came meanwhile and was not updated", "run again")
            )


def _close(run: Run) -> None:
    """Report what was done, or raise the worst error after all the others were named."""
    failed = [target for target in run.targets if target.error]
    prepared = [target.status for target in run.targets] == ["precondition_required"]
    if not failed:
        if not prepared:
            run.report(reports.updated(run))
        return
    worst = max(failed, key=_badness)
    for target in failed:
        if target is not worst and target.error:
            run.runner.tell(
                Finding(f"{target.name}: {target.error.marked}", target.error.marked_hint, severity="error")
            )
    if worst.error:
        raise worst.error


def _badness(target: Target) -> float:
    return _BEFORE_8 if target.exit_code == _NOT_ATTESTED else target.exit_code
