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
    UpdateCvmEnvsInProgress,
    WaitTimeoutError,
    create_async_client,
    create_client,
)
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.containers import Container
from phala_secrets.simulator.cvm import Cvm
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
