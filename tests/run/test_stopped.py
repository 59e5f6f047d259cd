"""Stories of a CVM that is stopped, or in error for want of its secrets."""

from __future__ import annotations

from typing import Any

import pytest

from phala_secrets.cloud import wait
from phala_secrets.cloud.progress import Operation, State
from phala_secrets.errors import BootError
from phala_secrets.flow import Pause
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.wire import Answer, Request
from tests.support.clock import ManualClock
from tests.support.command import Command, Outcome
from tests.support.faulty import FaultySimulator as Simulator

pytestmark = pytest.mark.usefixtures("clock")


@pytest.fixture
def cloud(simulator: Simulator) -> Cloud:
    simulator.cloud.restart_seconds, simulator.cloud.stale_seconds = 30.0, 10.0
    return simulator.cloud


def update(run: Command, *arguments: str, mode: str = "update") -> Outcome:
    run.write(".env", "OLD=2\n")
    return run(mode, "--cvm", "my-app", "--env-file", ".env", "--json", *arguments)


def starts(cloud: Cloud) -> list[Request]:
    return [request for request in cloud.requests if request.path.endswith("/start")]


@pytest.mark.parametrize("mode", ["plan", "update"])
def test_a_stopped_cvm_is_a_warning_before_the_update(
    run: Command, cloud: Cloud, cvm: Cvm, mode: str
) -> None:
    cvm.stop()
    done = update(run, mode=mode)
    before = done.stderr.partition("update accepted")[0]
    assert "my-app is stopped" in before
    assert "set --start" in before


@pytest.mark.parametrize("begins", [True, False], ids=["update-starts", "update-leaves"])
def test_without_start_one_that_stays_stopped_ends_at_once(
    run: Command, cloud: Cloud, cvm: Cvm, clock: ManualClock, begins: bool
) -> None:
    cloud.update_starts_stopped = begins
    cvm.stop()
    done = update(run)
    if begins:
        assert done.code == 0, done.printed
        assert cvm.environment == {"OLD": "2"}
        return
    assert done.code == 8
    assert "still stopped" in done.errors[0]
    assert cvm.operations[-1].correlation_id in done.errors[0]
    assert "set --start" in done.hints[-1]
    assert 30 <= clock.monotonic() < 42, "its operation is followed to the end, and no longer"
    assert not starts(cloud)


@pytest.mark.parametrize("begins", [True, False], ids=["update-starts", "update-leaves"])
def test_with_start_it_is_started_only_if_it_is_still_stopped(
    run: Command, cloud: Cloud, cvm: Cvm, begins: bool
) -> None:
    cloud.update_starts_stopped = begins
    cvm.stop()
    done = update(run, "--start")
    assert done.code == 0, done.printed
    assert cvm.environment == {"OLD": "2"}
    assert len(starts(cloud)) == (0 if begins else 1)
    assert done.json["status"] == "running"


def test_an_operation_that_is_in_the_way_of_the_start_is_followed(
    run: Command, cloud: Cloud, cvm: Cvm
) -> None:
    cloud.update_starts_stopped = False
    cvm.stop()

    def resize(request: Request, answer: Answer) -> Answer:
        ended = [one.status for one in cvm.operations] == ["completed"]
        if request.path.endswith("/operations") and ended:
            cvm.begin_operation("resize", 90, by="bob", effect="stop")
        return answer

    cloud.tamper = resize
    done = update(run, "--start")
    assert done.code == 0, done.printed
    assert [request.status for request in starts(cloud)] == [409, 200]
    assert "resize by bob" in done.stderr
    assert cvm.environment == {"OLD": "2"}


def test_a_start_that_fails_says_why(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    cloud.update_starts_stopped = False
    cvm.stop()
    cvm.boot_fails("no disk")
    done = update(run, "--start")
    assert done.code == 8
    assert "the start failed: no disk" in done.errors[0]


def test_one_of_a_fleet_that_is_stopped_is_started(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    cloud.update_starts_stopped = False
    second = cloud.add_cvm("second", app_id=cvm.app_id, environment={"OLD": "1"})
    second.stop()
    run.write(".env", "OLD=2\n")
    done = run("update", "--app", cvm.app_id, "--env-file", ".env", "--start", "--json")
    assert done.code == 0, done.printed
    assert second.environment == {"OLD": "2"}


def test_start_without_wait_is_refused(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    assert update(run, "--start", "--no-wait").code == 2
    assert not cloud.requests


# -- in error ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("lags", [True, False])
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "fleet"])
def test_an_update_repairs_one_in_error_whose_old_error_shows_for_a_while(
    run: Command, cloud: Cloud, cvm: Cvm, lags: bool, alone: bool
) -> None:
    cloud.progress_lags = lags
    cvm.required = ["TOKEN"]
    cvm.fail("required variable TOKEN is missing a value")
    if not alone:
        cloud.add_cvm("second", app_id=cvm.app_id, environment={"OLD": "1"})
    run.write(".env", "OLD=2\nTOKEN=t\n")
    target = ["--cvm", "my-app"] if alone else ["--app", cvm.app_id]
    done = run("update", *target, "--env-file", ".env", "--json")
    assert done.code == 0, done.printed
    assert cvm.environment == {"OLD": "2", "TOKEN": "t"}


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "fleet"])
def test_the_same_error_again_is_the_new_boots(run: Command, cloud: Cloud, cvm: Cvm, alone: bool) -> None:
    cvm.required = ["TOKEN"]
    cvm.fail("required variable TOKEN is missing a value")
    if not alone:
        cloud.add_cvm("second", app_id=cvm.app_id, environment={"OLD": "1"})
    run.write(".env", "OLD=2\n")
    target = ["--cvm", "my-app"] if alone else ["--app", cvm.app_id]
    done = run("update", *target, "--env-file", ".env", "--json")
    assert done.code == 8
    assert "required variable TOKEN" in done.printed


def test_an_old_error_after_a_completed_operation_has_to_stay_for_three_looks(clock: ManualClock) -> None:
    def drive(states: list[State]) -> float:
        steps, began = wait.until_up("my-app", wait.by_id("op"), 600, lambda _: None), clock.monotonic()
        step: Any = next(steps)
        left = iter(states)
        while True:
            if isinstance(step, Pause):
                clock.sleep(step.seconds)
                step = next(steps)
            elif step.call.path.endswith("/state"):
                step = steps.send(next(left))
            else:
                step = steps.send((Operation("op", "completed", ""),))
            assert clock.monotonic() - began < 600

    old, up = State("error", "", "old", ""), State("running", "", "", "")
    with pytest.raises(StopIteration):
        drive([old, old, up])
    with pytest.raises(BootError, match="old"):
        drive([old, old, old])
