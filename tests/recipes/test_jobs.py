"""The everyday jobs on GitHub: each workflow that deploys, rotates, or says that it failed."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.containers import Container
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.server import Simulator
from tests.recipes.servers import TOOLS, Moto, Service, moto, service
from tests.support.ci import GITHUB, VALUES, add_tool
from tests.support.workflow import Workflow

pytestmark = pytest.mark.usefixtures("time_passes")

OLD = dict.fromkeys(VALUES, "old")
DIGEST = f"sha256:{'ab' * 32}"
IMAGE = "ghcr.io/my-org/my-app"


def compose(*names: str, image: str = f"nginx@sha256:{'cd' * 32}") -> str:
    handed_on = "".join(f"      {name}: ${{{name}}}\n" for name in names)
    return f"services:\n  web:\n    image: {image}\n    environment:\n{handed_on}"


@pytest.fixture
def health() -> Iterator[Service]:
    """What an app of the examples answers: all is well."""
    with service(lambda path, headers: (200, {})) as running:
        yield running


# -- deploy --------------------------------------------------------------------------------------


def test_deploy(
    machine: dict[str, str], secrets: dict[str, str], tools: Path, cvm: Cvm, tmp_path: Path
) -> None:
    run = (tools / "docker").read_text()
    build = f"""case "$1" in
