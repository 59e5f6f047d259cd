"""What a log has of a wait: the line again every 30 seconds, and never two within a second."""

from __future__ import annotations

import io

import pytest

from phala_secrets.inputs.table import OUTPUTS
from phala_secrets.runners.base import Runner
from phala_secrets.runners.live import Doing, on_clock
from tests.support.clock import ManualClock


@pytest.fixture
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def runner(clock: ManualClock, log: io.StringIO) -> Runner:
    return Runner({}, output_names=OUTPUTS, stderr=log)


def restarting(runner: Runner, clock: ManualClock, name: str = "my-app", cvm: str = "") -> None:
    doing = Doing("", clock.monotonic(), 600)
    runner.progress(f"{name}  restarting", cvm=cvm, change=True, doing=doing)


def let_pass(runner: Runner, clock: ManualClock, seconds: int) -> None:
    for _ in range(seconds):
        clock.advance(1)
        runner.paused()


def test_a_wait_is_said_again_every_thirty_seconds(
    runner: Runner, clock: ManualClock, log: io.StringIO
) -> None:
    restarting(runner, clock)
    let_pass(runner, clock, 95)
    assert log.getvalue().splitlines() == [
        "my-app  restarting  0:00 of 10:00",
        "my-app  restarting  0:30 of 10:00",
        "my-app  restarting  1:00 of 10:00",
        "my-app  restarting  1:30 of 10:00",
    ]


def test_a_change_within_a_second_is_said_when_the_second_is_over(
    runner: Runner, clock: ManualClock, log: io.StringIO
) -> None:
    restarting(runner, clock)
    doing = Doing("", clock.monotonic(), 600)
    for state in ("booting", "starting", "running"):
        runner.progress(f"my-app  {state}", change=True, doing=doing)
    let_pass(runner, clock, 1)
    assert log.getvalue().splitlines() == [
        "my-app  restarting  0:00 of 10:00",
        "my-app  running  0:01 of 10:00",
    ]


def test_a_fleet_has_one_line_for_all_that_are_under_way(
    runner: Runner, clock: ManualClock, log: io.StringIO
) -> None:
    for number in (1, 2, 3):
        restarting(runner, clock, f"[{number}/5] web-{number}", f"web-{number}")
    let_pass(runner, clock, 31)
    runner.progress("", cvm="web-1")
    runner.progress("", cvm="web-2")
    let_pass(runner, clock, 31)
    assert log.getvalue().splitlines() == [
        "[3/5] web-3  restarting  0:01 of 10:00 (and 2 more)",
        "[3/5] web-3  restarting  0:31 of 10:00 (and 2 more)",
        "[3/5] web-3  restarting  1:01 of 10:00",
    ]


def test_what_is_tried_again_is_said_and_nothing_of_it_later(
    runner: Runner, clock: ManualClock, log: io.StringIO
) -> None:
    runner.progress("fetching the key")
    clock.advance(2)
    runner.paused("HTTP 503; trying again in 0.5 s (try 2 of 4)")
    let_pass(runner, clock, 60)
    assert log.getvalue().splitlines() == ["fetching the key", "HTTP 503; trying again in 0.5 s (try 2 of 4)"]


@pytest.mark.parametrize(
    ("seconds", "clock_shows"), [(0, "0:00"), (42.9, "0:42"), (600, "10:00"), (3661, "1:01:01")]
)
def test_a_clock(seconds: float, clock_shows: str) -> None:
    assert on_clock(seconds) == clock_shows


@pytest.mark.parametrize(("seconds", "took"), [(1.24, "1.2 s"), (42, "42 s"), (125, "2:05 min")])
def test_how_long_a_run_took(runner: Runner, clock: ManualClock, seconds: float, took: str) -> None:
    clock.advance(seconds)
    assert runner.took == took


def test_where_a_line_is_cut_its_clock_stays(clock: ManualClock) -> None:
    doing = Doing("my-app  restarting · booting", clock.monotonic(), 600)
    assert doing.line(30) == "my-app  restart  0:00 of 10:00"
    assert doing.line(10) == "  0:00 of "
