"""Waiting for one CVM of a run: for what is in the way, for the update, for a start, for its containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.cloud import progress, wait
from phala_secrets.cloud.refusals import retry_after
from phala_secrets.cloud.wait import STOPPED, Patience, Seen
from phala_secrets.errors import BootError, PhalaSecretsError, untrusted
from phala_secrets.flow import Flow, ask
from phala_secrets.run.deliver import operation_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from phala_secrets.cloud.records import Accepted
    from phala_secrets.errors import ConflictError
    from phala_secrets.run.context import Run, Target


def until_free(run: Run, target: Target, patience: Patience, busy: ConflictError) -> None:
    """Follow the operation that is in the way to its end, for as long as there is patience."""

    def show(what: str) -> None:
        run.runner.say(f"{target.name}: {untrusted(what)}")

    if retry_after(busy):
        patience.missed(busy)
    run.client.run(wait.until_free(target.id, patience, show))


def for_update(run: Run, target: Target, accepted: Accepted) -> Seen:
    """Wait until the update is over, and what was asked for is up. Return what was seen at last.

    Raise BootError, and WaitTimeoutError, each saying that the update was accepted.
    """
    show = _shown(run, target)
    patience = Patience(run.job.wait_timeout)
    try:
        seen = run.client.run(
            wait.until_up(
                target.id,
                wait.by_id(accepted.correlation_id) if accepted.correlation_id else _of(accepted),
                patience.seconds,
                show,
                look=run.looks.of(target.app_id, target.id) if run.fleet else None,
                may_rest=run.job.start or target.cvm.status == STOPPED,
            )
        )
        if seen.status == STOPPED:
            patience = Patience(run.job.wait_timeout)
            seen = _start(run, target, patience)
        if run.job.wait_for == "containers":
            from phala_secrets.run import containers

            run.client.run(containers.until_up(target.id, patience, show))
    except PhalaSecretsError as error:
        what = f"the update was accepted ({accepted.correlation_id})"
        raise error.saying(f"{target.name}: {what}, but {error.marked}") from None
    target.status = "running"
    return seen


def _of(accepted: Accepted) -> wait.Pick:
    """Follow the operation that made the revision that was found."""
    revision = accepted.revision
    return lambda listed: operation_of(revision, listed) if revision else None


def _start(run: Run, target: Target, patience: Patience) -> Seen:
    """Start a CVM that is still stopped after its update, or raise what to do about it."""
    if not run.job.start:
        raise BootError(
            "the CVM is still stopped",
            hint=f"start it: start: true does so after the update, and so does phala cvms start {target.id}",
        )
    show = _shown(run, target)
    show("stopped, starting it")
    newest = run.client.run(_newest(target.id))
    run.client.run(wait.start(target.id, patience.seconds, show))
    return run.client.run(
        wait.until_up(target.id, wait.newer_than(newest), patience.seconds, show, what="the start")
    )


def _newest(cvm_id: str) -> Flow[str]:
    """Return the correlation id of the newest operation, empty where there is none."""
    listed = yield from ask(progress.operations(cvm_id))
    return listed[0].correlation_id if listed else ""


def _shown(run: Run, target: Target) -> Callable[[str], None]:
    return lambda what: run.runner.progress(
        f"{target.name}: {untrusted(what)}", cvm=run.in_fleet(target), change=True
    )
