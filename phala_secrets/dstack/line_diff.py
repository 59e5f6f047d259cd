"""A unified diff of two texts, as data."""

from __future__ import annotations

from difflib import SequenceMatcher

MOST_LINES = 400
"""Lines of a diff that are given out: more than a person reads, and less than a log takes."""

_CONTEXT = 3
_LONGEST = 2_000
"""Lines of either text up to which they are compared one by one, so that no text takes minutes."""


def line_diff(before: str, after: str) -> list[str]:
    """Return what changed, line by line, each with ``-``, ``+`` or a space in front.

    ``@@ -1,5 +1,6 @@`` begins each part, as in ``diff -u``; three lines around a change stand beside
    it. Nothing for texts that are alike. A last line that has no end, and ends of another kind, show as
    a changed line. Beyond ``MOST_LINES`` a last line says how many more there are.
    """
    old, new = before.split("\n"), after.split("\n")
    if before == after:
        return []
    lines: list[str] = []
    if max(len(old), len(new)) > _LONGEST:
        return [f"@@ -1,{len(old)} +1,{len(new)} @@", "  (too long to be compared line by line)"]
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
