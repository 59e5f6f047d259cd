"""Wait for one CVM of a run: for another operation, the update, a start, its containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.cloud import progress, wait
from phala_secrets.cloud.refusals import retry_after
from phala_secrets.cloud.wait import STOPPED, Patience, Seen
from phala_secrets.errors import BootError, PhalaSecretsError, WaitTimeoutError, untrusted
from phala_secrets.flow import Flow, ask
from phala_secrets.run.deliver import operation_of
from phala_secrets.runners.live import Doing

if TYPE_CHECKING:
    from collections.abc import Callable

    from phala_secrets.cloud.records import Accepted
    from phala_secrets.errors import ConflictError
    from phala_secrets.run.context import Run, Target


_GO_ON = "; go on waiting with `mode: wait`"


def until_free(run: Run, target: Target, patience: Patience, busy: ConflictError) -> None:
    """Follow the operation that is in the way to its end, for as long as there is patience."""
    if retry_after(busy):
        patience.missed(busy)
    run.client.run(wait.until_free(target.id, patience, shown(run, target, patience, change=False)))


def for_update(run: Run, target: Target, accepted: Accepted) -> Seen:
    """Wait until the update is over, and what was asked for is up. Return what was seen at last.

    Raise BootError, and WaitTimeoutError, each saying that the update was accepted.
    """
    patience = Patience(run.job.wait_timeout)
    show = shown(run, target, patience)
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

            show = shown(run, target, patience)
            run.client.run(containers.until_up(target.id, patience, show))
    except PhalaSecretsError as error:
        operation = f" ({accepted.correlation_id})" if accepted.correlation_id else ""
        what = f"the update was accepted{operation}"
        hint = error.marked_hint + (_GO_ON if isinstance(error, WaitTimeoutError) else "")
        raise error.saying(f"{target.name}: {what}, but {error.marked}", hint=hint) from None
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
            hint=f"set start: true, or start it yourself: phala cvms start {target.id}",
        )
    show = shown(run, target, patience)
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


def shown(run: Run, target: Target, patience: Patience, *, change: bool = True) -> Callable[[str], None]:
    """Return what shows how a wait goes, with its clock. A ``change`` is one of a server's own time."""
    doing = Doing("", patience.began, patience.seconds)

    def show(what: str) -> None:
        text = f"{run.place(target)}  {untrusted(what)}"
        run.runner.progress(text, cvm=run.in_fleet(target), change=change, doing=doing)

    return show
