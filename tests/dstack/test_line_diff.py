"""The diff that a plan shows."""

from __future__ import annotations

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phala_secrets.dstack.line_diff import MOST_LINES, line_diff


def test_texts_that_are_alike_have_no_diff() -> None:
    assert line_diff("a\nb\n", "a\nb\n") == []


def test_a_changed_line_stands_between_its_neighbours() -> None:
    before = "services:\n  web:\n    image: a\n    ports: []\n  db:\n    image: b\n"
    after = before.replace("image: a", "image: c")
    assert line_diff(before, after) == [
        "@@ -1,6 +1,6 @@",
        " services:",
        "   web:",
        "-    image: a",
        "+    image: c",
        "     ports: []",
        "   db:",
        "     image: b",
    ]


def test_a_line_end_that_is_missing_or_of_another_kind_shows() -> None:
    assert line_diff("a\n", "a") == ["@@ -1,2 +1,1 @@", " a", "-"]
    assert line_diff("a\r\n", "a\n") == ["@@ -1,2 +1,2 @@", "-a\r", "+a", " "]


@given(*[st.text(alphabet="ab\n", max_size=60)] * 2)
def test_it_says_what_the_standard_library_says(before: str, after: str) -> None:
    expected = difflib.unified_diff(before.split("\n"), after.split("\n"), lineterm="", n=3)
    changed = [line for line in list(expected)[2:] if not line.startswith("@@")]
    assert [line for line in line_diff(before, after) if not line.startswith("@@")] == changed


@pytest.mark.parametrize(("lines", "said"), [(MOST_LINES, "… and 2 more lines"), (6_000, "too long")])
def test_a_long_diff_ends(lines: int, said: str) -> None:
    diff = line_diff("", "a\n" * lines)
    assert len(diff) <= MOST_LINES + 1
    assert said in diff[-1]
