"""What a run has to tell when it is over, before anybody decides how it looks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Table(NamedTuple):
    """Rows under a header; every cell is text, foreign or not."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(slots=True)
class Report:
    """A headline, facts, tables, a diff, advice, and lines to paste. Never a value of a source."""

    title: str
    facts: list[tuple[str, str]] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    diff: list[str] = field(default_factory=list)
    """Lines with ``+``, ``-`` or a space in front."""
    advice: list[tuple[str, str]] = field(default_factory=list)
    """A sentence, and the line to paste that belongs to it (or nothing)."""
    links: list[tuple[str, str]] = field(default_factory=list)
    """What is behind a link, and the link, which is never foreign text."""
