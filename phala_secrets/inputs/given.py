"""The inputs as they were given, by flag or by variable, each read as its kind in the table.

A flag wins over ``INPUT_…`` (as GitHub passes it, or with ``_`` for ``-``), which wins over
``PHALA_SECRETS_…``. What is set but empty counts as not given, unless the input protects something.
A variable that ``secrets`` hands to the guest is the app's own, and no input.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from phala_secrets.errors import InputError
from phala_secrets.inputs.place import on_azure, on_github
from phala_secrets.inputs.table import INPUTS, PREFIX, Input

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

GITHUBS_PREFIX = "INPUT_"
_GITHUBS_OWN = {"ARGS", "ENTRYPOINT"}
"""Inputs that a workflow may give to every container action."""

UNEXPANDED = re.compile(r"\s*\$\([A-Za-z_][A-Za-z0-9_. -]*\)\s*")
"""How Azure leaves a variable that is not defined: as this literal text."""

_DURATION = re.compile(r"0*([0-9]{1,9})([smh]?)", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
_LIST = re.compile(r"\[[^\[\]]*[,\"'][^\[\]]*\]")
"""A list of YAML or JSON, which no glob is."""


class Given(NamedTuple):
    """The inputs as text, by name, and how they came.

    ``explicit`` are the names that came as inputs rather than from a fallback, ``withheld`` those whose
    fallback is set but belongs to the app.
    """

    values: Mapping[str, str]
    explicit: frozenset[str]
    withheld: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Given({', '.join(sorted(self.values))})"

    def text(self, name: str) -> str:
        """Return an input's text, or its default; stripped, unless it is raw."""
        value, entry = self.values.get(name, ""), INPUTS[name]
        return (value if entry.kind == "raw" else value.strip()) or entry.default

    def lines(self, name: str) -> tuple[str, ...]:
        """Return the lines of an input, for ``names`` split at commas too, without empty ones.

        Raises:
            InputError: It is a list of YAML or JSON, or has separators alone.
        """
        text, named = self.text(name), INPUTS[name].kind == "names"
        if _is_list(text):
            raise InputError(
                f"{name} is a list of YAML or JSON, where text belongs",
                hint=f"put {'commas or ' if named else ''}line ends between the entries, and nothing else",
            )
        if named:
            text = text.replace(",", "\n")
        listed = tuple(line.strip() for line in text.splitlines() if line.strip())
        if text and not listed:
            raise InputError(
                f"{name} has commas, and nothing between them",
                hint="check the variables that it is taken from, or leave it out",
            )
        return listed

    def choice(self, name: str) -> str:
        """Return one of the choices, or nothing; raise InputError for another value."""
        value, entry = self.text(name), INPUTS[name]
        if entry.kind == "switch":
            value = value.lower()
        if value and value not in entry.choices:
            from phala_secrets.inputs.words import meant

            raise InputError(
                f"unknown {name} {value[:60]!a}",
                hint=meant(value, entry.choices, f"use one of {', '.join(entry.choices)}"),
            )
        return value

    def flag(self, name: str) -> bool:
        """Return whether the input is ``true``; raise InputError if it is not ``false`` either."""
        value = self.text(name)
        if value.lower() not in ("true", "false"):
            raise _invalid(name, value, "true or false")
        return value.lower() == "true"

    def number(self, name: str) -> int:
        """Return a whole number, of a duration the seconds.

        Raises:
            InputError: It is none, or not in the range of its row.
        """
        value, entry = self.text(name), INPUTS[name]
        read = _DURATION.fullmatch(value)
        if read and (entry.kind == "duration" or not read[2]):
            number = int(read[1]) * _SECONDS[read[2]]
            if entry.low <= number <= entry.high:
                return number
        units = ", or with its unit: 90s, 10m, 1h" if entry.kind == "duration" else ""
        raise _invalid(name, value, f"a whole number from {entry.low} to {entry.high}{units}")


