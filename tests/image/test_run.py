"""The image does the job as a step of a workflow, and nothing in that job can make it run anything else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from eth_account import Account

from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.measured_boot import os_measurements
from phala_secrets.simulator.server import Simulator
from tests.image.container import Container
from tests.support.paper_chain import BASE_KMS, PaperChain

GIVEN = {
    "DATABASE_URL": "postgres://app:p4$$w0rd${X}@db/app",
    "GREETING": "hello wörld",
    "API_SECRET": "s3cr3t-value",
}
OLD = dict.fromkeys(GIVEN, "old")
SOURCE = """\
DATABASE_URL='postgres://app:p4$$w0rd${X}@db/app'
GREETING="hello wörld"
"""
UNUSED = dict.fromkeys(("INPUT_ENV-FILE", "INPUT_SECRETS", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"), "")
OWNERS_KEY = "c0ffee" * 10 + "c0de"
# As a module, a site hook, a profile or a package: whatever imports it leaves a trace.
POISON = "open('/github/workspace/EXECUTED', 'w').close()\n"


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def cvm(simulator: Simulator) -> Cvm:
    return simulator.cloud.add_cvm("my-app", environment=OLD)


@pytest.fixture
def github(tmp_path: Path) -> Path:
    """The folders and files that a runner mounts."""
    for folder in ("workspace", "home", "file_commands"):
        (tmp_path / folder).mkdir()
    for name in ("output", "summary"):
        (tmp_path / "file_commands" / name).touch()
    (tmp_path / "workspace/.env").write_text(SOURCE)
    return tmp_path


def job(simulator: Simulator) -> dict[str, str]:
    """The variables of a step with these inputs."""
    return {
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "GITHUB_WORKSPACE": "/github/workspace",
        "GITHUB_OUTPUT": "/github/file_commands/output",
        "GITHUB_STEP_SUMMARY": "/github/file_commands/summary",
        "HOME": "/github/home",
        "API_SECRET": GIVEN["API_SECRET"],
        "INPUT_MODE": "update",
        "INPUT_API-URL": simulator.url,
        "INPUT_API-KEY": simulator.cloud.api_key,
        "INPUT_CVM": "my-app",
        "INPUT_ENV-FILE": ".env",
        "INPUT_SECRETS": "API_SECRET",
    }


def open_to_anybody(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o777 if path.is_dir() else 0o666)
    folder.parent.chmod(0o755)


@pytest.mark.parametrize("user", ["0:0", "12345:12345"])
def test_a_step_puts_the_secrets_into_the_guest(
    container: Container, simulator: Simulator, cvm: Cvm, github: Path, user: str
) -> None:
    open_to_anybody(github)
    done = container.run(env=job(simulator), github=github, user=user)
    assert done.returncode == 0, done.stdout + done.stderr
    assert cvm.environment == GIVEN
    outputs = (github / "file_commands/output").read_text()
    summary = (github / "file_commands/summary").read_text()
    assert "running" in outputs
    assert "DATABASE_URL" in outputs
    assert "my-app" in summary
    said = done.stdout + done.stderr
    after_masks = [line for line in said.splitlines() if not line.startswith("::add-mask::")]
    for secret in (GIVEN["DATABASE_URL"], GIVEN["API_SECRET"], simulator.cloud.api_key):
        assert f"::add-mask::{secret}" in said.splitlines()
        assert secret not in "\n".join([*after_masks, outputs, summary])


def test_nothing_in_the_workspace_or_the_environment_is_executed(
    container: Container, simulator: Simulator, cvm: Cvm, github: Path
) -> None:
    workspace, home = github / "workspace", github / "home"
    for name in ("httpx", "json", "ssl", "sitecustomize", "usercustomize", "entrypoint", "startup"):
        (workspace / f"{name}.py").write_text(POISON)
    (workspace / "phala_secrets").mkdir()
    (workspace / "phala_secrets/__init__.py").write_text(POISON)
    site = home / ".local/lib/python3.13/site-packages"
    site.mkdir(parents=True)
    (site / "usercustomize.py").write_text(POISON)
    (site / "poison.pth").write_text(f"import os; {POISON}")
    (home / ".netrc").write_text("default login nobody password wrong\n")
    before = set(github.rglob("*"))
    poisoned = {
        "PYTHONPATH": "/github/workspace",
        "PYTHONHOME": "/github/workspace",
        "PYTHONSTARTUP": "/github/workspace/startup.py",
        "PYTHONUSERBASE": "/github/home/.local",
        "PYTHONPYCACHEPREFIX": "/github/workspace/cache",
        "PYTHONINSPECT": "1",
        "PYTHONWARNINGS": "error",
        "SSLKEYLOGFILE": "/github/workspace/keys",
    }
    done = container.run(env=job(simulator) | poisoned, github=github)
    assert done.returncode == 0, done.stdout + done.stderr
    assert cvm.environment == GIVEN
    assert set(github.rglob("*")) == before


def test_the_owners_key_signs_with_what_is_left_of_its_libraries(container: Container) -> None:
    """requirements/prune removes what no run can reach, and this is a run that reaches far."""
    with Simulator() as simulator, PaperChain() as chain:
        kms = simulator.cloud.add_kms("base-1", 8453, BASE_KMS)
        cvm = simulator.cloud.add_cvm("my-app", kms=kms, environment={"OLD": "1"})
        simulator.cloud.rpc_urls[8453] = chain.url
        chain.hold(cvm)
        chain.owner = str(Account.from_key(OWNERS_KEY).address).lower()
        more = {"INPUT_RPC-URL": chain.url, "INPUT_PRIVATE-KEY": OWNERS_KEY, "INPUT_ENV": "OLD=2\nNEW=new"}
        done = container.run(env=job(simulator) | UNUSED | more)
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(chain.transactions) == 1
        assert cvm.environment == {"OLD": "2", "NEW": "new"}


def test_a_quote_is_verified(container: Container, simulator: Simulator, cvm: Cvm, github: Path) -> None:
    (github / "workspace/root.pem").write_text(simulator.cloud.tee.root_pem)
    more = {
        "PHALA_SECRETS_ATTEST": "require",
        "PHALA_SECRETS_PCCS_URL": simulator.origin,
        "PHALA_SECRETS_ATTESTATION_ROOT": "root.pem",
        "PHALA_SECRETS_TRUSTED_OS": os_measurements(cvm),
        "PHALA_SECRETS_TRUSTED_KMS_CA": cvm.kms.ca_public_key,
    }
    done = container.run(env=job(simulator) | more, github=github)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "attested" in (github / "file_commands/output").read_text()


def test_a_refusal_is_told_and_nothing_is_sent(
    container: Container, simulator: Simulator, cvm: Cvm, github: Path
) -> None:
    done = container.run(env=job(simulator) | {"INPUT_ENV-FILE": "missing.env"}, github=github)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "::error" in done.stdout + done.stderr
    assert "failed" in (github / "file_commands/output").read_text()
    assert [path.name for path in (github / "workspace").iterdir()] == [".env"]
    assert cvm.environment == OLD


def test_a_start_compiles_nothing(container: Container, simulator: Simulator, cvm: Cvm, github: Path) -> None:
    python, options, script = container.entrypoint
    done = container.run(env=job(simulator), github=github, entrypoint=(python, f"{options}v", script))
    assert done.returncode == 0
    loaded = re.findall(r"^# code object from '?(\S+?)'?$", done.stderr, re.MULTILINE)
    assert any("/httpx/" in path for path in loaded)
    assert [path for path in loaded if not path.endswith(".pyc")] == []
