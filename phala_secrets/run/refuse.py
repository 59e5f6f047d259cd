"""What stands in the way of an update, as far as it can be known before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.errors import DeliveryError, InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phala_secrets.run.context import Run, Target


def refuse_removal(targets: Sequence[Target]) -> None:
    """Raise DeliveryError when variables that a CVM has today would be dropped."""
    dropping = [target for target in targets if target.plan.removed]
    if not dropping:
        return
    first, removed = dropping[0], dropping[0].plan.removed
    others = f" (and {len(dropping) - 1} more CVMs would lose variables)" if len(dropping) > 1 else ""
    names = ", ".join(removed[:20]) + (" …" if len(removed) > 20 else "")
    count = f"{len(removed)} variables" if len(removed) > 1 else "a variable"
    raise DeliveryError(
        f"the update would drop {count} of {first.name!a}: {names}{others}",
        hint="an update replaces the whole set: give them too, or set allow-removal: true",
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
