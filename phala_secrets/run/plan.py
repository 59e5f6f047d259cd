"""What an update would change: names added, kept and removed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from phala_secrets.dstack.compose_hash import hash_with
from phala_secrets.runners.report import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phala_secrets.cloud.records import Compose


@dataclass(frozen=True, slots=True)
class Plan:
    """The names that a CVM has today against those that are given."""

    today: tuple[str, ...]
    names: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    previous_hash: str
    compose_hash: str

    @property
    def kept(self) -> tuple[str, ...]:
        """The names that stay."""
        return tuple(name for name in self.names if name not in self.added)

    @property
    def reordered(self) -> bool:
        """Whether the names stay, but in another order, which is another compose hash."""
        return self.changes_names and not self.added and not self.removed

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


def compare(
    today: Sequence[str], names: Sequence[str], previous_hash: str = "", compose: Compose | None = None
) -> Plan:
    """Return the plan for a CVM that has the names ``today`` and is to have ``names``, both in order.

    ``previous_hash`` is its compose hash of today. The one to come is empty where today's app-compose
    cannot be shown to have that hash.
    """
    compose_hash = previous_hash if tuple(today) == tuple(names) else ""
    if not compose_hash and compose and compose.form:
        compose_hash = hash_with(compose.content, names, compose.form)
    before, after = set(today), set(names)
    return Plan(
        today=tuple(today),
        names=tuple(names),
        added=tuple(name for name in names if name not in before),
        removed=tuple(name for name in today if name not in after),
        previous_hash=previous_hash,
        compose_hash=compose_hash,
    )