login) test "$*" = 'login ghcr.io --username octocat --password-stdin' && grep -qx ghs_token ;;
buildx) echo '{{"containerimage.digest": "{DIGEST}"}}' > image.json ;;
*) {run.splitlines()[1]} ;;
esac"""
    add_tool(tools, "docker", build)
    machine |= {"GITHUB_ACTOR": "octocat", "GITHUB_SHA": "5ha"}
    workflow = Workflow(GITHUB["deploy"], tmp_path / "run", machine, secrets=secrets)
    text = compose(*VALUES, image=f"{IMAGE}@sha256:{'0' * 64}")
    (workflow.workspace / "docker-compose.yml").write_text(text)
    workflow.run()
    assert cvm.environment == VALUES
    assert cvm.app_compose["docker_compose_file"] == compose(*VALUES, image=f"{IMAGE}@{DIGEST}")


# -- a monorepo ----------------------------------------------------------------------------------


class Monorepo:
    """A checkout with apps, each with a CVM of its own."""

    def __init__(self, workflow: Workflow) -> None:
        self.folder = workflow.workspace

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
        command = ["git", *who, *arguments]
        return subprocess.run(
            command, cwd=self.folder, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self, **apps: str | None) -> str:
        """Write, or remove, the compose files of apps; return the commit."""
        for name, text in apps.items():
            path = self.folder / "apps" / name / "docker-compose.yml"
            path.parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                path.unlink()
            else:
                path.write_text(text)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "Change")
        return self.git("rev-parse", "HEAD")


def test_monorepo(machine: dict[str, str], secrets: dict[str, str], cloud: Cloud, tmp_path: Path) -> None:
    cvms = {name: cloud.add_cvm(f"{name}-1", environment=OLD) for name in ("api", "worker", "gone")}
    pins = {"PHALA_CVM": "", "SECRETS": "DATABASE_URL, API_TOKEN"}
    event: dict[str, object] = {"event": {}}

    def push(name: str, before: str) -> Workflow:
        event["event"] = {"before": before}
        workflow = Workflow(
            GITHUB["monorepo"], tmp_path / "run", machine, secrets=secrets, vars=pins, github=event
        )
        pins["PHALA_CVM"] = f"{name}-1"  # of the environment that has the app's name
        workflow.run()
        return workflow

    repository = Monorepo(Workflow(GITHUB["monorepo"], tmp_path / "run", machine))
    repository.git("init", "--quiet")
    first = repository.commit(api=compose(*VALUES), worker=compose(*VALUES), gone=compose(*VALUES))
    second = repository.commit(worker=compose(*VALUES, image=f"nginx@{DIGEST}"), gone=None)

    # Only the app that changed; one that was removed has nothing to deploy.
    (outputs,) = push("worker", first).outputs
    assert outputs["cvm-id"] == cvms["worker"].id
    assert cvms["worker"].environment == VALUES
    assert [cvms[name].environment for name in ("api", "gone")] == [OLD, OLD]
    assert DIGEST in cvms["worker"].app_compose["docker_compose_file"]

    # Nothing changed in any app: nothing is deployed, and nothing fails.
    assert push("worker", second).outputs == []

    # A new branch has nothing before it: every app that there is.
    assert len(push("worker", "0" * 40).outputs) == 2


# -- canary --------------------------------------------------------------------------------------


def test_canary(
    machine: dict[str, str], secrets: dict[str, str], cloud: Cloud, cvm: Cvm, health: Service, tmp_path: Path
) -> None:
    others = [cloud.add_cvm(f"my-app-{n}", app_id=cvm.app_id, environment=OLD) for n in (2, 3)]
    pins = {"PHALA_APP_ID": cvm.app_id, "PHALA_CANARY": cvm.id, "CANARY_URL": health.origin}
    workflow = Workflow(GITHUB["canary"], tmp_path / "run", machine, secrets=secrets, vars=pins)
    workflow.run()
    assert all(each.environment == VALUES for each in (cvm, *others))
    canary, fleet = workflow.outputs
    assert canary["cvm-id"] == cvm.id
    updated = [row["cvm-id"] for row in json.loads(fleet["results"])]
    assert updated == [other.id for other in others], "the canary is not restarted again"


def test_a_canary_whose_container_fails_keeps_the_others_as_they_are(
    machine: dict[str, str], secrets: dict[str, str], cloud: Cloud, cvm: Cvm, health: Service, tmp_path: Path
) -> None:
    other = cloud.add_cvm("my-app-2", app_id=cvm.app_id, environment=OLD)
    cvm.containers = [Container("dstack-web-1", "exited", exit_code=1)]
    pins = {"PHALA_APP_ID": cvm.app_id, "PHALA_CANARY": cvm.id, "CANARY_URL": health.origin}
    with pytest.raises(AssertionError, match="dstack-web-1"):
        Workflow(GITHUB["canary"], tmp_path / "run", machine, secrets=secrets, vars=pins).run()
    assert (cvm.environment, other.environment) == (VALUES, OLD)


def test_a_canary_that_does_not_answer_keeps_the_others_as_they_are(
    machine: dict[str, str], secrets: dict[str, str], cloud: Cloud, cvm: Cvm, tools: Path, tmp_path: Path
) -> None:
    other = cloud.add_cvm("my-app-2", app_id=cvm.app_id, environment=OLD)
    add_tool(tools, "curl", 'exec /usr/bin/curl "$@" --retry-delay 1 --retry 1')
    pins = {"PHALA_APP_ID": cvm.app_id, "PHALA_CANARY": cvm.id}
    with service(lambda path, headers: (503, {})) as sick:
        pins["CANARY_URL"] = sick.origin
        with pytest.raises(AssertionError, match="503"):
            Workflow(GITHUB["canary"], tmp_path / "run", machine, secrets=secrets, vars=pins).run()
    assert len(sick.requests) == 2
    assert (cvm.environment, other.environment) == (VALUES, OLD)


# -- preview -------------------------------------------------------------------------------------


def pull_request(*labels: str, fork: bool = False) -> dict[str, object]:
    return {
        "repository": "my-org/my-app",
        "event": {
            "pull_request": {
                "labels": [{"name": label} for label in labels],
                "head": {"repo": {"full_name": "somebody/my-app" if fork else "my-org/my-app"}},
            }
        },
    }


def test_preview(machine: dict[str, str], secrets: dict[str, str], cloud: Cloud, tmp_path: Path) -> None:
    production = cloud.add_cvm("my-app", environment=OLD)
    preview = cloud.add_cvm("my-app-preview", environment={**OLD, "OF_ANOTHER": "1"})

    def run(name: str, event: dict[str, object], app: str) -> Workflow:
        pins = {"PHALA_APP_ID": app}
        workflow = Workflow(
            GITHUB["preview"], tmp_path / name, machine, secrets=secrets, vars=pins, github=event
        )
        (workflow.workspace / "docker-compose.yml").write_text(compose(*VALUES))
        workflow.run()
        return workflow

    labelled = pull_request("bug", "preview")
    assert run("other", pull_request("bug"), preview.app_id).outputs == []
    assert run("fork", pull_request("preview", fork=True), preview.app_id).outputs == []
    with pytest.raises(AssertionError, match="app-id"):
        run("mistyped", labelled, production.app_id)
    assert preview.environment == {**OLD, "OF_ANOTHER": "1"}

    (outputs,) = run("preview", labelled, preview.app_id).outputs
    assert (preview.environment, production.environment) == (VALUES, OLD)
    assert preview.app_compose["docker_compose_file"] == compose(*VALUES)
    assert outputs["cvm-id"] == preview.id


# -- rotation ------------------------------------------------------------------------------------


class Rotation:
    """An app whose access key AWS has issued: ``old`` is the one that it uses."""

    def __init__(
        self, machine: Mapping[str, str], secrets: Mapping[str, str], amazon: Moto, cvm: Cvm
    ) -> None:
        self.amazon, self.cvm, self._secrets = amazon, cvm, secrets
        self._machine = {**machine, "AWS_ENDPOINT_URL": amazon.environ["AWS_ENDPOINT_URL"]}
        self._machine["AWS_DEFAULT_REGION"] = "eu-central-1"
        amazon("iam", "create-user", "--user-name", "my-app")
        self.old = self.issue()

    def issue(self) -> str:
        return self.amazon(
            "iam", "create-access-key", "--user-name", "my-app", "--query", "AccessKey.AccessKeyId"
        )

    def keys(self) -> list[str]:
        """The keys that AWS accepts today."""
        query = ("--query", "AccessKeyMetadata[].AccessKeyId")
        return self.amazon("iam", "list-access-keys", "--user-name", "my-app", *query).split()

    def run(self, folder: Path, looks: str = "3") -> Workflow:
        rotator = {"ROTATOR_KEY_ID": "AKIAROTATOR", "ROTATOR_KEY": "rotator"}
        path = folder.parent / f"{folder.name}.yml"
        path.write_text(GITHUB["rotation-revoke"].read_text().replace('LOOKS: "60"', f'LOOKS: "{looks}"'))
        workflow = Workflow(path, folder, self._machine, secrets={**self._secrets, **rotator})
        workflow.run()
        return workflow


@pytest.fixture
def rotation(
    machine: dict[str, str], secrets: dict[str, str], tools: Path, simulator: Simulator, tmp_path: Path
) -> Iterator[Rotation]:
    names = ("DATABASE_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    cvm = simulator.cloud.add_cvm("my-app", environment=dict.fromkeys(names, "old"))
    add_tool(tools, "aws", f'exec {TOOLS / "aws"} "$@"')
    # While the workflow sleeps, the app asks AWS who it is, with the key that its guest has.
    guest = f"{simulator.origin}/_simulator/cvms/{cvm.id}"
    app = f"""guest=$(curl --silent --fail {guest})
