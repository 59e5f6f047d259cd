"""What an update would change: names added, kept and removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from phala_secrets.errors import DeliveryError, InputError
from phala_secrets.runners.report import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phala_secrets.run.context import Run, Target


@dataclass(frozen=True, slots=True)
class Plan:
    """The names that a CVM has today against those that are given."""

    today: tuple[str, ...]
    names: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def kept(self) -> tuple[str, ...]:
        """The names that stay."""
        return tuple(name for name in self.names if name not in self.added)

    @property
    def changes_names(self) -> bool:
        """Whether the names change, or their order, and with them the compose hash."""
        return self.names != self.today

    def table(self) -> Table:
        """The plan as people read it."""
        rows = [("add", name) for name in self.added]
        rows += [("keep", name) for name in self.kept]
        rows += [("remove", name) for name in self.removed]
        return Table(("", "name"), rows)


def compare(today: Sequence[str], names: Sequence[str]) -> Plan:
    """Return the plan for a CVM that has the names ``today`` and is to have ``names``, both in order."""
    return Plan(
        today=tuple(today),
        names=tuple(names),
        added=tuple(name for name in names if name not in today),
        removed=tuple(name for name in today if name not in names),
    )


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
