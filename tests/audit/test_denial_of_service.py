"""Finding 16: what others send or commit costs a bounded amount of time, memory and log."""

from __future__ import annotations

import json

import pytest

from .support import Answer, Command, Cvm, Fault, Request, Simulator, Step, bounded

pytestmark = pytest.mark.usefixtures("time_passes")

MIB = 1024 * 1024
GUESTS_NAMES = 1024
"""Names that a guest takes."""


def test_a_chatty_stream_does_not_flood_the_log(step: Step, simulator: Simulator, cvm: Cvm) -> None:
    """5,000 states were 5,000 lines. A run polls now, so a state that lasts no time is never seen."""
    states = [f"s{number}" for number in range(5_000)] + ["running"]
    events = "".join(f'event: state\ndata: {{"status":"{state}"}}\n\n' for state in states)
    stream = Fault(
        "status",
        "GET",
        "/state",
        status=200,
        headers={"Content-Type": "text/event-stream"},
        body=events.encode(),
    )
    simulator.faults.add(stream)
    done = step(env="OLD=2", wait_timeout="20")
    assert done.code == 0, done.log[-2000:]
    assert len(done.lines) < 200


@pytest.mark.parametrize("mode", ["update", "plan"])
def test_more_names_than_a_guest_takes_are_no_response(
    step: Step, simulator: Simulator, cvm: Cvm, mode: str
) -> None:
    """Each name is compared with each other one, and each is a line of ``plan``."""
    names = [f"V{number}" for number in range(2 * GUESTS_NAMES)]
    compose_file = Fault("status", "GET", "/compose_file", status=200, body={"allowed_envs": names})
    simulator.faults.add(compose_file)
    done = step(mode=mode, env="OLD=2")
    assert done.code == 6, done.log[-2000:]
    assert len(done.lines) < 200


def test_the_pages_of_a_list_are_bounded_in_all(step: Step, simulator: Simulator, cvm: Cvm) -> None:
    """50 pages of 2 MiB are read to the end; of 16 MiB they would be 800 MiB."""
    row = {"id": "a", "contract_address": "b", "filler": "x" * 1024}
    page = json.dumps({"pages": 50, "items": [row] * 2048}).encode()
    simulator.faults.add(Fault("status", "GET", "/kms$", times=None, status=200, body=page))
    done = step(mode="verify")
    assert done.code == 6, done.log
    asked = sum(request.path == "/kms" for request in simulator.cloud.requests)
    assert asked * len(page) < 64 * MIB  # four times what one response may have


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("OLD=x\n" * 1_300_000, id="many lines"),
        pytest.param("OLD=" + ("x" + " " * 256) * 30_000, id="blanks"),
    ],
)
def test_a_huge_env_file_takes_little_time(step: Step, cvm: Cvm, text: str) -> None:
    """A pull request's file of 7 MiB takes a minute of CPU, and so does each further one."""
    step.write(".env", text)
    outcome = bounded(step.workspace, step.variables({"env_file": ".env", "wait": "false"}), seconds=3)
    assert outcome.code in (2, 4), outcome.printed
    assert ".env" in outcome.printed


def test_contracts_without_end_are_not_asked_for_their_nodes(run: Command, simulator: Simulator) -> None:
    """Each was a request: 200,000 of them, if fifty pages were as long as a list may be."""
    kms = simulator.cloud.add_kms("kms-base", 8453)

    def tamper(request: Request, answer: Answer) -> Answer:
        rows = answer.body.get("items", []) if request.path.endswith("/kms") else []
        more = [{**row, "slug": f"{row['slug']}-{number}"} for row in rows for number in range(200)]
        return Answer({**answer.body, "items": more}) if more else answer

    simulator.cloud.tamper = tamper
    outcome = run("kms", "nodes")
    assert outcome.code == 6, outcome.printed
    assert "too many to ask" in outcome.printed
    assert len(simulator.cloud.requests) == 1
    assert run("kms", "nodes", kms.slug).code == 0
