"""Waiting: an update is over when its own operation is, and then the CVM has to run.

First ``until_up`` driven by hand, so that each pause is seen; then the stories of whole runs.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from typing import Any, Literal

import pytest

from phala_secrets import flow
from phala_secrets.cloud.call import Within
from phala_secrets.cloud.progress import Operation, State
from phala_secrets.cloud.wait import by_id, until_up
from phala_secrets.errors import (
    AnswerError,
    AuthError,
    BootError,
    NotFoundError,
    PhalaSecretsError,
    RateLimitError,
    ServerError,
    TransportError,
    WaitTimeoutError,
)
from phala_secrets.flow import Pause
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.wire import Answer, Request
from tests.support.clock import ManualClock
from tests.support.command import Command, Outcome
from tests.support.faults import Fault
from tests.support.faulty import FaultySimulator as Simulator

# -- by hand -------------------------------------------------------------------------------------

RUNNING = State("running", "", "", "")
RESTARTING = State("restarting", "", "", "")
STOPPED = State("stopped", "", "", "")
BROKEN = State("error", "", "no disk", "")
UNDER_WAY = Operation("1", "in_progress", "")
COMPLETED = Operation("1", "completed", "")
LOST = TransportError("the connection broke off")

Look = State | PhalaSecretsError
Of = Operation | PhalaSecretsError | None


class Watched:
    """A CVM as the wait sees it: its ``states``, and its operation; the last of each stays."""

    def __init__(
        self, clock: ManualClock, states: Iterable[Look], operations: Iterable[Of] = (COMPLETED,)
    ) -> None:
        self._clock = clock
        self._states, self._operations = _lasting(states), _lasting(operations)
        self.steps: list[Any] = []
        self.shown: list[str] = []

    def wait(self, seconds: float = 600) -> None:
        flow.drive(until_up("cvm_1", by_id("1"), seconds, self.shown.append), self._take)

    def _take(self, step: Any) -> Any:
        self.steps.append(step)
        if isinstance(step, Pause):
            return self._clock.sleep(step.seconds)
        operations = isinstance(step, Within) and step.call.path.endswith("/operations")
        result = next(self._operations if operations else self._states)
        if isinstance(result, PhalaSecretsError):
            raise result
        return ([] if result is None else [result]) if operations else result

    @property
    def pauses(self) -> list[float]:
        return [step.seconds for step in self.steps if isinstance(step, Pause)]


def _lasting(looks: Iterable[Any]) -> Iterator[Any]:
    *first, last = looks
    return chain(first, repeat(last))


def test_the_wait_ends_when_the_cvm_runs_after_its_operation(clock: ManualClock) -> None:
    watched = Watched(clock, [RESTARTING, RESTARTING, RUNNING])
    watched.wait()
    assert watched.pauses == [0.3, 0.5, 1]
    assert watched.shown == ["restarting", "running"]


def test_looks_are_close_at_first_and_then_five_seconds_apart(clock: ManualClock) -> None:
    watched = Watched(clock, [*[RESTARTING] * 8, RUNNING])
    watched.wait()
    assert watched.pauses == [0.3, 0.5, 1, 2, 3, 5, 5, 5, 5]


def test_the_old_running_that_still_shows_does_not_count(clock: ManualClock) -> None:
    watched = Watched(clock, [RUNNING], [None, UNDER_WAY, UNDER_WAY, COMPLETED])
    watched.wait()
    assert watched.shown == ["waiting for the restart", "running"]


def test_an_error_of_the_boot_before_reads_as_waiting_and_not_as_a_fault(clock: ManualClock) -> None:
    watched = Watched(clock, [BROKEN, BROKEN, RESTARTING, RUNNING], [None, UNDER_WAY, COMPLETED])
    watched.wait()
    assert watched.shown == ["waiting for the restart", "restarting", "running"]


def test_a_cvm_that_runs_before_its_operation_ends_is_waited_for(clock: ManualClock) -> None:
    watched = Watched(clock, [RESTARTING, RUNNING], [UNDER_WAY, UNDER_WAY, COMPLETED])
    watched.wait()
    assert watched.shown == ["restarting", "running · waiting for the operation to end", "running"]


def test_a_log_has_the_line_again_every_thirty_seconds(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    cloud.restart_seconds, cloud.stale_seconds = 95, 3
    done = update(run)
    assert done.code == 0, done.printed
    lines = [line for line in done.lines if " of 10:00" in line]
    assert lines[0] == "my-app  waiting for the restart  0:01 of 10:00"
    shown = [line.split("  ")[1:] for line in lines]
    assert shown[-1][0] == "running"
    seconds = [60 * int(at[0]) + int(at[2:4]) for _, at in shown]
    assert all(1 <= later - before <= 36 for before, later in itertools.pairwise(seconds))
    assert re.fullmatch(r"update of my-app: running after 1:\d\d min", done.lines[-1])


def test_a_completed_operation_does_not_count_until_the_cvm_runs(clock: ManualClock) -> None:
    Watched(clock, [*[STOPPED] * 6, RUNNING]).wait()
    with pytest.raises(WaitTimeoutError, match="last seen: stopped"):
        Watched(clock, [STOPPED]).wait(20)


def test_a_failed_operation_is_told_with_its_reason(clock: ManualClock) -> None:
    with pytest.raises(BootError, match="the update failed: no disk"):
        Watched(clock, [RUNNING], [Operation("1", "failed", "no disk")]).wait()
    with pytest.raises(BootError, match="the update failed: no reason given"):
        Watched(clock, [RUNNING], [Operation("1", "failed", "")]).wait()


def test_a_boot_error_counts_once_the_operation_is_over(clock: ManualClock) -> None:
    with pytest.raises(BootError, match="the update failed: no disk"):
        Watched(clock, [RESTARTING, BROKEN], [UNDER_WAY, COMPLETED]).wait()


def test_the_boot_error_of_before_is_none_of_this_boot(clock: ManualClock) -> None:
    Watched(clock, [BROKEN, BROKEN, RESTARTING, RUNNING], [UNDER_WAY, UNDER_WAY, COMPLETED]).wait()


def test_a_timeout_says_what_was_last_seen(clock: ManualClock) -> None:
    with pytest.raises(WaitTimeoutError, match="not running after 20 s; last seen: restarting"):
        Watched(clock, [RESTARTING]).wait(20)


@pytest.mark.parametrize("seconds", [3, 10, 61])
def test_the_last_look_is_shortly_before_the_timeout(clock: ManualClock, seconds: int) -> None:
    watched = Watched(clock, [RESTARTING])
    with pytest.raises(WaitTimeoutError):
        watched.wait(seconds)
    assert sum(watched.pauses) == pytest.approx(seconds)
    assert max(watched.pauses[-4:]) <= max(flow.LAST_LOOK, flow.POLL)


@pytest.mark.parametrize(
    "failure", [LOST, ServerError("gone", status_code=502), RateLimitError("slower", status_code=429)]
)
def test_the_wait_survives_temporary_errors(clock: ManualClock, failure: PhalaSecretsError) -> None:
    Watched(clock, [failure, RUNNING], [failure, COMPLETED]).wait()


def test_malformed_responses_in_a_row_end_the_wait(clock: ManualClock) -> None:
    watched = Watched(clock, [AnswerError("not JSON")])
    with pytest.raises(AnswerError):
        watched.wait()
    assert len(watched.pauses) == flow.NONSENSE


@pytest.mark.parametrize(
    "failure", [AuthError("who?", status_code=401), NotFoundError("no such CVM", status_code=404)]
)
def test_a_refusal_that_does_not_pass_ends_the_wait(clock: ManualClock, failure: PhalaSecretsError) -> None:
    with pytest.raises(type(failure)):
        Watched(clock, [failure]).wait()


@pytest.mark.parametrize(("retry_after", "pause"), [(9, 9), (600, flow.LONGEST_PAUSE)])
def test_retry_after_is_kept_while_waiting(clock: ManualClock, retry_after: float, pause: float) -> None:
    watched = Watched(clock, [RateLimitError("slower", status_code=429, retry_after=retry_after), RUNNING])
    watched.wait()
    assert watched.pauses[1] == pause


def test_retry_after_beyond_the_timeout_leaves_a_last_look(clock: ManualClock) -> None:
    watched = Watched(clock, [RateLimitError("slower", status_code=429, retry_after=300), RUNNING])
    watched.wait(10)
    assert watched.pauses == [0.3, pytest.approx(7.7)]


# -- whole runs ----------------------------------------------------------------------------------


def update(run: Command, *arguments: str) -> Outcome:
    run.write(".env", "OLD=2\n")
    return run("update", "--cvm", "my-app", "--env-file", ".env", "--json", *arguments)


def change_state(cloud: Cloud, **fields: str | None) -> None:
    """Polled states come with these fields."""

    def tamper(request: Request, answer: Answer) -> Answer:
        if request.path.endswith("/state") and answer.status == 200:
            return Answer({**answer.body, **fields})
        return answer

    cloud.tamper = tamper


def asked(cloud: Cloud, path: str) -> list[Request]:
    return [request for request in cloud.requests if request.path.endswith(path)]


def test_a_run_ends_when_the_cvm_runs_with_what_it_was_given(
    run: Command, cloud: Cloud, cvm: Cvm, clock: ManualClock
) -> None:
    cloud.restart_seconds = 70
    done = update(run)
    assert done.code == 0, done.printed
    assert cvm.operations[-1].ends <= clock.monotonic()
    assert cvm.environment == {"OLD": "2"}
    assert done.json["status"] == "running"
    assert "restarting" in done.stderr


def test_the_old_running_that_still_shows_never_counts(
    run: Command, cloud: Cloud, cvm: Cvm, clock: ManualClock
) -> None:
    cloud.restart_seconds, cloud.stale_seconds = 15, 15
    assert update(run).code == 0
    assert cvm.operations[-1].ends <= clock.monotonic()


def test_the_old_running_counts_no_more_when_the_update_fails(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    cloud.restart_seconds, cloud.stale_seconds = 15, 15
    cvm.boot_fails("no disk")
    done = update(run)
    assert done.code == 8
    assert "no disk" in done.errors[0]


def test_a_boot_that_fails_is_told_with_the_guests_reason(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    cvm.boot_fails("docker compose: no such image")
    done = update(run)
    assert done.code == 8
    assert "docker compose: no such image" in done.errors[0]
    assert cvm.operations[-1].correlation_id in done.errors[0]
    assert done.json["status"] == "failed"
    assert done.json["correlation_id"] == cvm.operations[-1].correlation_id


def test_the_error_of_the_boot_before_is_no_error_of_this_one(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    cvm.boot_fails("no disk")
    assert update(run).code == 8
    cloud.restart_seconds = 12
    assert cvm.boot_error == "no disk"
    change_state(cloud, boot_error="no disk")
    done = update(run)
    assert done.code == 0, done.printed
    assert cvm.environment == {"OLD": "2"}


def test_the_same_error_again_is_an_error_of_this_boot_too(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    for _ in range(2):
        cvm.boot_fails("no disk")
        done = update(run)
        assert done.code == 8
        assert "no disk" in done.errors[0]


def test_the_time_to_wait_is_kept_and_ends_with_what_was_last_seen(
    run: Command, cloud: Cloud, cvm: Cvm, clock: ManualClock
) -> None:
    cloud.restart_seconds, cloud.stale_seconds = 600, 0.1
    done = update(run, "--wait-timeout", "60")
    assert done.code == 8
    assert "60 s" in done.errors[0]
    assert "last seen: restarting" in done.errors[0]
    assert done.json["correlation_id"] == cvm.operations[-1].correlation_id
    assert clock.monotonic() - cvm.operations[-1].begun == pytest.approx(60, abs=1)


def test_an_operation_that_never_shows_is_waited_for_in_vain(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    def hide(request: Request, answer: Answer) -> Answer:
        return Answer({"items": []}) if request.path.endswith("/operations") else answer

    cloud.tamper = hide
    done = update(run, "--wait-timeout", "2")
    assert done.code == 8
    assert "running, but the update has not ended" in done.errors[0]


def test_a_pause_that_the_api_asks_for_is_kept_while_waiting(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    cloud.restart_seconds = 2
    slower: dict[str, Any] = {
        "status": 429,
        "headers": {"Retry-After": "3"},
        "body": {"detail": "Too many requests"},
    }
    simulator.faults.add(Fault("status", path="/state$", **slower))
    assert update(run).code == 0
    first, second, *_ = asked(cloud, "/state")
    assert second.started - first.ended == pytest.approx(3)


def test_a_pause_beyond_the_time_to_wait_leaves_a_last_look(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    simulator.faults.add(Fault("status", path="/state$", status=429, headers={"Retry-After": "300"}))
    done = update(run, "--wait-timeout", "4")
    assert done.code == 0, done.printed


@pytest.mark.parametrize(
    "fault",
    [
        Fault("reset_before", path="/state$", times=1),
        Fault("status", path="/state$", status=500),
        Fault("status", path="/state$", status=429, body={"detail": "Too many requests"}),
        Fault("html_200", path="/state$", times=2),
        Fault("stall", path="/state$", seconds=20, times=1),
        Fault("status", path="/operations$", status=500, skip=1, times=2),
        Fault("not_json", path="/operations$", skip=1, times=2),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.where}-{fault.path.strip('/$')}",
)
def test_a_fault_that_passes_is_waited_out(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm, fault: Fault
) -> None:
    cloud.restart_seconds = 20
    simulator.faults.add(fault)
    done = update(run, "--timeout", "1")
    assert done.code == 0, done.printed
    assert cvm.operations[-1].status == "completed"


@pytest.mark.parametrize("status", [401, 404])
def test_what_does_not_pass_ends_the_wait_and_says_that_the_update_was_accepted(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm, status: int
) -> None:
    simulator.faults.add(
        Fault("status", path="/state$", status=status, body={"detail": "Gone away"}, times=None)
    )
    done = update(run)
    assert done.code == 5
    assert cvm.operations[-1].correlation_id in done.errors[0]
    assert "Gone away" in done.errors[0]


def test_nonsense_that_stays_ends_the_wait_before_its_time(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    simulator.faults.add(Fault("html_200", path="/state$", times=None))
    done = update(run)
    assert done.code == 6
    assert cvm.operations[-1].correlation_id in done.errors[0]


def test_a_log_has_a_line_for_each_change_and_none_for_each_poll(
    run: Command, cloud: Cloud, cvm: Cvm
) -> None:
    cloud.restart_seconds = 15
    done = update(run)
    told = [line for line in done.lines if line.startswith("my-app: ") and "accepted" not in line]
    assert len(asked(cloud, "/state")) >= 2
    assert told == sorted(set(told), key=told.index)
    assert len(told) <= 3


def test_without_wait_the_run_ends_with_the_acceptance(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    cloud.restart_seconds = 600
    done = update(run, "--no-wait")
    assert done.code == 0
    assert done.json["status"] == "in_progress"
    assert not asked(cloud, "/state")


def test_an_operation_that_failed_is_enough(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    change_state(cloud, status="running", boot_error=None)
    cvm.boot_fails("no disk")
    done = update(run)
    assert done.code == 8
    assert "no disk" in done.errors[0]


def test_an_operation_that_is_completed_is_not_enough(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    change_state(cloud, status="stopped")
    done = update(run, "--wait-timeout", "2")
    assert done.code == 8
    assert "last seen: stopped" in done.errors[0]


@pytest.mark.parametrize("kind", ["half_body", "reset_after"])
def test_a_look_that_breaks_off_is_taken_again(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm, kind: Literal["half_body", "reset_after"]
) -> None:
    cloud.restart_seconds, cloud.stale_seconds = 1.5, 0
    simulator.faults.add(Fault(kind, path="/state$", times=2))
    done = update(run)
    assert done.code == 0, done.printed
    assert not [request for request in cloud.requests if "target" in request.query], "no run opens a stream"
    assert cvm.operations[-1].status == "completed"
