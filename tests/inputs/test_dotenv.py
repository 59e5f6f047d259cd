"""Dotenv text: the names and values of python-dotenv, and a stop where that goes on."""

from __future__ import annotations

import io

import pytest
from dotenv.parser import parse_stream
from hypothesis import given, settings
from hypothesis import strategies as st

from phala_secrets.inputs.dotenv import MOST_BLANKS, parse


def holds(text: str) -> None:
    """The same assignments on the same lines, up to the first that python-dotenv skips."""
    assignments = parse(text)
    for binding in parse_stream(io.StringIO(text)):
        if binding.key is None and not binding.error:
            continue
        assignment = next(assignments)
        blank = len(binding.original.string) - len(binding.original.string.lstrip())
        line = binding.original.line + binding.original.string.count("\n", 0, blank)
        assert assignment.line == line
        if binding.error or binding.value is None:
            assert assignment.problem
            break
        assert (assignment.name, assignment.value, assignment.problem) == (binding.key, binding.value, "")
    assert next(assignments, None) is None


pieces = st.one_of(
    st.sampled_from(
        [
            "A",
            "B=",
            "=",
            "'",
            '"',
            "\\",
            "\\n",
            "\\'",
            '\\"',
            "#",
            " ",
            "\t",
            "\n",
            "export ",
            "export",
            "$",
            "${A}",
        ]
    ),
    st.sampled_from(["\nA=", "\nB='", '\nC="', " # x", "\x0b", "\x1c", "\x85", "\xa0", "\u2028", "é"]),
    st.characters(exclude_categories=["Cs"], exclude_characters="\r"),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(pieces, max_size=24).map("".join))
def test_it_reads_what_python_dotenv_reads(text: str) -> None:
    holds(text.removeprefix("\ufeff"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n \n# nothing\n",
        "A=1",
        "A=",
        "A= ",
        "A=\n",
        "A= # comment",
        "A=#value",
        "A= #not a value\nB=1",
        "A=a#b # comment",
        "A='a # b' # comment",
        "  export  A = a b  ",
        "export A=1\nexport # comment\nB=2",
        "export=1",
        "export",
        "export A",
        "'A'=1",
        "'A B'=1",
        "'A'B=1",
        "''=1",
        "=1",
        "A B=1",
        "A#=1",
        'A="one\ntwo\\nthree\\t\\\\\\"\\x"\nB=1',
        "A='one\ntwo\\nthree\\'\\\\\\x'\nB=1",
        'A=it\'s\nB="x"y\nC=1',
        "A='open\nB=1",
        'A="\\"\nB=1',
        "A=p4$$w0rd${X}\nB=`x`",
        "\n\n\nA=1\n\n\nB\nC=1",
        "A=1\n'B\n'=2",
        'A="x" \x0b\nB=1',
        "A: 1\n",
        "A=a \t\x0b\xa0 # c",
    ],
)
def test_each_corner_is_as_python_dotenv_has_it(text: str) -> None:
    holds(text)


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("A=1\nB\nC=2", 2, "is not NAME=value"),
        ("A=1\n\n=2", 3, "is not NAME=value"),
        ("A=1\n'B=2", 2, "is not NAME=value"),
        ("\nA='one\ntwo", 2, "opens a quote that is never closed"),
        ('A="one\ntwo\n\nB=2\n', 1, "opens a quote that is never closed"),
        ("A='one' two", 1, "has text after a closing quote"),
    ],
)
def test_what_python_dotenv_would_skip_is_told_with_its_line(text: str, line: int, problem: str) -> None:
    *_, last = parse(text)
    assert (last.line, last.problem) == (line, problem)


WIDE = " \t" * (MOST_BLANKS // 2)


@pytest.mark.parametrize(
    "text",
    [
        f"A=x{WIDE}y",
        f"A=x{WIDE}y{WIDE}z # c",
        f"A='x {WIDE}y'",
        f'A="x\n {WIDE}=y {WIDE}z"',
        f"# A=x {WIDE}y",
        f"export # A=x {WIDE}y",
        f"export {WIDE}A {WIDE}= {WIDE}x",
        f"A='x' {WIDE}# y",
        f"A= {WIDE}# y {WIDE}z",
        f" {WIDE}\n \x0b{WIDE}A=1\n {WIDE}",
    ],
    ids=lambda text: text[:8],
)
def test_blanks_in_a_row_are_fine_where_they_are_few_or_quoted_or_between(text: str) -> None:
    holds(text)


@pytest.mark.parametrize(
    "line",
    [
        f"A=x{WIDE}\x0by",
        f"A=x{WIDE} ",
        f"A=x{WIDE} # comment",
        f"A==x{WIDE} y",
        f"export A = x y{WIDE} z",
        f"'A'=x{WIDE} y",
        f"'A=\"'=x{WIDE} y",
        f"it's=x{WIDE} y",
        f"A=x # {WIDE} y",
    ],
    ids=lambda line: line[:8],
)
def test_a_value_without_quotes_is_refused_that_would_take_long_to_read(line: str) -> None:
    *_, last = parse(f"A=1\n\n{line}\nB=2")
    assert (last.line, last.problem) == (3, "has more than 256 spaces in a row outside quotes")


def test_the_representation_of_an_assignment_has_no_text_of_the_file() -> None:
    assert repr(next(parse("KEY=canary"))) == "Assignment(line=1, problem='')"


@pytest.mark.parametrize(
    "text",
    [
        "A=" + "x" * (1 << 20),
        "A=x" + " " * (1 << 20) + "y",
        "A=x" + "\t" * (1 << 20) + "#",
        "A='" + "\\\\" * (1 << 19) + "'",
        'A="' + "\\" * (1 << 20),
        "A=" + "'" * (1 << 20),
        "A='\n" * (1 << 16),
        '"\n' * (1 << 19),
        "\n" * (1 << 20),
        "#\n" * (1 << 16),
        "export " * (1 << 17),
        " " * (1 << 20) + "=",
        "A" * (1 << 20),
        "'" + "A" * (1 << 20),
        "A=1\n" * (1 << 16),
        "A='' " + "#" * (1 << 20),
        "A=''" + " " * (1 << 20) + "x",
        "A=" + f"{WIDE}x" * (1 << 12),
        f"A=x{WIDE}\n" * (1 << 11),
    ],
    ids=lambda text: f"{text[:6]!r}…{text[-3:]!r}",
)
def test_anything_is_read_in_linear_time(text: str) -> None:
    """Quadratic time over a mebibyte would take hours: that this ends is the test."""
    for _ in parse(text):
        pass
