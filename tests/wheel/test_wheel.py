"""The wheel of dist/, as its users get it: in an empty environment, with nothing of this repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

import pytest

import phala_secrets
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.server import Simulator

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).parent / "uv"
LOCK = ROOT / "requirements/image.txt"
OLD = {"DATABASE_URL": "old", "API_TOKEN": "old"}
NEW = {"DATABASE_URL": "postgres://app:p4$$w0rd@db/app", "API_TOKEN": "t0ken with 'quotes'"}
OWNER_KEY = "4c" * 32


@pytest.fixture(scope="session")
def wheel() -> Path:
    (built,) = (ROOT / "dist").glob("*.whl")
    return built


def uv(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([UV, *arguments], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.fail(f"uv {arguments[0]} failed:\n{done.stderr[-4000:]}", pytrace=False)
    return done


def environment(folder: Path, what: str) -> Path:
    """A new environment with the wheel in it, on the versions of the lock; gives its folder of commands."""
    uv("venv", "--quiet", "--python", sys.executable, folder)
    uv("pip", "install", "--quiet", "--python", folder, "--constraint", LOCK, what)
    return folder / "bin"


@pytest.fixture(scope="session")
def plain(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("plain") / "venv", str(wheel))


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(Cloud(restart_seconds=0.05)) as simulator:
        yield simulator


@pytest.fixture
def cvm(simulator: Simulator) -> Cvm:
    return simulator.cloud.add_cvm("my-app", environment=OLD)


def run(
    command: Path, *arguments: str, folder: Path, simulator: Simulator, **more: str
) -> subprocess.CompletedProcess[str]:
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PHALA_CLOUD_API_PREFIX": simulator.url,
        "PHALA_CLOUD_API_KEY": simulator.cloud.api_key,
        **more,
    }
    return subprocess.run(
        [command, *arguments],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_does_the_main_job(plain: Path, simulator: Simulator, cvm: Cvm, tmp_path: Path) -> None:
    given = ("update", "--cvm", "my-app", "--secrets", "DATABASE_URL, API_TOKEN", "--output-file", "outputs")
    done = run(plain / "phala-secrets", *given, folder=tmp_path, simulator=simulator, **NEW)
    assert done.returncode == 0, done.stdout + done.stderr
    assert cvm.environment == NEW
    outputs = (tmp_path / "outputs").read_text()
    assert "PHALA_STATUS=running" in outputs
    for value in NEW.values():
        assert value not in done.stdout + done.stderr + outputs


def test_python_imports_the_library_with_its_types(
    plain: Path, simulator: Simulator, cvm: Cvm, tmp_path: Path
) -> None:
    code = (
        "from importlib.resources import files; from phala_secrets import create_client\n"
        "assert files('phala_secrets').joinpath('py.typed').is_file()\n"
        "with create_client() as client: print(client.get_cvm_info('my-app').app_id)\n"
    )
    done = run(plain / "python", "-Ic", code, folder=tmp_path, simulator=simulator)
    assert (done.returncode, done.stdout.strip()) == (0, cvm.app_id), done.stderr


def test_what_an_extra_brings_is_asked_for_by_a_name_of_ours(plain: Path) -> None:
    """Nobody else can register what a hint tells people to install."""
    code = (
        "from phala_secrets.chain.owner import Sender\n"
        "from phala_secrets.dstack.quote import _library\n"
        "from phala_secrets.errors import InputError\n"
        f"for need in (lambda: Sender({OWNER_KEY!r}), _library):\n"
        "    try: need()\n"
        "    except InputError as error: print(error.hint)\n"
    )
    done = subprocess.run([plain / "python", "-Ic", code], capture_output=True, text=True, check=True)
    hints = done.stdout.splitlines()
    assert len(hints) == 2
    for extra, hint in zip(("chain", "attest"), hints, strict=True):
        assert f"'phala-secrets[{extra}] @ git+https://github.com/phala-secrets/phala-secrets'" in hint


def test_the_extras_bring_what_signs_and_what_verifies(wheel: Path, tmp_path: Path) -> None:
    commands = environment(tmp_path / "venv", f"{wheel}[attest,chain]")
    subprocess.run([commands / "python", "-Ic", "import dcap_qvl, eth_account"], check=True, timeout=60)


def test_uvx_runs_it(wheel: Path) -> None:
    done = uv(
        "tool",
        "run",
        "--python",
        sys.executable,
        "--constraints",
        LOCK,
        "--from",
        wheel,
        "phala-secrets",
        "--version",
    )
    assert phala_secrets.__version__ in done.stdout


def test_it_says_what_it_is_and_its_links_lead_out_of_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        message = HeaderParser().parsestr(archive.read(metadata).decode())
    assert (message["Name"], message["Version"]) == ("phala-secrets", phala_secrets.__version__)
    assert set(message.get_all("Provides-Extra", ())) == {"attest", "chain"}
    urls = dict(url.split(", ") for url in message.get_all("Project-URL", ()))
    assert {"Source", "Changelog", "Issues"} <= urls.keys()
    assert all(url.startswith("https://github.com/phala-secrets/phala-secrets") for url in urls.values())
    text = message.get_payload()
    assert isinstance(text, str)
    assert "## Inputs" in text
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert links
    assert [link for link in links if not link.startswith(("https://", "#"))] == []
    pictures = re.findall(r"!\[[^\]]*\]\((.*?/docs/.*?)\)", text)
    assert len(pictures) >= 3
    assert [link for link in pictures if "/raw/v" not in link] == []  # "/blob/" would be a page about it
    assert {name.split("/")[0] for name in names} == {"phala_secrets", metadata.split("/")[0]}


def test_two_builds_agree_to_the_byte(wheel: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", tmp_path],
        cwd=ROOT,
        check=True,
        timeout=120,
        capture_output=True,
    )
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()
