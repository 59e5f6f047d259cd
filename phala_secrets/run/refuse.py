"""What stands in the way of an update, as far as it can be known before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.cloud.wait import STOPPED
from phala_secrets.errors import DeliveryError, Finding, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phala_secrets.run.context import Run, Target


_LISTED = 20
"""Names in a message."""


def refuse_removal(targets: Sequence[Target]) -> None:
    """Raise DeliveryError when variables that a CVM has today would be dropped."""
    dropping = [target for target in targets if target.plan.removed]
    if not dropping:
        return
    first, removed = dropping[0], dropping[0].plan.removed
    others = f" (and {len(dropping) - 1} more CVMs would lose variables)" if len(dropping) > 1 else ""
    names = ", ".join(removed[:_LISTED]) + (" …" if len(removed) > _LISTED else "")
    count = f"{len(removed)} variables" if len(removed) > 1 else "a variable"
    raise DeliveryError(
        f"the update would drop {count} of {first.name!a}: {names}{others}",
        hint="an update replaces the whole set: give them too, or set allow-removal: true",
    )


def refuse_new_removal(target: Target, first: Sequence[str]) -> None:
    """Raise DeliveryError when a plan that was made again drops more than the ``first`` one did.

    Nobody has agreed to that, whatever ``allow-removal`` says.
    """
    new = [name for name in target.plan.removed if name not in first]
    if new:
        count = f"{len(new)} variables" if len(new) > 1 else "a variable"
        raise DeliveryError(
            f"another operation gave {count} to {target.name!a} meanwhile, which the update would drop: "
            + ", ".join(new[:_LISTED]),
            hint="give them too, or run again: then allow-removal decides",
        )


def refuse_start(run: Run) -> None:
    """Raise InputError for a start that nobody would wait to make."""
    if run.job.start and not run.job.wait:
        raise InputError(
            "start is true, but wait is false, so nobody sees whether the CVM is still stopped",
            hint="leave out `wait: false`, or start the CVM yourself",
        )


def warn_of_stopped(run: Run, targets: Sequence[Target]) -> None:
    """Report the CVMs that are stopped: it is not known whether an update starts one."""
    for target in targets:
        if target.cvm.status == STOPPED:
            hint = "start: true starts it after the update, if it is still stopped then"
            if run.job.start:
                hint = "it is started after the update, if it is still stopped then"
            run.tell(Finding(f"{target.name} is stopped, and an update may leave it so", hint))


def warn_of_workspace(run: Run) -> None:
    """Report that a job without an API key finds its CVM by a name that any workspace may have given one.

    Whoever trusts a repository gets its jobs, and the key of a stranger's CVM is a genuine one.
    """
    if run.job.login.anywhere and any(target.named for target in run.targets):
        run.tell(
            Finding(
                "without an API key, any workspace that trusts this repository may have a CVM of this name",
                "give app-id, or workspace",
            )
        )


def refuse_several(run: Run) -> None:
    """Raise InputError for CVMs of several apps with one ciphertext, and for several with one approval.

    A ciphertext is for one app's key, and what is prepared for one CVM, which its digest names.
    """
    job, apps = run.job, len(run.keys)
    if apps > 1 and (job.prepared or job.mode == "encrypt"):
        raise InputError(
            f"encrypted-env is for the key of one app, but these CVMs are of {apps}",
            hint="give the CVMs of one app alone",
        )
    by_approval = job.prepare_only or (job.prepared and job.prepared.compose_hash)
    if run.fleet and by_approval and any(key.chain_id for key in run.keys.values()):
        raise InputError(
            f"an approval is prepared, and committed, for one CVM: {len(run.targets)} are given",
            hint="run once for each, as a matrix over the CVMs does",
        )
