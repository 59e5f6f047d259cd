"""Finding 9: the digest is over the very device that has to be approved."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from .support import Answer, Done, Request, Simulator, Step, World, digest_of, on_chain, updates

ASKED, OTHER, NOBODYS = "ee" * 32, "d1" * 32, "aa" * 32


@pytest.fixture
def world(simulator: Simulator) -> Iterator[World]:
    """A CVM on a device that the app's contract allows."""
    with on_chain(simulator, device_id=ASKED) as world:
        yield world


def say_device(world: World, device: str | None) -> None:
    """What the API says of the CVM's machine, which is not what its 465 asks for."""

    def tamper(request: Request, answer: Answer) -> Answer:
        if request.method == "GET" and request.path.startswith("/cvms/") and request.path.count("/") == 2:
            return replace(answer, body={**answer.body, "node_info": {"device_id": device}})
        return answer

    world.cloud.tamper = tamper


def prepare(step: Step, world: World) -> Done:
    done = step(env="OLD=2\nNEW=3", rpc_url=world.chain.url, prepare_only="true", allow_device=ASKED)
    assert done.code == 0, done.log
    return done


@pytest.mark.parametrize("said", [None, OTHER])
def test_the_prepared_digest_is_over_the_device_that_is_output(
    step: Step, world: World, said: str | None
) -> None:
    """Who makes the digest again from the outputs gets another one."""
    say_device(world, said)
    outputs = prepare(step, world).outputs
    assert outputs["device-id"] == ASKED
    assert outputs["prepared-digest"] == digest_of(outputs)


def test_a_cvm_that_moved_to_another_device_gets_no_prepared_update(step: Step, world: World) -> None:
    """Exit 0: the update is sent to a machine that the contract does not allow."""
    say_device(world, None)
    outputs = prepare(step, world).outputs
    transaction = world.approve_elsewhere(outputs["compose-hash"])
    world.move(NOBODYS)
    world.cloud.reset_requests()
    done = step(
        rpc_url=world.chain.url,
        encrypted_env=outputs["encrypted-env"],
        env_keys=outputs["env-keys"],
        compose_hash=outputs["compose-hash"],
        transaction_hash=transaction,
        prepared_digest=outputs["prepared-digest"],
        wait="false",
    )
    assert not updates(world.cloud)
    assert done.code in (3, 7), done.log  # it is not what was prepared, or not what is approved
    assert "device" in done.annotations("error")[0].data
