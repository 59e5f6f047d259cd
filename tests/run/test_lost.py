"""Stories of an update whose response is lost: only our very ciphertext shows that it was accepted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from phala_secrets.cloud.progress import Operation, Revision
from phala_secrets.run.deliver import operation_of
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.wire import Answer, Request
from tests.support.clock import ManualClock
from tests.support.command import Command, Outcome
from tests.support.faults import Fault
from tests.support.faulty import FaultySimulator as Simulator

pytestmark = pytest.mark.usefixtures("clock")


@pytest.fixture
def cloud(simulator: Simulator) -> Cloud:
    simulator.cloud.restart_seconds, simulator.cloud.stale_seconds = 30.0, 3.0
    return simulator.cloud


def update(run: Command, *arguments: str) -> Outcome:
    run.write(".env", "OLD=2\n")
    return run("update", "--cvm", "my-app", "--env-file", ".env", "--json", *arguments)


def patches(cloud: Cloud) -> list[Request]:
    return [request for request in cloud.requests if request.method == "PATCH"]


@pytest.mark.parametrize("waits", [True, False], ids=["wait", "no-wait"])
def test_our_ciphertext_in_a_revision_means_accepted(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm, waits: bool
) -> None:
    simulator.faults.add(Fault("reset_after", "PATCH"))
    done = update(run, *([] if waits else ["--no-wait"]))
    assert done.code == 0, done.printed
    assert done.json["correlation_id"] == cvm.operations[-1].correlation_id
    assert done.json["status"] == ("running" if waits else "in_progress")
    assert len(patches(cloud)) == 1


@pytest.mark.parametrize("fault", [Fault("reset_before", "PATCH"), Fault("status", "PATCH", status=503)])
def test_no_revision_within_thirty_seconds_is_not_known_and_not_sent_again(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm, clock: ManualClock, fault: Fault
) -> None:
    simulator.faults.add(replace(fault))
    done = update(run)
    assert done.code == 6
    assert "the outcome of the update of 'my-app' is unknown" in done.errors[0]
    assert len(patches(cloud)) == 1
    assert 29 <= clock.monotonic() <= 31
    assert done.json["status"] == "failed"


def test_the_update_of_another_who_was_faster_is_not_ours(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm, another_run: Any
) -> None:
    simulator.faults.add(Fault("reset_before", "PATCH", skip=1))
    another_run({"OLD": "theirs"})
    done = update(run)
    assert done.code == 6
    assert "holds what was sent" in done.errors[0]
    assert cvm.wait(60).environment == {"OLD": "theirs"}


def test_a_revision_of_a_replica_is_not_that_of_this_one(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    """A fleet shares a ciphertext: the CVM has to be the one as well."""
    cloud.add_cvm("second", app_id=cvm.app_id, environment={"OLD": "1"})
    simulator.faults.add(Fault("reset_before", "PATCH", skip=1))
    run.write(".env", "OLD=2\n")
    done = run("update", "--app", cvm.app_id, "--env-file", ".env", "--json")
    assert done.code == 6, done.printed
    assert [row["status"] for row in done.json["results"]] == ["running", "failed"]


def test_a_ciphertext_that_was_sent_by_an_earlier_run_is_no_proof(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    run.write(".env", "OLD=2\n")
    sealed = run("encrypt", "--cvm", "my-app", "--env-file", ".env").stdout.strip()
    given = ("update", "--cvm", "my-app", "--encrypted-env", sealed, "--env-keys", '["OLD"]')
    assert run(*given).code == 0
    simulator.faults.add(Fault("reset_before", "PATCH"))
    assert run(*given).code == 6
    simulator.faults.add(Fault("reset_after", "PATCH"))
    assert run(*given).code == 0


def test_a_restart_in_the_dashboard_is_not_waited_for_as_ours(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    def restart(request: Request, answer: Answer) -> Answer:
        if request.path.endswith("/operations"):
            other = {**answer.body["items"][-1], "correlation_id": "op-of-alice", "status": "completed"}
            other |= {"operation_type": "restart", "triggered_by_username": "alice"}
            return replace(answer, body={"items": [other, *answer.body["items"]], "total": 2})
        return answer

    simulator.faults.add(Fault("reset_after", "PATCH"))
    cloud.tamper = restart
    done = update(run)
    assert done.code == 0, done.printed
    assert done.json["correlation_id"] == cvm.operations[-1].correlation_id
    assert cvm.environment == {"OLD": "2"}


def test_revisions_that_cannot_be_read_leave_it_open(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    simulator.faults.add(Fault("reset_after", "PATCH"))
    simulator.faults.add(Fault("status", path="/revisions", status=403, times=None))
    done = update(run)
    assert done.code == 6
    assert "reading its revisions failed" in done.errors[0]


def test_which_operation_made_a_revision() -> None:
    revision = Revision("r", "uuid", "me", 1000.0, "aa")
    one = Operation("ours", "in_progress", "", "update_envs", "me", 999.0, "aa")
    assert operation_of(revision, [one]) is one
    for other in (
        one._replace(kind="restart"),
        one._replace(by="alice"),
        one._replace(started=None),
        one._replace(started=500.0),
    ):
        assert operation_of(revision, [other]) is None
    later = one._replace(correlation_id="later", started=1060.0)
    other_hash = one._replace(correlation_id="other", started=1000.0, compose_hash="bb")
    assert operation_of(revision, [later, other_hash, one]) is one


def test_a_ciphertext_of_any_length_is_recognised(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    simulator.faults.add(Fault("reset_after", "PATCH"))
    run.write(".env", f"OLD={'x' * 100_000}\n")
    done = run("update", "--cvm", "my-app", "--env-file", ".env", "--json")
    assert done.code == 0, done.printed
    assert cvm.environment == {"OLD": "x" * 100_000}
