"""The methods of both clients: arguments in, a Call or a flow of several out.

Arguments are checked before a Call exists, so nothing invalid is ever sent. A method takes one mapping
or keywords. If it needs a single id, it takes that alone too.
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
    """Return one KMS: ``GET /kms/{kms_id}``.

    Args:
        request: the arguments as a mapping, or the ``kms_id``.
        kms_id: an id or slug.

    Raises:
        InputError: an argument is invalid. Nothing was sent.
        NotFoundError: the KMS is unknown.
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
        raise InputError("is_onchain is not a bool", hint="pass True or False")
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
    """Return a page of KMSes, each with at least ``id``, ``slug`` and ``name``: ``GET /kms``.

    Args:
        request: the arguments as a mapping.
        page: the page, from 1.
        page_size: KMSes per page, 1 to 100.
        is_onchain: return only those on chain (True) or only others (False).

    Raises:
        InputError: an argument is invalid. Nothing was sent.
    """
    return requests.kms_page(**_page(request, page, page_size, is_onchain)).read_by(
        readers.read("GetKmsListResponse")
    )


def get_kms_on_chain_detail(
    request: Arguments | str | None = None, /, *, chain: str | None = None
) -> Call[GetKmsOnChainDetailResponse]:
    """Return a chain's KMS contracts with their devices and OS images: ``GET /kms/on-chain/{chain}``.

    Args:
        request: the arguments as a mapping, or the ``chain``.
        chain: the chain's name, such as ``base``.

    Raises:
        InputError: an argument is invalid. Nothing was sent.
        ApiError: Phala Cloud does not support the chain.
    """
    (name,) = required(merged(request, "chain", {"chain": chain}), "chain")
    return requests.on_chain(name).read_by(readers.read("GetKmsOnChainDetailResponse"))


def get_app_env_encrypt_pub_key(
    request: Arguments | None = None, /, *, kms: str | None = None, app_id: str | None = None
) -> Call[GetAppEnvEncryptPubKeyResponse]:
    """Return an app's X25519 key, NOT VERIFIED yet: ``GET /kms/{kms}/pubkey/{app_id}``.

    Before you encrypt, pass ``app_env_encrypt_pubkey`` of the response to
    ``verify_env_encrypt_public_key``.

    Args:
        request: the arguments as a mapping.
        kms: a slug or id.
        app_id: 40 hex digits, with or without ``0x`` or ``app_``.

    Raises:
        InputError: an argument is invalid. Nothing was sent.
        NotFoundError: the KMS or the app is unknown.
        ServerError: the KMS does not respond.
    """
    arguments = merged(request, "app_id", {"kms": kms, "app_id": app_id})
    kms, app_id = required(arguments, "kms", "app_id")
    app = parse_app_id(app_id, "app_id")
    return requests.key(kms, app).read_by(partial(readers.read_key, app))


