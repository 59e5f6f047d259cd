"""The simulator reads an environment file as systemd does; systemd's own parser is the judge."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from phala_secrets.simulator.envfile import EnvFileError, read_environment
from tests.support import systemd

CHARACTERS = st.sampled_from(list("\\\\\\\"\"''\n\n\r \t=#;$`ab_A1ä€😀\x1f\x7f\ufdd0\ufffe"))
TEXT = st.text(CHARACTERS | st.characters(exclude_categories=["Cs"]), max_size=40)
NAMES = st.sampled_from(["A", "B", "_C1", "not a name"])
LINES = st.lists(st.tuples(NAMES, st.text(CHARACTERS, max_size=12)))

VERSION = 254 if systemd.environment(b"#\\\nA=1\n") else 252
"""Whether the systemd of this machine ends a comment at a newline behind a backslash."""


def assert_read_alike(text: str) -> None:
    try:
        read = read_environment(text, VERSION)
    except EnvFileError:
        read = None
    assert read == systemd.environment(text.encode())


@settings(max_examples=150, deadline=None)
@given(TEXT)
@example('A="1"2 "3" \nB=\'x\'y\\\nz\n')
@example("A=1 \\\n  \nB=\\")
@example("# comment \\\nA=1\n;\\\\\nB=2\n")
@example("A=\0\n")
@example("A = spaced \t\n=no name\nno assignment\nA\n1B=2\nÄ=3\n")
@example("\ufeffA=1\n")
@example('A="\ufdd0"\nA=""\n')
def test_any_text(text: str) -> None:
    assert_read_alike(text)


@settings(max_examples=150, deadline=None)
@given(LINES)
def test_assignments_and_what_they_do_to_their_neighbours(lines: list[tuple[str, str]]) -> None:
    assert_read_alike("".join(f'{name}="{value}"\n' for name, value in lines))


@settings(max_examples=150, deadline=None)
@given(LINES)
def test_assignments_without_quotes(lines: list[tuple[str, str]]) -> None:
    assert_read_alike("".join(f"{name}={value}\n" for name, value in lines))


def test_what_follows_a_comment_that_ends_in_a_backslash_depends_on_the_version() -> None:
    text = "#\\\nA=1\n"
    assert read_environment(text, systemd=252) == {}
    assert read_environment(text, systemd=254) == {"A": "1"}
