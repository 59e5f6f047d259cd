"""Finding 1: the owner's key must never approve old code with new names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from typing import Any

import pytest

from .support import (
    NEW_SECRET,
    OWNERS_KEY,
    Answer,
    Request,
    Simulator,
    Step,
    World,
    everything_of_step,
    on_chain,
)

WITH_A_HOLE = "services:\n  app:\n    image: example/app:1.0-with-a-hole\n    environment: [OLD, NEW]\n"
REPAIRED = "services:\n  app:\n    image: example/app:2.0-repaired\n    environment: [OLD, NEW]\n"
ENV = f"OLD=2\nNEW={NEW_SECRET}"


@pytest.fixture
def world(simulator: Simulator) -> Iterator[World]:
    """An app that runs repaired code. The code before it had a hole, and its approval still stands."""
    old = simulator.cloud.add_cvm(
        "was", docker_compose_file=WITH_A_HOLE, environment={"OLD": "1"}, app_compose={"name": "my-app"}
    )
    with on_chain(simulator, signing=True, before=[old.compose_hash], docker_compose_file=REPAIRED) as world:
        yield world


def show_yesterday(world: World) -> str:
    """Makes the API show the old app-compose consistently; the hash of old code with the new names."""
    old = next(cvm for cvm in world.cloud.cvms if cvm.name == "was")
    asked = old.hash_with(["OLD", "NEW"])

    def lie(request: Request, answer: Answer) -> Answer:
        if request.path.startswith("/cvms/") and request.path.endswith("/compose_file"):
            return Answer(old.app_compose)
        if request.method == "GET" and request.path.startswith("/cvms/") and request.path.count("/") == 2:
            return replace(answer, body={**answer.body, "compose_hash": old.compose_hash})
        if answer.status == 465:
            details = [
                {**row, "value": asked} if row["field"] == "compose_hash" else row
                for row in answer.body["details"]
            ]
            return replace(answer, body={**answer.body, "details": details})
        return answer

    world.cloud.tamper = lie
    return asked


def trusted(world: World) -> dict[str, Any]:
    """The inputs of somebody who trusts the API with nothing."""
    return {
        "env": ENV,
        "cvm": world.cvm.app_id,
        "app_id": world.cvm.app_id,
        "trusted_signers": world.kms.root_public_key,
        "require_trust": "pinned",
        "rpc_url": world.chain.url,
        "wait": "false",
    }


@pytest.mark.parametrize(
    "way",
    [
        pytest.param({"private_key": OWNERS_KEY}, id="signing"),
        pytest.param({"prepare_only": "true"}, id="preparing"),
        pytest.param({}, id="naming the hash to approve"),
    ],
)
def test_rollback_to_old_code_is_refused(step: Step, world: World, way: dict[str, Any]) -> None:
    """The run signs the approval of old code (exit 0), prepares it for a Safe, or names its hash (exit 7).

    The chain knows better: the newest ``ComposeHashAdded`` event of the app has another hash.
    """
    asked = show_yesterday(world)
    done = step(**trusted(world), **way)
    assert done.code == 3, done.log
    assert world.chain.transactions == {}
    assert asked not in world.chain.approved
    assert not done.outputs.get("safe-transaction")  # nobody is handed the rollback to sign elsewhere
    assert not done.outputs.get("calldata")


@pytest.mark.parametrize(
    "way",
    [
        pytest.param({"private_key": OWNERS_KEY}, id="signing"),
        pytest.param({"prepare_only": "true"}, id="preparing"),
    ],
)
def test_the_code_that_is_approved_is_shown(step: Step, world: World, way: dict[str, Any]) -> None:
    """Neither log nor summary has a word about the code that the owner lets run.

    The image is what a person can compare.
    """
    done = step(**trusted(world), **way)
    assert done.code == 0, done.log
    assert "example/app:2.0-repaired" in everything_of_step(done)


def test_a_setting_that_only_the_api_vouches_for_is_shown_to_those_who_approve(
    step: Step, world: World
) -> None:
    """Without an RPC today's code is the API's word. Compose file, scripts and images are genuine."""
    settings = {"docker_config": {"registry-mirrors": ["https://evil.example"]}, "public_logs": True}
    world.cvm.app_compose.update(settings)
    done = step(env=ENV, prepare_only="true")
    assert done.code == 0, done.log
    for place in (done.log, unescape(done.summary)):
        assert 'docker_config={"registry-mirrors":["https://evil.example"]}' in place.replace("<!-- -->", "")
        assert "public_logs=true" in place
