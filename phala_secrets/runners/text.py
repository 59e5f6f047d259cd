"""Make untrusted text harmless before printing it."""

from __future__ import annotations

import re

_LONGEST_LINE = 2000

_HASHES = re.compile(r"#(?! )(?=[^\x21-\x7e]*#)")
"""A ``#`` before another one: ``##[…]``, ``##vso[…]`` and ``##teamcity[…]`` count anywhere in a line.

Non-ASCII may stand between, since .NET's search overlooks some of it, but not the space that is put in.
"""

_COLONS = re.compile(r"^(\s*:)(?=:)")
_SECTION = re.compile(r"(section_start|section_end|travis_fold|travis_time)(?=:)")
_HEADER = re.compile(r"^(\s*[-+~^])(?=[-+~^]{2})")


def disarm(text: str) -> str:
    """Return a line that is a command to no CI.

    A container may not know which one reads its log.

    - GitHub, Azure, TeamCity: ``##…[`` anywhere, ``::`` at the start
    - GitLab, Travis: the marker of a section
    - Buildkite: ``---``, ``+++``, ``~~~`` or ``^^^`` at the start
    """
    text = _SECTION.sub(r"\1 ", _HASHES.sub("# ", text))
    return _HEADER.sub(r"\1 ", _COLONS.sub(r"\1 ", text))


_IN_SCRIPTS = str.maketrans("'\"`;()$\\&|<>", "’”’,[]??????")


def for_scripts(text: str) -> str:
    """Return a sentence that no shell acts on, quoted or not: a later step may put it into its script."""
    return text.translate(_IN_SCRIPTS)


def one_line(text: str) -> str:
    """Return text as one printable line. Control and direction characters become visible escapes."""
    if len(text) > _LONGEST_LINE:
        text = text[:_LONGEST_LINE] + "…"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    return {"\n": " ", "\r": " ", "\t": " "}.get(character) or f"\\u{ord(character):04x}"
