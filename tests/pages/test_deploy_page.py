"""docs/deploy.md and docs/migrate.md: their steps and commands run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from phala_secrets.inputs.table import INPUTS
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from tests.support.command import Command
from tests.support.paper_chain import BASE_KMS, PaperChain
from tests.support.step import Step

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
DEPLOY, MIGRATE = ((ROOT / f"docs/{name}.md").read_text() for name in ("deploy", "migrate"))
TRANSACTION = "0x" + "ab" * 32
COMPOSE = (
    "services:\n  web:\n    image: ghcr.io/my-org/my-app@sha256:" + "ab" * 32 + "\n"
    "    environment:\n      DATABASE_URL: ${DATABASE_URL}\n      API_TOKEN: ${API_TOKEN:-}\n"
)
SECRETS = {"DATABASE_URL": "postgres://u:hunter22@db/app", "API_TOKEN": "t0ken-of-the-app"}


def steps() -> list[dict[str, Any]]:
    """Each step of the page that uses the action."""
    found = []
    for block in re.findall(r"^```yaml\n(.*?)^```$", DEPLOY, re.MULTILINE | re.DOTALL):
        content = yaml.safe_load(block)
        jobs = {"": {"steps": content}} if isinstance(content, list) else content["jobs"]
        found += [step for job in jobs.values() for step in job["steps"] if "with" in step]
    return [step for step in found if step["uses"].startswith("phala-secrets/")]


def filled(given: dict[str, Any], values: dict[str, str]) -> dict[str, Any]:
    texts = {name: str(value).lower() if value in (True, False) else value for name, value in given.items()}
    return {
        name.replace("-", "_"): re.sub(r"\$\{\{ \w+\.([\w-]+) \}\}", lambda match: values[match[1]], text)
        for name, text in texts.items()
        if name != "mode"
    }


def test_the_steps_give_inputs_that_there_are() -> None:
    assert len(steps()) == 4
    for step in steps():
        assert set(step["with"]) <= set(ACTION["inputs"]), step


@pytest.mark.parametrize("number", [0, 1])
def test_the_steps_deploy_both(step: Step, cloud: Cloud, number: int) -> None:
    cvm = cloud.add_cvm("my-app", environment={"DATABASE_URL": "old"})
    step.write("docker-compose.yml", COMPOSE)
    example = steps()[number]
    values = {**SECRETS, "PHALA_CLOUD_API_KEY": cloud.api_key}
    done = step(environ=filled(example["env"], values), **filled(example["with"], values))
    assert done.code == 0, done.log
    assert cvm.app_compose["docker_compose_file"] == COMPOSE
    assert cvm.environment == {name: SECRETS[name] for name in example["env"]}


def test_the_two_halves_for_a_safe(step: Step, cloud: Cloud) -> None:
    kms = cloud.add_kms("base-1", 8453, BASE_KMS)
    cvm = cloud.add_cvm("my-app", kms=kms, environment={"DATABASE_URL": "old"})
    step.write("docker-compose.yml", COMPOSE)
    prepare, commit = steps()[2:]
    with PaperChain() as chain:
        cloud.rpc_urls[8453] = chain.url
        chain.hold(cvm)
        values = {**SECRETS, "PHALA_CLOUD_API_KEY": cloud.api_key, "RPC_URL": chain.url}
        done = step(environ=filled(prepare["env"], values), **filled(prepare["with"], values))
        assert done.outputs["status"] == "precondition_required", done.log
        chain.approved.add(done.outputs["compose-hash"])
        chain.transactions[TRANSACTION] = done.outputs["compose-hash"]
        values |= {"prepared-digest": done.outputs["prepared-digest"], "transaction-hash": TRANSACTION}
        done = step(**filled(commit["with"], values))
    assert done.code == 0, done.log
    assert cvm.app_compose["docker_compose_file"] == COMPOSE
    assert cvm.environment == {"DATABASE_URL": SECRETS["DATABASE_URL"]}


def test_the_command_in_place_of_the_official_one(run: Command, cloud: Cloud) -> None:
    cvm: Cvm = cloud.add_cvm("my-app")
    run.write("docker-compose.yml", COMPOSE)
    run.write(".env", "DATABASE_URL=new-value\n")
    (line,) = re.findall(r"^phala-secrets (update .*)$", MIGRATE, re.MULTILINE)
    done = run(*shlex.split(line))
    assert done.code == 0, done.stderr
    assert cvm.environment == {"DATABASE_URL": "new-value"}
    assert cvm.app_compose["docker_compose_file"] == COMPOSE


def test_the_pages_name_inputs_that_there_are() -> None:
    for page in (DEPLOY, MIGRATE):
        for name in re.findall(r"`([a-z][a-z-]+): [^`]*`", page.replace("| `envs:`", "")):
            assert name in INPUTS or name in ("image", "env_file"), name
