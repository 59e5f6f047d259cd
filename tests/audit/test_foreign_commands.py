"""Finding 13: foreign text is a command to no CI, whichever CI the run takes itself to be in."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from .support import ROOT, Answer, Cloud, Command, Cvm, Fault, Request, Simulator, command_of, in_ci

FORGED = '##[set-output name=cvms]["forged"] ##[error]forged'


def commands(text: str) -> list[object]:
    """What GitHub's runner would act on."""
    return [command for line in text.splitlines() if (command := command_of(line))]


def rename(cloud: Cloud, name: str) -> None:
    """The API gives the CVM this name."""

    def tamper(request: Request, answer: Answer) -> Answer:
        return (
            replace(answer, body={**answer.body, "name": name}) if request.path == "/cvms/my-app" else answer
        )

    cloud.tamper = tamper


def test_an_error_in_a_container_is_no_github_command(run: Command, simulator: Simulator, cvm: Cvm) -> None:
    """``docker run … list``, as the example for fleets has it: GitHub would set an output from the error."""
    simulator.faults.add(Fault("status", "GET", "/apps/", status=400, body={"message": f"x {FORGED}"}))
    outcome = run("list", "--app", cvm.app_id, "--json")
    assert outcome.code == 5, outcome.printed
    assert "forged" in outcome.stderr
    assert commands(outcome.printed) == []


def test_a_name_in_a_container_is_no_github_command(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    """``docker run … update --env-file -``, as the README has it: the CVM's name is a command."""
    rename(cloud, f"x {FORGED}")
    arguments = ("update", "--cvm", "my-app", "--env-file", "-", "--no-wait")
    outcome = run(*arguments, stdin=b"OLD=2\n")
    assert outcome.code == 0, outcome.printed
    assert "forged" in outcome.stderr
    assert commands(outcome.printed) == []


@pytest.mark.parametrize(
    "forged",
    [
        pytest.param("##vso[task.complete result=Failed]forged", id="Azure"),
        pytest.param("##teamcity[buildStatus text='forged']", id="TeamCity"),
        pytest.param("##[error]forged", id="GitHub"),
    ],
)
@pytest.mark.parametrize("ci", ["shell", "gitlab", "circleci", "bitbucket", "buildkite"])
def test_foreign_text_is_no_command_of_another_ci(
    run: Command, cloud: Cloud, cvm: Cvm, ci: str, forged: str
) -> None:
    """A container in one CI takes itself to be in another, or in none."""
    rename(cloud, f"x {forged}")
    arguments = ("update", "--cvm", "my-app", "--env-file", "-", "--no-wait")
    outcome = in_ci(run, ci)(*arguments, stdin=b"OLD=2\n")
    assert outcome.code == 0, outcome.printed
    assert "forged" in outcome.stderr
    assert forged[: forged.index("[") + 1] not in outcome.printed


@pytest.mark.parametrize("example", ["fleet.yml", "pull-request.yml"])
def test_an_example_hands_on_that_it_runs_on_github(example: str) -> None:
    """``docker run`` hands on no variable by itself, so nobody in the container knows of GitHub."""
    text = (ROOT / "examples/github" / example).read_text()
    runs = re.findall(r"docker run (?:.*\\\n)*.*\b(?:list|update) -.*", text)
    assert runs
    for one in runs:
        assert re.search(r"--env[ =]GITHUB_ACTIONS\b", one), one
