"""The check of what a change by the library drops: nothing without ``allow_removal``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from phala_secrets.errors import DeliveryError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from phala_secrets.dstack.environment import Environment

_LISTED = 20
"""Names in a message."""


class Removal:
    """``allow_removal`` of one change, which may be prepared more than once.

    Raise InputError unless it is a bool or "all" and comes with ``envs``.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        allowed = arguments.get("allow_removal")
        if allowed is not None and not isinstance(allowed, bool) and allowed != "all":
            raise InputError("invalid allow_removal", hint="use True, False or 'all'")
        if allowed is not None and "envs" not in arguments:
            raise InputError(
                "allow_removal without envs",
                hint="leave it out: a ciphertext is sent with its own names",
            )
        self._allowed = allowed
        self._agreed: frozenset[str] | None = None

    def check_given(self, environment: Environment) -> None:
        """Raise InputError for an empty ``envs`` without "all"."""
        if not environment.names and self._allowed != "all":
            raise InputError("envs is empty", hint='pass variables, or allow_removal="all" to drop them all')

    def check(self, name: str, today: Iterable[str], environment: Environment) -> None:
        """Raise DeliveryError where a CVM that has the names ``today`` would lose one.

        Never drop what another operation added since the first call: nobody has agreed to that.
        """
        removed = [one for one in today if one not in environment]
        if removed and not self._allowed:
            raise DeliveryError(
                f"the update would drop {_counted(removed)} of {name!a}: {_listed(removed)}",
                hint="pass them too, or allow_removal=True: an update replaces the whole set",
            )
        new = [one for one in removed if self._agreed is not None and one not in self._agreed]
        if new:
            raise DeliveryError(
                f"another operation gave {_counted(new)} to {name!a} meanwhile, "
                f"which the update would drop: {_listed(new)}",
                hint="pass them too, or call again",
            )
        self._agreed = frozenset(removed)


def _counted(names: list[str]) -> str:
    return f"{len(names)} variables" if len(names) > 1 else "a variable"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_LISTED]) + (" …" if len(names) > _LISTED else "")
