"""The file between dstack and systemd: who writes what, and who reads it how."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from phala_secrets.dstack.env_file import EVERY_ESCAPE, NO_BACKSLASH, Handover, Writer, load, variables_of
from phala_secrets.simulator.envfile import EnvFileError, read_environment
from tests.support import systemd

VERSIONS = (252, 255, 259)
pieces = st.sampled_from([*"\\\"'`$#;= \t\n\r\vAB_", "A=", "\\\r", "\\\n", "#c", "\nB=x"])
files = st.lists(pieces, max_size=16).map("".join)


def second_opinion(text: str, version: int) -> dict[str, str]:
    try:
        return read_environment(text, version)
    except EnvFileError:
        return {}


@settings(max_examples=150, deadline=None)
@given(files)
@example('A="x\\\ny"')
@example("A=x\\\ny")
@example("A=x\\\ry")
def test_any_file_is_read_as_systemd_reads_it(text: str) -> None:
    assert variables_of(load(text, systemd.VERSION)) == (systemd.environment(text.encode()) or {})
    for version in VERSIONS:
        assert variables_of(load(text, version)) == second_opinion(text, version)


@pytest.mark.parametrize(
    ("text", "older", "newer"),
    [
        ("#c\\\nA=1\n", {}, {"A": "1"}),
        ("#c\\\rA=1\n", {}, {"A": "1"}),
        ("#c\\\\\nA=1\n", {"A": "1"}, {"A": "1"}),
        ("#c\\x\\\nA=1\nB=2\n", {"B": "2"}, {"A": "1", "B": "2"}),
        ("A=1\n#c\\", {"A": "1"}, {"A": "1"}),
    ],
)
def test_a_comment_ends_at_a_backslashed_newline_from_systemd_254(
    text: str, older: dict[str, str], newer: dict[str, str]
) -> None:
    assert variables_of(load(text, 253)) == older
    assert variables_of(load(text, 254)) == newer


@pytest.mark.parametrize(
    ("value", "without", "with_"),
    [
        ("plain", "plain", "plain"),
        ("", "", ""),
        ("a b", '"a b"', '"a b"'),
        ("a\nb", '"a\\nb"', '"a\\nb"'),
        ('say "$X`"', '"say \\"\\$X\\`\\""', '"say \\"\\$X\\`\\""'),
        ("C:\\", '"C:\\"', '"C:\\\\"'),
        ("a\rb", "a\rb", '"a\rb"'),
        ("a\u2028b", "a\u2028b", '"a\u2028b"'),
        ("it's", '"it\'s"', '"it\'s"'),
    ],
)
def test_each_writer_quotes_and_escapes_as_its_dstack_does(value: str, without: str, with_: str) -> None:
    assert NO_BACKSLASH.line("A", value) == f"A={without}\n"
    assert EVERY_ESCAPE.line("A", value) == f"A={with_}\n"


@pytest.mark.parametrize("version", VERSIONS)
@given(st.text(st.characters(exclude_categories=["Cs", "Cn"], exclude_characters="\0\n")))
def test_with_every_escape_all_text_on_one_line_arrives(version: int, value: str) -> None:
    assert Handover(EVERY_ESCAPE, version).carries("A", value)


@pytest.mark.parametrize("writer", [NO_BACKSLASH, EVERY_ESCAPE])
def test_a_newline_arrives_as_two_characters(writer: Writer) -> None:
    assert Handover(writer, 255).delivered({"B": "x", "A": "1\n2"}) == {"A": "1\\n2", "B": "x"}
