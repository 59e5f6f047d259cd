"""Follow the operation in progress, such as one whose run was interrupted or timed out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.cloud import progress, records
from phala_secrets.cloud import wait as waiting
from phala_secrets.cloud.progress import Operation
from phala_secrets.cloud.wait import STOPPED, Patience
from phala_secrets.errors import BootError, Finding, PhalaSecretsError, untrusted
from phala_secrets.flow import ask
from phala_secrets.run import containers, find
from phala_secrets.run.fleet import work_through
from phala_secrets.run.wait import shown
from phala_secrets.runners.report import Id, Report, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phala_secrets.run.context import Run, Target

_AT_ONCE = 64
"""CVMs that are followed at once: waiting is no work."""


def follow(run: Run) -> None:
    """Wait until the operation of each CVM is over and the CVM runs. Raise the worst error.

    If none is in progress, follow the newest one: it may have ended since.
    """
    run.targets, _ = run.client.run(find.find(run.job))
    first = run.targets[0]
    run.output_of(first, first.outputs)
    try:
        work_through(run.targets, lambda one: _follow(run, one), at_once=_AT_ONCE, fail_fast=False)
    finally:
        run.output("status", first.status)
        run.output_of(first, {"correlation-id": first.correlation_id})
        if run.fleet:
            run.output("results", [target.as_output(run.runner.clean) for target in run.targets])
    _close(run)


def _follow(run: Run, target: Target) -> None:
    operation = _pick(run.client.run(ask(progress.operations(target.id))))
    if operation and not operation.over:
        run.runner.say(f"{target.name}: following {untrusted(waiting.in_words(operation))}")
    pick = waiting.by_id(operation.correlation_id) if operation else _over
    patience = Patience(run.job.wait_timeout)
    show = shown(run, target, patience)
    try:
        seen = run.client.run(
            waiting.until_up(
                target.id,
                pick,
                patience.seconds,
                show,
                look=run.looks.of(target.app_id, target.id) if run.fleet else None,
                may_rest=True,
                what=f"the operation {operation.correlation_id}" if operation else "the boot",
            )
        )
        if seen.status == STOPPED:
            raise BootError("the CVM is stopped", hint=f"start it: phala cvms start {target.id}")
        if run.job.wait_for == "containers":
            run.client.run(containers.until_up(target.id, patience, show))
    except PhalaSecretsError as error:
        raise error.saying(f"{target.name}: {error.marked}") from None
    finally:
        target.correlation_id = operation.correlation_id if operation else ""
        if cvm := run.in_fleet(target):
            run.runner.progress("", cvm=cvm)
    target.status, target.stage = "running", "over"
    if run.fleet:
        run.runner.say(f"{target.name}: running")
    target.cvm = run.client.run(ask(records.cvm(target.id)))
    run.output_of(target, target.outputs)


def _pick(listed: tuple[Operation, ...]) -> Operation | None:
    """Return the operation that runs, or else the newest one."""
    under_way = (one for one in listed if not one.over)
    return next(under_way, listed[0] if listed else None)


def _over(_listed: Sequence[Operation]) -> Operation:
    """Follow nothing: with no operation at all, the boot is all there is to wait for."""
    return Operation("", "completed", "")


def _close(run: Run) -> None:
    """Report that all of them run, or raise the worst error after the others were named."""
    failed = [target for target in run.targets if target.error]
    if not failed:
        run.report(_report(run))
        return
    worst = max(failed, key=lambda target: target.exit_code)
    for target in failed:
        if target is not worst and target.error:
            run.tell(Finding(target.error.marked, target.error.marked_hint, severity="error"))
    if worst.error:
        raise worst.error


def _report(run: Run) -> Report:
    if run.fleet:
        rows = [(Id(one.name), one.status, Id(one.correlation_id or "none")) for one in run.targets]
        return Report(
            f"{len(rows)} CVMs are running", tables=[Table(("CVM", "status", "last operation"), rows)]
        )
    only = run.targets[0]
    return Report(f"{only.name} is running", facts=[("last operation", Id(only.correlation_id or "none"))])
