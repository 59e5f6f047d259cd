"""The variables for the guest, in order, each with its origin."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from phala_secrets.errors import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator


class Origin(NamedTuple):
    """The source of a variable. ``file`` is the path as the user wrote it, ``line`` counts from 1."""

    label: str
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        return self.label if self.line is None else f"{self.label}, line {self.line}"


class Variable(NamedTuple):
    """One variable of the environment, with the value for the guest.

    If ``value`` is base64, ``given`` is the text from the source.
    """

    name: str
    value: str
    origin: Origin
    given: str = ""

    def __repr__(self) -> str:
        return f"Variable({self.name!r}, {self.origin})"

    def finding(self, problem: str, hint: str, severity: Literal["error", "warning"] = "error") -> Finding:
        """Return a finding about this variable: name, origin and ``problem``."""
        origin = self.origin
        message = f"{self.name} ({origin}) {problem}"
        return Finding(message, hint, origin.file, origin.line, severity, self.name, str(origin))

    def misnamed(self, problem: str) -> Finding:
        """Return a finding about its name. The hint shows how an app still gets the value under this name."""
        name = self.name
        hint = f"Rename it to APP_{name}, and pass it on in the compose file as `{name}: ${{APP_{name}}}`."
        return self.finding(problem, hint)


@dataclass(frozen=True, slots=True, repr=False)
class Environment:
    """Variables in order with unique names. Iteration yields the variables. The repr shows names only."""

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
        """Return everything to mask: the values, and the texts that they encode."""
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
