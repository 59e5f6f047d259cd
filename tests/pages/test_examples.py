"""The examples: each is what its CI's schema asks for, and does what it says against a simulated Phala Cloud.

Their commands are taken from the files as they stand, and run in the variables of that CI, with the outputs
carried from step to step as that CI carries them.
"""

from __future__ import annotations

import json
import os
import re
import socket
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
from tests.runners.test_rooms import vso_of
from tests.support.ci import EXAMPLES, GITHUB, VALUES, load, sh
from tests.support.workflow import Workflow

pytestmark = pytest.mark.usefixtures("time_passes")

SCHEMAS = {
    "azure/azure-pipelines.yml": ("azure-pipelines", "--data-transform", "azure-pipelines"),
    "bitbucket/bitbucket-pipelines.yml": ("bitbucket-pipelines",),
    "buildkite/pipeline.yml": ("buildkite",),
    "circleci/config.yml": ("circle-ci",),
    "forgejo/*.yml": ("github-workflows",),
    "github/*.yml": ("github-workflows",),
    "gitlab/.gitlab-ci.yml": ("gitlab-ci", "--data-transform", "gitlab-ci"),
}
MAY_WRITE = {"deploy": {"packages"}, "keyless": {"id-token"}, "pull-request": {"pull-requests"}}
"""Permissions beyond reading, by example."""


@pytest.fixture
def cvm(cloud: Cloud) -> Cvm:
    """The CVM of the examples, with the variables that it had before."""
    return cloud.add_cvm("my-app", environment=dict.fromkeys(VALUES, "old"))


