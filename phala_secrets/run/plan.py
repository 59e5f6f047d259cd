"""What an update would change: names added, kept and removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from phala_secrets.runners.report import Table

if TYPE_CHECKING:
    from collections.abc import Sequence


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
