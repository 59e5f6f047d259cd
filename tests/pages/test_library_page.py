"""docs/library.md: its code runs as it stands, sync and async, and its tables name what there is."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import phala_secrets
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.server import Simulator

pytestmark = pytest.mark.usefixtures("time_passes")

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/library.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
QUICK, QUICK_ASYNC, WORKFLOW, LOOKUPS, PATCH = BLOCKS
APP_ID = "a1" * 20
SENT = {"DATABASE_URL": "postgres://...", "API_SECRET": "s3cr3t"}


@pytest.fixture
def cvm(cloud: Cloud) -> Cvm:
    return cloud.add_cvm("my-app", app_id=APP_ID, environment={"GREETING": "old"})


def script(simulator: Simulator, code: str) -> subprocess.CompletedProcess[str]:
    """Runs code that may use APP_ID. A warning, as of a connection left open, would be on standard error."""
    environ = {
        **os.environ,
        "PHALA_CLOUD_API_PREFIX": simulator.url,
        "PHALA_CLOUD_API_KEY": simulator.cloud.api_key,
    }
    command = [sys.executable, "-W", "error", "-c", f"APP_ID = {APP_ID!r}\n{code}"]
    return subprocess.run(command, env=environ, capture_output=True, encoding="utf-8", check=False)


def run(simulator: Simulator, code: str) -> str:
    done = script(simulator, code)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def awaited(code: str) -> str:
    """The same code in an async function, where methods are awaited and functions are not."""
    code = re.sub(
        r"client\.(\w+)\(", r"await client.\1(", code.replace("create_client", "create_async_client")
    )
    imports, _, body = code.partition("client = create_async_client()\n")
    lines = "".join(f"        {line}" for line in body.splitlines(keepends=True))
    return (
        f"import asyncio\n{imports}\nasync def main():\n"
        f"    async with create_async_client() as client:\n{lines}\nasyncio.run(main())\n"
    )


QUICKSTARTS = pytest.mark.parametrize("code", [QUICK, QUICK_ASYNC], ids=["sync", "async"])


@QUICKSTARTS
def test_the_quickstarts_run_as_they_stand(simulator: Simulator, cvm: Cvm, code: str) -> None:
    assert run(simulator, code) == "it runs\n"
    assert (cvm.status, cvm.environment) == ("running", {"GREETING": "hello"})


@QUICKSTARTS
def test_the_quickstarts_say_where_an_approval_is_needed(simulator: Simulator, code: str) -> None:
    kms = simulator.cloud.add_kms("kms-base", 8453, "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C")
    cvm = simulator.cloud.add_cvm("my-app", kms=kms)
    assert run(simulator, code) == f"first approve {cvm.hash_with(['GREETING'])}\n"


@QUICKSTARTS
def test_the_quickstarts_lose_no_variable(simulator: Simulator, code: str) -> None:
    cvm = simulator.cloud.add_cvm("my-app", environment={"THEIRS": "1"})
    done = script(simulator, code)
    assert (done.returncode, done.stdout) == (1, "")
    assert "would drop a variable of 'my-app': THEIRS\nhint: " in done.stderr
    assert cvm.environment == {"THEIRS": "1"}


@QUICKSTARTS
def test_the_quickstarts_raise_what_a_failed_boot_says(simulator: Simulator, cvm: Cvm, code: str) -> None:
    cvm.boot_fails("no space left on device")
    done = script(simulator, code)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no space left on device" in done.stderr


@pytest.mark.parametrize("form", [str, awaited], ids=["sync", "async"])
def test_the_documented_workflow_runs_as_it_stands(simulator: Simulator, cvm: Cvm, form: type[str]) -> None:
    assert run(simulator, form(WORKFLOW)) == ""
    assert cvm.wait().environment == SENT


@pytest.mark.parametrize("form", [str, awaited], ids=["sync", "async"])
def test_the_documented_lookups_run_as_they_stand(simulator: Simulator, cvm: Cvm, form: type[str]) -> None:
    printed = run(simulator, form(LOOKUPS))
    kms = cvm.kms
    info, listed, detail, ids = printed.splitlines()
    assert listed == f"{kms.nodes[0].id} phala"
    assert f"'url': '{kms.nodes[0].url}'" in info
    assert kms.root_public_key in detail
    assert len(re.findall(r"'app_id': '[0-9a-f]{40}'", ids)) == 3


@pytest.mark.parametrize("form", [str, awaited], ids=["sync", "async"])
def test_the_documented_patch_runs_as_it_stands(
    simulator: Simulator, form: type[str], tmp_path: Path
) -> None:
    cvm = simulator.cloud.add_cvm("my-app", environment=SENT)
    compose = "services:\n  web:\n    image: nginx:1.29\n"
    (tmp_path / "docker-compose.yml").write_text(compose)
    before = f"import os\nos.chdir({str(tmp_path)!r})\n"
    assert run(simulator, form(before + PATCH)) == "in_progress\n"
    assert cvm.wait().environment == {**SENT, "DATABASE_URL": "postgres://…"}
    assert cvm.app_compose["docker_compose_file"] == compose


def first_cells(heading: str) -> list[str]:
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


def test_the_page_has_every_method_and_argument() -> None:
    public = [
        name
        for name, value in vars(phala_secrets.Client).items()
        if not name.startswith("_") and callable(value)
    ]
    assert set(first_cells("Methods")) == set(public) - {"close", "send", "run", "stream"}
    assert first_cells("Clients") == list(inspect.signature(phala_secrets.create_client).parameters)
    for name in first_cells("Methods"):
        parameters = [*inspect.signature(getattr(phala_secrets.Client, name)).parameters][2:]
        row = re.search(rf"^\| `{name}` \|.*$", PAGE, re.MULTILINE)
        assert row
        if not re.search(r"see below \| `|as `", row[0]):
            assert [parameter for parameter in parameters if f"`{parameter}`" not in row[0]] == []


def test_the_page_names_every_error_and_answer() -> None:
    errors = [name for name in phala_secrets.__all__ if name.endswith("Error")]
    answers = [
        name
        for name in phala_secrets.__all__
        if re.match(r"(Get|List|Next|Patch|Update)\w+(Response|Result)", name)
    ]
    assert [name for name in errors + answers if f"`{name}`" not in PAGE] == []


def test_a_user_s_code_passes_the_strictest_type_checking(tmp_path: Path) -> None:
    """As in a project of its own: without this repository's configuration."""
    code = tmp_path / "user.py"
    code.write_text((ROOT / "tests/typing/user.py").read_text())
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        f"--cache-dir={tmp_path}",
        str(code),
    ]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
