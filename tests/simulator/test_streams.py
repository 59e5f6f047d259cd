"""The state of a CVM as server-sent events."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from phala_secrets.simulator.stream import Stream

if TYPE_CHECKING:
    from phala_secrets.simulator.cloud import Cloud
    from phala_secrets.simulator.cvm import Cvm
    from phala_secrets.simulator.server import Simulator
    from tests.simulator.conftest import Api
    from tests.support.clock import ManualClock

Event = tuple[str, dict[str, Any]]


@pytest.fixture
def cvm(cloud: Cloud) -> Cvm:
    """Its updates take ten minutes, of which it looks as before for five."""
    cloud.stale_seconds, cloud.restart_seconds = 300.0, 600.0
    return cloud.add_cvm("my-app", environment={"A": "1"})


def events(api: Api, target: str, timeout: int = 10) -> Generator[Event]:
    params: dict[str, str | int] = {"target": target, "timeout": timeout}
    with api.stream("GET", "/cvms/my-app/state", params=params) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                yield name, json.loads(line[6:])


def test_every_change_is_streamed(api: Api, cvm: Cvm, cloud: Cloud) -> None:
    api.update("my-app", {"A": "2"})
    following = events(api, "exited")
    assert next(following)[1]["status"] == "running"
    cloud.stale_seconds = 0.0
    assert next(following)[1]["status"] == "restarting"
    cvm.finish()
    assert next(following)[1]["status"] == "running"
    assert not cvm.operation


def test_a_change_that_comes_by_itself(api: Api, cvm: Cvm, clock: ManualClock) -> None:
    following = events(api, "exited", timeout=600)
    assert next(following)[1]["status"] == "running"
    correlation_id = api.update("my-app", {"A": "2"}).json()["correlation_id"]
    clock.advance(300)
    assert next(following)[1]["status"] == "restarting"
    clock.advance(299)
    assert cvm.environment == {"A": "1"}
    clock.advance(1)
    assert cvm.status == "running"
    assert cvm.operations[-1].correlation_id == correlation_id
    assert cvm.environment == {"A": "2"}


def test_the_running_of_before_the_update_completes_a_stream(api: Api, cvm: Cvm) -> None:
    api.update("my-app", {"A": "2"})
    assert [name for name, _ in events(api, "running")] == ["state", "complete"]
    assert cvm.operation


def test_a_failed_boot_is_streamed_with_its_reason(api: Api, cvm: Cvm) -> None:
    cvm.boot_fails("no space left")
    api.update("my-app", {"A": "2"})
    cvm.finish()
    *_, (name, data) = events(api, "exited")
    assert (name, data["boot_error"]) == ("complete", "no space left")


def test_a_stream_ends_in_time(cloud: Cloud, cvm: Cvm, clock: ManualClock) -> None:
    stream = Stream(cloud, cvm, "exited", interval=5, timeout=12)
    told = []
    for event in stream:
        told += [event.split(b"\n")[0]] if event else []
        clock.advance(2.5)
    stream.close()
    assert told == [b"event: state"] * 3 + [b"event: timeout"]


def test_without_streams_or_a_target_the_state_is_plain_json(api: Api, cvm: Cvm, cloud: Cloud) -> None:
    assert api.get("/cvms/my-app/state", params={"timeout": 10}).json()["status"] == "running"
    cloud.streams = False
    assert api.get("/cvms/my-app/state", params={"target": "exited"}).json()["status"] == "running"


def test_a_user_has_a_few_streams_and_gets_them_back(api: Api, cvm: Cvm, cloud: Cloud) -> None:
    cloud.max_streams = 2
    first, second = events(api, "exited"), events(api, "exited")
    next(first), next(second)
    refused = api.get("/cvms/my-app/state", params={"target": "exited"})
    assert refused.status_code == 429
    first.close()
    deadline = time.monotonic() + 5
    while api.get("/cvms/my-app/state", params={"target": "running"}).status_code == 429:
        assert time.monotonic() < deadline


def test_closing_the_simulator_ends_streams(api: Api, cvm: Cvm, simulator: Simulator) -> None:
    following = events(api, "exited", timeout=600)
    next(following)
    simulator.close()
    with pytest.raises(httpx.TransportError):
        list(following)
