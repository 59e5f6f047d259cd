"""``PATCH /cvms/{id}``: compose file, names and environment in one operation, with or without an approval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from httpx import Response

    from phala_secrets.simulator.cloud import Cloud
    from phala_secrets.simulator.cvm import Cvm
    from tests.simulator.conftest import Api

BASE = "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C"
TRANSACTION = "0x" + "ab" * 32
COMPOSE = "services:\n  web:\n    image: nginx:1.29\n  db:\n    image: postgres\n"


@pytest.fixture
def cvm(cloud: Cloud) -> Cvm:
    return cloud.add_cvm("my-app", environment={"OLD": "1", "KEPT": "1"})


@pytest.fixture
def on_chain(cloud: Cloud) -> Cvm:
    cloud.add_kms("kms-base-prod", 8453, BASE)
    return cloud.add_cvm("chain-app", kms="kms-base-prod", environment={"OLD": "1"})


def commit(api: Api, compose_hash: str, transaction_hash: str = TRANSACTION, **more: Any) -> Response:
    headers = {"X-Compose-Hash": compose_hash, "X-Transaction-Hash": transaction_hash}
    return api.patch("/cvms/chain-app", headers=headers, **more)


def details(refused: Response) -> dict[str, Any]:
    assert refused.status_code == 465
    return {row["field"]: row["value"] for row in refused.json()["details"]}


def test_compose_file_names_and_environment_change_in_one_operation(api: Api, cvm: Cvm) -> None:
    expected = cvm.hash_with(["NEW"], docker_compose_file=COMPOSE)
    body = {
        "docker_compose_file": COMPOSE,
        "allowed_envs": ["NEW"],
        "encrypted_env": api.seal("my-app", {"NEW": "2"}),
        "pre_launch_script": None,
    }
    answer = api.patch("/cvms/my-app", json=body)
    assert answer.status_code == 202
    (operation,) = cvm.operations
    assert answer.json() == {"correlation_id": operation.correlation_id}
    assert cvm.wait().environment == {"NEW": "2"}
    assert cvm.compose_hash == expected
    assert [container.name for container in cvm.containers or ()] == ["dstack-web-1", "dstack-db-1"]
    assert [revision.operation_type for revision in cvm.revisions] == ["deploy", "update"]
    assert cvm.revisions[-1].compose_hash == expected


def test_what_is_not_in_the_body_stays(api: Api, cvm: Cvm) -> None:
    sealed = cvm.sealed
    assert api.patch("/cvms/my-app", json={"docker_compose_file": COMPOSE}).status_code == 202
    assert cvm.wait().environment == {"KEPT": "1", "OLD": "1"}
    assert (cvm.allowed_envs, cvm.sealed) == (["OLD", "KEPT"], sealed)
    assert api.patch("/cvms/my-app", json={"public_logs": False, "allowed_envs": ["KEPT"]}).status_code == 202
    assert cvm.wait().environment == {"KEPT": "1"}
    assert (cvm.app_compose["public_logs"], cvm.app_compose["docker_compose_file"]) == (False, COMPOSE)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"docker_compose_file": None}, 400),
        ({"docker_compose_file": 1}, 422),
        ({"public_logs": "yes"}, 422),
        ({"allowed_envs": "A"}, 422),
        ({"encrypted_env": ""}, 422),
        ({"vcpu": 4}, 422),
        ([], 422),
    ],
)
def test_a_body_that_says_nothing_or_nonsense_changes_nothing(
    api: Api, cvm: Cvm, body: object, status: int
) -> None:
    assert api.patch("/cvms/my-app", json=body).status_code == status
    assert not cvm.operations


@pytest.mark.parametrize(("script", "status"), [(0, 202), (1, 422)])
def test_compose_file_and_pre_launch_script_are_200_kb_together(
    api: Api, cvm: Cvm, script: int, status: int
) -> None:
    body = {"docker_compose_file": "#" * 200 * 1024, "pre_launch_script": "#" * script}
    assert api.patch("/cvms/my-app", json=body).status_code == status


def test_another_operation_is_in_the_way(api: Api, cvm: Cvm) -> None:
    cvm.begin_operation("restart")
    refused = api.patch("/cvms/my-app", json={"docker_compose_file": COMPOSE})
    assert refused.status_code == 409
    assert "error_code" not in refused.json()


def test_an_app_on_chain_takes_an_approval_and_then_a_request_without_a_body(
    api: Api, cloud: Cloud, on_chain: Cvm
) -> None:
    body = {
        "docker_compose_file": COMPOSE,
        "allowed_envs": ["NEW"],
        "encrypted_env": api.seal("chain-app", {"NEW": "2"}),
    }
    asked = details(api.patch("/cvms/chain-app", json=body))
    assert asked["compose_hash"] == on_chain.hash_with(["NEW"], docker_compose_file=COMPOSE)
    assert (asked["app_id"], asked["device_id"]) == (on_chain.app_id, on_chain.device_id)
    assert asked["onchain_status"] == {
        "compose_hash_allowed": False,
        "device_id_allowed": True,
        "is_allowed": False,
    }
    assert asked["commit_token"] in asked["commit_url"]
    assert asked["commit_token"] in asked["api_commit_url"]
    assert commit(api, asked["compose_hash"]).json()["error_code"] == "ERR-01-007"
    cloud.approved_transactions.add(TRANSACTION)
    assert commit(api, asked["compose_hash"], json={"allowed_envs": ["OTHER"]}).status_code == 400
    on_chain.begin_operation("restart")
    assert commit(api, asked["compose_hash"]).status_code == 409
    on_chain.finish()
    assert commit(api, f"0x{asked['compose_hash']}", json={}).status_code == 202
    assert on_chain.wait().environment == {"NEW": "2"}
    assert on_chain.compose_hash == asked["compose_hash"]
    assert commit(api, asked["compose_hash"]).json()["error_code"] == "ERR-01-006"


@pytest.mark.parametrize("unasked", [True, False])
@pytest.mark.parametrize("prepare_only", [True, False])
def test_a_commit_token_comes_with_a_preparation(
    api: Api, cloud: Cloud, on_chain: Cvm, unasked: bool, prepare_only: bool
) -> None:
    cloud.commit_tokens_unasked = unasked
    headers = {"X-Prepare-Only": "true"} if prepare_only else {}
    asked = details(api.patch("/cvms/chain-app", json={"docker_compose_file": COMPOSE}, headers=headers))
    assert ("commit_token" in asked) is (unasked or prepare_only)


def test_a_new_environment_with_the_same_names_takes_no_approval(api: Api, on_chain: Cvm) -> None:
    body = {"encrypted_env": api.seal("chain-app", {"OLD": "2"}), "allowed_envs": ["OLD"]}
    assert api.patch("/cvms/chain-app", json=body).status_code == 202
    assert on_chain.wait().environment == {"OLD": "2"}


def test_a_preparation_waits_fourteen_days_and_a_newer_one_takes_its_place(
    api: Api, cloud: Cloud, on_chain: Cvm
) -> None:
    cloud.approved_transactions.add(TRANSACTION)
    older = details(api.patch("/cvms/chain-app", json={"docker_compose_file": COMPOSE}))["compose_hash"]
    newer = api.update("chain-app", {"NEW": "1"}).json()["details"][0]["value"]
    assert commit(api, older).json()["error_code"] == "ERR-01-006"
    cloud.clock_offset = 15 * 86_400.0
    assert commit(api, newer).json()["error_code"] == "ERR-01-006"
    again = details(api.patch("/cvms/chain-app", json={"docker_compose_file": COMPOSE}))["compose_hash"]
    cloud.clock_offset += 13 * 86_400.0
    assert again == older
    assert commit(api, again).status_code == 202


def test_a_device_that_is_not_allowed_is_a_468(api: Api, cloud: Cloud, on_chain: Cvm) -> None:
    cloud.approved_transactions.add(TRANSACTION)
    cloud.approved_devices = set()
    asked = details(api.patch("/cvms/chain-app", json={"docker_compose_file": COMPOSE}))
    assert asked["onchain_status"]["device_id_allowed"] is False
    assert commit(api, asked["compose_hash"]).json()["error_code"] == "ERR-01-008"
