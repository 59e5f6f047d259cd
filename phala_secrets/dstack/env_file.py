"""The guest's environment file: dstack writes it, systemd reads it as the launcher's ``EnvironmentFile``.

The writer is dstack's ``dstack-util/src/parse_env_file.rs``, the reader systemd's
``src/basic/env-file.c``. Some values come out changed, and some damage their neighbours. This module
models both steps in full, and tests compare it with systemd's own parser. ``generations`` says which
guest has which writer and reader.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""What dstack and systemd accept as a name."""


# The writer: dstack


class Writer(NamedTuple):
    """How dstack writes a value: what it quotes, and what it escapes with a backslash."""

    quoted: re.Pattern[str]
    escaped: re.Pattern[str]

    def line(self, name: str, value: str) -> str:
        """Return the line of one variable. A newline always becomes the two characters ``\\n``."""
        text = self.escaped.sub(lambda match: "\\n" if match[0] == "\n" else "\\" + match[0], value)
        return f'{name}="{text}"\n' if self.quoted.search(value) else f"{name}={text}\n"


NO_BACKSLASH = Writer(re.compile("[ \t|&;<>()$`\\\\\"'\n]"), re.compile(r'[\n"$`]'))
"""Does not escape a backslash or quote a carriage return: v0.5.3 to 2026-08."""

EVERY_ESCAPE = Writer(re.compile("[\\s|&;<>()$`\\\\\"']"), re.compile(r'[\n"$`\\]'))
"""Escapes the backslash too and quotes any white space: merged in 2026-09."""


# The reader: systemd

_KEY = re.compile(r"([^\n\r][^=\n\r]*+)(=?)")
_QUOTE = re.compile(r"""[ \t]*+(?:'([^']*+)'?|"((?:[^"\\]++|\\.)*+)\\?+"?)""", re.DOTALL)
_BARE = re.compile(r"[ \t]*+((?:[ \t]*+(?:[^\\ \t\n\r]++|\\(?:.|\Z)))++)[ \t]*+", re.DOTALL)
_BACKSLASHED = re.compile(r"\\(.?)", re.DOTALL)
_COMMENTS_END_AT_A_BACKSLASHED_NEWLINE = 254
_BETWEEN = {
    False: re.compile(r"(?:[ \t\n\r]++|[#;](?:[^\\\n\r]++|\\.)*+)++", re.DOTALL),
    True: re.compile(r"(?:[ \t\n\r]++|[#;](?:[^\\\n\r]++|\\[^\n\r])*+\\?+)++"),
}
"""The text between two assignments, by whether a comment ends at a newline after a backslash."""

NONCHARACTER = (
    "[\ud800-\udfff\ufdd0-\ufdef"
    + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17))
    + "]"
)
"""What fails systemd's UTF-8 check, as a pattern: compiled where a text is not ASCII."""


def unreadable(text: str) -> bool:
    """Return whether this text in a value makes systemd reject the whole file."""
    return "\0" in text or (not text.isascii() and re.search(NONCHARACTER, text) is not None)


class Assignment(NamedTuple):
    """A name and a value as systemd reads them. ``start`` is the name's index in the file."""

    start: int
    name: str
    value: str


def load(text: str, systemd: int) -> list[Assignment]:
    """Return what this version of systemd reads from the file: nothing if it rejects any part."""
    assignments = [] if "\0" in text else list(_assignments(text, systemd))
    if any(unreadable(name) or unreadable(value) for _, name, value in assignments):
        return []
    return assignments


def _assignments(text: str, systemd: int) -> Iterator[Assignment]:
    skip = _BETWEEN[systemd >= _COMMENTS_END_AT_A_BACKSLASHED_NEWLINE]
    position = 0
    while True:
        if between := skip.match(text, position):
            position = between.end()
        key = _KEY.match(text, position)
        if key is None:
            return
        start, position = position, key.end()
        if not key[2]:
            continue
        pieces = []
        while quote := _QUOTE.match(text, position):
            pieces.append(quote[1] or _BACKSLASHED.sub(_in_quotes, quote[2] or ""))
            position = quote.end()
        if bare := _BARE.match(text, position):
            pieces.append(_BACKSLASHED.sub(_in_the_open, bare[1]))
            position = bare.end()
        yield Assignment(start, key[1].rstrip(" \t"), "".join(pieces))


def _in_quotes(escape: re.Match[str]) -> str:
    if escape[1] in ('"', "\\", "`", "$"):
        return escape[1]
    return "" if escape[1] == "\n" else escape[0]


def _in_the_open(escape: re.Match[str]) -> str:
    return "" if escape[1] in ("\n", "\r") else escape[1]


# Both together


class Handover(NamedTuple):
    """One way from a guest's variables to its launcher's environment."""

    writer: Writer
    systemd: int

    def lines(self, variables: Iterable[tuple[str, str]]) -> list[str]:
        """Return the lines of the file in this order."""
        return [self.writer.line(name, value) for name, value in variables]

    def delivered(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return the launcher's environment after the handover.

        It may have extra variables if a value breaks out of its line.
        """
        return variables_of(load("".join(self.lines(sorted(variables.items()))), self.systemd))

    def carries(self, name: str, value: str) -> bool:
        """Return whether the variable arrives unchanged if it is the only one."""
        return self.delivered({name: value}) == {name: value}


def variables_of(assignments: Iterable[Assignment]) -> dict[str, str]:
    """Return a service's variables: the last one of a repeated name, and no invalid names."""
    return {name: value for _, name, value in assignments if NAME.fullmatch(name)}
