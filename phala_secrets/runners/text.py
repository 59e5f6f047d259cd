"""Making text from elsewhere harmless, and secrets in it unreadable, before it is printed."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MASKED_FROM = 4
"""Characters: a shorter line is not masked, since masking ``1`` or ``{`` would blank the log."""

_REDACTED_FROM = 8
_LONGEST_LINE = 2000
_QUOTED = frozenset("\"'$`\\")
"""What somebody who quotes text puts a backslash before."""


def one_line(text: str) -> str:
    """Text as one printable line: line ends, control and direction characters become visible escapes."""
    if len(text) > _LONGEST_LINE:
        text = text[:_LONGEST_LINE] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    return {"\n": " ", "\r": " ", "\t": " "}.get(character) or f"\\u{ord(character):04x}"


def maskable_lines(values: Iterable[str]) -> list[str]:
    """The lines to mask: of each value line by line, without line ends, each once, short ones not."""
    lines = {
        line: None
        for value in values
        for line in value.replace("\r", "\n").split("\n")
        if len(line.strip()) >= MASKED_FROM
    }
    return list(lines)


def _forms(line: str) -> set[str]:
    """A line, with and without its blanks, and as JSON, Python, a shell and the guest's file quote it."""
    bare = line.strip()
    if bare.isascii() and bare.isprintable() and not _QUOTED & set(bare):
        return {line, bare}
    quoted = {json.dumps(bare), json.dumps(bare, ensure_ascii=False), repr(bare)}
    escaped = {re.sub(r'(["$`\\])', r"\\\1", bare), re.sub(r'(["$`])', r"\\\1", bare)}
    return {line, bare, *(text[1:-1] for text in quoted), *escaped}


class Redactor:
    """Takes secrets out of text that comes from elsewhere: an error's, a server's.

    Lines of eight characters and more only, so that a value like ``true`` does not
    make an explanation unreadable; where a runner masks, it masks shorter ones too.
    Also as a program shows them that quotes what it was given.
    """

    def __init__(self) -> None:
        self._secrets: list[str] = []

    def learn(self, lines: Iterable[str]) -> None:
        """More secrets, longest first from now on."""
        forms = (form for line in lines for form in _forms(line))
        known = {*self._secrets, *(form for form in forms if len(form) >= _REDACTED_FROM)}
        self._secrets = sorted(known, key=len, reverse=True)

    def clean(self, text: str) -> str:
        """The text with ``***`` for every secret in it."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, "***")
        return text
