"""What is to reach the guest: variables in order, each with where it came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from phala_secrets.errors import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator


class Origin(NamedTuple):
    """Where a variable came from; ``file`` is as the user wrote it, ``line`` counts from 1."""

    label: str
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        return self.label if self.line is None else f"{self.label}, line {self.line}"


class Variable(NamedTuple):
    """One variable of the environment, its value as it is to reach the guest.

    ``given`` is the text that the source had, where ``value`` is its base64.
    """

    name: str
    value: str
    origin: Origin
    given: str = ""

    def __repr__(self) -> str:
        return f"Variable({self.name!r}, {self.origin})"

    def finding(self, problem: str, hint: str, severity: Literal["error", "warning"] = "error") -> Finding:
        """Return what is wrong with this variable: its name and origin, and ``problem`` behind them."""
        origin = self.origin
        message = f"{self.name} ({origin}) {problem}"
        return Finding(message, hint, origin.file, origin.line, severity, self.name, str(origin))

    def misnamed(self, problem: str) -> Finding:
        """Return what is wrong with its name, and how an app gets the value under this name all the same."""
        name = self.name
        hint = f"Call it APP_{name}, and hand it on in the compose file as `{name}: ${{APP_{name}}}`."
        return self.finding(problem, hint)


@dataclass(frozen=True, slots=True, repr=False)
class Environment:
    """Variables in order, each name once. Iterates over its variables; its representation has names only."""

    variables: tuple[Variable, ...] = ()
    _by_name: dict[str, Variable] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        by_name = {variable.name: variable for variable in self.variables}
        if len(by_name) != len(self.variables):
            raise ValueError("a name appears twice")
        object.__setattr__(self, "_by_name", by_name)

    @property
    def names(self) -> list[str]:
        return list(self._by_name)

    def as_dict(self) -> dict[str, str]:
        return {variable.name: variable.value for variable in self.variables}

    def secrets(self) -> list[str]:
        """All that has to be masked: the values, and what they encode."""
        return [text for variable in self.variables for text in (variable.value, variable.given) if text]

    def __iter__(self) -> Iterator[Variable]:
        return iter(self.variables)

    def __len__(self) -> int:
        return len(self.variables)

    def __getitem__(self, name: str) -> Variable:
        return self._by_name[name]

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __repr__(self) -> str:
        return f"Environment({', '.join(self._by_name)})"
