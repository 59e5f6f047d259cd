"""The methods of both clients: arguments in, a Call or a flow of several out.

Arguments are checked before there is a Call, so nothing wrong is ever sent. A method takes one
mapping, or keywords, or, where a single id is all it needs, that id.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from phala_secrets.cloud import readers, requests
from phala_secrets.cloud.arguments import Arguments, merged, required, whole
from phala_secrets.dstack.ids import parse_app_id
from phala_secrets.errors import InputError

if TYPE_CHECKING:
    from phala_secrets.cloud.call import Call
    from phala_secrets.cloud.models import (
        AppCompose,
        CvmAttestation,
        CvmInfo,
        CvmState,
        GetAppEnvEncryptPubKeyResponse,
        GetCvmContainersResponse,
        GetCvmListResponse,
        GetCvmOperationsResponse,
        GetKmsListResponse,
        GetKmsOnChainDetailResponse,
        KmsContract,
        KmsInfo,
        ListKmsContractNodesResponse,
        ListKmsContractsResponse,
        NextAppIdsResponse,
    )


def get_kms_info(request: Arguments | str | None = None, /, *, kms_id: str | None = None) -> Call[KmsInfo]:
    """``GET /kms/{kms_id}``: one KMS, by its id or slug.

    Raises InputError before anything is sent, NotFoundError for an unknown one.
    """
    (kms,) = required(merged(request, "kms_id", {"kms_id": kms_id}), "kms_id")
    return requests.kms(kms).read_by(readers.read("KmsInfo"))


def _page(
    request: Arguments | None, page: int | None, page_size: int | None, is_onchain: bool | None
) -> dict[str, str | None]:
    given = {"page": page, "page_size": page_size, "is_onchain": is_onchain}
    arguments = merged(request, "page", given)
    onchain = arguments.get("is_onchain")
    if onchain is not None and not isinstance(onchain, bool):
        raise InputError("is_onchain has to be a bool", hint="pass True or False")
    return {
        "page": whole(arguments, "page", 1, 2**31),
        "page_size": whole(arguments, "page_size", 1, 100),
        "is_onchain": None if onchain is None else str(onchain).lower(),
    }


def get_kms_list(
    request: Arguments | None = None,
    /,
    *,
    page: int | None = None,
    page_size: int | None = None,
    is_onchain: bool | None = None,
) -> Call[GetKmsListResponse]:
    """``GET /kms``: the KMSes, each with at least ``id``, ``slug`` and ``name``.

    ``page`` counts from 1, ``page_size`` is 1 to 100. Raises InputError before anything is sent.
    """
    return requests.kms_page(**_page(request, page, page_size, is_onchain)).read_by(
        readers.read("GetKmsListResponse")
    )


def get_kms_on_chain_detail(
    request: Arguments | str | None = None, /, *, chain: str | None = None
) -> Call[GetKmsOnChainDetailResponse]:
    """``GET /kms/on-chain/{chain}``: the KMS contracts of a chain, their devices and OS images.

    ``chain`` is a name, such as ``base``. Raises InputError before anything is sent, ApiError
    for a chain that Phala Cloud does not have.
    """
    (name,) = required(merged(request, "chain", {"chain": chain}), "chain")
    return requests.on_chain(name).read_by(readers.read("GetKmsOnChainDetailResponse"))


def get_app_env_encrypt_pub_key(
    request: Arguments | None = None, /, *, kms: str | None = None, app_id: str | None = None
) -> Call[GetAppEnvEncryptPubKeyResponse]:
    """``GET /kms/{kms}/pubkey/{app_id}``: the app's X25519 key with its proof, which is *not verified yet*.

    ``kms`` is a slug or id, ``app_id`` 40 hex digits, with or without ``0x`` or ``app_``. Pass
    ``app_env_encrypt_pubkey`` of the answer to ``verify_env_encrypt_public_key`` before
    encrypting to it. Raises InputError before anything is sent, NotFoundError for an unknown
    KMS, ServerError when it does not answer.
    """
    arguments = merged(request, "app_id", {"kms": kms, "app_id": app_id})
    kms, app_id = required(arguments, "kms", "app_id")
    app = parse_app_id(app_id, "app_id")
    return requests.key(kms, app).read_by(partial(readers.read_key, app))


def next_app_ids(
    request: Arguments | None = None, /, *, counts: int | None = None
) -> Call[NextAppIdsResponse]:
    """``GET /kms/phala/next_app_id``: reserves ``counts`` app ids, 1 to 20 (1 unless told).

    Raises InputError before anything is sent.
    """
    counts_ = whole(merged(request, "counts", {"counts": counts}), "counts", 1, 20)
    return requests.next_app_ids(counts_ or "1").read_by(readers.read("NextAppIdsResponse"))


def list_kms_contracts(
    request: Arguments | None = None,
    /,
    *,
    page: int | None = None,
    page_size: int | None = None,
    is_onchain: bool | None = None,
) -> Call[ListKmsContractsResponse]:
    """``GET /kms`` as of API version 2026-06-23: KMS contracts with their root's public key, ``k256_pubkey``.

    ``page`` counts from 1, ``page_size`` is 1 to 100. Raises InputError before anything is sent.
    """
    params = _page(request, page, page_size, is_onchain)
    return requests.contracts(**params).read_by(readers.read("ListKmsContractsResponse"))


def get_kms_contract(
    request: Arguments | str | None = None, /, *, slug: str | None = None
) -> Call[KmsContract]:
    """``GET /kms/{slug}`` as of API version 2026-06-23: one KMS contract.

    Raises InputError before anything is sent, NotFoundError for an unknown one.
    """
    (kms,) = required(merged(request, "slug", {"slug": slug}), "slug")
    return requests.contract(kms).read_by(readers.read("KmsContract"))


def list_kms_contract_nodes(
    request: Arguments | str | None = None, /, *, slug: str | None = None
) -> Call[ListKmsContractNodesResponse]:
    """``GET /kms/{slug}/nodes``: the nodes of one KMS contract.

    Raises InputError before anything is sent, NotFoundError for an unknown one.
    """
    (kms,) = required(merged(request, "slug", {"slug": slug}), "slug")
    return requests.nodes(kms).read_by(readers.read("ListKmsContractNodesResponse"))


def _id(request: Arguments | str | None, id: str | None) -> str:
    (cvm_id,) = required(merged(request, "id", {"id": id}), "id")
    return cvm_id


def get_cvm_info(request: Arguments | str | None = None, /, *, id: str | None = None) -> Call[CvmInfo]:
    """``GET /cvms/{id}``: a CVM by name, ``cvm_…`` id, UUID, app id or ``instance_…``.

    Raises InputError before anything is sent, NotFoundError for an unknown one, ConflictError
    (``ERR-03-002``) for a name that several have.
    """
    return requests.cvm(_id(request, id)).read_by(readers.read("CvmInfo"))


def get_cvm_compose_file(
    request: Arguments | str | None = None,
    /,
    *,
    id: str | None = None,
) -> Call[AppCompose]:
    """``GET /cvms/{id}/compose_file``: the app-compose, with ``allowed_envs``, today's names.

    ``id`` and errors are those of ``get_cvm_info``: InputError, NotFoundError, ConflictError.
    """
    return requests.compose_file(_id(request, id)).read_by(readers.read("AppCompose"))


def get_cvm_state(
    request: Arguments | str | None = None,
    /,
    *,
    id: str | None = None,
) -> Call[CvmState]:
    """``GET /cvms/{id}/state``: what the CVM is doing now.

    ``id`` and errors are those of ``get_cvm_info``: InputError, NotFoundError, ConflictError.
    """
    return requests.state(_id(request, id)).read_by(readers.read("CvmState"))


def get_cvm_attestation(
    request: Arguments | str | None = None, /, *, id: str | None = None
) -> Call[CvmAttestation]:
    """``GET /cvms/{id}/attestation``: a CVM's evidence, for ``verify_attestation``; nothing is verified yet.

    ``id`` and errors are those of ``get_cvm_info``: InputError, NotFoundError, ConflictError.
    """
    return requests.attestation(_id(request, id)).read_by(readers.read("CvmAttestation"))


def get_cvm_operations(
    request: Arguments | str | None = None,
    /,
    *,
    id: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Call[GetCvmOperationsResponse]:
    """``GET /cvms/{id}/operations``: the CVM's operations, newest first; ``limit`` is 1 to 500.

    ``cursor`` is the ``next_cursor`` of the page before. ``id`` and errors are those of
    ``get_cvm_info``: InputError, NotFoundError, ConflictError.
    """
    arguments = merged(request, "id", {"id": id, "limit": limit, "cursor": cursor})
    (cvm_id,) = required(arguments, "id")
    call = requests.operations(cvm_id, whole(arguments, "limit", 1, 500), arguments.get("cursor"))
    return call.read_by(readers.read("GetCvmOperationsResponse"))


def get_cvm_containers(
    request: Arguments | str | None = None,
    /,
    *,
    id: str | None = None,
) -> Call[GetCvmContainersResponse]:
    """``GET /cvms/{id}/composition``: the containers, as docker describes them.

    ``id`` and errors are those of ``get_cvm_info``: InputError, NotFoundError, ConflictError.
    """
    return requests.containers(_id(request, id)).read_by(readers.read("GetCvmContainersResponse"))


def get_cvm_list(
    request: Arguments | None = None, /, *, page: int | None = None, page_size: int | None = None
) -> Call[GetCvmListResponse]:
    """``GET /cvms/paginated``: the CVMs of the API key's workspace.

    ``page`` counts from 1, ``page_size`` is 1 to 100. Raises InputError before anything is sent.
    """
    arguments = merged(request, "page", {"page": page, "page_size": page_size})
    call = requests.cvms(
        page=whole(arguments, "page", 1, 2**31), page_size=whole(arguments, "page_size", 1, 100)
    )
    return call.read_by(readers.read("GetCvmListResponse"))


def get_app_cvms(
    request: Arguments | str | None = None, /, *, app_id: str | None = None
) -> Call[tuple[CvmInfo, ...]]:
    """``GET /apps/{app_id}/cvms``: every CVM of an app.

    ``app_id`` is 40 hex digits, with or without ``0x`` or ``app_``. Raises InputError before
    anything is sent, NotFoundError for an unknown one.
    """
    (app,) = required(merged(request, "app_id", {"app_id": app_id}), "app_id")
    return requests.app_cvms(app).read_by(readers.read_list("CvmInfo"))
