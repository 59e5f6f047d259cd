"""What runs has to be what this run sent, and not what another one prepared or deployed meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from .support import OWNERS_KEY, Answer, Request, Simulator, Step, create_client, on_chain

BEFORE = "services:\n  web:\n    image: nginx@sha256:" + "ab" * 32 + "\n    environment:\n      OLD: ${OLD}\n"
AFTER = BEFORE + "      TOKEN: ${TOKEN}\n"


@pytest.mark.parametrize("wait", ["true", "false"])
def test_a_commit_of_what_another_run_prepared_is_not_called_delivered(
    step: Step, simulator: Simulator, wait: str
) -> None:
    """Both have the same names and compose file, so one compose hash: the approval commits the newer."""
    with on_chain(simulator, signing=True, docker_compose_file=BEFORE) as world:
        cloud, others = world.cloud, []

        def meddle(method: str, answer: Any) -> Any:
            if method == "eth_sendRawTransaction":
                with create_client(cloud.api_key, simulator.url) as client:
                    theirs = {"OLD": "theirs", "TOKEN": "theirs"}
                    others.append(client.patch_cvm("my-app", docker_compose_file=AFTER, envs=theirs))
            return answer

        world.chain.meddle = meddle
        step.write("docker-compose.yml", AFTER)
        done = step(
            env="OLD=ours\nTOKEN=our-value",
            compose_file="docker-compose.yml",
            rpc_url=world.chain.url,
            private_key=OWNERS_KEY,
            wait=wait,
        )
        assert others
        assert done.code == 6, done.log
        assert done.outputs["status"] == "failed"
        assert "the committed update may be from another run" in done.annotations("error")[-1].data
        assert "Delivered" not in done.summary


def test_a_revision_without_a_compose_hash_is_not_taken_for_ours(step: Step, simulator: Simulator) -> None:
    """Nothing is known of ours to compare with it: the secrets stay, and no form has today's hash."""
    cloud = simulator.cloud
    cvm = cloud.add_cvm("my-app", docker_compose_file=BEFORE, environment={"OLD": "1"})
    looked: list[str] = []

    def tamper(request: Request, answer: Answer) -> Answer:
        if request.method == "PATCH":
            return Answer({"detail": "Bad gateway"}, 502)
        if request.path.endswith("/compose_file"):
            return Answer({**answer.body, "a default": True})
        if request.path.endswith("/revisions"):
            looked.append(request.path)
            theirs = {"revision_id": "theirs", "vm_uuid": cvm.vm_uuid, "created_at": None}
            return Answer({"revisions": [theirs] if len(looked) > 1 else []})
        return answer

    cloud.tamper = tamper
    step.write("docker-compose.yml", BEFORE + "    init: true\n")
    done = step(compose_file="docker-compose.yml", keep_secrets="true")
    assert done.code == 6, done.log
    assert "the outcome of the update of" in done.annotations("error")[-1].data
    assert "Phala Cloud accepted" not in done.log


@pytest.mark.parametrize("meddles", [True, False])
def test_secrets_that_were_to_stay_are_not_another_runs(
    step: Step, simulator: Simulator, meddles: bool
) -> None:
    after = BEFORE + "    init: true\n"
    with on_chain(simulator, signing=True, docker_compose_file=BEFORE) as world:

        def meddle(method: str, answer: Any) -> Any:
            if method == "eth_sendRawTransaction" and meddles:
                with create_client(world.cloud.api_key, simulator.url) as client:
                    client.patch_cvm("my-app", docker_compose_file=after, envs={"OLD": "theirs"})
            return answer

        world.chain.meddle = meddle
        step.write("docker-compose.yml", after)
        done = step(
            compose_file="docker-compose.yml",
            keep_secrets="true",
            rpc_url=world.chain.url,
            private_key=OWNERS_KEY,
        )
        assert done.code == (6 if meddles else 0), done.log
        assert world.cvm.environment == {"OLD": "theirs" if meddles else "1"}
