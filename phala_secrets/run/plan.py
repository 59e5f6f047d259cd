"""What an update would change: names added, kept and removed, and the compose file."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from phala_secrets.dstack.compose_hash import hash_with

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phala_secrets.cloud.records import Compose
    from phala_secrets.runners.files import Value


class Change(NamedTuple):
    """The compose file that a CVM is to have, and the one that it has, None where that is not known.

    ``keeps_secrets`` is whether the environment and its names stay as they are.
    """

    text: str
    before: str | None
    keeps_secrets: bool

    @property
    def changes(self) -> bool:
        """Whether the file is another one, and with it the compose hash."""
        return self.text != self.before

    @property
    def diff(self) -> list[str]:
        """What changes, line by line."""
        from phala_secrets.dstack.line_diff import line_diff

        return line_diff(self.before or "", self.text)


class Plan(NamedTuple):
    """The names that a CVM has today, compared with the new ones."""

    today: tuple[str, ...]
    names: tuple[str, ...]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    previous_hash: str
    compose_hash: str
    changes_file: bool = False
    """Whether the compose file is another one."""

    @property
    def kept(self) -> tuple[str, ...]:
        """The names that stay."""
        return tuple(name for name in self.names if name not in self.added)

    @property
    def changes_hash(self) -> bool:
        """Whether what is measured changes."""
        return self.changes_names or self.changes_file

    @property
    def reordered(self) -> bool:
        """Whether the names stay, but in another order, which is another compose hash."""
        return self.changes_names and not self.added and not self.removed

    @property
    def changes_names(self) -> bool:
        """Whether the names change, or their order, and with them the compose hash."""
        return self.names != self.today

    @property
    def outputs(self) -> dict[str, Value]:
        """What it changes, as outputs."""
        return {
            "keys-added": list(self.added),
            "keys-removed": list(self.removed),
            "allowed-envs-changed": self.changes_names,
            "previous-compose-hash": self.previous_hash,
            "compose-hash": self.compose_hash,
        }


def compare(
    today: Sequence[str],
    names: Sequence[str],
    previous_hash: str = "",
    compose: Compose | None = None,
    *,
    changes_file: bool = False,
) -> Plan:
    """Return the plan for a CVM that has the names ``today`` and is to have ``names``, both in order.

    ``previous_hash`` is its compose hash of today, and ``compose`` has the compose file that it is to have,
    which is another one where ``changes_file``. The hash to come is empty where today's app-compose
    cannot be shown to have today's hash.
    """
    compose_hash = previous_hash if tuple(today) == tuple(names) and not changes_file else ""
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
        changes_file=changes_file,
    )