# -- as they stand -------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", SCHEMAS)
def test_an_example_is_what_its_ci_asks_for(pattern: str) -> None:
    files = list(map(str, EXAMPLES.glob(pattern)))
    assert files
    schema, *transform = SCHEMAS[pattern]
    # The schema of Azure Pipelines has patterns that are none with the flag u.
    regexes = ["--regex-variant", "nonunicode"] if schema == "azure-pipelines" else []
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run(
        [*checker, *transform, *regexes, *files],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_list_of_examples_is_whole() -> None:
    listed = re.findall(r"\]\(([a-z][\w./-]*)\)", (EXAMPLES / "README.md").read_text())
    there = {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*") if path.is_file()}
    own = {name for name in there if not name.startswith("demo/")} - {"README.md"}
    assert set(listed) == {f"{name}" if "/" in name else f"github/{name}" for name in own}


def _is_ours(step: Mapping[str, Any]) -> bool:
    return str(step.get("uses", "")).startswith("phala-secrets/")


@pytest.mark.parametrize("path", GITHUB.values(), ids=GITHUB)
def test_a_github_example_is_one_to_copy(path: Path) -> None:
    text = path.read_text()
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {}
    assert "pull_request_target" not in workflow[True]
    assert workflow["concurrency"]["group"]
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"]
        written = {name for name, level in job.get("permissions", {}).items() if level != "read"}
        assert written <= MAY_WRITE.get(path.stem, set())
        keyless = [step for step in job["steps"] if _is_ours(step) and "api-key" not in step["with"]]
        assert ("id-token" in written) == (bool(keyless) and path.stem != "pull-request")
        # Who writes to a pull request has no key, no secret, and no code of anybody.
        used = re.search(r"secrets\.|checkout|phala-secrets/phala-secrets@", str(job["steps"]))
        assert not (used and "pull-requests" in written)
        for step in job["steps"]:
            assert "secrets." not in step.get("run", "")
            taken = {
                key for key, value in step.get("with", {}).items() if "secrets" in str(value).split(".")[0]
            }
            assert taken <= {"api-key", "env", "secrets-json", "secrets"}
    for used in re.findall(r"^[ -]*uses: (.+)$", text, re.MULTILINE):
        ours = used == "phala-secrets/phala-secrets@v0"
        assert ours or re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used), used


def test_examples_of_one_cvm_never_update_it_at_once() -> None:
    others = {"environments", "monorepo", "preview", "pull-request", "watch-kms"}
    updating = set(GITHUB) - others
    assert {load(f"github/{name}.yml")["concurrency"]["group"] for name in updating} == {"my-app"}
    assert load("gitlab/.gitlab-ci.yml")["secrets"]["resource_group"]
    assert load("circleci/config.yml")["workflows"]["deploy"]["jobs"][0]["secrets"]["serial-group"]
    assert load("azure/azure-pipelines.yml")["lockBehavior"] == "sequential"
    assert load("bitbucket/bitbucket-pipelines.yml")["pipelines"]["branches"]["main"][0]["step"][
        "concurrency-group"
    ]
    assert load("buildkite/pipeline.yml")["steps"][0]["concurrency"] == 1
    assert load("github/monorepo.yml")["jobs"]["deploy"]["concurrency"]["group"] == "app-${{ matrix.app }}"
    assert load("forgejo/secrets.yml")["concurrency"]["group"]
    assert load("kubernetes/cronjob.yaml")["spec"]["concurrencyPolicy"] == "Forbid"
    assert "disableConcurrentBuilds()" in (EXAMPLES / "jenkins/Jenkinsfile").read_text()


# -- other CIs -----------------------------------------------------------------------------------


def test_gitlab(machine: dict[str, str], secrets: dict[str, str], cvm: Cvm, tmp_path: Path) -> None:
    pipeline = load("gitlab/.gitlab-ci.yml")
    environ = {**machine, **secrets, "GITLAB_CI": "true"}
    job, check = pipeline["secrets"], pipeline["check"]
    sh("\n".join(job["script"]), tmp_path, environ)
    assert cvm.environment == VALUES
    report = (tmp_path / job["artifacts"]["reports"]["dotenv"]).read_text()
    assert report.endswith("\n")
    assert len(report.encode()) <= 5 * 1024
    variables = {}
    for line in report.splitlines():
        name, value = re.fullmatch(r"(\w+)=(\S.*)", line).groups()  # type: ignore[union-attr]
        variables[name] = value
    assert json.loads(variables["PHALA_ENV_KEYS"]) == list(VALUES)
    log = sh("\n".join(check["script"]), tmp_path, environ, variables, shell="sh -e")
    assert f"{cvm.id} is running" in log


def test_circleci(machine: dict[str, str], secrets: dict[str, str], cvm: Cvm, tmp_path: Path) -> None:
    bash_env = tmp_path / "bash_env"
    bash_env.write_text("export EARLIER=1\n")
    environ = {**machine, **secrets, "CIRCLECI": "true", "BASH_ENV": str(bash_env)}
    log = "".join(
        sh(step["run"]["command"], tmp_path, environ)
        for step in load("circleci/config.yml")["jobs"]["secrets"]["steps"]
    )
    assert cvm.environment == VALUES
    assert f"{cvm.id} is running" in log


def test_azure(machine: dict[str, str], secrets: dict[str, str], cvm: Cvm, tmp_path: Path) -> None:
    variables = dict(secrets)
    folder = tmp_path / "agent"
    folder.mkdir()
    agent = {"TF_BUILD": "True", "AGENT_TEMPDIRECTORY": str(folder)}
    (job,) = load("azure/azure-pipelines.yml")["jobs"]
    log = ""
    for step in job["strategy"]["runOnce"]["deploy"]["steps"]:
        env = {
            name: re.sub(r"\$\(([\w.]+)\)", lambda match: variables[match[1]], text)
            for name, text in step["env"].items()
        }
        log = sh(step["script"], tmp_path, machine, agent, env, shell="bash -e")
        commands = [command for line in log.splitlines() if (command := vso_of(line))]
        for command in commands:
            if command.name == "task.setvariable":
                variables[f"{step['name']}.{command.properties['variable']}"] = command.data
        masks = [command.data for command in commands if command.name == "task.setsecret"]
        if step.get("name"):
            assert set(secrets.values()) <= set(masks)
            (summary,) = (command.data for command in commands if command.name == "task.uploadsummary")
            assert "my-app runs with the new environment" in Path(summary).read_text()
    assert cvm.environment == VALUES
    assert f"{cvm.id} is running" in log


def test_bitbucket(machine: dict[str, str], secrets: dict[str, str], cvm: Cvm, tmp_path: Path) -> None:
    variables: dict[str, str] = {}
    place = tmp_path / "variables"
    environ = {**machine, "BITBUCKET_BUILD_NUMBER": "7", "BITBUCKET_PIPELINES_VARIABLES_PATH": str(place)}
    log = ""
    for item in load("bitbucket/bitbucket-pipelines.yml")["pipelines"]["branches"]["main"]:
        step = item["step"]
        own = secrets if "deployment" in step else {}
        log = sh("\n".join(step["script"]), tmp_path, environ, own, variables)
        written = dict(line.split("=", 1) for line in place.read_text().splitlines())
        variables |= {name: written[name] for name in step.get("output-variables", [])}
    assert cvm.environment == VALUES
    assert f"{cvm.id} is running" in log


def test_buildkite(machine: dict[str, str], secrets: dict[str, str], cvm: Cvm, tmp_path: Path) -> None:
    # What the agent fills in when a pipeline is uploaded; the example leaves all of it to the step's shell.
    text = (EXAMPLES / "buildkite/pipeline.yml").read_text()
    assert not re.search(r"(?<!\$)\$(?!\$)", "\n".join(line for line in text.splitlines() if "#" not in line))
    update, look = yaml.safe_load(text.replace("$$", "$"))["steps"]
    artifacts = tmp_path / "artifacts"
    artifacts.mkdir()
    environ = {**machine, "BUILDKITE": "true", "ARTIFACTS": str(artifacts)}
    sh(update["command"], tmp_path, environ, {name: secrets[name] for name in update["secrets"]})
    assert cvm.environment == VALUES
    assert "my-app runs with the new environment" in (artifacts / "my-app-secrets.md").read_text()
    outputs = tmp_path / update["artifact_paths"]
    assert json.loads(outputs.read_text())["cvm_id"] == cvm.id
    outputs.rename(artifacts / outputs.name)
    assert '"status": "running"' in sh(look["command"], tmp_path, environ)


def test_docker_run(machine: dict[str, str], secrets: dict[str, str], cvm: Cvm, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("DATABASE_URL='p4$$w0rd'\nAPI_TOKEN=\"two words\"\n")
    key = {"PHALA_CLOUD_API_KEY": secrets["PHALA_CLOUD_API_KEY"]}
    sh(str(EXAMPLES / "docker-run/update.sh"), tmp_path, machine, key, shell="sh")
    assert cvm.environment == {"DATABASE_URL": "p4$$w0rd", "API_TOKEN": "two words"}
    assert json.loads((tmp_path / "outputs.json").read_text())["status"] == "running"


# -- GitHub --------------------------------------------------------------------------------------


def test_plain(machine: dict[str, str], secrets: dict[str, str], cvm: Cvm, tmp_path: Path) -> None:
    dotenv = "DATABASE_URL='p4$$w0rd'\n# a comment\nAPI_TOKEN=abc def\n"
    workflow = Workflow(GITHUB["plain"], tmp_path / "run", machine, secrets={**secrets, "DOTENV": dotenv})
    workflow.run()
    assert cvm.environment == {"DATABASE_URL": "p4$$w0rd", "API_TOKEN": "abc def"}


def test_secrets_by_name(machine: dict[str, str], secrets: dict[str, str], cvm: Cvm, tmp_path: Path) -> None:
    given = {**secrets, "PRODUCTION_TOKEN": "the real one"}
    workflow = Workflow(GITHUB["secrets-by-name"], tmp_path / "run", machine, secrets=given)
    workflow.run()
    assert cvm.environment == {**VALUES, "API_TOKEN": "the real one"}
    assert f"{cvm.id} is running" in workflow.logs[-1]

    del given["PRODUCTION_TOKEN"]
    with pytest.raises(AssertionError, match="unset or empty in this step's environment: API_TOKEN"):
        Workflow(GITHUB["secrets-by-name"], tmp_path / "again", machine, secrets=given).run()


def test_all_secrets(machine: dict[str, str], secrets: dict[str, str], cloud: Cloud, tmp_path: Path) -> None:
    cvm = cloud.add_cvm("my-app")
    given = {**secrets, "APP_URL": "https://app", "APP_KEY": "line 'one'", "github_token": "ghs_x"}
    workflow = Workflow(GITHUB["all-secrets"], tmp_path / "run", machine, secrets=given)
    workflow.run()
    assert cvm.environment == {"APP_URL": "https://app", "APP_KEY": "line 'one'"}


def test_keyless(
    machine: dict[str, str], secrets: dict[str, str], simulator: Simulator, cvm: Cvm, tmp_path: Path
) -> None:
    del secrets["PHALA_CLOUD_API_KEY"]
    tokens = {"URL": simulator.token_url, "TOKEN": simulator.cloud.github.request_token}
    job = {f"ACTIONS_ID_TOKEN_REQUEST_{name}": value for name, value in tokens.items()}
    workflow = Workflow(GITHUB["keyless"], tmp_path / "run", {**machine, **job}, secrets=secrets)
    workflow.run()
    assert cvm.environment == VALUES
    assert "logged in with GitHub's token for repo:octo-org/octo-app" in workflow.logs[-1]

    simulator.cloud.tokens.trusted["octo-org/octo-app"].append("other")
    with pytest.raises(AssertionError, match="set workspace"):
        Workflow(GITHUB["keyless"], tmp_path / "again", {**machine, **job}, secrets=secrets).run()
    workspace = {"PHALA_WORKSPACE": "octo"}
    Workflow(GITHUB["keyless"], tmp_path / "named", {**machine, **job}, secrets=secrets, vars=workspace).run()


def test_environments(machine: dict[str, str], secrets: dict[str, str], cvm: Cvm, tmp_path: Path) -> None:
    pins = {
        "PHALA_CVM": cvm.name,
        "PHALA_APP_ID": cvm.app_id,
        "PHALA_KMS_ROOT": cvm.kms.root_public_key,
    }
    workflow = Workflow(GITHUB["environments"], tmp_path / "run", machine, secrets=secrets, vars=pins)
    workflow.run()
    assert cvm.environment == VALUES
    assert [outputs["trust"] for outputs in workflow.outputs] == ["pinned", "pinned"]

    del pins["PHALA_KMS_ROOT"]
    with pytest.raises(AssertionError, match="require-trust"):
        Workflow(GITHUB["environments"], tmp_path / "again", machine, secrets=secrets, vars=pins).run()


def test_fleet(
    machine: dict[str, str], secrets: dict[str, str], cloud: Cloud, cvm: Cvm, tmp_path: Path
) -> None:
    replicas = [cvm, *(cloud.add_cvm(f"my-app-{n}", app_id=cvm.app_id, environment=VALUES) for n in (2, 3))]
    pins = {"PHALA_APP_ID": cvm.app_id}
    workflow = Workflow(GITHUB["fleet"], tmp_path / "run", machine, secrets=secrets, vars=pins)
    workflow.run()
    assert [outputs["cvm-id"] for outputs in workflow.outputs] == [replica.id for replica in replicas]
    assert all(replica.environment == VALUES for replica in replicas)


def pull_request(repository: str, author: str = "octocat") -> dict[str, Any]:
    """What GitHub knows of a pull request from a repository."""
    head = {"repo": {"full_name": repository}}
    return {
        "repository": "o/r",
        "event": {"pull_request": {"number": 7, "head": head, "user": {"login": author}}},
    }


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


@pytest.mark.parametrize(
    "event", [pull_request("fork/r"), pull_request("o/r", "dependabot[bot]")], ids=["fork", "dependabot"]
)
def test_a_pull_request_without_secrets_is_simulated_and_gets_no_comment(
    machine: dict[str, str], tmp_path: Path, event: dict[str, Any]
) -> None:
    comments = {"COMMENTS_FILE": str(tmp_path / "comments.json")}
    workflow = Workflow(GITHUB["pull-request"], tmp_path / "run", {**machine, **comments}, github=event)
    (workflow.workspace / ".env.example").write_text("DATABASE_URL=postgres://sample\n")
    workflow.run(PORT=free_port())
    assert "my-app: update accepted" in workflow.logs[-1]
    assert not (tmp_path / "comments.json").exists()

    broken = Workflow(GITHUB["pull-request"], tmp_path / "again", machine, github=event)
    (broken.workspace / ".env.example").write_text("DATABASE_URL\n")
    with pytest.raises(AssertionError, match="line 1"):
        broken.run(PORT=free_port())


def test_a_pull_request_puts_nothing_in_the_place_of_the_plan(
    machine: dict[str, str], secrets: dict[str, str], cvm: Cvm, tmp_path: Path
) -> None:
    """A link that the action refuses to write through was uploaded, with what is behind it on the runner."""
    (tmp_path / "credentials").write_text("of-the-runner")
    base = {**machine, "COMMENTS_FILE": str(tmp_path / "comments.json")}
    event = pull_request("o/r")
    workflow = Workflow(GITHUB["pull-request"], tmp_path / "run", base, github=event, secrets=secrets)
    (workflow.workspace / ".env.example").write_text("DATABASE_URL=postgres://sample\n")
    (workflow.workspace / "docker-compose.yml").write_text("services: [")
    (workflow.workspace / "plan.md").symlink_to(tmp_path / "credentials")
    with pytest.raises(AssertionError):
        workflow.run(PORT=free_port())
    (comment,) = json.loads((tmp_path / "comments.json").read_text())
    assert "of-the-runner" not in comment["body"]
    assert "failed (exit code 2)" in comment["body"]


def test_a_pull_request_gets_one_comment_with_the_plan(
    machine: dict[str, str], secrets: dict[str, str], cvm: Cvm, cloud: Cloud, tmp_path: Path
) -> None:
    file = tmp_path / "comments.json"
    file.write_text(json.dumps([{"id": 1, "bot": True, "body": "coverage"}]))

    def run(folder: str, compose: str) -> str:
        base = {**machine, "COMMENTS_FILE": str(file)}
        event = pull_request("o/r")
        workflow = Workflow(GITHUB["pull-request"], tmp_path / folder, base, github=event, secrets=secrets)
        (workflow.workspace / ".env.example").write_text("DATABASE_URL=postgres://sample\n")
        (workflow.workspace / "docker-compose.yml").write_text(compose)
        try:
            workflow.run(PORT=free_port())
        finally:
            other, comment = json.loads(file.read_text())
            assert other["body"] == "coverage"
        return str(comment["body"])

    compose = "services:\n  app:\n    image: app@sha256:" + "0" * 64 + "\n    environment: [API_TOKEN]\n"
    body = run("first", compose)
    assert body.startswith(
        "<!-- phala-secrets: plan of my-app -->\n### Plan for my-app: update would go through"
    )
    assert "+    environment: [API_TOKEN]" in body
    assert not [value for value in VALUES.values() if value in body]
    assert cvm.environment == dict.fromkeys(VALUES, "old"), "nothing was updated"

    with pytest.raises(AssertionError, match="MISSING"):
        run("second", compose.replace("[API_TOKEN]", "{A: '${MISSING:?}'}"))
    body = json.loads(file.read_text())[1]["body"]
    assert "### Plan for my-app: update would be refused (exit code 4)" in body
    assert "MISSING" in body


def test_rotation(machine: dict[str, str], secrets: dict[str, str], cloud: Cloud, tmp_path: Path) -> None:
    before = {**VALUES, "SIGNING_KEY": "old"}
    cvm = cloud.add_cvm("my-app", environment=before)
    replica = cloud.add_cvm("my-app-2", app_id=cvm.app_id, environment=before)
    pins = {"PHALA_APP_ID": cvm.app_id}
    workflow = Workflow(GITHUB["rotation"], tmp_path / "run", machine, secrets=secrets, vars=pins)
    workflow.run()
    assert cvm.environment
    key = cvm.environment["SIGNING_KEY"]
    assert re.fullmatch(r"[A-Za-z0-9+/]{43}=", key)
    assert cvm.environment == replica.environment == {**VALUES, "SIGNING_KEY": key}
    assert list(workflow.workspace.iterdir()) == []
    for line in "".join(workflow.logs).splitlines():
        assert key not in line or line.startswith("::add-mask::")


def test_watch_kms(
    machine: dict[str, str], secrets: dict[str, str], cloud: Cloud, cvm: Cvm, tmp_path: Path
) -> None:
    pins = {"PHALA_APP_ID": cvm.app_id, "PHALA_KMS_ROOT": f"0x{cvm.kms.root_public_key}"}
    key = {"PHALA_CLOUD_API_KEY": secrets["PHALA_CLOUD_API_KEY"]}
    workflow = Workflow(GITHUB["watch-kms"], tmp_path / "run", machine, secrets=key, vars=pins)
    workflow.run()
    assert workflow.outputs[0]["status"] == "verified"

    pins["PHALA_KMS_ROOT"] = cloud.add_kms("another").root_public_key
    with pytest.raises(AssertionError, match="trusted-signers"):
        Workflow(GITHUB["watch-kms"], tmp_path / "again", machine, secrets=key, vars=pins).run()
    assert all(request.method == "GET" for request in cloud.requests)


def test_approval(machine: dict[str, str], secrets: dict[str, str], cloud: Cloud, tmp_path: Path) -> None:
    kms = cloud.add_kms("base", chain_id=8453, contract_address="0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C")
    cvm = cloud.add_cvm("my-app", kms=kms, environment={"DATABASE_URL": "old"})
    prepare = Workflow(GITHUB["approval-prepare"], tmp_path / "run", machine, secrets=secrets)
    prepare.run()
    (outputs,) = prepare.outputs
    assert outputs["status"] == "precondition_required"
    assert cvm.environment == {"DATABASE_URL": "old"}
    artifact = prepare.artifacts / "prepared"
    assert [path.name for path in artifact.iterdir()] == ["prepared.json"]
    assert json.loads(outputs["safe-transaction"])["chainId"] == "8453"

    approval = {"prepared-digest": outputs["prepared-digest"], "transaction-hash": f"0x{'ab' * 32}"}
    cloud.approved_transactions.add(approval["transaction-hash"])
    key = {"PHALA_CLOUD_API_KEY": secrets["PHALA_CLOUD_API_KEY"]}

    def commit(name: str) -> None:
        run = Workflow(GITHUB["approval-commit"], tmp_path / name, machine, secrets=key, inputs=approval)
        run.artifacts = prepare.artifacts
        run.run()

    content = (artifact / "prepared.json").read_text()
    sealed = json.loads(content)["encrypted_env"]
    forged = sealed[:-3] + ("0" if sealed[-3] != "0" else "1") + sealed[-2:]
    (artifact / "prepared.json").write_text(content.replace(sealed, forged))
    with pytest.raises(AssertionError, match="prepared-digest"):
        commit("forged")
    assert cvm.environment == {"DATABASE_URL": "old"}

    (artifact / "prepared.json").write_text(content)
    commit("commit")
    assert cvm.environment == VALUES