def read(flags: Mapping[str, str], environ: Mapping[str, str]) -> Given:
    """Return all inputs that are given, each from the first way in that has it.

    Raises:
        InputError: A ``PHALA_SECRETS_…`` variable, or on GitHub an ``INPUT_…`` variable, names no
            input, or one that protects is empty.
    """
    _refuse_unknown(environ)
    if on_azure(environ):
        flags, environ = expanded(flags), expanded(environ)
    handed = _sources(next(_ways(INPUTS["secrets"], flags, environ), ""))
    ours = {name: text for name, text in environ.items() if name not in handed}
    values: dict[str, str] = {}
    explicit: set[str] = set()
    withheld: set[str] = set()
    for name, entry in INPUTS.items():
        if value := next(_ways(entry, flags, ours), None):
            values[name] = value
            explicit.add(name)
        elif entry.protects:
            _refuse_empty(entry, flags, environ)
        elif (fallback := ours.get(entry.fallback, "")).strip():
            values[name] = fallback
        elif entry.fallback in handed and environ.get(entry.fallback, "").strip():
            withheld.add(name)
    return Given(values, frozenset(explicit), frozenset(withheld))


def credentials(environ: Mapping[str, str]) -> Given:
    """Return the inputs that are or may hold a credential, as far as variables give them.

    For what is said of inputs that cannot be read.
    """
    values = {}
    for name in ("api-key", "private-key", "rpc-url", "api-url"):
        fallback = environ.get(INPUTS[name].fallback, "")
        values[name] = next(_ways(INPUTS[name], {}, environ), fallback)
    return Given(values, frozenset())


def expanded(texts: Mapping[str, str]) -> dict[str, str]:
    """Return texts as Azure meant them: one that stayed ``$(NAME)``, since it is undefined, is empty."""
    return {name: "" if UNEXPANDED.fullmatch(text) else text for name, text in texts.items()}


def _ways(entry: Input, flags: Mapping[str, str], environ: Mapping[str, str]) -> Iterator[str]:
    """Yield what gives an input, the strongest first, without what is empty."""
    ways = (
        flags.get(entry.name),
        environ.get(f"{GITHUBS_PREFIX}{entry.name.upper()}"),
        environ.get(f"{GITHUBS_PREFIX}{entry.variable.removeprefix(PREFIX)}"),
        environ.get(entry.variable),
    )
    return (way for way in ways if way and way.strip())


def _sources(secrets: str) -> set[str]:
    """Return the variables that the input ``secrets`` hands to the guest."""
    entries = (line.strip() for line in secrets.replace(",", "\n").splitlines())
    return {source if equals else target for target, equals, source in (e.partition("=") for e in entries)}


def _is_list(text: str) -> bool:
    """Return whether a text is a list of YAML or JSON; ``[AB]*`` is a glob."""
    return bool(_LIST.fullmatch(text)) or any(line.startswith("- ") for line in text.splitlines())


def _invalid(name: str, value: str, valid: str) -> InputError:
    return InputError(f"invalid {name} {value[:60]!a}", hint=f"use {valid}")


def _refuse_empty(entry: Input, flags: Mapping[str, str], environ: Mapping[str, str]) -> None:
    """Raise InputError if an input that protects something was given, by a flag or our variable, empty."""
    ways = ((f"--{entry.name}", flags.get(entry.name)), (entry.variable, environ.get(entry.variable)))
    for way, text in ways:
        if text is not None:
            raise InputError(
                f"{way} is empty, which would switch it off",
                hint="check the variable that it is taken from, or leave it out",
            )


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    known = {entry.variable.removeprefix(PREFIX): entry.name for entry in INPUTS.values()}
    for variable in environ:
        if variable.startswith(PREFIX) and variable.removeprefix(PREFIX) not in known:
            raise _unknown(variable, known, "see phala-secrets update --help for the inputs", PREFIX)
        if variable.startswith(GITHUBS_PREFIX) and on_github(environ):
            name = variable.removeprefix(GITHUBS_PREFIX)
            if name.replace("-", "_") not in known and name not in _GITHUBS_OWN:
                raise _unknown(name.lower(), known.values(), "see docs/inputs.md for the inputs")


def _unknown(name: str, known: Iterable[str], otherwise: str, prefix: str = "") -> InputError:
    from phala_secrets.inputs.words import meant

    return InputError(f"unknown input {name[:80]!a}", hint=meant(name, known, otherwise, prefix))
