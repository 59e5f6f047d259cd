"""Stories of the update and of its plan: what would change, what is refused, and what became of it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.wire import Answer, Request
from tests.support.command import Command, Outcome
from tests.support.faults import Fault
from tests.support.faulty import FaultySimulator as Simulator

ON_CHAIN = "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C"


AnotherRun = Callable[[Mapping[str, str]], None]


def patches(cloud: Cloud) -> list[Request]:
    return [request for request in cloud.requests if request.method == "PATCH"]


def update(run: Command, *arguments: str, env: str = "OLD=2\n", mode: str = "update") -> Outcome:
    run.write(".env", env)
    return run(mode, "--cvm", "my-app", "--env-file", ".env", "--json", *arguments)


# -- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["plan", "update"])
def test_what_is_added_and_removed_is_told(run: Command, cloud: Cloud, mode: str) -> None:
    cloud.add_cvm("my-app", environment={"OLD": "1", "KEPT": "1"})
    done = update(run, "--allow-removal", env="KEPT=2\nNEW=3\n", mode=mode)
    assert done.code == 0, done.printed
    assert done.json["keys_added"] == ["NEW"]
    assert done.json["keys_removed"] == ["OLD"]
    assert done.json["env_keys"] == ["KEPT", "NEW"]
    assert done.json["allowed_envs_changed"] is True


def test_a_removal_is_refused(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    done = update(run, env="NEW=3\n")
    assert done.code == 4
    assert "OLD" in done.errors[0]
    assert "my-app" in done.errors[0]
    assert "allow-removal" in done.hints[-1]
    assert not patches(cloud)
    assert done.json["keys_removed"] == ["OLD"]


def test_an_allowed_removal_is_carried_out(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    assert update(run, "--allow-removal", env="NEW=3\n").code == 0
    assert cvm.environment == {"NEW": "3"}


def test_the_same_names_change_nothing_but_values(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    done = update(run)
    assert done.json["allowed_envs_changed"] is False
    assert done.json["keys_added"] == done.json["keys_removed"] == []


# -- the plan -----------------------------------------------------------------------------------

COMPOSE = """
services:
  app:
    image: app
    environment:
      - URL=${DATABASE_URL}
      - PORT=${PORT:-80}
      - OLD
