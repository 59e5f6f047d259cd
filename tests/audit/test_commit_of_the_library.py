"""What the library commits after an approval has to be what it prepared, as it has to for the command."""

from __future__ import annotations

from typing import Any

import pytest

from .support import TRANSACTION, Answer, AnswerError, Request, Simulator, create_client, on_chain

BEFORE = "services:\n  web:\n    image: nginx@sha256:" + "ab" * 32 + "\n    environment:\n      OLD: ${OLD}\n"
AFTER = BEFORE + "      TOKEN: ${TOKEN}\n"
OURS = {"OLD": "ours", "TOKEN": "ours"}
THEIRS = {"OLD": "theirs", "TOKEN": "theirs"}


@pytest.mark.parametrize("meddles", [True, False])
def test_a_patch_that_another_run_prepared_is_not_called_ours(simulator: Simulator, meddles: bool) -> None:
    """One compose hash for both: the service commits the newer preparation, whoever asks."""
    cloud = simulator.cloud
    with (
        on_chain(simulator, docker_compose_file=BEFORE) as world,
        create_client(cloud.api_key, simulator.url) as client,
    ):
        asked = client.patch_cvm("my-app", docker_compose_file=AFTER, envs=OURS)
        assert asked.status == "precondition_required"
        if meddles:
            client.patch_cvm("my-app", docker_compose_file=AFTER, envs=THEIRS)
        world.approve_elsewhere(asked.compose_hash)
        commit: dict[str, Any] = {
            "compose_hash": asked.compose_hash,
            "transaction_hash": TRANSACTION,
            "encrypted_env": asked.encrypted_env,
            "wait": True,
        }
        if meddles:
            with pytest.raises(AnswerError, match="may have committed another run"):
                client.patch_cvm("my-app", **commit)
        else:
            client.patch_cvm("my-app", **commit)
            assert world.cvm.environment == OURS
        (patch,) = [one for one in cloud.requests if one.headers.get("x-compose-hash")]
        assert not patch.body, "it is compared, and not sent"


@pytest.mark.parametrize("envs", [True, False])
@pytest.mark.parametrize("meddles", [True, False])
def test_envs_that_another_run_prepared_are_not_called_ours(
    simulator: Simulator, meddles: bool, envs: bool
) -> None:
    """Here the commit has a body. A service that commits what waits, and not that, is told apart."""
    cloud = simulator.cloud
    with (
        on_chain(simulator) as world,
        create_client(cloud.api_key, simulator.url) as client,
    ):
        asked = client.update_cvm_envs("my-app", envs=OURS)
        assert asked.status == "precondition_required"
        world.approve_elsewhere(asked.compose_hash)

        def tamper(request: Request, answer: Answer) -> Answer:
            if meddles and "/revisions/" in request.path:
                return Answer({**answer.body, "encrypted_env": "ab" * 100})
            return answer

        cloud.tamper = tamper
        commit: dict[str, Any] = {"compose_hash": asked.compose_hash, "transaction_hash": TRANSACTION}
        sealed = {"encrypted_env": asked.encrypted_env, "env_keys": ["OLD", "TOKEN"]}
        commit |= {"envs": OURS} if envs else sealed
        if meddles:
            with pytest.raises(AnswerError, match="may have committed another run"):
                client.update_cvm_envs("my-app", **commit)
        else:
            assert client.update_cvm_envs("my-app", **commit).status == "in_progress"


def test_revisions_that_cannot_be_read_show_nothing(simulator: Simulator) -> None:
    cloud = simulator.cloud
    with on_chain(simulator) as world, create_client(cloud.api_key, simulator.url) as client:
        asked = client.update_cvm_envs("my-app", envs=OURS)
        assert asked.status == "precondition_required"
        world.approve_elsewhere(asked.compose_hash)
        cloud.tamper = lambda request, answer: (
            Answer({"detail": "Forbidden"}, 403) if request.path.endswith("/revisions") else answer
        )
        with pytest.raises(AnswerError, match="may have committed another run"):
            client.update_cvm_envs(
                "my-app", envs=OURS, compose_hash=asked.compose_hash, transaction_hash=TRANSACTION
            )
