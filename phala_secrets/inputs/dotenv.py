"""Dotenv text, read by python-dotenv, and nothing in it passed over.

What python-dotenv skips with a warning, a line that it cannot read or a name without a
value, would be a secret that silently stays behind: here it is an error, with its line. So
is a line that continues the value above it, which python-dotenv takes for a variable of its own.

Reading is bounded before it is done. python-dotenv takes a tenth of a millisecond a line, and
quadratic time over a long run of blanks in a value without quotes.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dotenv.parser import Binding

MOST_BLANKS = 256
"""In a row, in a value without quotes."""
MOST_PADDED = 1024
"""Runs of many blanks, in all values without quotes."""
MOST_ASSIGNMENTS = 4096
"""Four times the variables that a guest takes, since a name may be repeated."""
SHORTEST_WRAPPED = 60
"""Characters of a line of wrapped base64; ``openssl`` writes 64, and ``base64`` 76."""

_SKIPPED = re.compile(r"(?:\s++|#[^\n]*+)*+")
_UP_TO_VALUE = r"(?:export[^\S\n]++)?+(?:'[^']++'|[^=#\s'][^=#\s]*+)[^\S\n]*+=[^\S\n]*+"
_VALUE = re.compile(rf"\s*+{_UP_TO_VALUE}")
_PADDED = re.compile(rf"{_UP_TO_VALUE}(?![\"'#])[^\n]*?[^\S\n]{{{MOST_BLANKS + 1}}}")
_BLANKS = re.compile(r"[^\S\n]{32,}")
_QUOTED = re.compile(rf"{_UP_TO_VALUE}([\"'])(?:\\.|(?!\1)[^\\])*+(\1?)", re.DOTALL)
_BASE64_LINE = re.compile(rf"[A-Za-z0-9+/_-]{{{SHORTEST_WRAPPED},}}")
_BASE64_END = re.compile(r"[A-Za-z0-9+/_-]+={0,2}")
_HEX = re.compile(r"(?:0x)?[0-9A-Fa-f]+")
_PEM = re.compile(r"-----BEGIN [^\n]*")

_WAY = "write NAME=value, with quotes around the whole value or none"
_ONE_LINE = (
    "write the value on one line (base64 -w0); if this line is a variable of its own, put quotes around "
    "the value above it"
)


class Assignment(NamedTuple):
    """A name and its value; or the problem of the line (counted from 1) where reading ended.

    ``quote`` is the character that the value begins with as it is written, if it is a quote or a
    backtick, and ``escaped`` whether it has a dollar behind a backslash in double quotes.
    """

    line: int
    name: str = ""
    value: str = ""
    problem: str = ""
    hint: str = ""
    quote: str = ""
    escaped: bool = False

    def __repr__(self) -> str:
        return f"Assignment(line={self.line}, problem={self.problem!r})"


def parse(text: str) -> Iterator[Assignment]:
    """Yield what ``text`` assigns, in order, up to the first problem. Its lines have to end in ``\\n``.

    A name is any text before ``=``, and still to be checked. Nothing is expanded.
    """
    from dotenv.parser import Reader, parse_binding

    reader = Reader(io.StringIO(text))
    above, padded = Assignment(0), 0
    for _ in range(MOST_ASSIGNMENTS):
        reader.read_regex(_SKIPPED)
        if not reader.has_next():
            return
        line = reader.position.line
        if _PADDED.match(reader.string, reader.position.chars):
            problem = f"has more than {MOST_BLANKS} spaces in a row outside quotes"
            yield Assignment(line, problem=problem, hint=_WAY)
            return
        padded += _runs_of_blanks(reader.string, reader.position.chars)
        if padded > MOST_PADDED:
            yield Assignment(line, problem="is one of too many lines with many spaces in a row", hint=_WAY)
            return
        binding = parse_binding(reader)
        assignment = _assignment(line, binding, above)
        if assignment is None:
            continue
        yield assignment
        if assignment.problem:
            return
        above = assignment
    reader.read_regex(_SKIPPED)
    if reader.has_next():
        hint = "remove some: the guest takes 1024 variables"
        yield Assignment(reader.position.line, problem=f"exceeds {MOST_ASSIGNMENTS} assignments", hint=hint)


def _runs_of_blanks(text: str, start: int) -> int:
    """Return how many long runs of blanks a line has that python-dotenv takes its time over."""
    end = text.find("\n", start)
    return sum(1 for _ in _BLANKS.finditer(text, start, len(text) if end < 0 else end))


def _assignment(line: int, binding: Binding, above: Assignment) -> Assignment | None:
    """Return what a binding assigns, or its problem; nothing for a comment behind ``export``."""
    written = binding.original.string
    if _continues(written.strip(), line, above):
        problem = f"continues the base64 value of line {above.line}"
        return Assignment(line, problem=problem, hint=_ONE_LINE)
    if binding.key is None and not binding.error:
        return None
    if binding.error or binding.key is None or binding.value is None:
        return Assignment(line, problem=_problem(written), hint=_WAY)
    match = _VALUE.match(written)
    value = written[match.end() :] if match else ""
    quote = value[0] if value[:1] in tuple("\"'`") else ""
    if not quote and _PEM.fullmatch(binding.value):
        hint = "put quotes around the whole value, or pass the file through `files`"
        return Assignment(line, problem="begins a PEM block without quotes", hint=hint)
    escaped = quote == '"' and "\\$" in value
    return Assignment(line, binding.key, binding.value, quote=quote, escaped=escaped)


def _continues(written: str, line: int, above: Assignment) -> bool:
    """Return whether a line is the next one of a wrapped base64 value, which no name may be taken from."""
    return (
        line == above.line + 1
        and not above.quote
        and len(above.value) % 4 == 0
        and _BASE64_LINE.fullmatch(above.value) is not None
        and not _HEX.fullmatch(above.value)
        and len(written) % 4 == 0
        and _BASE64_END.fullmatch(written) is not None
    )


def _problem(unread: str) -> str:
    quoted = _QUOTED.match(unread)
    if quoted is None:
        return "is not NAME=value"
    return "has text after a closing quote" if quoted[2] else "opens a quote that is never closed"
