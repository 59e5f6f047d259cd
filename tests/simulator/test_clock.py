"""Time goes through one clock, so that a test can move it in place of sleeping."""

from __future__ import annotations

import threading
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import pytest

from phala_secrets.simulator.clock import SystemClock
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.server import Simulator
from phala_secrets.simulator.world import RateLimit
from tests.simulator.conftest import Api
from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from phala_secrets.simulator.clock import Clock


@pytest.mark.parametrize("clock", [SystemClock(), ManualClock()], ids=["system", "manual"])
def test_both_clocks_keep_the_same_promises(clock: Clock) -> None:
    before, date = clock.monotonic(), clock.time()
    clock.sleep(0.001)
    assert clock.monotonic() >= before + 0.001
    assert clock.time() >= date
    condition = threading.Condition()
    with condition:
        assert clock.wait(condition, 0.0) is False


def test_what_is_due_is_applied_when_the_clock_is_moved(api: Api, cloud: Cloud, clock: ManualClock) -> None:
    cvm = cloud.add_cvm("my-app", environment={"A": "1"})
    cloud.restart_seconds, cloud.stale_seconds = 300.0, 60.0
    api.update("my-app", {"A": "2"})
    seen = []
    for seconds in (0, 59, 1, 239, 1):
        clock.advance(seconds)
        seen.append(api.get("/cvms/my-app/state").json()["status"])
    assert seen == ["running", "running", "restarting", "restarting", "running"]
    assert cvm.environment == {"A": "2"}
    clock.advance(3600)
    operation = api.get("/cvms/my-app/operations").json()["items"][0]
    assert operation["duration_ms"] == 300_000
    assert api.get("/cvms/my-app/state").json()["uptime"] == "3600s"


def test_an_end_that_nobody_saw_has_its_own_time(cloud: Cloud, clock: ManualClock) -> None:
    cvm = cloud.add_cvm("my-app", environment={"A": "1"})
    operation = cvm.begin_operation("restart", 30)
    clock.advance(10_000)
    assert cvm.uptime == 10_000 - 30
    assert operation.completed_at is not None
    assert (operation.completed_at - operation.started_at).total_seconds() == 30


def test_to_sleep_on_it_moves_it(cloud: Cloud, clock: ManualClock) -> None:
    cvm = cloud.add_cvm("my-app", environment={"A": "1"})
    cvm.begin_operation("restart", 2.0)
    assert cvm.wait(timeout=5.0).status == "running"
    assert clock.monotonic() == pytest.approx(2.0)
    cvm.begin_operation("restart", 600.0)
    with pytest.raises(TimeoutError):
        cvm.wait(timeout=5.0)
    assert clock.slept


def test_dates_and_signatures_follow_it(api: Api, cloud: Cloud, clock: ManualClock) -> None:
    cloud.v1_signatures = True
    path = f"/kms/phala/pubkey/{'12' * 20}"
    before = api.get(path).json()["timestamp"]
    clock.advance(86_400)
    assert api.get(path).json()["timestamp"] == before + 86_400
    assert parsedate_to_datetime(api.get(path).headers["Date"]).timestamp() == int(clock.time())


def test_latency_and_limits_are_of_its_seconds(clock: ManualClock) -> None:
    cloud = Cloud(clock=clock)
    cloud.rate_limit = RateLimit(per_second=1, burst=1)
    with Simulator(cloud, latency=30.0) as simulator, Api(simulator) as api:
        assert [api.get("/kms").status_code for _ in range(2)] == [200, 200]
        assert cloud.requests[0].ended - cloud.requests[0].started == 30.0
        simulator.latency = 0.0
        assert [api.get("/kms").status_code for _ in range(2)] == [200, 429]
        clock.advance(1)
        assert api.get("/kms").status_code == 200


def test_it_wakes_whoever_waits_for_it_from_another_thread(clock: ManualClock) -> None:
    condition, waiting = threading.Condition(), threading.Event()
    woken: list[float] = []

    def wait() -> None:
        with condition:
            waiting.set()
            while clock.monotonic() < 100:
                clock.wait(condition, 100 - clock.monotonic())
            woken.append(clock.monotonic())

    threads = [threading.Thread(target=wait) for _ in range(4)]
    for thread in threads:
        thread.start()
    waiting.wait()
    movers = [threading.Thread(target=clock.advance, args=(5,)) for _ in range(20)]
    for thread in movers:
        thread.start()
    for thread in (*movers, *threads):
        thread.join(timeout=10)
    assert woken == [100] * 4


def test_it_does_not_go_back(clock: ManualClock) -> None:
    with pytest.raises(ValueError, match="back"):
        clock.advance(-1)
