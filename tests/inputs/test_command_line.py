"""The command line: help that a person can read, and errors that repeat no secret."""

from __future__ import annotations

import re

import pytest

from phala_secrets.errors import InputError
from phala_secrets.inputs.command_line import parse
from phala_secrets.inputs.table import INPUTS, MODES, plain


@pytest.mark.parametrize("mode", [*MODES, "list"])
def test_help_has_a_place_and_a_sentence_for_each_flag(mode: str) -> None:
    text = parse([mode, "--help"])
    assert isinstance(text, str)
    lines = text.splitlines()
    assert lines[0].startswith(f"usage: phala-secrets {mode} ")
    assert len(lines[0]) <= 80
    assert max(map(len, lines)) <= 100
    shown = set()
    for at, line in enumerate(lines):
        if flag := re.match(r"  --([\w-]+)", line):
            shown.add(flag[1])
            opening = plain(INPUTS[flag[1]].help).split()[0]
            assert opening in line + lines[at + 1], flag[1]
    assert shown == {entry.name for entry in INPUTS.values() if entry.flag and mode in entry.words}
    assert "`" not in text
    assert "PHALA_CLOUD_API_KEY" in text
    assert "exit codes:" in text


@pytest.mark.parametrize("mode", [*MODES, "list", "kms"])
def test_a_secret_is_no_flag_and_help_shows_its_variable(mode: str) -> None:
    text = str(parse(["kms", "list", "--help"] if mode == "kms" else [mode, "--help"]))
    for name in ("api-key", "env", "secrets-json", "private-key"):
        entry = INPUTS[name]
        assert not re.search(rf"--{name}\b(?!-)", text)
        assert (f"  {entry.fallback or entry.variable}  " in text) == (mode in entry.words)


def test_help_shows_the_range_of_a_number_and_its_default() -> None:
    assert "seconds that one request may take; 1 to 600 (30)" in str(parse(["verify", "--help"]))


def test_help_shows_a_mode_only_its_sections() -> None:
    sections = {
        mode: [line for line in str(parse([mode, "--help"])).splitlines() if line.endswith(":")]
        for mode in ("update", "verify")
    }
    assert "the secrets:" in sections["update"]
    assert "on-chain approval:" in sections["update"]
    assert "trust:" in sections["verify"]
    assert "the secrets:" not in sections["verify"]
    assert "PRIVATE_KEY" not in str(parse(["verify", "--help"]))


@pytest.mark.parametrize(
    "arguments",
    [["--api-key", "hunter2"], ["--api-key=hunter2"], ["--private-key", "hunter2", "--cvm", "my-app"]],
)
def test_an_unknown_flag_is_named_without_what_it_was_given(arguments: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        parse(["update", *arguments])
    assert "hunter2" not in str(caught.value) + caught.value.hint
    flag = arguments[0].partition("=")[0]
    assert caught.value.message == f"{flag} is not a flag, because others can read a command line"
    assert f"pass {flag}-file FILE" in caught.value.hint


@pytest.mark.parametrize("arguments", [["update", "--env-fil", "x"], ["kms", "list", "--js"]])
def test_flags_are_not_guessed(arguments: list[str]) -> None:
    with pytest.raises(InputError, match="unknown flag"):
        parse(arguments)
