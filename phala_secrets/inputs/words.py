"""The words of the place where a text is read, and the word that was meant."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from phala_secrets.inputs.table import INPUTS

if TYPE_CHECKING:
    from collections.abc import Iterable

_TICKED = re.compile(r"`([a-z-]+)(?:: ([^`]+))?`")
_NAMED = re.compile(r"(?<![\w'./`$-])([a-z]+(?:-[a-z]+)*)(?:: ([a-z0-9]+)(?![\w-]|: ))?(?![\w'/`-]|\.\w)")
"""A word, outside of quotes and paths, and the word after its colon."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that was probably meant, or nothing."""
    import difflib

    return next(iter(difflib.get_close_matches(word, list(known), n=1)), "")


def meant(word: str, known: Iterable[str], otherwise: str, prefix: str = "") -> str:
    """Return a hint for an unknown word: the nearest one, or else what to do.

    ``prefix`` is what stands before each of the words, and says nothing about what was meant.
    """
    near = nearest(word.removeprefix(prefix), known)
    return f"did you mean {prefix}{near}?" if near else otherwise


def flag(name: str, value: str = "") -> str:
    """Return an input as the command takes it: its flag, or the variable of one that has none."""
    entry = INPUTS[name]
    if name == "mode":
        return f"phala-secrets {value}".rstrip()
    if not entry.flag:
        return entry.fallback or entry.variable
    if entry.kind == "bool" and value == "false":
        return f"--no-{name}"
    if entry.kind == "switch" and value not in ("", "true"):
        return f"--{name}={value}"
    return f"--{name} {value}".rstrip() if entry.kind not in ("bool", "switch") else f"--{name}"


def in_flags(text: str) -> str:
    """Return a hint with each input in it as the command takes it.

    A hint names an input as the table does. It is one if it has a hyphen, a value after a colon that it can
    have, or backticks around it.
    """
    return _TICKED.sub(_ticked, _NAMED.sub(_named, text))


def _ticked(match: re.Match[str]) -> str:
    return flag(match[1], match[2] or "") if match[1] in INPUTS else match[0]


def _named(match: re.Match[str]) -> str:
    name, value = match[1], match[2]
    entry = INPUTS.get(name)
    if not entry:
        return match[0]
    values = ("true", "false") if entry.kind == "bool" else entry.choices
    if value and (value in values or value.startswith("0x")):
        return flag(name, value)
    return flag(name) + (f": {value}" if value else "") if "-" in name else match[0]
