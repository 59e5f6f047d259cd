"""Stories of `wait-for: containers`: all up, and healthy where they have a health check."""

from __future__ import annotations

import pytest

from phala_secrets.cloud.progress import Container as Row
from phala_secrets.run.containers import Reading, read
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.containers import Container
from phala_secrets.simulator.cvm import Cvm
from tests.support.clock import ManualClock
from tests.support.command import Command, Outcome
from tests.support.faulty import FaultySimulator as Simulator

pytestmark = pytest.mark.usefixtures("clock")


@pytest.fixture
def cloud(simulator: Simulator) -> Cloud:
    simulator.cloud.restart_seconds, simulator.cloud.stale_seconds = 30.0, 3.0
    return simulator.cloud


def update(run: Command, *arguments: str) -> Outcome:
    run.write(".env", "OLD=2\n")
    return run(
        *("update", "--cvm", "my-app", "--env-file", ".env", "--json", "--wait-for", "containers"), *arguments
    )


def looks(cloud: Cloud) -> list[float]:
    return [request.started for request in cloud.requests if request.path.endswith("/composition")]


def test_three_good_looks_in_a_row_five_seconds_apart(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    cvm.containers = [Container("web", "healthy"), Container("worker"), Container("migrate", "exited", 0)]
    done = update(run)
    assert done.code == 0, done.printed
    first, second, third = looks(cloud)
    assert (second - first, third - second) == pytest.approx((5, 5))


def test_what_is_not_up_yet_is_waited_for(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    cvm.containers = [Container("web", "healthy")]
    cvm.looks += [None, [], [Container("web", "created")], [Container("web", "starting", seconds=1)]]
    cvm.looks += [[Container("web", "healthy")], [Container("web", "unhealthy")]]
    done = update(run)
    assert done.code == 0, done.printed
    assert len(looks(cloud)) == 9, "a look that was not good begins the row anew"
    assert "web: Created" in done.stderr


@pytest.mark.parametrize(
    "container",
    [
        Container("web", "unhealthy"),
        Container("web", "restarting", 1, seconds=5),
        Container("web", "exited", 137, seconds=1),
        Container("web", "exited", 1, seconds=7200),
    ],
    ids=lambda one: f"{one.condition}-{one.seconds}",
)
def test_a_container_that_fails_is_named_with_its_status(
    run: Command, cloud: Cloud, cvm: Cvm, container: Container
) -> None:
    cvm.containers = [Container("db"), container]
    done = update(run)
    assert done.code == 8
    assert f"the container web: {container.status(60).split()[0]}" in done.errors[0]
    assert cvm.operations[-1].correlation_id in done.errors[0]
    assert len(looks(cloud)) <= 3
    assert done.json["status"] == "failed"


def test_one_restart_is_no_loop(run: Command, cvm: Cvm) -> None:
    cvm.looks += [[Container("web", "restarting", 1, seconds=1)], [Container("web", seconds=2)]]
    assert update(run).code == 0


def test_a_loop_shows_in_how_short_a_container_has_been_up(run: Command, cvm: Cvm) -> None:
    cvm.containers = [Container("web", seconds=2)]
    done = update(run)
    assert done.code == 8
    assert "the container web: Up 2 seconds" in done.errors[0]


def test_one_of_the_boot_before_may_still_show(run: Command, cvm: Cvm) -> None:
    cvm.looks += [[Container("web", "exited", 137, seconds=40)]] * 2
    assert update(run).code == 0


@pytest.mark.parametrize("containers", [None, []], ids=["none", "empty"])
def test_containers_that_cannot_be_seen(
    run: Command, cvm: Cvm, clock: ManualClock, containers: list[Container] | None
) -> None:
    cvm.containers = containers
    done = update(run, "--wait-timeout", "90")
    assert done.code == 8
    assert "were not visible for 90 s" in done.errors[0]
    assert "--wait-for running" in done.hints[-1]
    assert clock.monotonic() < 95


def test_those_that_do_not_come_up_in_time(run: Command, cvm: Cvm) -> None:
    cvm.containers = [Container("web", "starting", seconds=50)]
    done = update(run, "--wait-timeout", "90")
    assert done.code == 8
    assert "web: Up 50 seconds (health: starting)" in done.errors[0]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("Up 3 minutes (healthy)", Reading("up", 180)),
        ("Up Less than a second", Reading("up", 0)),
        ("Up About an hour", Reading("up", 3600)),
        ("Up 5 seconds (health: starting)", Reading("waiting", 5)),
        ("Up 2 weeks (Paused)", Reading("waiting", 1_209_600)),
        ("Up 4 hours (unhealthy)", Reading("unhealthy", 14_400)),
        ("Restarting (1) 5 seconds ago", Reading("restarting", 5)),
        ("Exited (0) 2 days ago", Reading("done", 172_800)),
        ("Exited (137) About a minute ago", Reading("exited", 60)),
        ("Created", Reading("waiting")),
        ("Dead", Reading("waiting")),
        ("", Reading("waiting")),
        ("Up " + "9" * 5000 + " seconds", Reading("up", 999_999_999)),
    ],
)
def test_what_docker_prints_is_read(status: str, expected: Reading) -> None:
    assert read(Row("web", "running", status)) == expected
