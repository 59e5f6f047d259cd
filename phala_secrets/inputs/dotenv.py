"""Dotenv text, read by python-dotenv, and nothing in it passed over.

What python-dotenv skips with a warning, a line that it cannot read or a name without a
value, would be a secret that silently stays behind: here it is told, with its line. And
since it takes quadratic time over a long run of blanks in a value without quotes, such a
value is refused: time stays linear over anything.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_BLANKS = 256
"""In a row, in a value without quotes."""

_SPACE = re.compile(r"\s*")
_UP_TO_VALUE = r"(?:export[^\S\n]++)?+(?:'[^']++'|[^=#\s'][^=#\s]*+)[^\S\n]*+=[^\S\n]*+"
_PADDED = re.compile(rf"{_UP_TO_VALUE}(?![\"'#])[^\n]*?[^\S\n]{{{MOST_BLANKS + 1}}}")
_QUOTED = re.compile(rf"{_UP_TO_VALUE}([\"'])(?:\\.|(?!\1)[^\\])*+(\1?)", re.DOTALL)


class Assignment(NamedTuple):
    """A name and its value; or the problem of the line (counted from 1) where reading ended."""

    line: int
    name: str = ""
    value: str = ""
    problem: str = ""

    def __repr__(self) -> str:
        return f"Assignment(line={self.line}, problem={self.problem!r})"


def parse(text: str) -> Iterator[Assignment]:
    """Yield what ``text`` assigns, in order, up to the first problem. Its lines have to end in ``\\n``.

    A name is any text before ``=``, and still to be checked. Nothing is expanded.
    """
    from dotenv.parser import Reader, parse_binding

    reader = Reader(io.StringIO(text))
    while True:
        reader.read_regex(_SPACE)
        if not reader.has_next():
            return
        line = reader.position.line
        if _PADDED.match(reader.string, reader.position.chars):
            yield Assignment(line, problem=f"has more than {MOST_BLANKS} blanks in a row outside quotes")
            return
        binding = parse_binding(reader)
        if binding.error or (binding.key is not None and binding.value is None):
            yield Assignment(line, problem=_problem(binding.original.string))
            return
        if binding.key is not None and binding.value is not None:
            yield Assignment(line, binding.key, binding.value)


def _problem(unread: str) -> str:
    quoted = _QUOTED.match(unread)
    if quoted is None:
        return "is not NAME=value"
    return "has text after a closing quote" if quoted[2] else "opens a quote that is never closed"
