"""What is wrong with a command line is said before the inputs are read, and quotes no secret of them."""

from __future__ import annotations

import pytest

from .support import CIS, Command, Simulator, everything, in_ci

KEY = "phak_Zx9Qw3Er7Ty1"
VALUE = "Zx9Qw3Er7Ty1-a-value=="

LINES = [
    "{}",
    "update {}",
    "kms {}",
    "kms info phala {}",
    "list {}",
    "simulate {}",
    "update --cvm my-app --secrets TOKEN {}",
]
BY_THE_LIBRARY = [
    "completion {}",
    "simulate --port {}",
    "simulate --lie {}",
    "update --wait={}",
    "update --output-format {}",
]


@pytest.mark.parametrize("ci", [*CIS])
@pytest.mark.parametrize("line", [*LINES, *BY_THE_LIBRARY])
def test_an_api_key_on_the_command_line_is_not_repeated(
    run: Command, simulator: Simulator, line: str, ci: str
) -> None:
    """Nobody had masked it yet: ``unknown mode 'phak_…'``."""
    in_ci(run, ci).environ["PHALA_CLOUD_API_KEY"] = KEY
    outcome = run(*(word.format(KEY) for word in line.split()))
    assert outcome.code == 2
    lines = (
        text
        for text in everything(outcome).splitlines()
        if not text.startswith(("::add-mask::", "##vso[task.set"))
    )
    assert KEY not in "\n".join(lines)


@pytest.mark.parametrize("line", LINES)
def test_a_value_on_the_command_line_is_not_repeated(run: Command, simulator: Simulator, line: str) -> None:
    outcome = run(*(word.format(VALUE) for word in line.split()))
    assert outcome.code == 2
    assert VALUE[:8] not in everything(outcome)
    assert "not shown" in outcome.printed


def test_a_word_that_is_meant_for_another_one_is_repeated(run: Command, simulator: Simulator) -> None:
    assert "unknown mode 'updte'" in run("updte").printed