"""


def test_a_plan_sends_nothing(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    done = update(run, mode="plan", env="OLD=2\nNEW=3\n")
    assert done.code == 0
    assert done.json["status"] == "planned"
    assert {request.method for request in cloud.requests} == {"GET"}
    assert cvm.environment == {"OLD": "1"}


def test_a_plan_shows_all_and_then_refuses_what_an_update_would(run: Command, cloud: Cloud) -> None:
    cloud.add_cvm("my-app", environment={"OLD": "1", "GONE": "1"}, docker_compose_file=COMPOSE)
    done = update(run, mode="plan", env="OLD=2\nNEW=3\n")
    assert done.code == 4
    assert "GONE" in done.errors[0]
    before = done.stderr.partition("error: ")[0]
    for words in (
        r"\+ NEW +not used by the compose file",
        r"~ OLD \(sent anew\) +used by the compose file",
        r"- GONE \(would be dropped\) +not used",
        "DATABASE_URL",
        "KMS root",
    ):
        assert re.search(words, before)
    assert done.json["keys_removed"] == ["GONE"]


def test_a_plan_refuses_a_value_that_would_not_arrive(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    done = update(run, mode="plan", env='OLD="two\nlines"\n')
    assert done.code == 4
    assert re.search(r"~ OLD \(sent anew\)", done.stderr.partition("error: ")[0])


@pytest.mark.parametrize(
    ("chain", "words"), [(0, "not needed: the app has a Cloud KMS"), (8453, "needed according to the API")]
)
def test_a_plan_says_whether_an_approval_will_be_needed(
    run: Command, cloud: Cloud, chain: int, words: str
) -> None:
    cloud.add_kms("base", 8453, ON_CHAIN)
    cloud.add_cvm("my-app", kms="base" if chain else "phala", environment={"OLD": "1"})
    assert f"  on-chain approval  {words}" in update(run, mode="plan", env="OLD=2\nNEW=3\n").lines
    assert "names stay the same" in update(run, mode="plan").stderr


def test_what_the_compose_file_refers_to_is_looked_for(run: Command, cloud: Cloud) -> None:
    cloud.add_cvm("my-app", environment={"OLD": "1"}, docker_compose_file=COMPOSE)
    done = update(run, env="OLD=2\nIDLE=3\n", mode="plan")
    assert [line for line in done.lines if line.startswith("warning: ") and "DATABASE_URL" in line]
    assert [line for line in done.lines if line.startswith("notice: ") and "IDLE" in line]
    told = [line for line in done.lines if line.startswith(("warning: ", "notice: "))]
    assert not [line for line in told if "PORT" in line or "OLD" in line]


# -- values that would not arrive ---------------------------------------------------------------

LINES = 'OLD=2\nCERT="one\ntwo"\n'


@pytest.mark.parametrize("mode", ["update", "encrypt", "plan"])
def test_a_value_that_would_not_arrive_is_refused_by_name_and_place(
    run: Command, cloud: Cloud, cvm: Cvm, mode: str
) -> None:
    done = update(run, env=LINES, mode=mode)
    assert done.code == 4
    assert any("CERT" in line and ".env:2" in line for line in done.errors)
    assert any("base64" in line for line in done.hints)
    assert not patches(cloud)
    if mode != "plan":
        assert not cloud.requests


def test_guest_check_warn_sends_anyway(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    done = update(run, "--guest-check", "warn", env=LINES)
    assert done.code == 0, done.printed
    assert any(line.startswith("warning: ") and "CERT" in line for line in done.lines)
    assert cvm.environment == {"OLD": "2", "CERT": "one\\ntwo"}


def test_off_does_not_look(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    done = update(run, "--guest-check", "off", env=LINES)
    assert done.code == 0
    assert not [line for line in done.lines if line.startswith(("warning: ", "error: "))]


def test_off_does_not_lift_the_guests_limits(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    done = update(run, "--guest-check", "off", env="".join(f"N{number}=1\n" for number in range(1025)))
    assert done.code == 4
    assert not cloud.requests


# -- answers that are lost ----------------------------------------------------------------------


def test_a_lost_response_to_the_update_is_looked_up(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    simulator.faults.add(Fault("reset_after", "PATCH"))
    done = update(run)
    assert done.code == 0, done.printed
    assert len(patches(cloud)) == 1
    assert done.json["correlation_id"] == cvm.operations[0].correlation_id
    assert done.json["status"] == "running"


@pytest.mark.parametrize(
    "fault",
    [
        Fault("half_body", "PATCH"),
        Fault("html_200", "PATCH", handled=True),
        Fault("not_json", "PATCH", handled=True),
        Fault("status", "PATCH", status=500, handled=True),
        Fault("status", "PATCH", status=502, body=b"<html>", handled=True),
        Fault("status", "PATCH", status=504, handled=True),
        Fault("stall", "PATCH", seconds=20, where="after"),
        Fault("stall", "PATCH", seconds=20, where="body"),
        Fault("status", "PATCH", status=202, body={"status": "in_progress"}, handled=True),
        Fault("gzip_bomb", "PATCH", handled=True),
        Fault("huge_body", "PATCH", handled=True, chunked=True),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}-{fault.where}",
)
def test_an_invalid_response_to_the_update_is_looked_up(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm, fault: Fault
) -> None:
    simulator.faults.add(fault)
    done = update(run, "--timeout", "1")
    assert done.code == 0, done.printed
    assert len(patches(cloud)) == 1
    assert done.json["correlation_id"] == cvm.operations[0].correlation_id
    assert cvm.environment == {"OLD": "2"}
    assert any(line.startswith("warning: ") and "lost" in line for line in done.lines)


@pytest.mark.usefixtures("clock")
def test_an_operation_that_left_other_names_was_not_ours(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm, another_run: AnotherRun
) -> None:
    simulator.faults.add(Fault("reset_before", "PATCH", skip=1))
    another_run({"THEIRS": "1"})
    done = update(run)
    assert done.code == 6
    assert "is unknown" in done.errors[0]
    assert done.json["status"] == "failed"


@pytest.mark.usefixtures("clock")
def test_retry_after_is_respected_by_the_update(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    simulator.faults.add(Fault("status", "PATCH", status=429, headers={"Retry-After": "9"}))
    assert update(run).code == 0
    first, second = patches(cloud)
    assert second.started - first.ended == pytest.approx(9)


@pytest.mark.usefixtures("clock")
def test_an_unknown_outcome_is_an_error(run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm) -> None:
    simulator.faults.add(Fault("reset_after", "PATCH"))
    simulator.faults.add(Fault("status", path="/revisions$", status=500, times=None))
    done = update(run)
    assert done.code == 6
    assert "is unknown" in done.errors[0]
    assert "my-app" in done.errors[0]
    assert "operations" in done.hints[-1]
    assert len(patches(cloud)) == 1


@pytest.mark.usefixtures("clock")
def test_an_old_operation_is_not_taken_for_this_one(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    assert update(run, env="OLD=3\n").code == 0
    simulator.faults.add(Fault("reset_before", "PATCH"))
    done = update(run)
    assert done.code == 6
    assert "is unknown" in done.errors[0]
    assert len(cvm.operations) == 1
    assert cvm.environment == {"OLD": "3"}


# -- refusals -----------------------------------------------------------------------------------


def test_another_operation_is_waited_out_for_a_while(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    simulator.faults.add(Fault("status", "PATCH", status=409, body={"detail": "busy"}, times=2))
    done = update(run)
    assert done.code == 0, done.printed
    assert [request.status for request in patches(cloud)] == [409, 409, 202]


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    ("body", "tries"),
    [({"detail": "Another operation runs"}, 20), ({"error_code": "ERR-03-009", "message": "No"}, 1)],
    ids=["transient", "lasting"],
)
def test_a_conflict_that_stays_is_a_refusal(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm, body: dict[str, Any], tries: int
) -> None:
    simulator.faults.add(Fault("status", "PATCH", status=409, body=body, times=None))
    done = update(run, "--wait-timeout", "90")
    assert done.code == 5
    assert "409" in done.errors[0]
    assert done.hints
    assert tries <= len(patches(cloud)) <= 1.5 * tries
    assert done.json["status"] == "failed"


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (401, 5, "check the API key"),
        (403, 5, "key"),
        (404, 5, "name"),
        (422, 5, ""),
        (466, 5, "14 days"),
        (467, 5, "transaction"),
        (468, 5, "approve"),
    ],
)
def test_a_refusal_is_told_with_its_reason_and_what_to_do(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm, status: int, code: int, hint: str
) -> None:
    body = {"detail": "because it is so"}
    simulator.faults.add(Fault("status", "PATCH", status=status, body=body, times=None))
    done = update(run)
    assert done.code == code
    assert "because it is so" in done.errors[0]
    assert str(status) in done.errors[0]
    assert hint in done.hints[-1]
    assert len(patches(cloud)) == 1
    assert cvm.environment == {"OLD": "1"}


@pytest.mark.parametrize("flat", [True, False], ids=["flat", "structured"])
def test_an_approval_that_nobody_can_give_here_ends_with_both_ways_to_it(
    run: Command, cloud: Cloud, flat: bool
) -> None:
    cloud.add_kms("base", 8453, ON_CHAIN)
    cloud.flat_preconditions = flat
    cvm = cloud.add_cvm("my-app", kms="base", environment={"OLD": "1"})
    done = update(run, env="OLD=2\nNEW=3\n")
    assert done.code == 7, done.printed
    assert cvm.app_id in done.errors[0]
    assert done.json["compose_hash"] in done.errors[0]
    for way in ("PRIVATE_KEY", "--rpc-url", "--prepare-only"):
        assert way in done.hints[-1]
    assert cvm.environment == {"OLD": "1"}


def test_an_approval_that_is_asked_for_in_no_known_words_is_not_asked_for_again(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    simulator.faults.add(Fault("status", "PATCH", status=465, body={"message": "approve it"}, times=None))
    done = update(run)
    assert done.code == 6
    assert len(patches(cloud)) == 1


# -- two runs at once ---------------------------------------------------------------------------


def test_a_run_that_was_overtaken_hears_of_it(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    def overtake(request: Request, answer: Answer) -> Answer:
        if request.path.endswith("/operations") and patches(cloud):
            cvm.app_compose = {**cvm.app_compose, "allowed_envs": ["OLD", "THEIRS"]}
        return answer

    cloud.tamper = overtake
    done = update(run)
    warning = next(line for line in done.lines if line.startswith("warning: "))
    assert "THEIRS" in warning
    assert "my-app" in warning
    assert "OLD" not in warning.replace("my-app", "")


def test_two_runs_at_once_leave_one_set_whole(simulator: Simulator, run: Command, cloud: Cloud) -> None:
    cloud.restart_seconds = 0.2
    cvm = cloud.add_cvm("my-app", environment={"A": "0", "B": "0"})
    done: dict[str, Outcome] = {}

    def one(name: str) -> None:
        done[name] = run.apart(
            *("update", "--cvm", "my-app", "--env-file", "-", "--json"),
            stdin=f"A={name}\nB={name}\n".encode(),
        )

    threads = [threading.Thread(target=one, args=(name,)) for name in ("1", "2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cvm.wait()
    assert cvm.environment in ({"A": "1", "B": "1"}, {"A": "2", "B": "2"})
    accepted = [one for one in done.values() if one.code == 0]
    assert len(accepted) == len(cvm.operations)
    for one_done in done.values():
        assert one_done.code in (0, 5)
