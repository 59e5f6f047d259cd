"""Stories of waiting: an update is over when its own operation is, and then the CVM has to run."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest

from phala_secrets.run import command, interrupts
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.wire import Answer, Request
from tests.support.command import Command, Outcome
from tests.support.faults import Fault
from tests.support.faulty import FaultySimulator as Simulator


def update(run: Command, *arguments: str) -> Outcome:
    run.write(".env", "OLD=2\n")
    return run("update", "--cvm", "my-app", "--env-file", ".env", "--json", *arguments)


def change_state(cloud: Cloud, **fields: str | None) -> None:
    """Polled states come with these fields."""

    def tamper(request: Request, answer: Answer) -> Answer:
        if request.path.endswith("/state") and answer.status == 200:
            return Answer({**answer.body, **fields})
        return answer

    cloud.streams, cloud.tamper = False, tamper


def asked(cloud: Cloud, path: str) -> list[Request]:
    return [request for request in cloud.requests if request.path.endswith(path)]


@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "polled"])
def test_a_run_ends_when_the_cvm_runs_with_what_it_was_given(
    run: Command, cloud: Cloud, cvm: Cvm, streams: bool
) -> None:
    cloud.streams, cloud.restart_seconds = streams, 0.7
    done = update(run)
    now = time.monotonic()
    assert done.code == 0, done.printed
    assert cvm.operations[-1].ends <= now
    assert cvm.environment == {"OLD": "2"}
    assert done.json["status"] == "running"
    assert "restarting" in done.stderr


@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "polled"])
def test_the_old_running_that_still_shows_never_counts(
    run: Command, cloud: Cloud, cvm: Cvm, streams: bool
) -> None:
    cloud.streams, cloud.restart_seconds, cloud.stale_seconds = streams, 1.5, 1.5
    assert update(run).code == 0
    assert cvm.operations[-1].ends <= time.monotonic()


@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "polled"])
def test_the_old_running_counts_no_more_when_the_update_fails(
    run: Command, cloud: Cloud, cvm: Cvm, streams: bool
) -> None:
    cloud.streams, cloud.restart_seconds, cloud.stale_seconds = streams, 1.0, 1.0
    cvm.boot_fails("no disk")
    done = update(run)
    assert done.code == 8
    assert "no disk" in done.errors[0]


@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "polled"])
def test_a_boot_that_fails_is_told_with_the_guests_reason(
    run: Command, cloud: Cloud, cvm: Cvm, streams: bool
) -> None:
    cloud.streams = streams
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
    cloud.restart_seconds = 1.2
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


@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "polled"])
def test_the_time_to_wait_is_kept_and_ends_with_what_was_last_seen(
    run: Command, cloud: Cloud, cvm: Cvm, streams: bool
) -> None:
    cloud.streams, cloud.restart_seconds, cloud.stale_seconds = streams, 600, 0.1
    done = update(run, "--wait-timeout", "2")
    assert done.code == 8
    assert "2 s" in done.errors[0]
    assert "last seen: restarting" in done.errors[0]
    assert done.json["correlation_id"] == cvm.operations[-1].correlation_id
    assert time.monotonic() - cvm.operations[-1].begun < 10


def test_an_operation_that_never_shows_is_waited_for_in_vain(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    def hide(request: Request, answer: Answer) -> Answer:
        return Answer({"items": []}) if request.path.endswith("/operations") else answer

    cloud.tamper = hide
    done = update(run, "--wait-timeout", "2")
    assert done.code == 8
    assert "running, but the update is not over" in done.errors[0]


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


def test_a_stream_that_is_only_kept_open_is_taken_up_again(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    cloud.restart_seconds, cloud.stale_seconds = 1.0, 0
    simulator.faults.add(Fault("mute", path="/state$"))
    done = update(run, "--wait-timeout", "30")
    assert done.code == 0, done.printed


def test_a_pause_that_the_api_asks_for_is_kept_while_waiting(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    cloud.restart_seconds = 0.2
    slower = {"status": 429, "headers": {"Retry-After": "3"}, "body": {"detail": "Too many streams"}}
    simulator.faults.add(Fault("status", path="/state$", **slower))
    assert update(run).code == 0
    first, second, *_ = asked(cloud, "/state")
    assert second.started - first.ended >= 2.9


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
        Fault("status", path="/state$", status=429, body={"detail": "Too many streams"}),
        Fault("html_200", path="/state$", times=2),
        Fault("stall", path="/state$", seconds=20, times=1),
        Fault("stall", path="/state$", seconds=20, times=1, where="body"),
        Fault("status", path="/operations$", status=500, skip=1, times=2),
        Fault("not_json", path="/operations$", skip=1, times=2),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.where}-{fault.path.strip('/$')}",
)
def test_what_passes_is_waited_out(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm, fault: Fault
) -> None:
    cloud.restart_seconds = 0.5
    simulator.faults.add(fault)
    # Too short a wait to be streamed, and so a stall as short as a request.
    done = update(run, "--timeout", "1", *(["--wait-timeout", "9"] if fault.kind == "stall" else []))
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


@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "polled"])
def test_a_log_has_a_line_for_each_change_and_none_for_each_poll(
    run: Command, cloud: Cloud, cvm: Cvm, streams: bool
) -> None:
    cloud.streams, cloud.restart_seconds = streams, 1.5
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


# -- interrupts ---------------------------------------------------------------------------------


def interrupt(
    run: Command,
    number: signal.Signals,
    when: Callable[[], bool],
    *arguments: str,
    after: float = 0.15,
) -> Outcome:
    """A run in a process of its own that gets a signal a moment after ``when`` holds."""
    run.write(".env", "OLD=2\n")
    arguments = ("--env-file", ".env", "--output-file", "outputs", *(arguments or ("--cvm", "my-app")))
    process = subprocess.Popen(
        [sys.executable, "-m", "phala_secrets", "update", *arguments],
        cwd=run.folder,
        env=run.variables(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(1000):
        if when() or process.poll() is not None:
            break
        time.sleep(0.01)
    time.sleep(after)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=20)
    return Outcome(process.returncode, stdout, stderr)


SIGNALS = [signal.SIGTERM, signal.SIGINT]


def outputs(run: Command) -> dict[str, str]:
    lines = Path(run.folder / "outputs").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("path", ["/cvms/my-app$", "/pubkey/"])
def test_an_interrupt_before_the_update_says_that_nothing_was_sent(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm, number: signal.Signals, path: str
) -> None:
    fault = simulator.faults.add(Fault("stall", path=path, seconds=30))
    done = interrupt(run, number, lambda: fault.times == 0)
    assert done.code == 130, done.printed
    assert "before anything was sent" in done.errors[0]
    assert len(done.errors) == 1
    assert cvm.environment == {"OLD": "1"}


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("handled", [True, False], ids=["handled", "not handled"])
def test_an_interrupt_amid_the_update_says_that_it_may_have_been_accepted(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm, number: signal.Signals, handled: bool
) -> None:
    where: Literal["after", "before"] = "after" if handled else "before"
    fault = simulator.faults.add(Fault("stall", "PATCH", seconds=30, where=where))
    done = interrupt(run, number, lambda: fault.times == 0)
    assert done.code == 130, done.printed
    assert "may have been accepted" in done.errors[0]
    assert "my-app" in done.errors[0]
    assert len(done.errors) == 1


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("streams", [True, False], ids=["streamed", "polled"])
def test_an_interrupt_amid_the_wait_says_that_the_update_was_accepted(
    run: Command, cloud: Cloud, cvm: Cvm, number: signal.Signals, streams: bool
) -> None:
    cloud.streams, cloud.restart_seconds = streams, 600
    done = interrupt(run, number, lambda: bool(asked(cloud, "/state")))
    assert done.code == 130, done.printed
    correlation_id = cvm.operations[-1].correlation_id
    assert f"accepted for my-app ({correlation_id})" in done.errors[0]
    assert outputs(run)["PHALA_CORRELATION_ID"] == correlation_id
    assert outputs(run)["PHALA_STATUS"] == "in_progress"


def test_an_interrupt_amid_the_lookup_says_that_it_may_have_been_accepted(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    simulator.faults.add(Fault("reset_after", "PATCH"))
    fault = simulator.faults.add(Fault("stall", path="/revisions$", seconds=30))
    done = interrupt(run, signal.SIGTERM, lambda: fault.times == 0)
    assert done.code == 130, done.printed
    assert "may have been accepted for my-app" in done.errors[0]


def test_an_interrupt_amid_the_last_look_says_that_the_update_was_accepted(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    fault = simulator.faults.add(Fault("stall", path="/compose_file$", seconds=30, skip=1))
    done = interrupt(run, signal.SIGTERM, lambda: fault.times == 0)
    assert done.code == 130, done.printed
    assert f"accepted for my-app ({cvm.operations[-1].correlation_id})" in done.errors[0]


@pytest.mark.parametrize("at_once", ["1", "3"])
def test_an_interrupt_amid_a_fleet_stops_it_and_says_how_far_it_got(
    run: Command, cloud: Cloud, cvm: Cvm, at_once: str
) -> None:
    fleet = [cvm, *(cloud.add_cvm(f"replica-{n}", app_id=cvm.app_id) for n in range(5))]
    for one in fleet[1:]:
        one.restart_seconds = 600
    arguments = ("--app", cvm.app_id, "--no-fail-fast", "--max-parallel", at_once)
    expected = 1 + int(at_once)
    done = interrupt(
        run,
        signal.SIGTERM,
        lambda: sum(bool(one.operations) for one in fleet) == expected,
        *arguments,
        after=0.4,
    )
    assert done.code == 130, done.printed
    assert len(done.errors) == 1, done.printed
    for one in fleet[:expected]:
        assert f"{one.name} ({one.operations[-1].correlation_id})" in done.errors[0]
    assert sum(bool(one.operations) for one in fleet) == expected


def test_an_interrupt_amid_a_fleet_names_those_that_may_have_been_reached_beside_those_that_were(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    cloud.add_cvm("second", app_id=cvm.app_id)
    fault = simulator.faults.add(Fault("stall", "PATCH", seconds=30, skip=1))
    done = interrupt(run, signal.SIGTERM, lambda: fault.times == 0, "--app", cvm.app_id)
    assert done.code == 130, done.printed
    first, then = done.errors[0].split("; ")
    assert first.endswith("the update may have been accepted for second")
    assert then == f"the update had been accepted for my-app ({cvm.operations[-1].correlation_id})"


class Trap:
    """What Python runs where it drops every exception."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_an_interrupt_that_python_drops_is_raised_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: dropped.append(unraisable.exc_type))
    with interrupts.caught():
        del (trap := [Trap()])[0]
        assert trap == []
        assert dropped == [KeyboardInterrupt]
        with pytest.raises(KeyboardInterrupt):
            time.sleep(5)
        assert interrupts.received()


class Impatient(io.StringIO):
    """A log that gets a signal at every line."""

    def write(self, text: str) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return super().write(text)


def test_nothing_interrupts_what_is_said_about_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Impatient()
    monkeypatch.setattr(sys, "stderr", log)
    assert command.main(["update", "--nonsense"]) == 2
    assert log.getvalue().splitlines() == [
        "error: unrecognized arguments: --nonsense",
        "hint: see phala-secrets update --help",
    ]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("module", ["cli", "inputs", "runners", "client"])
def test_an_interrupt_while_it_still_loads_is_one_too(
    run: Command, cvm: Cvm, number: signal.Signals, module: str
) -> None:
    run.write(".env", "OLD=2\n")
    code = f"""
import os, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "phala_secrets.{module}":
            os.kill(os.getpid(), {int(number)})
sys.meta_path.insert(0, Finder())
from phala_secrets.__main__ import command
command()
"""
    done = run.apart("update", "--cvm", "my-app", "--env-file", ".env", python=(sys.executable, "-c", code))
    assert done.code == 130
    assert len(done.errors) == len(done.hints) == 1
    assert done.errors[0].startswith("error: interrupted")
    assert len(done.lines) == 2
    assert cvm.environment == {"OLD": "1"}
