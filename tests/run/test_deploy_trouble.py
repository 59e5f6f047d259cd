"""Stories of a deploy that goes wrong on the way: lost responses, 409, 465 to 468, interrupts."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.wire import Answer, Request
from tests.support.clock import ManualClock
from tests.support.deploys import (
    AFTER,
    BEFORE,
    ENV,
    OWNERS_KEY,
    SECRET,
    TRANSACTION,
    add_on_chain,
    chain_of,
    deploy,
)
from tests.support.faults import Fault
from tests.support.faulty import FaultySimulator
from tests.support.paper_chain import PaperChain
from tests.support.step import Done, Step

KEPT = BEFORE + "    init: true\n"
NEW = {"OLD": "2", "TOKEN": SECRET}


@pytest.fixture
def cvm(cloud: Cloud) -> Cvm:
    return cloud.add_cvm("my-app", docker_compose_file=BEFORE, environment={"OLD": "1"})


@pytest.fixture
def owned(cloud: Cloud) -> Cvm:
    """The same on an Onchain KMS."""
    return add_on_chain(cloud)


@pytest.fixture
def chain(owned: Cvm, cloud: Cloud) -> Iterator[PaperChain]:
    with chain_of(owned, cloud) as chain:
        yield chain


def patches(cloud: Cloud) -> list[Request]:
    return [request for request in cloud.requests if request.method == "PATCH"]


# -- lost responses --------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault("reset_before", "PATCH"), Fault("status", "PATCH", status=503)])
@pytest.mark.parametrize("keeps", [False, True], ids=["both", "keep-secrets"])
def test_a_deploy_that_no_revision_shows_is_not_known_and_not_sent_again(
    step: Step,
    cvm: Cvm,
    cloud: Cloud,
    simulator: FaultySimulator,
    clock: ManualClock,
    fault: Fault,
    keeps: bool,
) -> None:
    simulator.faults.add(replace(fault))
    done = deploy(step, KEPT, env=None, keep_secrets="true") if keeps else deploy(step)
    assert done.code == 6, done.log
    assert "the outcome of the update of 'my-app' is unknown" in done.annotations("error")[0].data
    assert (len(patches(cloud)), len(cvm.operations)) == (1, 0)
    assert done.outputs["status"] == "failed"
    assert 29 <= clock.monotonic() <= 31


def test_somebody_elses_deploy_that_was_faster_is_not_ours(
    step: Step, cvm: Cvm, cloud: Cloud, simulator: FaultySimulator
) -> None:
    """It has the very compose hash that ours was to have, and another ciphertext."""

    def faster(request: Request, answer: Answer) -> Answer:
        if request.path.endswith("/revisions") and not cvm.operations:
            cvm.begin_operation(
                "update_cvm", changes={"docker_compose_file": AFTER, "allowed_envs": ["OLD", "TOKEN"]}
            )
        return answer

    cloud.tamper = faster
    simulator.faults.add(Fault("reset_before", "PATCH"))
    done = deploy(step)
    assert done.code == 6, done.log
    assert "holds what was sent" in done.annotations("error")[0].data


def test_a_lost_465_approves_nothing(
    step: Step, owned: Cvm, chain: PaperChain, simulator: FaultySimulator
) -> None:
    simulator.faults.add(Fault("reset_after", "PATCH"))
    done = deploy(step, rpc_url=chain.url, private_key=OWNERS_KEY)
    assert done.code == 6, done.log
    assert (chain.transactions, owned.operations) == ({}, [])
    done = deploy(step, rpc_url=chain.url, private_key=OWNERS_KEY)
    assert (done.code, owned.environment) == (0, NEW), done.log


# -- 409 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keeps", [False, True], ids=["both", "keep-secrets"])
def test_a_deploy_that_was_in_the_way_is_the_ground_of_ours(
    step: Step, cvm: Cvm, cloud: Cloud, keeps: bool
) -> None:
    cvm.begin_operation("update_compose", 240.0, changes={"pre_launch_script": "true"})
    done = deploy(step, KEPT, env=None, keep_secrets="true") if keeps else deploy(step)
    assert done.code == 0, done.log
    assert [request.status for request in patches(cloud)] == [409, 202]
    assert cvm.app_compose["pre_launch_script"] == "true"
    assert cvm.app_compose["docker_compose_file"] == (KEPT if keeps else AFTER)
    assert done.outputs["compose-hash"] == cvm.compose_hash
    if not keeps:
        first, second = (request.json["encrypted_env"] for request in patches(cloud))
        assert first != second


def test_a_name_that_came_meanwhile_is_never_dropped(step: Step, cvm: Cvm, cloud: Cloud) -> None:
    cvm.begin_operation("update_envs", 240.0, changes={"allowed_envs": ["OLD", "THEIRS"]})

    def old_until_then(request: Request, answer: Answer) -> Answer:
        if request.path.endswith("/compose_file") and not patches(cloud):
            return replace(answer, body={**answer.body, "allowed_envs": ["OLD"]})
        return answer

    cloud.tamper = old_until_then
    done = deploy(step)
    assert done.code == 4, done.log
    assert "THEIRS" in done.annotations("error")[0].data
    assert [request.status for request in patches(cloud)] == [409]


def test_a_cvm_that_is_busy_once_it_is_approved_is_waited_for_and_not_approved_twice(
    step: Step, owned: Cvm, chain: PaperChain, cloud: Cloud
) -> None:
    def restarted(request: Request, answer: Answer) -> Answer:
        if request.method == "PATCH" and answer.status == 465 and not owned.operations:
            owned.begin_operation("restart", 60.0)
        return answer

    cloud.tamper = restarted
    done = deploy(step, rpc_url=chain.url, private_key=OWNERS_KEY)
    assert done.code == 0, done.log
    assert [request.status for request in patches(cloud)] == [465, 409, 465, 202]
    assert len(chain.transactions) == 1
    assert owned.environment == NEW


def test_a_busy_cvm_has_an_end(step: Step, cvm: Cvm, cloud: Cloud) -> None:
    cvm.begin_operation("resize", 900.0)
    done = deploy(step, wait_timeout="120")
    assert done.code == 5, done.log
    assert "still busy after 120 s, so nothing was sent" in done.annotations("error")[0].data
    assert cvm.app_compose["docker_compose_file"] == BEFORE


@pytest.mark.parametrize("code", ["ERR-01-004", "ERR-03-007"])
def test_a_409_that_is_not_for_now_ends_the_run(
    step: Step, cvm: Cvm, cloud: Cloud, simulator: FaultySimulator, code: str
) -> None:
    body = {"error_code": code, "message": "no"}
    simulator.faults.add(Fault("status", "PATCH", status=409, body=body, times=None))
    done = deploy(step)
    assert (done.code, len(patches(cloud))) == (5, 1), done.log


# -- 465 to 468 ------------------------------------------------------------------------------------


def test_an_api_that_asks_again_for_what_it_was_shown_is_refused(
    step: Step, owned: Cvm, chain: PaperChain, cloud: Cloud
) -> None:
    asked: list[Answer] = []

    def again(request: Request, answer: Answer) -> Answer:
        if request.method == "PATCH":
            asked.append(answer)
            return asked[0]
        return answer

    cloud.tamper = again
    done = deploy(step, rpc_url=chain.url, private_key=OWNERS_KEY)
    assert (done.code, len(asked)) == (5, 2), done.log
    assert "asks again for an approval" in done.annotations("error")[0].data


@pytest.mark.parametrize("taken", [True, False], ids=["taken", "not taken"])
def test_an_approval_of_before_is_made_once_more_where_its_transaction_is_wanted(
    step: Step, owned: Cvm, chain: PaperChain, cloud: Cloud, taken: bool
) -> None:
    cloud.already_registered = taken
    chain.approved.add(owned.hash_with(["OLD", "TOKEN"], docker_compose_file=AFTER))
    done = deploy(step, rpc_url=chain.url, private_key=OWNERS_KEY)
    assert done.code == 0, done.log
    assert [request.status for request in patches(cloud)] == ([465, 202] if taken else [465, 467, 202])
    assert len(chain.transactions) == (0 if taken else 1)
    assert owned.environment == NEW


def prepare(step: Step) -> dict[str, Any]:
    """The first half; the inputs of the second."""
    done = deploy(step, prepare_only="true", prepared_file="prepared.json")
    assert done.outputs["status"] == "precondition_required", done.log
    return {
        "prepared_file": "prepared.json",
        "prepared_digest": done.outputs["prepared-digest"],
        "transaction_hash": TRANSACTION,
    }


@pytest.mark.parametrize(
    ("status", "said"), [(466, "HTTP 466"), (467, "HTTP 467"), (468, "HTTP 468")], ids=str
)
def test_a_commit_that_is_refused_says_why_and_changes_nothing(
    step: Step, owned: Cvm, chain: PaperChain, cloud: Cloud, status: int, said: str
) -> None:
    given = prepare(step)

    def refuse(request: Request, answer: Answer) -> Answer:
        if request.method == "PATCH" and answer.status == 465 and status == 466:
            owned.pending.clear()  # somebody prepared something else at this very moment
        return answer

    cloud.tamper = refuse
    chain.approved.add(owned.hash_with(["OLD", "TOKEN"], docker_compose_file=AFTER))
    if status != 467:
        chain.transactions[TRANSACTION] = chain.approved.history[-1]
    if status == 468:
        chain.approved.clear()
    done = step(**given)
    assert done.code == 5, done.log
    error = done.annotations("error")[0].data
    assert said in error
    assert owned.operations == []
    assert owned.app_compose["docker_compose_file"] == BEFORE
    assert [request.status for request in patches(cloud)] == [465, 465, status]


def test_a_newer_preparation_takes_nothing_from_an_older_one(
    step: Step, owned: Cvm, chain: PaperChain, cloud: Cloud
) -> None:
    """The service forgets what was prepared before; the file has it all, so it is asked for again."""
    given = prepare(step)
    compose_hash = owned.hash_with(["OLD", "TOKEN"], docker_compose_file=AFTER)
    other = deploy(step, KEPT, env="OLD=3", prepare_only="true")
    assert other.outputs["compose-hash"] not in ("", compose_hash)
    chain.approved.add(compose_hash)
    chain.transactions[TRANSACTION] = compose_hash
    done = step(**given)
    assert done.code == 0, done.log
    assert (owned.compose_hash, owned.environment) == (compose_hash, NEW)


# -- interrupts ------------------------------------------------------------------------------------


def interrupt(step: Step, when: Any, number: signal.Signals = signal.SIGTERM, **inputs: str) -> Done:
    """A deploy in a process of its own that gets a signal a moment after ``when`` holds."""
    step.write("docker-compose.yml", AFTER)
    variables = step.variables({"env": ENV, "compose_file": "docker-compose.yml", **inputs})
    process = subprocess.Popen(
        [sys.executable, "-m", "phala_secrets"],
        cwd=step.workspace,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for _ in range(1000):
        if when() or process.poll() is not None:
            break
        time.sleep(0.01)
    time.sleep(0.15)
    process.send_signal(number)
    log, _ = process.communicate(timeout=20)
    output = step.output.read_text() if step.output.is_file() else ""
    return Done(process.returncode, log, output, "")


@pytest.mark.usefixtures("time_passes")
@pytest.mark.parametrize("handled", [True, False], ids=["handled", "not handled"])
def test_an_interrupt_amid_a_deploy_says_that_it_may_have_been_accepted(
    step: Step, cvm: Cvm, simulator: FaultySimulator, handled: bool
) -> None:
    fault = Fault("stall", "PATCH", seconds=30, where="after" if handled else "before")
    fault = simulator.faults.add(fault)
    done = interrupt(step, lambda: fault.times == 0)
    assert done.code == 130, done.log
    (error,) = done.annotations("error")
    assert "the update may have been accepted for my-app" in error.data


@pytest.mark.usefixtures("time_passes")
def test_an_interrupt_amid_the_wait_says_that_it_was_accepted(step: Step, cvm: Cvm, cloud: Cloud) -> None:
    cvm.restart_seconds = 600
    before = cvm.compose_hash
    done = interrupt(
        step, lambda: any(request.path.endswith("/state") for request in cloud.requests), signal.SIGINT
    )
    assert done.code == 130, done.log
    operation = cvm.operations[-1].correlation_id
    assert f"accepted for my-app ({operation})" in done.annotations("error")[0].data
    outputs = done.outputs
    assert (outputs["correlation-id"], outputs["previous-compose-hash"]) == (operation, before)


@pytest.mark.usefixtures("time_passes")
def test_an_interrupt_amid_the_commit_says_that_it_may_have_been_accepted(
    step: Step, owned: Cvm, chain: PaperChain, simulator: FaultySimulator
) -> None:
    fault = simulator.faults.add(Fault("stall", "PATCH", seconds=30, skip=1))
    done = interrupt(step, lambda: fault.times == 0, rpc_url=chain.url, private_key=OWNERS_KEY)
    assert done.code == 130, done.log
    (error,) = done.annotations("error")
    assert "the update may have been accepted for my-app" in error.data
    assert done.outputs["transaction-hash"] in chain.transactions
