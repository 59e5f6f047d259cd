"""Dotenv text, read as python-dotenv reads a file with interpolation off.

Written anew for two reasons. What python-dotenv skips with a warning, a line that it
cannot read or a name without a value, would be a secret that silently stays behind:
here it is told, with its line. And python-dotenv takes quadratic time over a long run
of blanks, where this takes linear time over anything. The tests hold the two together.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLANK = r"[^\S\n]"
_BETWEEN = re.compile(rf"(?:\s++|(?:export{_BLANK}++)?#[^\n]*+)++")
_KEY = re.compile(rf"(?:export{_BLANK}++)?+(?:'([^']++)'|([^=#\s'][^=#\s]*+)){_BLANK}*+=({_BLANK}*+)")
_END = re.compile(rf"(?:{_BLANK}*+#[^\n]*+)?+{_BLANK}*+(?:\n|\Z)")
_COMMENT = re.compile(r"\s#")
_QUOTED = {
    "'": re.compile(r"'([^'\\]*+(?:\\.[^'\\]*+)*+)'", re.DOTALL),
    '"': re.compile(r'"([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL),
}
_ESCAPE = {"'": re.compile(r"\\([\\'])"), '"': re.compile(r"\\([\\'\"abfnrtv])")}
_CONTROLS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


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

    A name is any text before ``=``, and still to be checked.
    """
    position, line, counted = 0, 1, 0
    while True:
        if between := _BETWEEN.match(text, position):
            position = between.end()
        if position == len(text):
            return
        line, counted = line + text.count("\n", counted, position), position
        key = _KEY.match(text, position)
        if key is None:
            yield Assignment(line, problem="is not NAME=value")
            return
        name, start = key[1] or key[2], key.end()
        quote = text[start : start + 1]
        if quote in _QUOTED:
            quoted = _QUOTED[quote].match(text, start)
            if quoted is None:
                yield Assignment(line, name, problem="opens a quote that is never closed")
                return
            value, position = _ESCAPE[quote].sub(_unescaped, quoted[1]), quoted.end()
        elif quote == "#" and key[3]:
            value, position = "", start
        else:
            newline = text.find("\n", start)
            position = len(text) if newline < 0 else newline
            value = text[start:position]
            if comment := _COMMENT.search(value):
                value = value[: comment.start()]
            value = value.rstrip()
        end = _END.match(text, position)
        if end is None:
            yield Assignment(line, name, problem="has text after a closing quote")
            return
        position = end.end()
        yield Assignment(line, name, value)


def _unescaped(escape: re.Match[str]) -> str:
    return _CONTROLS.get(escape[1], escape[1])
