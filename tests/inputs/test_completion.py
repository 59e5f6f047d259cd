"""Completion: what each shell is offered, asked of a real bash, and of the scripts for the others."""

from __future__ import annotations

import re
import subprocess

import pytest

from phala_secrets.inputs.command_line import parse
from phala_secrets.inputs.completion import script
from phala_secrets.inputs.modes import COMMAND, SHELLS
from tests.support.command import Command

ASK = """
source /dev/stdin <<<"$1"
COMP_WORDS=("${@:2}") COMP_CWORD=$(($# - 2))
_phala_secrets
printf '%s\\n' "${COMPREPLY[@]}"
"""


def offered(run: Command, *words: str) -> list[str]:
    """What bash offers for the last word, in the folder of a run."""
    done = subprocess.run(
        ["bash", "--norc", "-c", ASK, "bash", script("bash"), "phala-secrets", *words],
        cwd=run.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_modes_flags_choices_and_files(run: Command) -> None:
    run.write("prod.env", "")
    assert set(offered(run, "")) == {*COMMAND, "--help", "--version"}
    assert offered(run, "up") == ["update"]
    assert offered(run, "update", "--env-f") == ["--env-file"]
    assert offered(run, "update", "--env-file", "pr") == ["prod.env"]
    assert offered(run, "verify", "--require-trust", "") == ["api", "known", "chain", "pinned"]
    assert offered(run, "kms", "on") == ["on-chain"]
    assert offered(run, "completion", "") == [*SHELLS, "--help"]
    assert "--env-file" not in offered(run, "verify", "--")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("mode", [mode for mode in COMMAND if mode != "kms"])
def test_every_flag_of_the_help_is_offered(shell: str, mode: str) -> None:
    shown = set(re.findall(r"^  --([\w-]+)|, --([\w-]+)", str(parse([mode, "--help"])), re.MULTILINE))
    flags = {one or other for one, other in shown}
    lines = [line for line in script(shell).splitlines() if mode in line]
    for flag in flags:
        found = f"-l {flag}" if shell == "fish" else f"--{flag}"
        assert [line for line in lines if found in line], flag


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_escapes_help_texts_for_the_shell(shell: str) -> None:
    text = script(shell)
    assert not set("`\\") & set(text.replace("#compdef", ""))
    if shell != "fish":
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_completion_needs_no_login(run: Command) -> None:
    done = run("completion", "fish", environ={"PHALA_CLOUD_API_KEY": None})
    assert (done.code, done.stdout, done.stderr) == (0, script("fish"), "")
    wrong = run("completion", "tcsh")
    assert wrong.code == 2
    assert "bash" in wrong.printed
