"""The command line: help that a person can read, and errors that repeat no secret."""

from __future__ import annotations

import re

import pytest

from phala_secrets.errors import InputError
from phala_secrets.inputs.command_line import flags_of, parse
from phala_secrets.inputs.given import BY_NAME


@pytest.mark.parametrize("mode", ["update", "plan", "encrypt", "verify", "list"])
def test_help_has_a_place_and_a_sentence_for_each_flag(mode: str) -> None:
    text = parse([mode, "--help"])
    assert isinstance(text, str)
    lines = text.splitlines()
    assert lines[0].startswith(f"usage: phala-secrets {mode} ")
    assert len(lines[0]) <= 80
    assert max(map(len, lines)) <= 100
    for name in flags_of(mode):
        (at,) = [number for number, line in enumerate(lines) if re.match(rf"  --{name}[ ,]", line)]
        opening = BY_NAME[name].help.split()[0]
        assert opening in lines[at] + lines[at + 1], name
    assert "PHALA_CLOUD_API_KEY" in text
    assert "exit codes:" in text


def test_help_shows_a_mode_only_its_sections() -> None:
    sections = {
        mode: [line for line in str(parse([mode, "--help"])).splitlines() if line.endswith(":")]
        for mode in ("update", "verify")
    }
    assert "the secrets:" in sections["update"]
    assert "an approval on chain:" in sections["update"]
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
    assert caught.value.message == f"unrecognized arguments: {arguments[0].partition('=')[0]}"
    assert caught.value.hint == "see phala-secrets update --help"


@pytest.mark.parametrize("arguments", [["update", "--env-fil", "x"], ["kms", "list", "--js"]])
def test_flags_are_not_guessed(arguments: list[str]) -> None:
    with pytest.raises(InputError, match="unrecognized arguments: --"):
        parse(arguments)
