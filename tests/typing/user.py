"""A user's code, which `mypy --strict` has to take as it stands, with real types all along."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import assert_type

import phala_secrets
from phala_secrets import (
    ApiError,
    AppCompose,
    AsyncClient,
    Client,
    CvmInfo,
    CvmState,
    CvmStateEvent,
    EnvEncryptPublicKey,
    GetAppEnvEncryptPubKeyResponse,
    GetCvmListResponse,
    GetCvmOperationsResponse,
    GetKmsListResponse,
    GetKmsOnChainDetailResponse,
    KmsContract,
    KmsInfo,
    ListKmsContractNodesResponse,
    ListKmsContractsResponse,
    NextAppIdsResponse,
    PatchResult,
    UpdateCvmEnvsInProgress,
    UpdateCvmEnvsPreconditionRequired,
    UpdateResult,
    create_async_client,
    create_client,
    encrypt_env_vars,
    get_compose_hash,
    verify_env_encrypt_public_key,
)

APP_ID = "00" * 20


def every_method(client: Client) -> None:
    assert_type(client.get_kms_info({"kms_id": "phala"}), KmsInfo)
    assert_type(client.get_kms_info(kms_id="phala"), KmsInfo)
    assert_type(client.get_kms_info("phala").name, str)
    assert_type(client.get_kms_list(), GetKmsListResponse)
    assert_type([kms.slug for kms in client.get_kms_list(page=1, is_onchain=True).items], list[str | None])
    assert_type(client.get_kms_on_chain_detail({"chain": "base"}), GetKmsOnChainDetailResponse)
    key = client.get_app_env_encrypt_pub_key({"kms": "phala", "app_id": APP_ID})
    assert_type(key, GetAppEnvEncryptPubKeyResponse)
    assert_type(key.app_env_encrypt_pubkey, EnvEncryptPublicKey)
    assert_type(client.next_app_ids({"counts": 3}), NextAppIdsResponse)
    assert_type(client.list_kms_contracts(), ListKmsContractsResponse)
    assert_type(client.get_kms_contract("phala"), KmsContract)
    assert_type(client.list_kms_contract_nodes(slug="phala"), ListKmsContractNodesResponse)
    assert_type(client.get_cvm_info("my-app"), CvmInfo)
    assert_type(client.get_cvm_compose_file(id="my-app"), AppCompose)
    assert_type(client.get_cvm_state("my-app"), CvmState)
    assert_type(client.get_cvm_operations("my-app", limit=5), GetCvmOperationsResponse)
    assert_type(client.get_cvm_list(page_size=50), GetCvmListResponse)
    assert_type(client.get_app_cvms(APP_ID), tuple[CvmInfo, ...])
    assert_type(client.watch_cvm_state("my-app", target="running"), Iterator[CvmStateEvent])
    assert_type(client.update_cvm_envs("my-app", envs={"A": "1"}), UpdateResult)
    client.update_cvm_envs("my-app", envs={"A": "1"}, allow_removal="all", wait=True, timeout=60)
    assert_type(client.wait_for_cvm("my-app", timeout=60), CvmInfo)
    assert_type(client.patch_cvm("my-app", docker_compose_file="services: {}"), PatchResult)


async def every_method_awaited(client: AsyncClient) -> None:
    assert_type(await client.get_kms_info({"kms_id": "phala"}), KmsInfo)
    assert_type(await client.get_kms_list(), GetKmsListResponse)
    assert_type(await client.get_kms_on_chain_detail("base"), GetKmsOnChainDetailResponse)
    assert_type(
        await client.get_app_env_encrypt_pub_key(kms="phala", app_id=APP_ID), GetAppEnvEncryptPubKeyResponse
    )
    assert_type(await client.next_app_ids(), NextAppIdsResponse)
    assert_type(await client.list_kms_contracts(), ListKmsContractsResponse)
    assert_type(await client.get_kms_contract("phala"), KmsContract)
    assert_type(await client.list_kms_contract_nodes("phala"), ListKmsContractNodesResponse)
    assert_type(await client.get_cvm_info("my-app"), CvmInfo)
    assert_type(await client.get_cvm_compose_file("my-app"), AppCompose)
    assert_type(await client.get_cvm_state("my-app"), CvmState)
    assert_type(await client.get_cvm_operations("my-app"), GetCvmOperationsResponse)
    assert_type(await client.get_cvm_list(page=2), GetCvmListResponse)
    assert_type(await client.get_app_cvms(APP_ID), tuple[CvmInfo, ...])
    assert_type(client.watch_cvm_state("my-app"), AsyncIterator[CvmStateEvent])
    assert_type(await client.update_cvm_envs({"id": "my-app", "envs": {"A": "1"}}), UpdateResult)
    assert_type(await client.wait_for_cvm("my-app"), CvmInfo)
    assert_type(await client.patch_cvm({"id": "my-app", "envs": {"A": "1"}}), PatchResult)


def the_functions(key: EnvEncryptPublicKey) -> None:
    assert_type(verify_env_encrypt_public_key(key), str)
    verify_env_encrypt_public_key(
        "ab" * 32, signature="cd" * 65, app_id=APP_ID, timestamp=1, trusted_signers=["02" + "ef" * 32]
    )
    assert_type(encrypt_env_vars(env_vars=[{"key": "A", "value": "1"}], public_key=key), str)
    encrypt_env_vars({"A": "1"}, key)
    encrypt_env_vars([("A", "1")], "ab" * 32)
    assert_type(get_compose_hash({"runner": "docker-compose"}, normalize=True), str)


def told_apart(result: UpdateResult) -> str:
    if result.status == "in_progress":
        assert_type(result, UpdateCvmEnvsInProgress)
        return result.correlation_id
    assert_type(result, UpdateCvmEnvsPreconditionRequired)
    return result.compose_hash


def made_by_hand() -> None:
    with create_client(api_key="phak_…", base_url="https://cloud.example/api/v1", timeout=5) as client:
        assert_type(client, Client)
    assert_type(create_client(workspace="octo"), Client)
    assert_type(Client("phak_…", version="2026-01-21", trace=print), Client)
    try:
        create_client().get_cvm_info("my-app")
    except ApiError as error:
        assert_type(error.status_code, int)
        assert_type(error.error_code, str | None)


async def made_by_hand_awaited() -> None:
    async with create_async_client() as client:
        assert_type(client, AsyncClient)
        async for event in client.watch_cvm_state("my-app"):
            assert_type(event, CvmStateEvent)
    await asyncio.gather(client.get_kms_info("phala"), client.next_app_ids(counts=2))


def mistakes(client: Client) -> None:
    """Each of these is wrong, and mypy says so: an ignore that is not needed is an error too."""
    client.get_kms_info(kms="phala")  # type: ignore[call-arg]
    client.get_kms_info(3)  # type: ignore[arg-type]
    client.update_cvm_envs("my-app", envs={}, allow_removal="yes")  # type: ignore[arg-type]
    client.next_app_ids(counts="3")  # type: ignore[arg-type]
    len(client.get_kms_info("phala").slug)  # type: ignore[arg-type]
    Client(key="phak_…")  # type: ignore[call-arg]
    encrypt_env_vars({"A": 1}, "ab" * 32)  # type: ignore[arg-type]
    phala_secrets.create_klient()  # type: ignore[attr-defined]
