"""A unified diff of two texts, as data."""

from __future__ import annotations

from difflib import SequenceMatcher

MOST_LINES = 400
"""Lines of a diff: more than a person reads and less than a log can hold."""

_CONTEXT = 3
_LONGEST = 2_000
"""Lines per text up to which they are compared one by one, so that no text takes minutes."""


def line_diff(before: str, after: str) -> list[str]:
    """Return the changed lines, each with ``-``, ``+`` or a space in front.

    As in ``diff -u``, ``@@ -1,5 +1,6 @@`` begins each part, and three lines of context surround a change.
    Return nothing for equal texts. A missing or different line ending shows as a changed line. If there
    are over ``MOST_LINES``, the last line says how many more there are.
    """
    old, new = before.split("\n"), after.split("\n")
    if before == after:
        return []
    lines: list[str] = []
    if max(len(old), len(new)) > _LONGEST:
        return [f"@@ -1,{len(old)} +1,{len(new)} @@", "  (too long to compare line by line)"]
    for group in SequenceMatcher(None, old, new).get_grouped_opcodes(_CONTEXT):
        first, last = group[0], group[-1]
        lines.append(f"@@ -{first[1] + 1},{last[2] - first[1]} +{first[3] + 1},{last[4] - first[3]} @@")
        for tag, old_from, old_to, new_from, new_to in group:
            if tag == "equal":
                lines += [f" {line}" for line in old[old_from:old_to]]
                continue
            lines += [f"-{line}" for line in old[old_from:old_to]]
            lines += [f"+{line}" for line in new[new_from:new_to]]
    if len(lines) > MOST_LINES:
        return [*lines[:MOST_LINES], f"  … and {len(lines) - MOST_LINES} more lines"]
    return lines
