"""What README.md says of the official command, in its table: the same stories, theirs and ours.

phala-deploy-action runs ``phala deploy --json -e .env``, without ``--wait``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from phala_secrets.simulator import lies
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.server import Simulator
from tests.interop.others import OfficialCommand
from tests.support.command import Command

COMPOSE = 'services: {web: {image: nginx, environment: {OLD: "${OLD}", NEW: "${NEW}"}}}\n'
THEIRS = (
    ("envs", "update", "my-app", "-e", ".env"),
    ("deploy", "--json", "--cvm-id", "my-app", "-c", "docker-compose.yml", "-e", ".env"),
)
OURS = ("update", "--cvm", "my-app", "--env-file", ".env")
theirs = pytest.mark.parametrize("words", THEIRS, ids=["envs update", "deploy"])


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(Cloud(restart_seconds=0.05)) as running:
        yield running


@pytest.fixture
def cvm(simulator: Simulator) -> Cvm:
    return simulator.cloud.add_cvm("my-app", environment={"OLD": "1"})


@pytest.fixture
def phala(simulator: Simulator, tmp_path: Path) -> OfficialCommand:
    (tmp_path / "docker-compose.yml").write_text(COMPOSE)
    return OfficialCommand(simulator, tmp_path)


@theirs
def test_a_variable_is_dropped_and_we_refuse_to(
    run: Command, cvm: Cvm, phala: OfficialCommand, tmp_path: Path, words: tuple[str, ...]
) -> None:
    run.write(".env", "NEW=2\n")
    assert run(*OURS).code == 4
    assert cvm.wait().environment == {"OLD": "1"}
    (tmp_path / ".env").write_text("NEW=2\n")
    phala(*words)
    assert cvm.wait().environment == {"NEW": "2"}


@theirs
def test_several_lines_arrive_as_one_and_we_refuse_them(
    run: Command, cvm: Cvm, phala: OfficialCommand, tmp_path: Path, words: tuple[str, ...]
) -> None:
    run.write(".env", 'OLD="a\nb"\n')
    assert run(*OURS).code == 4
    assert cvm.wait().environment == {"OLD": "1"}
    (tmp_path / ".env").write_text('OLD="a\nb"\n')
    phala(*words)
    assert cvm.wait().environment == {"OLD": "a\\nb"}


@theirs
def test_a_boot_that_fails_ends_with_0_and_ours_with_8(
    run: Command, cvm: Cvm, phala: OfficialCommand, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / ".env").write_text("OLD=2\n")
    cvm.boot_fails("docker login failed")
    phala(*words)  # which asserts that it ends with 0
    assert cvm.wait().boot_error == "docker login failed"
    run.write(".env", "OLD=2\n")
    cvm.boot_fails("docker login failed")
    done = run(*OURS)
    assert (done.code, "docker login failed" in done.printed) == (8, True)


@theirs
def test_secrets_are_encrypted_to_a_forged_key_and_ours_to_none(
    simulator: Simulator,
    run: Command,
    cvm: Cvm,
    phala: OfficialCommand,
    tmp_path: Path,
    words: tuple[str, ...],
) -> None:
    lies.tell(simulator.cloud, "forged-key")
    before = cvm.sealed
    run.write(".env", "OLD=2\n")
    assert run(*OURS, "--trusted-signers", cvm.kms.root_public_key).code == 3
    assert cvm.sealed == before
    (tmp_path / ".env").write_text("OLD=2\n")
    phala(*words)
    assert cvm.sealed != before
