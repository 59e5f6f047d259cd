"""A compose file and secrets in one step, approvals and attestation: as the image runs them."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.measured_boot import os_measurements
from phala_secrets.simulator.server import Simulator
from tests.image.container import Container
from tests.image.test_run import open_to_anybody
from tests.support.paper_chain import BASE_KMS, PaperChain
from tests.support.step import read_outputs

DIGEST = "sha256:" + "ab" * 32
BEFORE = f"services:\n  web:\n    image: nginx@{DIGEST}\n    environment:\n      OLD: ${{OLD}}\n"
AFTER = BEFORE + "      TOKEN: ${TOKEN}\n"
SECRET = "a-value-nobody-may-see"
ENV = f"OLD=2\nTOKEN={SECRET}"
NEW = {"OLD": "2", "TOKEN": SECRET}
ROOT, SOMEBODY = "0:0", "12345:12345"

Deploy = Callable[..., "tuple[int, str, dict[str, str]]"]


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def github(tmp_path: Path) -> Path:
    """The folders and files that a runner mounts."""
    for folder in ("workspace", "home", "file_commands"):
        (tmp_path / folder).mkdir()
    for name in ("output", "summary"):
        (tmp_path / "file_commands" / name).touch()
    return tmp_path


@pytest.fixture
def cvm(simulator: Simulator) -> Cvm:
    return simulator.cloud.add_cvm("my-app", docker_compose_file=BEFORE, environment={"OLD": "1"})


@pytest.fixture
def owned(simulator: Simulator) -> Cvm:
    """The same on an Onchain KMS."""
    kms = simulator.cloud.add_kms("base-1", 8453, BASE_KMS)
    return simulator.cloud.add_cvm("my-app", kms=kms, docker_compose_file=BEFORE, environment={"OLD": "1"})


@pytest.fixture
def chain(simulator: Simulator, owned: Cvm) -> Iterator[PaperChain]:
    with PaperChain() as chain:
        simulator.cloud.rpc_urls[8453] = chain.url
        chain.hold(owned)
        yield chain


@pytest.fixture
def deploy(container: Container, simulator: Simulator, github: Path) -> Deploy:
    """``deploy(user, **inputs)``: a step that deploys both; its exit code, its log, its outputs."""
    (github / "workspace/docker-compose.yml").write_text(AFTER)
    open_to_anybody(github)
    output, summary = (github / "file_commands" / name for name in ("output", "summary"))

    def deploy(user: str = ROOT, **inputs: str | None) -> tuple[int, str, dict[str, str]]:
        given: dict[str, Any] = {
            "mode": "update",
            "api-url": simulator.url,
            "api-key": simulator.cloud.api_key,
            "cvm": "my-app",
            "env": ENV,
            "compose-file": "docker-compose.yml",
            **{name.replace("_", "-"): value for name, value in inputs.items()},
        }
        variables = {
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": "/github/workspace",
            "GITHUB_OUTPUT": "/github/file_commands/output",
            "GITHUB_STEP_SUMMARY": "/github/file_commands/summary",
            "HOME": "/github/home",
            **{f"INPUT_{name.upper()}": value for name, value in given.items() if value is not None},
        }
        output.write_text("")
        done = container.run(env=variables, github=github, user=user)
        log = "\n".join(
            line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("::add-mask::")
        )
        assert SECRET not in log + output.read_text() + summary.read_text()
        return done.returncode, log, read_outputs(output.read_text())

    return deploy


@pytest.mark.parametrize("user", [ROOT, SOMEBODY])
def test_compose_file_and_secrets_arrive_with_one_restart(deploy: Deploy, cvm: Cvm, user: str) -> None:
    expected = cvm.hash_with(["OLD", "TOKEN"], docker_compose_file=AFTER)
    code, log, planned = deploy(user, mode="plan")
    assert (code, planned["compose-hash"], cvm.operations) == (0, expected, []), log
    assert "+      TOKEN: ${TOKEN}" in log
    code, log, outputs = deploy(user)
    assert (code, outputs["compose-hash"]) == (0, expected), log
    assert cvm.compose_hash == expected
    assert cvm.app_compose["docker_compose_file"] == AFTER
    assert cvm.environment == NEW
    assert len(cvm.operations) == 1


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (AFTER.replace("${TOKEN}", SECRET), 2, "the value of TOKEN is in the compose file"),
        (AFTER + "      MORE: ${MISSING}\n", 4, "refers to MISSING, which is missing"),
        (AFTER + "    volumes: [./conf:/conf]\n", 2, "mounts a path of the checkout"),
    ],
    ids=["a secret", "a missing variable", "a mount of the checkout"],
)
def test_what_is_wrong_with_the_file_is_refused(
    deploy: Deploy, cvm: Cvm, github: Path, text: str, code: int, said: str
) -> None:
    (github / "workspace/docker-compose.yml").write_text(text)
    refused, log, outputs = deploy()
    assert (refused, outputs["status"]) == (code, "failed"), log
    assert said in log
    assert cvm.operations == []


def test_a_file_that_the_api_changed_on_the_way_is_refused(
    deploy: Deploy, cvm: Cvm, simulator: Simulator
) -> None:
    def change(request: Any, answer: Any) -> Any:
        if request.method == "PATCH":
            evil = cvm.app_compose["docker_compose_file"] + "    privileged: true\n"
            cvm.app_compose = {**cvm.app_compose, "docker_compose_file": evil}
        return answer

    simulator.cloud.tamper = change
    code, log, outputs = deploy()
    assert (code, outputs["status"]) == (6, "failed"), log
    assert "has a different compose file" in log


def test_what_root_prepares_a_step_of_another_user_commits(
    deploy: Deploy, owned: Cvm, chain: PaperChain, github: Path
) -> None:
    first = {"rpc_url": chain.url, "prepare_only": "true", "prepared_file": "prepared.json"}
    code, log, prepared = deploy(ROOT, **first)
    assert (code, prepared["status"]) == (0, "precondition_required"), log
    path = github / "workspace/prepared.json"
    written = path.stat()
    assert (written.st_uid, stat.S_IMODE(written.st_mode)) == (0, 0o644)
    assert SECRET not in path.read_text()

    (github / "workspace/docker-compose.yml").unlink()  # another machine
    second: dict[str, str | None] = {
        "env": None,
        "compose_file": None,
        "rpc_url": chain.url,
        "prepared_file": "prepared.json",
        "prepared_digest": prepared["prepared-digest"],
    }
    code, log, _ = deploy(SOMEBODY, **second)
    assert code == 7, log
    assert owned.operations == []
    chain.approved.add(prepared["compose-hash"])
    code, log, outputs = deploy(SOMEBODY, **second)
    assert (code, outputs["status"]) == (0, "running"), log
    assert owned.compose_hash == prepared["compose-hash"]
    assert owned.app_compose["docker_compose_file"] == AFTER
    assert owned.environment == NEW
    after = path.stat()
    assert (after.st_uid, after.st_mtime) == (0, written.st_mtime)


def test_what_runs_is_attested(deploy: Deploy, cvm: Cvm, simulator: Simulator, github: Path) -> None:
    (github / "workspace/root.pem").write_text(simulator.cloud.tee.root_pem)
    wanted = {
        "attest": "require",
        "pccs_url": simulator.origin,
        "attestation_root": "root.pem",
        "trusted_os": os_measurements(cvm),
        "trusted_kms_ca": cvm.kms.ca_public_key,
    }
    code, log, outputs = deploy(**wanted)
    assert (code, outputs["attested"]) == (0, "true"), log
    cvm.firmware.os = "somebody's own"
    code, log, outputs = deploy(**wanted)
    assert (code, outputs["attested"]) == (9, "false"), log
