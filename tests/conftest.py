"""What the stories share: a Phala Cloud on loopback, a CVM in it, the command, and a step of a workflow."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from coverage import Coverage
from hypothesis import settings

from phala_secrets import create_client, flow
from phala_secrets.runners import azure, bitbucket, buildkite, circleci, github, gitlab, markdown
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.wire import Answer, Request
from tests.support.clock import ManualClock
from tests.support.command import Command
from tests.support.faulty import FaultySimulator
from tests.support.step import Step

# `make fuzz` looks for more, guided by coverage. No deadline: the machine may be at work on something else.
settings.register_profile("tests", max_examples=30, deadline=None)
settings.load_profile("tests")

TRACED = re.compile(r"tests/(inputs|runners)/|test_(encryption|env_file|guest_check|key_proof)\.py")
"""The tests that cover every branch of what the Makefile names."""

ROOMS = (azure, bitbucket, buildkite, circleci, github, gitlab, markdown)
"""Imported here, since a test that is not traced may be the first to load them."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """The one clock of a story, of its simulator and its runs in this process: pauses take no time."""
    clock = ManualClock()
    monkeypatch.setattr(flow, "clock", clock)
    return clock


@pytest.fixture
def time_passes(clock: ManualClock) -> Iterator[None]:
    """Real time passes on the clock, for tests that start processes themselves."""
    with clock.running():
        yield


@pytest.fixture
def simulator(clock: ManualClock) -> Iterator[FaultySimulator]:
    """A Phala Cloud whose CVMs restart in no time."""
    with FaultySimulator(Cloud(restart_seconds=0.05, clock=clock)) as running:
        yield running


@pytest.fixture
def cloud(simulator: FaultySimulator) -> Cloud:
    """Its state, which a test may change."""
    return simulator.cloud


@pytest.fixture
def cvm(cloud: Cloud) -> Cvm:
    """A CVM called my-app, with one variable."""
    return cloud.add_cvm("my-app", environment={"OLD": "1"})


@pytest.fixture
def run(simulator: FaultySimulator, tmp_path: Path) -> Command:
    """The command in an empty folder, with an API key: ``run("update", …)``, or ``run.apart(…)``."""
    folder = tmp_path / "folder"
    folder.mkdir()
    return Command(simulator, folder)


@pytest.fixture
def another_run(simulator: FaultySimulator) -> Callable[[Mapping[str, str]], None]:
    """Another run's update of my-app, which begins just after ours has read the compose file."""

    def prepare(envs: Mapping[str, str]) -> None:
        def slip_in(request: Request, answer: Answer) -> Answer:
            if request.path.endswith("/compose_file"):
                simulator.cloud.tamper = before
                with create_client(simulator.cloud.api_key, simulator.url) as client:
                    client.update_cvm_envs("my-app", envs=envs, allow_removal=True)
            return answer

        before, simulator.cloud.tamper = simulator.cloud.tamper, slip_in

    return prepare


@pytest.fixture
def step(simulator: FaultySimulator, tmp_path: Path) -> Step:
    """A step of a workflow for the CVM my-app: ``step(secrets="TOKEN")``, or ``step.apart(…)``."""
    return Step(simulator, tmp_path)


class _Tracing:
    """Coverage, but only of the tests of TRACED: it takes nearly as long as the tests themselves.

    It is switched between tests, not within one: with thousands of threads each switch takes a while.
    """

    def __init__(self) -> None:
        self._coverage = Coverage.current()

    def switch(self, item: pytest.Item) -> None:
        """Trace ``item`` or do not, if there is coverage at all."""
        if not TRACED.search(str(item.path)):
            while running := Coverage.current():  # a worker of pytest-xdist has another below its own
                running.stop()
        elif self._coverage and not Coverage.current():
            self._coverage.start()


_tracing = pytest.StashKey[_Tracing]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    """Trace a test or do not; by the first one, coverage was started."""
    if _tracing not in item.config.stash:
        item.config.stash[_tracing] = _Tracing()
    item.config.stash[_tracing].switch(item)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Importing eth-account raises the recursion limit to where nested JSON overflows the stack."""
    sys.setrecursionlimit(1000)
