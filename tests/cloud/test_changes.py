"""The library changes a CVM and waits for it: both clients, on the clock of the simulator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from phala_secrets import (
    BootError,
    ConflictError,
    DeliveryError,
    InputError,
    UpdateCvmEnvsInProgress,
    WaitTimeoutError,
    create_async_client,
    create_client,
)
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.containers import Container
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.wire import Answer, Request
from tests.support.faulty import FaultySimulator as Simulator

Call = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, simulator: Simulator) -> Call:
    """``call("start_cvm", "my-app")``: a method of the sync or of the async client."""
    key = simulator.cloud.api_key

    def sync(method: str, *arguments: Any, **more: Any) -> Any:
        with create_client(key, simulator.url) as client:
            return getattr(client, method)(*arguments, **more)

    def asynchronous(method: str, *arguments: Any, **more: Any) -> Any:
        async def run() -> Any:
            async with create_async_client(key, simulator.url) as client:
                return await getattr(client, method)(*arguments, **more)

        return asyncio.run(run())

    return sync if request.param == "sync" else asynchronous


def test_update_with_wait_returns_when_the_cvm_runs(call: Call, cvm: Cvm) -> None:
    result = call("update_cvm_envs", "my-app", envs={"OLD": "2"}, wait=True)
    assert isinstance(result, UpdateCvmEnvsInProgress)
    assert cvm.status == "running"
    assert cvm.environment == {"OLD": "2"}


def test_update_with_wait_raises_what_a_failed_boot_says(call: Call, cvm: Cvm) -> None:
    cvm.boot_fails("no space left on device")
    with pytest.raises(BootError, match="no space left on device"):
        call("update_cvm_envs", "my-app", envs={"OLD": "2"}, wait=True)


def test_update_with_wait_ends_in_time(call: Call, cvm: Cvm, cloud: Cloud) -> None:
    cloud.restart_seconds = 900
    with pytest.raises(WaitTimeoutError):
        call("update_cvm_envs", "my-app", envs={"OLD": "2"}, wait=True, timeout=20)


def test_update_refuses_a_ciphertext_that_no_guest_copies(call: Call, cvm: Cvm, cloud: Cloud) -> None:
    with pytest.raises(DeliveryError, match="262144"):
        call("update_cvm_envs", "my-app", encrypted_env="00" * 262_145, env_keys=["OLD"])
    assert not cloud.requests


@pytest.mark.parametrize("starts", [False, True])
def test_a_stopped_cvm_is_started_and_waited_for(call: Call, cvm: Cvm, cloud: Cloud, starts: bool) -> None:
    cloud.update_starts_stopped = starts
    cvm.stop()
    call("start_cvm", "my-app")
    info = call("wait_for_cvm", "my-app")
    assert info.status == "running"
    assert cvm.status == "running"


def test_start_while_another_operation_runs_is_a_conflict(call: Call, cvm: Cvm) -> None:
    cvm.stop()
    cvm.begin_operation("resize", 60, effect="none")
    with pytest.raises(ConflictError):
        call("start_cvm", "my-app")


def test_containers_are_as_docker_describes_them(call: Call, cvm: Cvm) -> None:
    cvm.containers = [Container("web", "healthy"), Container("job", "exited", 0)]
    listed = call("get_cvm_containers", "my-app").containers
    assert [container.state for container in listed] == ["running", "exited"]
    assert "healthy" in listed[0].status
    cvm.containers = None
    assert call("get_cvm_containers", "my-app").containers is None


# Variables that the CVM would lose


CHANGES = ("update_cvm_envs", "patch_cvm")


@pytest.mark.parametrize("method", CHANGES)
def test_removal_of_a_variable_that_nobody_allowed_is_refused(
    call: Call, cvm: Cvm, cloud: Cloud, method: str
) -> None:
    with pytest.raises(DeliveryError, match="would drop a variable of 'my-app': OLD") as refused:
        call(method, "my-app", envs={"NEW": "1"})
    assert "allow_removal=True" in refused.value.hint
    assert all(request.method == "GET" for request in cloud.requests)
    assert cvm.environment == {"OLD": "1"}


@pytest.mark.parametrize("method", CHANGES)
def test_removal_that_was_allowed_is_made(call: Call, cvm: Cvm, method: str) -> None:
    call(method, "my-app", envs={"NEW": "1"}, allow_removal=True, wait=True)
    assert cvm.environment == {"NEW": "1"}


@pytest.mark.parametrize("method", CHANGES)
@pytest.mark.parametrize("allowed", [None, False, True])
def test_removal_of_every_variable_takes_all(
    call: Call, cvm: Cvm, cloud: Cloud, method: str, allowed: bool | None
) -> None:
    with pytest.raises(InputError, match="envs is empty"):
        call(method, "my-app", envs={}, allow_removal=allowed)
    assert not cloud.requests
    call(method, "my-app", envs={}, allow_removal="all", wait=True)
    assert (cvm.environment, cvm.allowed_envs) == ({}, [])


@pytest.mark.parametrize("method", CHANGES)
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"envs": {"A": "1"}, "allow_removal": "yes"}, "True, False or 'all'"),
        ({"envs": {"A": "1"}, "allow_removal": 1}, "True, False or 'all'"),
        ({"encrypted_env": "ab" * 61, "allow_removal": True}, "without envs"),
    ],
)
def test_allow_removal_is_checked_before_anything_is_sent(
    call: Call, cloud: Cloud, method: str, arguments: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        call(method, "my-app", **arguments)
    assert not cloud.requests


def test_removal_is_judged_again_after_another_operation(call: Call, cvm: Cvm) -> None:
    """What was in the way brought a variable along, which the update would drop."""
    cvm.begin_operation("update_envs", 20, changes={"allowed_envs": ["OLD", "THEIRS"]})
    with pytest.raises(DeliveryError, match="THEIRS"):
        call("update_cvm_envs", "my-app", envs={"OLD": "2"}, wait=True)


@pytest.mark.parametrize("method", CHANGES)
def test_removal_of_what_came_meanwhile_is_never_made(
    call: Call, cvm: Cvm, cloud: Cloud, method: str
) -> None:
    """Nobody has agreed to that, whatever ``allow_removal`` says."""
    cvm.begin_operation("resize", 20, effect="none")

    def add(request: Request, answer: Answer) -> Answer:
        if answer.status == 409:
            cvm.app_compose = {**cvm.app_compose, "allowed_envs": ["OLD", "THEIRS"]}
        return answer

    cloud.tamper = add
    with pytest.raises(DeliveryError, match="meanwhile, which the update would drop: THEIRS"):
        call(method, "my-app", envs={"NEW": "2"}, allow_removal=True, wait=True)
    assert all(request.status == 409 for request in cloud.requests if request.method == "PATCH")


def test_a_long_list_of_removals_is_cut(call: Call, cloud: Cloud) -> None:
    cloud.add_cvm("full", environment={f"NAME_{number:02}": "1" for number in range(30)})
    with pytest.raises(DeliveryError, match=r"drop 30 variables of 'full': NAME_00, .*NAME_19 …\n"):
        call("update_cvm_envs", "full", envs={"NEW": "1"})


def test_names_keep_the_order_that_the_cvm_has(call: Call, cloud: Cloud) -> None:
    """Their order is measured: another one would take an approval, or break somebody's pin."""
    cvm = cloud.add_cvm("ordered", environment={"B": "1", "A": "1"})
    before = cvm.compose_hash
    call("update_cvm_envs", "ordered", envs={"A": "2", "B": "2"}, wait=True)
    assert cvm.compose_hash == before


def test_waiting_ends_where_an_approval_is_needed(call: Call, cloud: Cloud) -> None:
    kms = cloud.add_kms("kms-base", 8453, "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C")
    cvm = cloud.add_cvm("on-chain", kms=kms, environment={"OLD": "1"})
    asked = call("update_cvm_envs", "on-chain", envs={"OLD": "1", "NEW": "2"}, wait=True)
    assert asked.status == "precondition_required"
    assert cvm.environment == {"OLD": "1"}
