"""Importing costs: which modules a run of each mode loads, in a process of its own.

Nine tenths of a run's time are imports (``docs/performance.md``), so each of these is a promise.
"""

from __future__ import annotations

import sys

import pytest

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from tests.support.command import Command

REPORT = """
import sys
from phala_secrets.run import command
code = command.main(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    print(*sys.modules, sep="\\n", file=file)
sys.exit(code)
"""
MODELS = {"pydantic", "pydantic_core"}
STREAMS = {"httpx_sse"}
SIGNING = {"eth_account", "eth_abi", "eth_keys"}
EVENT_LOOPS = {"asyncio", "trio"}
"""Not anyio: httpcore imports it at its top, which loads no event loop."""
OTHERS = {"jsonschema", "requests", "phala_secrets.simulator", "phala_secrets.cloud.models"}
OTHERS |= {"phala_secrets.cloud.oidc", "phala_secrets.cloud.client"}
NEVER = MODELS | STREAMS | SIGNING | EVENT_LOOPS | OTHERS

GIVEN = ("--cvm", "my-app", "--env-file", ".env")
JOBS = {
    "update, with its wait": ("update", *GIVEN),
    "update, without": ("update", *GIVEN, "--no-wait"),
    "update of an app": ("update", "--app", "{app}", "--env-file", ".env", "--max-parallel", "2"),
    "plan": ("plan", *GIVEN),
    "encrypt": ("encrypt", *GIVEN),
    "verify": ("verify", "--cvm", "my-app"),
    "status": ("status", "--cvm", "my-app"),
    "wait": ("wait", "--cvm", "my-app"),
}
LOOKUPS = {
    "list of all": ("list",),
    "list": ("list", "--app", "{app}"),
    "kms list": ("kms", "list"),
    "kms pubkey": ("kms", "pubkey", "phala", "{app}"),
}
LOCAL = {
    "help": ("--help",),
    "help of a mode": ("update", "--help"),
    "version": ("--version",),
}


@pytest.fixture
def cvm(cloud: Cloud) -> Cvm:
    """Two CVMs of one app, with a compose file that refers to the variable."""
    compose = "services:\n  app:\n    image: app\n    environment: [OLD]\n"
    first = cloud.add_cvm("my-app", environment={"OLD": "1"}, docker_compose_file=compose)
    cloud.add_cvm("second", app_id=first.app_id, environment={"OLD": "1"}, docker_compose_file=compose)
    return first


def loaded(run: Command, cvm: Cvm, arguments: tuple[str, ...]) -> set[str]:
    """The modules that a run had loaded by its end."""
    run.write(".env", "OLD=2\n")
    report = run.folder / "modules"
    given = [argument.format(app=cvm.app_id) for argument in arguments]
    done = run.apart(*given, python=(sys.executable, "-c", REPORT, str(report)))
    assert done.code == 0, done.printed
    return set(report.read_text().split())


@pytest.mark.parametrize("arguments", JOBS.values(), ids=JOBS)
def test_a_run_loads_no_pydantic_and_nothing_else_that_it_does_not_need(
    run: Command, cvm: Cvm, arguments: tuple[str, ...]
) -> None:
    modules = loaded(run, cvm, arguments)
    assert "httpx" in modules
    assert modules & NEVER == set()
    # The compose file is searched for references, by all that have new values to give.
    assert ("yaml" in modules) == (arguments[0] in ("update", "plan", "encrypt"))
    assert ("cryptography.hazmat.primitives.ciphers.aead" in modules) == (
        arguments[0] in ("update", "encrypt")
    )


@pytest.mark.parametrize("arguments", LOOKUPS.values(), ids=LOOKUPS)
def test_a_lookup_loads_the_models_that_it_shows_and_no_more(
    run: Command, cvm: Cvm, arguments: tuple[str, ...]
) -> None:
    """What the API answers is shown whole, so these read it with pydantic, as the library does."""
    modules = loaded(run, cvm, arguments)
    assert modules & (NEVER - MODELS - {"phala_secrets.cloud.models", "phala_secrets.cloud.client"}) == set()
    assert "yaml" not in modules


@pytest.mark.parametrize("arguments", LOCAL.values(), ids=LOCAL)
def test_help_loads_no_client(run: Command, cvm: Cvm, arguments: tuple[str, ...]) -> None:
    modules = loaded(run, cvm, arguments)
    assert modules & (NEVER | {"httpx", "yaml", "cryptography", "phala_secrets.cloud.driver"}) == set()


def test_the_report_would_see_a_module(run: Command, cvm: Cvm) -> None:
    code = REPORT.replace("import sys\n", "import sys, pydantic\n")
    report = run.folder / "modules"
    run.apart("--version", python=(sys.executable, "-c", code, str(report)))
    assert set(report.read_text().split()) >= MODELS
