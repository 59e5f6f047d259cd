"""A report as Markdown, for a job's summary or a comment. Foreign text is text: no markup, no link.

What GitHub acts on beside Markdown is from its own filters: mentions, issues, commits, emoji, math and
addresses become links or pictures wherever they stand outside of code. Tables are HTML, since those of
Markdown need a header and cannot keep a name on one line.
"""

from __future__ import annotations

import re
from itertools import accumulate
from typing import TYPE_CHECKING

from phala_secrets.runners.report import Id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from phala_secrets.errors import Finding
    from phala_secrets.runners.report import Names, Report

    Show = Callable[[str], str]
    """Make foreign text one line that shows no secret."""

FOLDED = 12
"""Lines of a diff that are shown unfolded."""

_LONGEST = 60_000
"""Characters of a report: a comment on GitHub may have 65,536."""
_LONGEST_BLOCK = 20_000
"""Characters of one table or diff."""

_LONGEST_ID = 44
"""Characters of a name that are kept on one line."""

_MARKDOWN = {ord(character): f"&#{ord(character)};" for character in "&<>\"'\\`*_[]|~#@"}
_NO_LINK = {
    **_MARKDOWN,
    **{ord(character): f"&#{ord(character)};" for character in "!$:."},
    ord("@"): "<!-- -->&#64;",  # GitHub decodes the entity of an @ before it looks for addresses
}
_REFERENCE = re.compile(r"[@#$]|://|www\.|:\w+:|\b[0-9a-f]{7,40}\b", re.IGNORECASE)
"""What GitHub makes links of outside of code: mentions, issues, commits."""

_ID = re.compile(r"(\(?)([0-9a-f]{7,}(?:-[0-9a-f]+)*)([).,;:]*)", re.IGNORECASE)
"""An id in a sentence, with what stands around it."""

_NUMBERED = re.compile(r"(\b[A-Z]{2,}-)(?=\d)", re.IGNORECASE)
"""References like GH-1, and many a name: an empty element keeps it from being one, and no code font."""

_ADDRESS = re.compile(r"@|://|www\.", re.IGNORECASE)
"""What GitHub's renderer makes links of, wherever it stands."""


def markdown(report: Report, show: Show) -> str:
    """Return a report as Markdown that ends in a blank line. What is too long is left out, and that said."""
    blocks: list[str] = []
    left = _LONGEST
    for block in _blocks(report, show):
        left -= len(block) + 2
        blocks.append(block if left > 0 else "The rest is too long to be shown here.")
        if left <= 0:
            break
    return "\n\n".join(blocks) + "\n\n"


def _blocks(report: Report, show: Show) -> Iterator[str]:
    yield f"### {_prose(report.title, show)}"
    problem, remedy = report.problem
    if problem:
        yield f"**Error:** {_sentence(problem, show)}"
    if remedy:
        yield f"**What to do:** {_sentence(remedy, show)}"
    if report.findings:
        yield _table(("Name", "Place", "What", "What to write"), map(_row, report.findings), show)
    yield from (_sentence(sentence, show) for sentence in report.glance)
    yield from (_names(names, show) for names in report.names)
    if report.facts:
        rows = (f"<tr>{_head(label, show)}{_cell(value, show)}</tr>" for label, value in report.facts)
        yield _in_table(_shortened(rows))
    yield from (f"[{_prose(label, show)}]({url})" for label, url in report.links)
    if report.page:
        yield f"[More about errors of this kind]({report.page})"
    yield from (_table(table.header, table.rows, show) for table in report.tables)
    if report.diff:
        yield _fence(report.diff, show)
    for sentence, paste in report.advice:
        lines = "\n".join(_paste(line, show) for line in paste.split("\n")) if paste else ""
        yield _sentence(sentence, show) + (f"\n\n<pre>{lines}</pre>" if paste else "")


