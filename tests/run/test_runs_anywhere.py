"""Stories of whole runs in every CI: what goes to which stream, and where outputs are found."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from tests.runners.test_rooms import AZURE, BITBUCKET, CIRCLECI, GITHUB, GITLAB, each_runner, sourced, vso_of
from tests.support.command import Command


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        (CIRCLECI, "BASH_ENV"),
        (BITBUCKET, "BITBUCKET_PIPELINES_VARIABLES_PATH"),
        (GITHUB, "GITHUB_OUTPUT"),
    ],
)
def test_a_file_that_cannot_be_written_stops_a_run_before_it_sends(
    environ: dict[str, str], variable: str, run: Command, cloud: Cloud, cvm: Cvm
) -> None:
    run.write(".env", "OLD=2")
    done = run(
        "update", "--cvm", "my-app", "--env-file", ".env", environ={**environ, variable: "/nowhere/file"}
    )
    assert done.code == 2
    assert f"${variable} cannot be written: No such file or directory" in done.printed
    assert cvm.environment == {"OLD": "1"}
    assert not cloud.requests


@each_runner
def test_json_is_alone_on_standard_output(environ: dict[str, str], run: Command, cvm: Cvm) -> None:
    run.write(".env", "OLD=2\nTOKEN=t0ken-value")
    done = run("update", "--cvm", "my-app", "--env-file", ".env", "--json", environ=environ)
    assert done.code == 0, done.stderr
    assert done.json["status"] == "running"
    assert done.json["cvm_id"] == cvm.id
    assert done.json["keys_added"] == ["TOKEN"]
    assert "update accepted" in done.stderr
    assert cvm.environment == {"OLD": "2", "TOKEN": "t0ken-value"}


@each_runner
def test_a_ciphertext_is_alone_on_standard_output(environ: dict[str, str], run: Command, cvm: Cvm) -> None:
    run.write(".env", "OLD=2")
    done = run("encrypt", "--cvm", "my-app", "--env-file", ".env", environ=environ)
    assert done.code == 0, done.stderr
    assert re.fullmatch(r"[0-9a-f]{100,}\n", done.stdout)
    assert "key" in done.stderr


@each_runner
def test_a_refusal_leaves_standard_output_empty(environ: dict[str, str], run: Command, cvm: Cvm) -> None:
    done = run("update", "--cvm", "my-app", "--env-file", "missing.env", environ=environ)
    assert done.code == 2
    assert done.stdout == ""
    assert "missing.env" in done.stderr


@each_runner
def test_verbose_tells_of_each_request_and_of_no_value(
    environ: dict[str, str], run: Command, cloud: Cloud, cvm: Cvm
) -> None:
    run.write(".env", "OLD=canary-value")
    arguments = ("update", "--cvm", "my-app", "--env-file", ".env", "--no-wait")
    plain = run(*arguments, environ=environ)
    assert "PATCH" not in plain.stderr
    cvm.wait()
    for done in (
        run(*arguments, "--verbose", environ=environ),
        run(*arguments, environ={**environ, "RUNNER_DEBUG": "1"}),
    ):
        assert re.search(r"PATCH /\S+/envs.*\b202\b", done.stderr), done.stderr
        shown = [line for line in done.stderr.splitlines() if "mask" not in line and "setsecret" not in line]
        assert not any("canary-value" in line or cloud.api_key in line for line in shown)


@each_runner
def test_quiet_is_quiet_when_all_goes_well(environ: dict[str, str], run: Command, cvm: Cvm) -> None:
    run.write(".env", "OLD=2")
    pinned = ("--app-id", cvm.app_id, "--trusted-signers", cvm.kms.root_public_key)
    done = run("update", "--cvm", "my-app", "--env-file", ".env", *pinned, "--quiet", environ=environ)
    assert done.code == 0
    commands = ("::add-mask::", "##vso[task.setsecret]", "##vso[task.setvariable ")
    assert [line for line in done.printed.splitlines() if not line.startswith(commands)] == []


def test_outputs_are_where_each_ci_looks_for_them(run: Command, cvm: Cvm, tmp_path: Path) -> None:
    run.write(".env", "OLD=2\nQUOTED='it is $HOME'")
    arguments = ("update", "--cvm", "my-app", "--env-file", ".env")
    bash_env, variables, report = (tmp_path / name for name in ("bash_env", "variables", "report"))

    assert run(*arguments, environ={**CIRCLECI, "BASH_ENV": str(bash_env)}).code == 0
    assert sourced(["sh", "-c"], bash_env)["PHALA_STATUS"] == "running"
    assert json.loads(sourced(["bash", "-c"], bash_env)["PHALA_ENV_KEYS"]) == ["OLD", "QUOTED"]

    place = {"BITBUCKET_PIPELINES_VARIABLES_PATH": str(variables)}
    assert run(*arguments, environ={**BITBUCKET, **place}).code == 0
    assert f"PHALA_CVM_ID={cvm.id}\n" in variables.read_text()

    assert run(*arguments, "--output-file", str(report), environ=GITLAB).code == 0
    assert 'PHALA_ENV_KEYS=["OLD","QUOTED"]\n' in report.read_text()
    assert "PHALA_STATUS=running\n" in report.read_text()

    lines = run(*arguments, environ=AZURE).stderr.splitlines()
    commands = [command for line in lines if (command := vso_of(line))]
    outputs = {each.properties["variable"]: each.data for each in commands if "variable" in each.properties}
    assert outputs["PHALA_STATUS"] == "running"
    assert json.loads(outputs["PHALA_ENV_KEYS"]) == ["OLD", "QUOTED"]
    masks = [index for index, each in enumerate(commands) if each.name == "task.setsecret"]
    others = [index for index, each in enumerate(commands) if each.name != "task.setsecret"]
    assert max(masks) < min(others)
