"""What an update would change: names added, kept, removed, missing, unused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from phala_secrets.errors import DeliveryError, Finding
from phala_secrets.runners.report import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phala_secrets.run.find import Target


@dataclass(frozen=True, slots=True)
class Plan:
    """The names that a CVM has today against those that are given."""

    target: Target
    names: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def kept(self) -> tuple[str, ...]:
        """The names that stay."""
        return tuple(name for name in self.names if name not in self.added)

    @property
    def changes_names(self) -> bool:
        """Whether the set of names changes, and with it the compose hash."""
        return bool(self.added or self.removed)

    def table(self) -> Table:
        """The plan as people read it."""
        rows = [("add", name) for name in self.added]
        rows += [("keep", name) for name in self.kept]
        rows += [("remove", name) for name in self.removed]
        return Table(("", "name"), rows)


def compare(target: Target, names: Sequence[str]) -> Plan:
    """The plan for one CVM; remarks on its compose file are findings of it."""
    compose = target.compose
    today = (compose.allowed_envs or ()) if compose else ()
    return Plan(
        target=target,
        names=tuple(names),
        added=tuple(name for name in names if name not in today),
        removed=tuple(name for name in today if name not in names),
        findings=tuple(_remarks(target, names)),
    )


def _remarks(target: Target, names: Sequence[str]) -> list[Finding]:
    from phala_secrets.dstack.compose_refs import missing_and_unused, mutable_images, references
    from phala_secrets.dstack.pre_launch import root_access

    if not target.compose:
        return []
    refs = references(target.compose.content)
    unasked = root_access(target.compose.allowed_envs or (), names)
    return [*missing_and_unused(refs, names), *mutable_images(refs), *([unasked] if unasked else [])]


def refuse_removal(plans: Sequence[Plan]) -> None:
    """DeliveryError when variables that a CVM has today would be dropped."""
    dropping = [plan for plan in plans if plan.removed]
    if not dropping:
        return
    plan = dropping[0]
    others = f" (and {len(dropping) - 1} more CVMs would lose variables)" if len(dropping) > 1 else ""
    names = ", ".join(plan.removed[:20]) + (" …" if len(plan.removed) > 20 else "")
    count = f"{len(plan.removed)} variables" if len(plan.removed) > 1 else "a variable"
    raise DeliveryError(
        f"the update would drop {count} of {plan.target.cvm.name!a}: {names}{others}",
        hint="an update replaces the whole set: give them too, or set allow-removal: true",
    )
