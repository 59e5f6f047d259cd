"""Interrupts: SIGINT and SIGTERM at each moment of a run, and what it says of what is under way."""

from __future__ import annotations

import io
import json
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
from phala_secrets.simulator.wire import Request
from tests.support.command import Command, Outcome
from tests.support.faults import Fault
from tests.support.faulty import FaultySimulator as Simulator

pytestmark = pytest.mark.usefixtures("time_passes")


def asked(cloud: Cloud, path: str) -> list[Request]:
    return [request for request in cloud.requests if request.path.endswith(path)]


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
def test_an_interrupt_amid_the_wait_says_that_the_update_was_accepted(
    run: Command, cloud: Cloud, cvm: Cvm, number: signal.Signals
) -> None:
    cloud.restart_seconds = 600
    done = interrupt(run, number, lambda: bool(asked(cloud, "/state")))
    assert done.code == 130, done.printed
    correlation_id = cvm.operations[-1].correlation_id
    assert f"accepted for my-app ({correlation_id})" in done.errors[0]
    assert outputs(run)["PHALA_CORRELATION_ID"] == correlation_id
    assert outputs(run)["PHALA_STATUS"] == "interrupted"


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
    fault = simulator.faults.add(Fault("stall", path=f"/cvms/{cvm.id}$", seconds=30))
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
    rows = json.loads(outputs(run)["PHALA_RESULTS"])
    done_with, *under_way = rows[:expected]
    assert (done_with["status"], done_with["exit_code"]) == ("running", 0)
    assert {(row["status"], row["exit_code"]) for row in under_way} == {("interrupted", 130)}
    assert all("was accepted" in row["error"] for row in under_way)
    left = {(row["status"], row["exit_code"], row["error"]) for row in rows[expected:]}
    assert left == {("interrupted", None, "not reached")}
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
    assert then == f"the update was accepted for my-app ({cvm.operations[-1].correlation_id})"


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
        "error: unknown flag '--nonsense'",
        "hint: see phala-secrets update --help",
    ]


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("module", ["run.command", "inputs.job", "runners.detect", "cloud.driver"])
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
