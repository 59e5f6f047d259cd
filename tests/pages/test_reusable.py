"""What other repositories include: the reusable workflow for GitHub, and the component for GitLab."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.server import Simulator
from tests.support.command import ROOT
from tests.support.workflow import Workflow

pytestmark = pytest.mark.usefixtures("time_passes")

WORKFLOW = ROOT / ".github/workflows/update.yml"
COMPONENT = ROOT / "templates/update.yml"
VALUES = {"DATABASE_URL": "postgres://app:p4$$w0rd@db/app", "API_TOKEN": "t0ken with 'quotes'"}
DOTENV = "DATABASE_URL='postgres://app:p4$$w0rd@db/app'\nAPI_TOKEN=\"t0ken with 'quotes'\"\n"
RELEASE = (ROOT / ".github/workflows/release.yml").read_text()


@pytest.fixture
def cvm(cloud: Cloud) -> Cvm:
    return cloud.add_cvm("my-app", environment=dict.fromkeys(VALUES, "old"))


@pytest.fixture
def base(simulator: Simulator) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "SIMULATOR": simulator.url}


def check(schema: str, *files: Path) -> None:
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    extra = ["--data-transform", "gitlab-ci"] if schema == "gitlab-ci" else []
    done = subprocess.run([*checker, *extra, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# -- GitHub ------------------------------------------------------------------------------------------


def test_the_workflow_is_one_that_others_can_call() -> None:
    check("github-workflows", WORKFLOW)
    content: dict[Any, Any] = yaml.safe_load(WORKFLOW.read_text())
    call = content[True]["workflow_call"]  # YAML takes `on` for a boolean
    outputs = content["jobs"]["update"]["outputs"]
    assert {name: f"${{{{ jobs.update.outputs.{name} }}}}" for name in outputs} == {
        name: output["value"] for name, output in call["outputs"].items()
    }
    given = content["jobs"]["update"]["steps"][-1]["with"]
    declared = {f"inputs.{name}" for name in call["inputs"]} | {f"secrets.{name}" for name in call["secrets"]}
    assert {re.sub(r"[${} ]", "", value) for value in given.values()} == declared - {"inputs.environment"}


def test_the_workflow_updates_the_cvm(base: dict[str, str], cloud: Cloud, cvm: Cvm, tmp_path: Path) -> None:
    secrets = {"api-key": cloud.api_key, "env": DOTENV}
    inputs = {"cvm": "my-app", "mode": "update", "app-id": cvm.app_id}
    workflow = Workflow(WORKFLOW, tmp_path / "run", base, secrets=secrets, inputs=inputs)
    workflow.run()
    assert cvm.environment == VALUES
    assert workflow.outputs[0]["status"] == "running"

    inputs["app-id"] = "0x" + "11" * 20
    with pytest.raises(AssertionError, match="11111111"):
        Workflow(WORKFLOW, tmp_path / "again", base, secrets=secrets, inputs=inputs).run()


def test_a_release_names_its_own_action_by_commit() -> None:
    """So that who pins the workflow pins the action and the image with it."""
    (line,) = re.findall(
        r"^        uses: phala-secrets/phala-secrets@v0$", WORKFLOW.read_text(), re.MULTILINE
    )
    assert f"s|^{line}$|" in RELEASE
    (line,) = re.findall(
        r"^      default: ghcr.io/phala-secrets/phala-secrets:.*$", COMPONENT.read_text(), re.MULTILINE
    )
    assert "s|^      default: $IMAGE:.*|      default: $IMAGE@$DIGEST|" in RELEASE


# -- GitLab ------------------------------------------------------------------------------------------


def filled(given: Mapping[str, str]) -> dict[str, Any]:
    """The component as GitLab includes it: every input that has no default is given, and no other name."""
    header, body = COMPONENT.read_text().split("\n---\n")
    declared = yaml.safe_load(header)["spec"]["inputs"]
    values = {name: entry["default"] for name, entry in declared.items() if "default" in entry} | dict(given)
    assert values.keys() == declared.keys()
    for name, value in values.items():
        assert re.search(declared[name].get("regex", ""), value), name
        assert value in declared[name].get("options", [value]), name
    job: dict[str, Any] = yaml.safe_load(
        re.sub(r"\$\[\[ inputs\.([\w-]+) \]\]", lambda name: values[name[1]], body)
    )
    return job


def test_the_component_is_what_gitlab_asks_for(tmp_path: Path) -> None:
    header, _ = COMPONENT.read_text().split("\n---\n")
    (tmp_path / "header.yml").write_text(header)
    (tmp_path / "pipeline.yml").write_text(yaml.safe_dump(filled({"cvm": "my-app", "secrets": "A, B"})))
    check("gitlab-ci", tmp_path / "header.yml", tmp_path / "pipeline.yml")


def run_component(
    base: dict[str, str], cloud: Cloud, folder: Path, job: Mapping[str, Any], project: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """The job with the variables of a project, which are stronger than its own."""
    tool = folder / "tools/phala-secrets"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} -m phala_secrets "$@"\n')
    tool.chmod(0o755)
    environ = {
        "PATH": f"{tool.parent}:{base['PATH']}",
        "HOME": str(folder),
        "CI": "true",
        "GITLAB_CI": "true",
        "PHALA_CLOUD_API_PREFIX": base["SIMULATOR"],
        "PHALA_CLOUD_API_KEY": cloud.api_key,
        **job["variables"],
        **project,
    }
    return subprocess.run(
        ["bash", "-eo", "pipefail", "-c", "\n".join(job["script"])],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("value", ["", "a-secret"])
@pytest.mark.parametrize("pin", ["app-id", "trusted-signers", "require-trust"])
def test_no_variable_of_a_project_takes_the_place_of_a_pin(
    base: dict[str, str], cloud: Cloud, cvm: Cvm, tmp_path: Path, pin: str, value: str
) -> None:
    """The pins went through APP, SIGNERS and TRUST: names that a project has, and its app's secrets too."""
    pins = {"app-id": "11" * 20, "trusted-signers": cloud.add_kms("other").root_public_key}
    pins["require-trust"] = "pinned"
    (job,) = filled({"cvm": "my-app", "secrets": "ONE", "mode": "plan", pin: pins[pin]}).values()
    project = {"ONE": "1", **dict.fromkeys(("APP", "SIGNERS", "TRUST"), value)}
    done = run_component(base, cloud, tmp_path, job, project)
    assert done.returncode == 3, done.stdout + done.stderr
    assert all(request.method == "GET" for request in cloud.requests)


@pytest.mark.parametrize("pin", ["app-id", "trusted-signers", "require-trust"])
@pytest.mark.parametrize("text", ['"; touch x; "', "$(touch x)", "`touch x`", "$HOME", "a\\"])
def test_no_pin_is_a_command(pin: str, text: str) -> None:
    with pytest.raises(AssertionError, match=pin):
        filled({"cvm": "my-app", "secrets": "A", pin: text})


@pytest.mark.parametrize("pinned", [True, False])
def test_the_component_updates_the_cvm(
    base: dict[str, str], cloud: Cloud, cvm: Cvm, tmp_path: Path, pinned: bool
) -> None:
    pins = {"app-id": cvm.app_id, "trusted-signers": cvm.kms.root_public_key, "require-trust": "pinned"}
    (job,) = filled(
        {"cvm": "my-app", "secrets": "DATABASE_URL, API_TOKEN", **(pins if pinned else {})}
    ).values()
    done = run_component(base, cloud, tmp_path, job, VALUES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert cvm.environment == VALUES
    report = (tmp_path / job["artifacts"]["reports"]["dotenv"]).read_text()
    assert ("PHALA_TRUST=pinned" in report) is pinned
    for value in VALUES.values():
        assert value not in done.stdout + done.stderr + report