def _names(names: Names, show: Show) -> str:
    texts = [f"{line.mark} {line.name}" + (f" ({line.fate})" if line.fate else "") for line in names.lines]
    width = min(max(map(len, texts), default=0), _LONGEST_ID)
    notes = [
        f"{text.ljust(width)}  {line.note}" if line.note else text
        for text, line in zip(texts, names.lines, strict=True)
    ]
    title = f"{_prose(names.title, show)}: " if names.title else ""
    count = title + _prose(names.tally, show)
    if not notes:
        return count
    block = _fence(notes, show)
    if len(notes) <= FOLDED:
        return f"{count}\n\n{block}"
    return f"<details><summary>{count}</summary>\n\n{block}\n\n</details>"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], show: Show) -> str:
    head = "".join(_head(cell, show) for cell in header)
    body = [f"<tr>{''.join(_cell(cell, show) for cell in row)}</tr>" for row in rows]
    return _in_table([f"<tr>{head}</tr>", *_shortened(body)])


def _in_table(rows: Sequence[str]) -> str:
    # A line of its own for each row, and no empty one, which would end the table.
    return "\n".join(("<table>", *rows, "</table>"))


def _shortened(lines: Iterable[str], more: str = "<tr><td>… and {} more</td></tr>") -> list[str]:
    """Return as many lines as one block may have, and how many are left out."""
    lines = list(lines)
    ends = accumulate(len(line) + 1 for line in lines)
    kept = sum(end <= _LONGEST_BLOCK for end in ends)
    return lines[:kept] + ([more.format(len(lines) - kept)] if kept < len(lines) else [])


def _row(finding: Finding) -> tuple[str, ...]:
    """Return a finding as cells: name, place, what is wrong with it, what to write."""
    place = finding.place
    if not place and finding.file:
        place = f"{finding.file}, line {finding.line}" if finding.line else finding.file
    what = finding.message.removeprefix(f"{finding.name} ({finding.place}) ")
    return Id(finding.name), place, what, finding.hint


def _head(text: str, show: Show) -> str:
    return f'<th align="left" nowrap>{_prose(text, show)}</th>'


def _cell(text: str, show: Show) -> str:
    if not isinstance(text, Id):
        return f"<td>{_sentence(text, show)}</td>"
    shown = show(text)
    if _REFERENCE.search(shown):
        return f"<td><code>{shown.translate(_NO_LINK)}</code></td>"
    # GitHub's style lets a line end within <code>, and not within <samp>.
    kept = " nowrap" if len(shown) <= _LONGEST_ID else ""
    return f"<td{kept}><samp>{_unlinked(shown)}</samp></td>" if shown else "<td></td>"


def _prose(text: str, show: Show) -> str:
    """Return text as text. Words that GitHub would make links of stand in code, where it makes none."""
    return re.sub(r"\S+|\s+", _word, show(text))


def _sentence(text: str, show: Show) -> str:
    """Return prose in which backticks mark code, as our own sentences have it."""
    return re.sub(r"`([^`]+)`|\S+?(?=[\s`]|$)|\s+|`", _part, show(text))


def _part(match: re.Match[str]) -> str:
    if code := match[1]:
        return f"<code>{code.translate(_NO_LINK)}</code>"
    return _word(match)


def _word(match: re.Match[str]) -> str:
    word = match[0]
    if own := _ID.fullmatch(word):
        before, code, behind = own.groups()
        return f"{_unlinked(before)}<code>{code}</code>{_unlinked(behind)}"
    if _REFERENCE.search(word):
        return f"<code>{word.translate(_NO_LINK)}</code>"
    return _unlinked(word)


def _unlinked(text: str) -> str:
    return _NUMBERED.sub(r"\1<span></span>", text.translate(_MARKDOWN))


def _paste(text: str, show: Show) -> str:
    """Return text within ``<pre>``, where GitHub makes links of addresses, and of nothing else."""
    shown = show(text)
    return shown.translate(_NO_LINK if _ADDRESS.search(shown) else _MARKDOWN)


def _fence(lines: Sequence[str], show: Show) -> str:
    """Return a block of code that no line of it ends, in which GitHub makes no links."""
    shown = "\n".join(_shortened(map(show, lines), "… and {} more lines"))
    longest = max(map(len, re.findall("`+", shown)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}diff\n{shown}\n{fence}"