key() {{ echo "$guest" | jq --raw-output ".environment.$1"; }}
AWS_ACCESS_KEY_ID=$(key AWS_ACCESS_KEY_ID) AWS_SECRET_ACCESS_KEY=$(key AWS_SECRET_ACCESS_KEY) \\
    {TOOLS / "aws"} sts get-caller-identity > /dev/null"""
    add_tool(tools, "sleep", app)
    (tmp_path / "aws").mkdir()
    with moto(machine, tmp_path / "aws/log") as amazon:
        yield Rotation(machine, secrets, amazon, cvm)


def test_a_rotated_key_is_revoked_where_it_was_issued(rotation: Rotation, tmp_path: Path) -> None:
    workflow = rotation.run(tmp_path / "run")
    (new,) = rotation.keys()
    environment = rotation.cvm.environment
    assert environment
    assert new != rotation.old
    assert environment["AWS_ACCESS_KEY_ID"] == new
    key = environment["AWS_SECRET_ACCESS_KEY"]
    assert len(key) == 40
    for line in workflow.logs[0].splitlines():
        assert key not in line or line.startswith("::add-mask::")
    files = [path for path in tmp_path.rglob("*") if path.is_file() and "aws" not in path.parts]
    assert [path for path in files if key.encode() in path.read_bytes()] == []


def test_a_key_that_was_not_sent_is_revoked(rotation: Rotation, cloud: Cloud, tmp_path: Path) -> None:
    cloud.api_key = "another"
    with pytest.raises(AssertionError):
        rotation.run(tmp_path / "run")
    assert rotation.keys() == [rotation.old]


def test_both_keys_stay_where_nobody_has_used_the_new_one(
    rotation: Rotation, tools: Path, tmp_path: Path
) -> None:
    add_tool(tools, "sleep", ":")
    with pytest.raises(AssertionError, match="has not used the new key"):
        rotation.run(tmp_path / "run", looks="2")
    assert len(rotation.keys()) == 2
    # And the next run does not add a third.
    with pytest.raises(AssertionError, match="two keys"):
        rotation.run(tmp_path / "again")


def test_both_keys_stay_where_the_cvm_does_not_come_up(rotation: Rotation, tmp_path: Path) -> None:
    rotation.cvm.containers = [Container("dstack-web-1", "exited", exit_code=1)]
    with pytest.raises(AssertionError, match="not known which key"):
        rotation.run(tmp_path / "run")
    assert len(rotation.keys()) == 2


# -- notify --------------------------------------------------------------------------------------


def test_notify(
    machine: dict[str, str], secrets: dict[str, str], cloud: Cloud, cvm: Cvm, tmp_path: Path
) -> None:
    context = {"server_url": "https://github.com", "repository": "my-org/my-app", "run_id": "7"}
    with service(lambda path, headers: (200, {})) as chat:

        def run(name: str, given: Mapping[str, str]) -> None:
            hidden = {**given, "WEBHOOK_URL": f"{chat.origin}/hooks/s3cr3t"}
            Workflow(GITHUB["notify"], tmp_path / name, machine, secrets=hidden, github=context).run()

        run("well", secrets)
        assert chat.requests == []
        with pytest.raises(AssertionError):
            run("refused", {**secrets, "PHALA_CLOUD_API_KEY": "wrong"})
        cvm.boot_fails("out of memory")
        with pytest.raises(AssertionError):
            run("down", secrets)
    texts = [json.loads(body)["text"] for _, _, body in chat.requests]
    assert "operation: none" in texts[0]
    assert f"operation: {cvm.operations[-1].correlation_id}" in texts[1]
    for text in texts:
        assert re.search(r"status failed.*https://github\.com/my-org/my-app/actions/runs/7", text)
        assert not [value for value in secrets.values() if value in text]
    assert [path for path, _, _ in chat.requests] == ["/hooks/s3cr3t"] * 2
