"""Finding 7: the API key is taken out of a response however JSON spells it."""

from __future__ import annotations

import asyncio
import json

import pytest

from .support import (
    Cloud,
    Command,
    Cvm,
    Fault,
    PhalaSecretsError,
    Simulator,
    Step,
    create_async_client,
    create_client,
    escaped,
    everything,
    everything_of_step,
    in_ci,
    outputs_file,
)

KEY = "phak_canary_0123456789"
ODD_KEY = "phak_ab/cd+ef=="


@pytest.fixture(autouse=True)
def api_key(cloud: Cloud, run: Command, step: Step) -> None:
    cloud.api_key = KEY
    run.environ["PHALA_CLOUD_API_KEY"] = KEY
    step.inputs["api-key"] = KEY


def accept_with_the_key(simulator: Simulator) -> None:
    """The 202 of an update has the key for a correlation id, every character escaped."""
    body = f'{{"status":"in_progress","correlation_id":"{escaped(KEY)}"}}'.encode()
    simulator.faults.add(Fault("status", "PATCH", "/envs", times=None, status=202, body=body))


@pytest.mark.parametrize("ci", ["gitlab", "circleci", "bitbucket", "shell"])
def test_an_escaped_api_key_is_in_no_output(run: Command, simulator: Simulator, cvm: Cvm, ci: str) -> None:
    """``correlation_id`` is the whole key, in the file for later steps and in the JSON."""
    accept_with_the_key(simulator)
    in_ci(run, ci)
    where = () if ci in ("circleci", "bitbucket") else ("--output-file", "out.env")
    outcome = run(
        "update", "--cvm", "my-app", "--secrets", "OLD", "--no-wait", "--json", *where, environ={"OLD": "2"}
    )
    assert KEY not in everything(outcome, outputs_file(run, ci))


def test_an_escaped_api_key_is_not_in_github_output(step: Step, simulator: Simulator, cvm: Cvm) -> None:
    """The output ``correlation-id`` is the whole key."""
    accept_with_the_key(simulator)
    done = step(env="OLD=2", wait="false")
    assert KEY not in everything_of_step(done)


def test_an_escaped_api_key_is_not_among_the_names(step: Step, simulator: Simulator, cvm: Cvm) -> None:
    """The output ``keys-removed`` has the whole key."""
    cvm.app_compose = {**cvm.app_compose, "allowed_envs": ["OLD", KEY]}
    body = json.dumps(cvm.app_compose).replace(KEY, escaped(KEY)).encode()
    simulator.faults.add(Fault("status", "GET", "/compose_file", times=None, status=200, body=body))
    done = step(env="OLD=2", wait="false", allow_removal="true")
    assert KEY not in everything_of_step(done)


def test_an_api_key_that_a_cut_goes_through_is_not_shown(step: Step, simulator: Simulator, cvm: Cvm) -> None:
    """A message is cut at 500 characters: all of the key but its last character is in the log."""
    message = "x" * (500 - len(KEY) + 1) + escaped(KEY)
    simulator.faults.add(Fault("status", "PATCH", status=400, body=f'{{"message":"{message} ..."}}'.encode()))
    done = step(env="OLD=2")
    assert done.code == 5, done.log
    for text in (done.log.replace(f"::add-mask::{KEY}", ""), done.output_file, done.summary):
        assert KEY[:-1] not in text


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(
    ("key", "spelled"),
    [
        pytest.param(KEY, escaped(KEY), id="every character escaped"),
        pytest.param(ODD_KEY, r"phak_ab\/cd+ef==", id="PHP"),
        pytest.param(ODD_KEY, r"phak_ab/cd\u002Bef==", id=".NET"),
    ],
)
def test_an_escaped_api_key_is_not_in_an_error_of_the_library(
    simulator: Simulator, cloud: Cloud, kind: str, key: str, spelled: str
) -> None:
    """``str(error)`` has the whole key."""
    cloud.api_key = key
    body = f'{{"message":"bad key {spelled}"}}'.encode()
    simulator.faults.add(Fault("status", status=401, body=body))

    def ask() -> None:
        with create_client(key, simulator.url) as client:
            client.get_cvm_info("my-app")

    async def ask_async() -> None:
        async with create_async_client(key, simulator.url) as client:
            await client.get_cvm_info("my-app")

    with pytest.raises(PhalaSecretsError) as raised:
        asyncio.run(ask_async()) if kind == "async" else ask()
    assert "bad key" in str(raised.value)  # the rest of the message is of use
    assert key not in f"{raised.value} {raised.value!r} {vars(raised.value)}"
