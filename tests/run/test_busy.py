"""Stories of a busy CVM (409): another operation is followed to its end, and then the run begins again."""

from __future__ import annotations

from typing import Any

import pytest

from phala_secrets import flow
from phala_secrets.cloud import wait
from phala_secrets.cloud.progress import Operation
from phala_secrets.flow import Pause
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.wire import Answer, Request
from tests.support.clock import ManualClock
from tests.support.command import Command, Outcome
from tests.support.faults import Fault
from tests.support.faulty import FaultySimulator as Simulator

pytestmark = pytest.mark.usefixtures("clock")
ON_CHAIN = "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C"


@pytest.fixture
def cloud(simulator: Simulator) -> Cloud:
    simulator.cloud.restart_seconds, simulator.cloud.stale_seconds = 30.0, 3.0
    return simulator.cloud


def update(run: Command, *arguments: str, env: str = "OLD=2\n") -> Outcome:
    run.write(".env", env)
    return run("update", "--cvm", "my-app", "--env-file", ".env", "--json", *arguments)


def patches(cloud: Cloud) -> list[Request]:
    return [request for request in cloud.requests if request.method == "PATCH"]


def deploy(cvm: Cvm, seconds: float = 240.0, **changes: Any) -> None:
    cvm.begin_operation("update_compose", seconds, by="alice", changes=changes or {"features": ["kms"]})


@pytest.mark.parametrize("waits", [True, False], ids=["wait", "no-wait"])
def test_deploy_then_secrets(run: Command, cloud: Cloud, cvm: Cvm, clock: ManualClock, waits: bool) -> None:
    deploy(cvm)
    clock.advance(60)
    done = update(run, *([] if waits else ["--no-wait"]))
    assert done.code == 0, done.printed
    assert "waiting for another operation: update compose by alice, for 60 s so far" in done.stderr
    assert [request.status for request in patches(cloud)] == [409, 202]
    assert cvm.wait(60).environment == {"OLD": "2"}
    assert done.json["status"] == ("running" if waits else "in_progress")
    assert done.json["compose_hash"] == done.json["previous_compose_hash"] == cvm.compose_hash


