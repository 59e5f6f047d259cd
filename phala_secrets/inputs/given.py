"""The inputs as they were given, by flag or by variable, each read as its kind in the table.

A flag wins over ``INPUT_…`` (as GitHub passes it, or with ``_`` for ``-``), which wins over
``PHALA_SECRETS_…``. What is set but empty counts as not given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from phala_secrets.errors import InputError
from phala_secrets.inputs.table import INPUTS, PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping


class Given(NamedTuple):
    """The inputs as text, by name, and the names that came as inputs rather than from a fallback."""

    values: Mapping[str, str]
    explicit: frozenset[str]

    def __repr__(self) -> str:
        return f"Given({', '.join(sorted(self.values))})"

    def text(self, name: str) -> str:
        """Return an input's text, or its default; stripped, unless it is raw."""
        value, entry = self.values.get(name, ""), INPUTS[name]
        return (value if entry.kind == "raw" else value.strip()) or entry.default

    def lines(self, name: str) -> tuple[str, ...]:
        """Return the lines of an input, for ``names`` split at commas too, without empty ones."""
        text = self.text(name)
        if INPUTS[name].kind == "names":
            text = text.replace(",", "\n")
        return tuple(line.strip() for line in text.splitlines() if line.strip())

    def choice(self, name: str) -> str:
        """Return one of the choices, or nothing; raise InputError for another value."""
        value, choices = self.text(name), INPUTS[name].choices
        if value and value not in choices:
            raise InputError(f"unknown {name} {value[:60]!a}", hint=f"use one of {', '.join(choices)}")
        return value

    def flag(self, name: str) -> bool:
        """Return whether the input is ``true``; raise InputError if it is not ``false`` either."""
        value = self.text(name)
        if value.lower() not in ("true", "false"):
            raise _invalid(name, value, "true or false")
        return value.lower() == "true"

    def number(self, name: str) -> int:
        """Return a whole number; raise InputError if it is none, or not in its range."""
        value, entry = self.text(name), INPUTS[name]
        if not (value.isascii() and value.isdigit() and entry.low <= int(value[:9]) <= entry.high):
            raise _invalid(name, value, f"a whole number from {entry.low} to {entry.high}")
        return int(value)


def read(flags: Mapping[str, str], environ: Mapping[str, str]) -> Given:
    """Return all inputs that are given, each from the first way in that has it.

    Raises:
        InputError: A ``PHALA_SECRETS_…`` variable names no input.
    """
    _refuse_unknown(environ)
    values: dict[str, str] = {}
    explicit: set[str] = set()
    for name, entry in INPUTS.items():
        ways = (
            flags.get(name),
            environ.get(f"INPUT_{name.upper()}"),
            environ.get(f"INPUT_{entry.variable.removeprefix(PREFIX)}"),
            environ.get(entry.variable),
        )
        if value := next((way for way in ways if way and way.strip()), None):
            values[name] = value
            explicit.add(name)
        elif (fallback := environ.get(entry.fallback, "")).strip():
            values[name] = fallback
    return Given(values, frozenset(explicit))


def _invalid(name: str, value: str, valid: str) -> InputError:
    return InputError(f"invalid {name} {value[:60]!a}", hint=f"use {valid}")


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = [entry.variable.removeprefix(PREFIX) for entry in INPUTS.values()]
    for variable in environ:
        if variable.startswith(PREFIX) and (name := variable.removeprefix(PREFIX)) not in known:
            import difflib

            close = difflib.get_close_matches(name, known, n=1)
            raise InputError(
                f"unknown input {variable[:80]!a}",
                hint=f"did you mean {PREFIX}{close[0]}?"
                if close
                else "see phala-secrets update --help for the inputs",
            )