def next_app_ids(
    request: Arguments | None = None, /, *, counts: int | None = None
) -> Call[NextAppIdsResponse]:
    """Reserve app ids: ``GET /kms/phala/next_app_id``.

    Args:
        request: the arguments as a mapping.
        counts: how many ids, 1 to 20 (default 1).

    Raises:
        InputError: an argument is invalid. Nothing was sent.
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
    """Return a page of KMS contracts with their roots (``k256_pubkey``): ``GET /kms`` from 2026-06-23.

    Args:
        request: the arguments as a mapping.
        page: the page, from 1.
        page_size: contracts per page, 1 to 100.
        is_onchain: return only those on chain (True) or only others (False).

    Raises:
        InputError: an argument is invalid. Nothing was sent.
    """
    params = _page(request, page, page_size, is_onchain)
    return requests.contracts(**params).read_by(readers.read("ListKmsContractsResponse"))


def get_kms_contract(
    request: Arguments | str | None = None, /, *, slug: str | None = None
) -> Call[KmsContract]:
    """Return one KMS contract: ``GET /kms/{slug}`` from API version 2026-06-23.

    Args:
        request: the arguments as a mapping, or the ``slug``.
        slug: a slug or id.

    Raises:
        InputError: an argument is invalid. Nothing was sent.
        NotFoundError: the contract is unknown.
    """
    (kms,) = required(merged(request, "slug", {"slug": slug}), "slug")
    return requests.contract(kms).read_by(readers.read("KmsContract"))


def list_kms_contract_nodes(
    request: Arguments | str | None = None, /, *, slug: str | None = None
) -> Call[ListKmsContractNodesResponse]:
    """Return the nodes of one KMS contract: ``GET /kms/{slug}/nodes``.

    Args:
        request: the arguments as a mapping, or the ``slug``.
        slug: a slug or id.

    Raises:
        InputError: an argument is invalid. Nothing was sent.
        NotFoundError: the contract is unknown.
    """
    (kms,) = required(merged(request, "slug", {"slug": slug}), "slug")
    return requests.nodes(kms).read_by(readers.read("ListKmsContractNodesResponse"))


def _id(request: Arguments | str | None, id: str | None) -> str:
    (cvm_id,) = required(merged(request, "id", {"id": id}), "id")
    return cvm_id


def get_cvm_info(request: Arguments | str | None = None, /, *, id: str | None = None) -> Call[CvmInfo]:
    """Return one CVM: ``GET /cvms/{id}``.

    Args:
        request: the arguments as a mapping, or the ``id``.
        id: a name, ``cvm_…`` id, UUID, app id or ``instance_…``.

    Raises:
        InputError: an argument is invalid. Nothing was sent.
        NotFoundError: the CVM is unknown.
        ConflictError: multiple CVMs have this name (``ERR-03-002``).
    """
    return requests.cvm(_id(request, id)).read_by(readers.read("CvmInfo"))


def get_cvm_compose_file(
    request: Arguments | str | None = None,
    /,
    *,
    id: str | None = None,
) -> Call[AppCompose]:
    """Return the app-compose, with today's names as ``allowed_envs``: ``GET /cvms/{id}/compose_file``.

    Args:
        request: the arguments as a mapping, or the ``id``.
        id: a name, ``cvm_…`` id, UUID, app id or ``instance_…``.

    Raises:
        InputError: an argument is invalid. Nothing was sent.
        NotFoundError: the CVM is unknown.
        ConflictError: multiple CVMs have this name (``ERR-03-002``).
    """
    return requests.compose_file(_id(request, id)).read_by(readers.read("AppCompose"))


def get_cvm_state(
    request: Arguments | str | None = None,
    /,
    *,
    id: str | None = None,
) -> Call[CvmState]:
    """Return what the CVM is doing now: ``GET /cvms/{id}/state``.

    Args:
        request: the arguments as a mapping, or the ``id``.
        id: a name, ``cvm_…`` id, UUID, app id or ``instance_…``.

    Raises:
        InputError: an argument is invalid. Nothing was sent.
        NotFoundError: the CVM is unknown.
        ConflictError: multiple CVMs have this name (``ERR-03-002``).
    """
    return requests.state(_id(request, id)).read_by(readers.read("CvmState"))


def get_cvm_attestation(
    request: Arguments | str | None = None, /, *, id: str | None = None
) -> Call[CvmAttestation]:
    """Return evidence for ``verify_attestation``, NOT VERIFIED yet: ``GET /cvms/{id}/attestation``.

    Args:
        request: the arguments as a mapping, or the ``id``.
        id: a name, ``cvm_…`` id, UUID, app id or ``instance_…``.

    Raises:
        InputError: an argument is invalid. Nothing was sent.
        NotFoundError: the CVM is unknown.
        ConflictError: multiple CVMs have this name (``ERR-03-002``).
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
    """Return a CVM's operations, newest first: ``GET /cvms/{id}/operations``.

    Args:
        request: the arguments as a mapping, or the ``id``.
        id: a name, ``cvm_…`` id, UUID, app id or ``instance_…``.
        limit: operations per page, 1 to 500.
        cursor: the ``next_cursor`` of the previous page.

    Raises:
        InputError: an argument is invalid. Nothing was sent.
        NotFoundError: the CVM is unknown.
        ConflictError: multiple CVMs have this name (``ERR-03-002``).
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
    """Return the containers as docker describes them: ``GET /cvms/{id}/composition``.

    Args:
        request: the arguments as a mapping, or the ``id``.
        id: a name, ``cvm_…`` id, UUID, app id or ``instance_…``.

    Raises:
        InputError: an argument is invalid. Nothing was sent.
        NotFoundError: the CVM is unknown.
        ConflictError: multiple CVMs have this name (``ERR-03-002``).
    """
    return requests.containers(_id(request, id)).read_by(readers.read("GetCvmContainersResponse"))


def get_cvm_list(
    request: Arguments | None = None, /, *, page: int | None = None, page_size: int | None = None
) -> Call[GetCvmListResponse]:
    """Return a page of the CVMs in the API key's workspace: ``GET /cvms/paginated``.

    Args:
        request: the arguments as a mapping.
        page: the page, from 1.
        page_size: CVMs per page, 1 to 100.

    Raises:
        InputError: an argument is invalid. Nothing was sent.
    """
    arguments = merged(request, "page", {"page": page, "page_size": page_size})
    call = requests.cvms(
        page=whole(arguments, "page", 1, 2**31), page_size=whole(arguments, "page_size", 1, 100)
    )
    return call.read_by(readers.read("GetCvmListResponse"))


def get_app_cvms(
    request: Arguments | str | None = None, /, *, app_id: str | None = None
) -> Call[tuple[CvmInfo, ...]]:
    """Return every CVM of an app: ``GET /apps/{app_id}/cvms``.

    Args:
        request: the arguments as a mapping, or the ``app_id``.
        app_id: 40 hex digits, with or without ``0x`` or ``app_``.

    Raises:
        InputError: an argument is invalid. Nothing was sent.
        NotFoundError: the app is unknown.
    """
    (app,) = required(merged(request, "app_id", {"app_id": app_id}), "app_id")
    return requests.app_cvms(app).read_by(readers.read_list("CvmInfo"))
