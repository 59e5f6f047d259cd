"""A report as the lines of a log or a terminal, none of them longer than a person reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.runners.text import disarm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from phala_secrets.runners.report import Line, Names, Report, Table

    Clean = Callable[[str], str]
    Paint = Callable[[str, str], str]

_MARKS = {"+": "good", "~": "notice", "-": "error"}
_LONGEST_NAME = 40
"""Characters of a name, with what becomes of it, that the notes of other names are moved aside for."""
_LEFT = 20
"""Characters of a line that are left to its text, however long its label is."""


def lines_of(report: Report, clean: Clean, paint: Paint, width: int) -> Iterator[str]:
    """Yield the lines of a report, each harmless, wrapped to ``width``; what is to be pasted is not."""
    yield paint(report.title, "good" if report.good else "error")
    for sentence in report.glance:
        yield from wrapped(clean(sentence), "", width)
    yield from names_of(report, clean, paint)
    label_width = max((len(clean(label)) for label, _ in report.facts), default=0)
    for label, value in report.facts:
        yield from wrapped(clean(value), f"  {clean(label).ljust(label_width)}  ", width)
    for label, url in report.links:
        yield clean(f"{label}: {url}")
    for table in report.tables:
        yield from (f"  {line}" for line in columns_of(table, clean))
    yield from (f"  {clean(line)}" for line in report.diff)
    for sentence, paste in report.advice:
        yield from wrapped(clean(sentence), "", width)
        yield from (f"    {clean(line)}" for line in paste.split("\n") if line)


def names_of(report: Report, clean: Clean, paint: Paint) -> Iterator[str]:
    """Yield the diffs of variables of a report, each with the line that counts them."""
    for names in report.names:
        if names.title:
            yield clean(f"  {names.title}:")
        yield from _diff(names, clean, paint)
        yield clean(f"  {names.tally}")


def columns_of(table: Table, clean: Clean) -> list[str]:
    """Return a table as aligned lines, each harmless. A cell is cleaned before it is padded."""
    rows = [[clean(cell) for cell in row] for row in (table.header, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return [disarm(line) for line in lines]


def _diff(names: Names, clean: Clean, paint: Paint) -> Iterator[str]:
    texts = [clean(_in_words(line)) for line in names.lines]
    width = max((len(text) for text in texts if len(text) <= _LONGEST_NAME), default=0)
    for line, text in zip(names.lines, texts, strict=True):
        note = f"{' ' * (max(0, width - len(text)) + 2)}{paint(line.note, 'dim')}" if line.note else ""
        yield f"  {paint(text, _MARKS[line.mark])}{note}"


def _in_words(line: Line) -> str:
    return f"{line.mark} {line.name}" + (f" ({line.fate})" if line.fate else "")


def wrapped(text: str, label: str, width: int) -> Sequence[str]:
    """Return a harmless text behind its label, wrapped below itself; no line of it is a command to a CI."""
    if len(label) + len(text) <= width:
        return [disarm((label + text).rstrip())]
    from textwrap import wrap

    room = max(_LEFT, width - len(label))
    pieces = wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
    first, *rest = pieces
    return [disarm((label + first).rstrip()), *(disarm(" " * len(label) + piece) for piece in rest)]
