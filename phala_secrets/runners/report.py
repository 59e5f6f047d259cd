"""The content of a report, without its form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phala_secrets.errors import Finding


class Id(str):
    """A name, id or hash. Where there is a font for code, it is in that; every other text is prose."""

    __slots__ = ()


class Table(NamedTuple):
    """Rows under a header; every cell is text, untrusted or not."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Line(NamedTuple):
    """One variable in a diff: ``+``, ``~`` or ``-``, its name, what becomes of it, and a note."""

    mark: Literal["+", "~", "-"]
    name: str
    fate: str = ""
    note: str = ""


class Names(NamedTuple):
    """A diff of variables, with the line that counts them, under a ``title`` where there are several."""

    lines: Sequence[Line]
    tally: str
    title: str = ""


@dataclass(slots=True, repr=False, eq=False)
class Report:
    """A headline, sentences, facts, tables, diffs, advice, and lines to paste. Never a value of a source."""

    title: str
    good: bool = True
    """Whether it is good news."""
    glance: list[str] = field(default_factory=list)
    """Sentences for readers who stop after them."""
    names: list[Names] = field(default_factory=list)
    names_asked_for: bool = False
    """Whether the names are what the run is for, so that ``--quiet`` leaves them."""
    facts: list[tuple[str, str]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    diff: list[str] = field(default_factory=list)
    """Lines with ``+``, ``-`` or a space in front."""
    advice: list[tuple[str, str]] = field(default_factory=list)
    """A sentence, and the lines to paste that belong to it (or nothing)."""
    links: list[tuple[str, str]] = field(default_factory=list)
    """What is behind a link, and the link, which is never untrusted text."""
    problem: tuple[str, str] = ("", "")
    """The error and its hint; a log has them, and the findings, as lines of their own."""
    page: str = ""
    """The link to what can be done about errors of this kind. A log has no room for it."""
    findings: Sequence[Finding] = ()
