"""Write what the documents repeat of phala_secrets/inputs/table.py, between their markers: ``make docs``.

With ``--check`` nothing is written, and the exit code is 1 if something would change.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import yaml

from phala_secrets.inputs.table import INPUTS, MODES, OUTPUTS, PREPARED, Input, Output, plain

ROOT = Path(__file__).parents[1]
EVERYDAY = (
    *("mode", "cvm", "api-key", "env-file", "secrets"),
    *("files", "app-id", "trusted-signers", "allow-removal", "compose-file"),
)
"""The inputs in the README."""


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield ""
    yield _row(columns)
    yield "|---" * len(columns) + "|"
    yield from map(_row, rows)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def _modes(words: Collection[str]) -> str:
    """Return the modes among the words, in parentheses; nothing if they are all modes."""
    some = [f"`{mode}`" for mode in MODES if mode in words]
    return f" ({', '.join(some)})" if len(some) < len(MODES) else ""


def _inputs() -> Iterator[str]:
    for heading, group in groupby(INPUTS.values(), attrgetter("heading")):
        entries = list(group)
        modes = _modes({word for entry in entries for word in entry.words})
        yield from ("", f"### {heading}{modes}")
        yield from _table(("input", "default", "meaning"), [_input(entry, modes) for entry in entries])


def _everyday() -> Iterator[str]:
    rows = (_input(INPUTS[name], _modes(INPUTS[name].words)) for name in EVERYDAY)
    return _table(
        ("input", "meaning"),
        [(name, f"{text}; by default {default}" if default else text) for name, default, text in rows],
    )


def _input(entry: Input, modes_of_all: str) -> tuple[str, str, str]:
    meaning = entry.meaning
    if not entry.flag and entry.name != "mode":
        meaning += "; no flag"
    if (modes := _modes(entry.words)) != modes_of_all:
        meaning += modes
    return f"`{entry.name}`" if entry.action else f"`--{entry.name}`", entry.shown_default, meaning


def _outputs() -> Iterator[str]:
    for heading, entries in groupby(OUTPUTS.values(), attrgetter("heading")):
        yield from ("", f"### {heading}")
        yield from _output_table(entries)


def _prepared() -> Iterator[str]:
    return _output_table(entry for entry in OUTPUTS.values() if entry.heading == PREPARED)


def _output_table(entries: Iterable[Output]) -> Iterator[str]:
    return _table(("output", "meaning"), [(f"`{entry.name}`", entry.help) for entry in entries])


def _action() -> Iterator[str]:
    inputs = {}
    for entry in filter(attrgetter("action"), INPUTS.values()):
        default = {"default": entry.default} if entry.default else {}
        note = f" ({entry.shown_default})" if entry.shown_default and not default else ""
        inputs[entry.name] = {"description": _sentence(entry.meaning + note), **default}
    outputs = {entry.name: {"description": _sentence(entry.help)} for entry in OUTPUTS.values()}
    for part in ({"inputs": inputs}, {"outputs": outputs}):
        yield yaml.safe_dump(part, sort_keys=False, allow_unicode=True, width=1000)


def _sentence(text: str) -> str:
    """Return a text as a description: with a capital, unless it begins with code."""
    return plain(text[0].upper() + text[1:])


BLOCKS = {
    ("README.md", "everyday inputs"): _everyday,
    ("docs/inputs.md", "inputs"): _inputs,
    ("docs/inputs.md", "outputs"): _outputs,
    ("docs/approvals.md", "prepared"): _prepared,
    ("action.yml", "inputs and outputs"): _action,
}
"""What is written, by page and by the name in its marker."""


def main(arguments: Sequence[str]) -> str | None:
    """Write every block, or with ``--check`` compare it. Return an error, or nothing."""
    pages = {page: (ROOT / page).read_text() for page, _ in BLOCKS}
    written = dict(pages)
    for (page, name), lines in BLOCKS.items():
        marked = re.compile(rf"^(\S+ make docs: {name}\b[^\n]*\n).*?(^\S+ end\b)", re.MULTILINE | re.DOTALL)
        before, *parts = marked.split(written[page])
        if len(parts) != 3:
            return f"error: {page} needs the markers `make docs: {name}` and `end`, once"
        start, end, after = parts
        written[page] = "".join((before, start, *(f"{line}\n" for line in lines()), "\n", end, after))
    changed = [page for page, text in written.items() if text != pages[page]]
    if changed and "--check" in arguments:
        return f"error: out of date: {', '.join(changed)}; run `make docs`"
    for page in changed:
        (ROOT / page).write_text(written[page])
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
