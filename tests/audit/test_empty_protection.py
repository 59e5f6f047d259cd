"""Finding 11: a protection that an empty expression would turn off is an error when it is empty."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from .support import (
    TRANSACTION,
    Cloud,
    Command,
    Cvm,
    Simulator,
    Step,
    World,
    encrypt_env_vars,
    on_chain,
    updates,
)

PROTECTIONS = ["app-id", "trusted-signers", "kms-contract", "compose-hash", "prepared-digest"]


@pytest.fixture
def world(simulator: Simulator) -> Iterator[World]:
    with on_chain(simulator) as world:
        yield world


def prepared(step: Step, world: World) -> dict[str, Any]:
    """The inputs of the second half, its approval given; the digest is left to the test."""
    done = step(env="OLD=2\nNEW=3", rpc_url=world.chain.url, prepare_only="true")
    assert done.code == 0, done.log
    outputs = done.outputs
    world.approve_elsewhere(outputs["compose-hash"])
    world.cloud.reset_requests()
    return {
        "rpc_url": world.chain.url,
        "encrypted_env": outputs["encrypted-env"],
        "env_keys": outputs["env-keys"],
        "compose_hash": outputs["compose-hash"],
        "transaction_hash": TRANSACTION,
        "wait": "false",
    }


@pytest.mark.parametrize("digest", ["", None], ids=["empty", "not given"])
def test_an_empty_prepared_digest_is_an_error(step: Step, world: World, digest: str | None) -> None:
    """Exit 0 and a warning: whoever keeps the artifact has a ciphertext of their own sent."""
    inputs = prepared(step, world)
    public_key = world.kms.answer(world.cvm.app_id, None)["public_key"]
    inputs["encrypted_env"] = encrypt_env_vars({"OLD": "2", "NEW": "of somebody else"}, public_key)
    done = step(**inputs, prepared_digest=digest)
    assert done.code == 2, done.log
    assert "prepared-digest" in done.annotations("error")[0].data
    assert not updates(world.cloud)


def test_no_prepared_digest_has_to_be_said(step: Step, world: World) -> None:
    """Exit 2: ``none`` is taken for a digest."""
    done = step(**prepared(step, world), prepared_digest="none")
    assert done.code == 0, done.log
    assert world.cvm.wait().environment == {"OLD": "2", "NEW": "3"}


@pytest.mark.parametrize("name", PROTECTIONS)
@pytest.mark.parametrize("way", ["flag", "variable"])
def test_an_empty_protection_of_the_command_is_an_error(
    run: Command, cvm: Cvm, cloud: Cloud, name: str, way: str
) -> None:
    """The run goes on without the protection. On GitHub ``require-trust`` is what notices."""
    flags = [f"--{name}="] if way == "flag" else []
    variable = "PHALA_SECRETS_" + name.upper().replace("-", "_")
    outcome = run(
        *("update", "--cvm", "my-app", "--secrets", "OLD", "--no-wait", *flags),
        environ={"OLD": "2", **({variable: ""} if way == "variable" else {})},
    )
    assert outcome.code == 2, outcome.printed
    assert (name if way == "flag" else variable) in outcome.errors[0]
    assert not updates(cloud)