def test_what_was_prepared_before_is_made_anew(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    deploy(cvm, allowed_envs=["OLD"], pre_launch_script="true")
    done = update(run)
    assert done.code == 0, done.printed
    first, second = (request.json["encrypted_env"] for request in patches(cloud))
    assert first != second, "sealed again, to the key that was proven again"
    paths = [request.path for request in cloud.requests]
    for path in ("/cvms/my-app", f"/cvms/{cvm.id}/compose_file", f"/kms/phala/pubkey/{cvm.app_id}"):
        assert paths.count(path) == 2
    assert done.json["compose_hash"] == cvm.compose_hash


def test_an_operation_that_ends_at_the_limit_of_patience_is_one_too_many(
    run: Command, cloud: Cloud, cvm: Cvm, clock: ManualClock
) -> None:
    deploy(cvm, 900)
    done = update(run, "--wait-timeout", "120")
    assert done.code == 5
    assert "still busy after 120 s, so nothing was sent" in done.errors[0]
    assert "409" in done.errors[0]
    assert 118 <= clock.monotonic() <= 130
    assert cvm.environment == {"OLD": "1"}
    assert done.json["status"] == "failed"


def test_each_phase_has_the_time_to_itself(run: Command, cvm: Cvm) -> None:
    deploy(cvm, 100)
    cvm.restart_seconds = 100
    assert update(run, "--wait-timeout", "120").code == 0
    assert cvm.environment == {"OLD": "2"}


@pytest.mark.parametrize("allowed", [[], ["--allow-removal"]], ids=["no", "allow-removal"])
def test_a_name_that_came_meanwhile_is_never_dropped(
    run: Command, cloud: Cloud, cvm: Cvm, allowed: list[str]
) -> None:
    deploy(cvm)

    def add_a_name(request: Request, answer: Answer) -> Answer:
        if request.method == "PATCH":
            cvm.app_compose = {**cvm.app_compose, "allowed_envs": ["OLD", "THEIRS"]}
        return answer

    cloud.tamper = add_a_name
    done = update(run, *allowed)
    assert done.code == 4, done.printed
    assert "THEIRS" in done.errors[0]
    assert len(patches(cloud)) == 1
    assert cvm.environment == {"OLD": "1"}


def test_a_removal_that_was_planned_stays_allowed(run: Command, cvm: Cvm) -> None:
    deploy(cvm)
    done = update(run, "--allow-removal", env="NEW=3\n")
    assert done.code == 0, done.printed
    assert cvm.environment == {"NEW": "3"}


def test_a_newer_guest_is_reviewed_again(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    deploy(cvm)

    def upgrade(request: Request, answer: Answer) -> Answer:
        if request.method == "PATCH":
            cvm.os_version = "0.6.0"
        return answer

    cloud.tamper = upgrade
    done = update(run, env="OLD=2\nACTION=3\n")
    assert done.code == 4, done.printed
    assert len(patches(cloud)) == 1


def test_a_ciphertext_that_was_prepared_is_sent_as_it_is_when_it_still_fits(
    run: Command, cloud: Cloud, cvm: Cvm
) -> None:
    run.write(".env", "OLD=2\n")
    sealed = run("encrypt", "--cvm", "my-app", "--env-file", ".env").stdout.strip()
    deploy(cvm)
    done = run("update", "--cvm", "my-app", "--encrypted-env", sealed, "--env-keys", '["OLD"]')
    assert done.code == 0, done.printed
    assert {request.json["encrypted_env"] for request in patches(cloud)} == {sealed}
    assert cvm.environment == {"OLD": "2"}


def test_a_ciphertext_of_another_app_than_the_one_found_again_is_refused(
    run: Command, cloud: Cloud, cvm: Cvm
) -> None:
    run.write(".env", "OLD=2\n")
    sealed = run("encrypt", "--cvm", "my-app", "--env-file", ".env").stdout.strip()
    deploy(cvm)

    def redeploy(request: Request, answer: Answer) -> Answer:
        if request.method == "PATCH" and len(cloud.cvms) == 1:
            cloud.cvms[:] = [cloud.add_cvm("another", environment={"OLD": "1"})]
            object.__setattr__(cloud.cvms[0], "identity", _renamed(cloud.cvms[0]))
        return answer

    cloud.tamper = redeploy
    done = run("update", "--cvm", "my-app", "--encrypted-env", sealed, "--env-keys", '["OLD"]')
    assert done.code == 3, done.printed
    assert "no longer fits" in done.errors[0]
    assert len(patches(cloud)) == 1


def _renamed(cvm: Cvm) -> Any:
    from dataclasses import replace

    return replace(cvm.identity, name="my-app")


def test_a_fleet_waits_for_the_one_that_is_busy(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    second = cloud.add_cvm("second", app_id=cvm.app_id, environment={"OLD": "1"})
    deploy(second, 300)
    run.write(".env", "OLD=2\n")
    done = run("update", "--app", cvm.app_id, "--env-file", ".env", "--max-parallel", "2", "--json")
    assert done.code == 0, done.printed
    assert [row["status"] for row in done.json["results"]] == ["running", "running"]
    assert cvm.environment == second.environment == {"OLD": "2"}


def test_a_409_that_no_operation_explains_is_tried_until_the_time_is_up(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    simulator.faults.add(Fault("status", "PATCH", status=409, body={"detail": "busy"}, times=None))
    done = update(run, "--wait-timeout", "30")
    assert done.code == 5
    assert 5 <= len(patches(cloud)) <= 15


# -- by hand ----------------------------------------------------------------------------------------


def test_a_busy_cvm_shows_progress_every_minute(clock: ManualClock) -> None:
    told: list[str] = []
    patience = wait.Patience(200)
    steps = wait.until_free("my-app", patience, told.append)
    began = flow.clock.time()
    other = Operation("op-1", "in_progress", "", "resize", "bob", began)
    pauses = []
    step: Any = next(steps)
    for _ in range(40):
        assert step.call.path == "/cvms/my-app/operations"
        step = steps.send((other,))
        assert isinstance(step, Pause)
        pauses.append(step.seconds)
        clock.sleep(step.seconds)
        if clock.monotonic() > 130:
            break
        step = next(steps)
    assert pauses[:7] == [0.3, 0.5, 1.0, 2.0, 3.0, 5.0, 5.0]
    assert len(told) == 3
    assert told[0] == "waiting for another operation: resize by bob, for 0 s so far"
    assert "for 2 min" in told[-1]
    next(steps)
    with pytest.raises(StopIteration):
        steps.send((Operation("op-1", "completed", "", "resize", "bob", began),))
