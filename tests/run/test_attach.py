"""``wait``: following what runs, after a time-out or Ctrl-C, or hearing how it ended."""

from __future__ import annotations

import pytest

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.containers import Container
from phala_secrets.simulator.cvm import Cvm
from tests.support.clock import ManualClock
from tests.support.command import Command, Outcome
from tests.support.faulty import FaultySimulator as Simulator
from tests.support.person import Person
from tests.support.step import Step

pytestmark = pytest.mark.usefixtures("clock")


@pytest.fixture
def cloud(simulator: Simulator) -> Cloud:
    simulator.cloud.restart_seconds, simulator.cloud.stale_seconds = 30.0, 3.0
    return simulator.cloud


def update(run: Command, *arguments: str) -> Outcome:
    run.write(".env", "OLD=2\n")
    return run("update", "--cvm", "my-app", "--env-file", ".env", *arguments)


def test_after_a_time_out_wait_goes_on(run: Command, cvm: Cvm, clock: ManualClock) -> None:
    late = update(run, "--wait-timeout", "5")
    assert late.code == 8
    assert "go on waiting with phala-secrets wait" in late.hints[-1]
    done = run("wait", "--cvm", "my-app", "--json")
    assert done.code == 0, done.printed
    assert "my-app: following" in done.stderr
    assert done.json == {
        "cvm_id": cvm.id,
        "app_id": cvm.app_id,
        "compose_hash": cvm.compose_hash,
        "status": "running",
        "correlation_id": cvm.operations[-1].correlation_id,
    }


def test_what_ended_meanwhile_is_told_as_it_ended(run: Command, cvm: Cvm) -> None:
    cvm.boot_fails("no space left on device")
    assert update(run, "--no-wait").code == 0
    cvm.wait(60)
    done = run("wait", "--cvm", "my-app", "--json")
    assert done.code == 8
    assert done.json["status"] == "failed"
    assert "no space left on device" in done.errors[0]
    assert cvm.operations[-1].correlation_id in done.errors[0]


def test_a_cvm_with_no_operation_just_runs(run: Command, cvm: Cvm, cloud: Cloud) -> None:
    done = run("wait", "--cvm", "my-app")
    assert done.code == 0, done.printed
    assert done.lines[-3:-1] == ["my-app is running", "  last operation  none"]
    assert {request.method for request in cloud.requests} == {"GET"}


def test_a_time_may_have_its_unit_and_ends_the_wait(run: Command, cvm: Cvm, clock: ManualClock) -> None:
    cvm.restart_seconds = 3600
    assert update(run, "--no-wait").code == 0
    began = clock.monotonic()
    done = run("wait", "--cvm", "my-app", "--wait-timeout", "10m")
    assert done.code == 8
    assert "not running after 600 s" in done.errors[0]
    assert clock.monotonic() - began == pytest.approx(600, abs=1)


def test_a_cvm_that_is_stopped_will_not_come_up(run: Command, cvm: Cvm, clock: ManualClock) -> None:
    cvm.stop()
    began = clock.monotonic()
    done = run("wait", "--cvm", "my-app")
    assert done.code == 8
    assert done.errors == ["error: my-app: the CVM is stopped"]
    assert clock.monotonic() - began < 60


def test_containers_are_waited_for_where_that_is_asked(run: Command, cvm: Cvm) -> None:
    cvm.containers = [Container("web", "unhealthy")]
    assert update(run, "--no-wait").code == 0
    done = run("wait", "--cvm", "my-app", "--wait-for", "containers")
    assert done.code == 8
    assert "web" in done.errors[0]


def test_all_of_a_fleet_are_followed_and_each_has_its_row(run: Command, cvm: Cvm, cloud: Cloud) -> None:
    bad = [cloud.add_cvm(name, app_id=cvm.app_id, environment={"OLD": "1"}) for name in ("two", "three")]
    run.write(".env", "OLD=2\n")
    for each in bad:
        each.boot_fails("no disk")
    sent = run("update", "--app", cvm.app_id, "--env-file", ".env", "--no-wait", "--max-parallel", "3")
    assert sent.code == 0, sent.printed
    done = run("wait", "--app", cvm.app_id, "--json")
    assert done.code == 8, done.printed
    rows = {row["name"]: row for row in done.json["results"]}
    assert [rows[name]["status"] for name in ("my-app", "two", "three")] == ["running", "failed", "failed"]
    assert [line.split()[:3] for line in done.lines if line.startswith("  t")] == [
        ["two", "failed", "8"],
        ["three", "failed", "8"],
    ]
    assert len(done.errors) == 2


@pytest.mark.usefixtures("time_passes")
def test_ctrl_c_leaves_the_operation_to_itself(run: Command, cvm: Cvm) -> None:
    cvm.restart_seconds = 60
    assert update(run, "--no-wait").code == 0
    with Person(run, "wait", "--cvm", "my-app") as person:
        assert person.sees("my-app: following"), person.seen
        person.presses_ctrl_c()
        assert person.code() == 130
        assert "interrupted: the operation goes on without this run" in person.seen
        assert "hint: follow it again with phala-secrets wait" in person.seen


def test_a_step_of_a_workflow_waits_too(step: Step, cvm: Cvm) -> None:
    assert step(env="OLD=2", wait="false").code == 0
    done = step(mode="wait")
    assert done.code == 0, done.log
    assert done.outputs["status"] == "running"
    assert cvm.environment == {"OLD": "2"}
