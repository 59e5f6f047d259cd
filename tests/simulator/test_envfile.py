"""The simulator reads an environment file as systemd does; systemd's own parser is the judge."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from phala_secrets.simulator.envfile import EnvFileError, read_assignments, read_environment

from . import systemd

TRICKY = st.sampled_from(list("\\\\\\\"\"''\n\n\r \t=#;$`ab_A1ä€😀\x1f\x7f\ufdd0\ufffe"))
TEXT = st.text(TRICKY | st.characters(exclude_categories=["Cs"]), max_size=40)
LINES = st.lists(st.tuples(st.sampled_from(["A", "B", "_C1", "not a name"]), st.text(TRICKY, max_size=12)))


def assert_read_alike(text: str) -> None:
    try:
        expected = systemd.load_env_file(text.encode())
    except OSError:
        with pytest.raises(EnvFileError):
            read_assignments(text, systemd.VERSION)
    else:
        assert read_assignments(text, systemd.VERSION) == expected


@settings(max_examples=2000, deadline=None)
@given(TEXT)
@example('A="1"2 "3" \nB=\'x\'y\\\nz\n')
@example("A=1 \\\n  \nB=\\")
@example("# comment \\\nA=1\n;\\\\\nB=2\n")
@example("A=\0\n")
@example("A = spaced \t\n=empty name\nno assignment\nA\n")
@example("\ufeffA=1\n")
def test_any_text(text: str) -> None:
    assert_read_alike(text)


@settings(max_examples=2000, deadline=None)
@given(LINES)
def test_assignments_and_what_they_do_to_their_neighbours(lines: list[tuple[str, str]]) -> None:
    assert_read_alike("".join(f'{name}="{value}"\n' for name, value in lines))


@given(LINES)
@settings(max_examples=1000, deadline=None)
def test_assignments_without_quotes(lines: list[tuple[str, str]]) -> None:
    assert_read_alike("".join(f"{name}={value}\n" for name, value in lines))


def test_what_follows_a_comment_that_ends_in_a_backslash_depends_on_the_version() -> None:
    text = "#\\\nA=1\n"
    assert read_environment(text, systemd=252) == {}
    assert read_environment(text, systemd=254) == {"A": "1"}


def test_names_that_systemd_does_not_take_are_left_out() -> None:
    assert read_environment("A=1\nnot a name=2\n1B=3\nÄ=4\n") == {"A": "1"}
