"""The endpoints of Phala Cloud, each a pure function from arguments to a Call.

Arguments are checked before there is a Call, so nothing wrong is ever sent. A
function takes one mapping, or keywords, or, where a single id is all it needs,
that id.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from phala_secrets.cloud.call import Call
from phala_secrets.cloud.ids import parse_cvm, segment
from phala_secrets.dstack.ids import parse_app_id
from phala_secrets.errors import AnswerError, InputError

if TYPE_CHECKING:
    from phala_secrets.chain.rpc import Rpc
    from phala_secrets.cloud import models

T = TypeVar("T")

API_VERSION = "2026-06-23"
API_VERSIONS = ("2025-10-28", "2026-01-21", "2026-05-22", API_VERSION)
DEFAULT_URL = "https://cloud-api.phala.com/api/v1"


# -- reading answers ---------------------------------------------------------------------------
# Models are named, not imported: who does not read an answer as one does not load pydantic.


def _as(model: str, **more: Any) -> Callable[[Any], Any]:
    return partial(_validate, model, more)


def _validate(name: str, more: Mapping[str, Any], answer: Any) -> Any:
    from pydantic import BaseModel, ValidationError

    from phala_secrets.cloud import models

    model: type[BaseModel] = getattr(models, name)
    try:
        return model.model_validate({**answer, **more} if more and isinstance(answer, dict) else answer)
    except ValidationError as error:
        # The library's own message would quote the answer.
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise AnswerError(
            f"Phala Cloud's answer is not a {name}: {where}: {first['msg']}",
            hint="check api-url; if it is right, the API has changed: report it",
        ) from None


def _as_list(model: str, answer: Any) -> tuple[Any, ...]:
    return tuple(_validate(model, {}, row) for row in rows(answer))


def rows(answer: Any) -> list[Any]:
    """The rows of a list, paged or not."""
    listed = answer.get("items") if isinstance(answer, dict) else answer
    if not isinstance(listed, list):
        raise AnswerError("Phala Cloud's answer is no list", hint="check api-url")
    return listed


def precondition_fields(answer: Any) -> dict[str, Any]:
    """465 in both of its forms: structured ``details``, or the fields themselves (the older one)."""
    body: dict[str, Any] = answer if isinstance(answer, dict) else {}
    nested = body.get("detail")
    if isinstance(nested, dict):
        body = nested
    details = body.get("details")
    fields = (
        {row.get("field"): row.get("value") for row in details if isinstance(row, dict)}
        if isinstance(details, list)
        else body
    )
    names = ("compose_hash", "app_id", "device_id", "kms_info")
    return {"message": body.get("message")} | {n: fields[n] for n in names if fields.get(n) is not None}


def _precondition(answer: Any) -> models.UpdateCvmEnvsPreconditionRequired:
    result: models.UpdateCvmEnvsPreconditionRequired = _validate(
        "UpdateCvmEnvsPreconditionRequired", {}, precondition_fields(answer)
    )
    return result


# -- arguments ----------------------------------------------------------------------------------


def merged(request: Any, single: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """One mapping, or keywords, or the single id on its own, as one dict without Nones."""
    request = {} if request is None else request
    arguments = {single: request} if isinstance(request, str) else request
    if not isinstance(arguments, Mapping):
        raise InputError("the request is neither a mapping nor an id", hint=f"pass {{{single!r}: …}}")
    unknown = [str(name)[:60] for name in arguments if name not in given]
    if unknown:
        raise InputError(
            f"unknown argument: {', '.join(unknown)!a}", hint=f"the arguments are {', '.join(given)}"
        )
    twice = [name for name in arguments if given[name] is not None]
    if twice:
        raise InputError(f"{', '.join(twice)} is given twice", hint="pass one mapping, or keywords")
    return {name: value for name, value in {**given, **arguments}.items() if value is not None}


def _required(arguments: Mapping[str, Any], *names: str) -> tuple[str, ...]:
    for name in names:
        value = arguments.get(name)
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{name} is missing", hint=f"pass {name} as a non-empty string")
    return tuple(arguments[name].strip() for name in names)


def _whole(arguments: Mapping[str, Any], name: str, low: int, high: int) -> str | None:
    value = arguments.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"{name} has to be a whole number from {low} to {high}", hint=f"change {name}")
    return str(value)


def _params(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


Request = Mapping[str, Any]


# -- the KMS ------------------------------------------------------------------------------------


def get_kms_info(
    request: Request | str | None = None, /, *, kms_id: str | None = None
) -> Call[models.KmsInfo]:
    """``GET /kms/{kms_id}``: one KMS, by its id or slug.

    Raises InputError before anything is sent, NotFoundError for an unknown one.
    """
    (kms,) = _required(merged(request, "kms_id", {"kms_id": kms_id}), "kms_id")
    return Call("GET", f"/kms/{segment(kms)}", _as("KmsInfo"))


def _page(request: Request | None, page: int | None, page_size: int | None, is_onchain: bool | None) -> Any:
    given = {"page": page, "page_size": page_size, "is_onchain": is_onchain}
    arguments = merged(request, "page", given)
    onchain = arguments.get("is_onchain")
    if onchain is not None and not isinstance(onchain, bool):
        raise InputError("is_onchain has to be a bool", hint="pass True or False")
    return _params(
        page=_whole(arguments, "page", 1, 2**31),
        page_size=_whole(arguments, "page_size", 1, 100),
        is_onchain=None if onchain is None else str(onchain).lower(),
    )


def get_kms_list(
    request: Request | None = None,
    /,
    *,
    page: int | None = None,
    page_size: int | None = None,
    is_onchain: bool | None = None,
) -> Call[models.GetKmsListResponse]:
    """``GET /kms``: the KMSes, each with at least ``id``, ``slug`` and ``name``.

    ``page`` counts from 1, ``page_size`` is 1 to 100. Raises InputError before anything is sent.
    """
    return Call("GET", "/kms", _as("GetKmsListResponse"), params=_page(request, page, page_size, is_onchain))


def get_kms_on_chain_detail(
    request: Request | str | None = None, /, *, chain: str | None = None
) -> Call[models.GetKmsOnChainDetailResponse]:
    """``GET /kms/on-chain/{chain}``: the KMS contracts of a chain, their devices and OS images.

    ``chain`` is a name, such as ``base``. Raises InputError before anything is sent, ApiError
    for a chain that Phala Cloud does not have.
    """
    (name,) = _required(merged(request, "chain", {"chain": chain}), "chain")
    return Call("GET", f"/kms/on-chain/{segment(name)}", _as("GetKmsOnChainDetailResponse"))


def get_app_env_encrypt_pub_key(
    request: Request | None = None, /, *, kms: str | None = None, app_id: str | None = None
) -> Call[models.GetAppEnvEncryptPubKeyResponse]:
    """``GET /kms/{kms}/pubkey/{app_id}``: the app's X25519 key with its proof, which is *not verified yet*.

    ``kms`` is a slug or id, ``app_id`` 40 hex digits, with or without ``0x`` or ``app_``. Pass
    ``app_env_encrypt_pubkey`` of the answer to ``verify_env_encrypt_public_key`` before
    encrypting to it. Raises InputError before anything is sent, NotFoundError for an unknown
    KMS, ServerError when it does not answer.
    """
    arguments = merged(request, "app_id", {"kms": kms, "app_id": app_id})
    kms, app_id = _required(arguments, "kms", "app_id")
    app = parse_app_id(app_id, "app_id")
    return Call("GET", f"/kms/{segment(kms)}/pubkey/{app}", partial(_env_encrypt_pub_key, app))


def _env_encrypt_pub_key(app_id: str, answer: Any) -> models.GetAppEnvEncryptPubKeyResponse:
    from phala_secrets.dstack.key_proof import EnvEncryptPublicKey

    fields = answer if isinstance(answer, dict) else {}
    key = EnvEncryptPublicKey(
        str(fields.get("public_key", "")),
        app_id=app_id,
        signature=fields.get("signature"),
        signature_v1=fields.get("signature_v1"),
        timestamp=fields.get("timestamp"),
    )
    result: models.GetAppEnvEncryptPubKeyResponse = _validate(
        "GetAppEnvEncryptPubKeyResponse", {"app_env_encrypt_pubkey": key}, answer
    )
    return result


def next_app_ids(
    request: Request | None = None, /, *, counts: int | None = None
) -> Call[models.NextAppIdsResponse]:
    """``GET /kms/phala/next_app_id``: reserves ``counts`` app ids, 1 to 20 (1 unless told).

    Raises InputError before anything is sent.
    """
    counts_ = _whole(merged(request, "counts", {"counts": counts}), "counts", 1, 20)
    return Call("GET", "/kms/phala/next_app_id", _as("NextAppIdsResponse"), {"counts": counts_ or "1"})


def list_kms_contracts(
    request: Request | None = None,
    /,
    *,
    page: int | None = None,
    page_size: int | None = None,
    is_onchain: bool | None = None,
) -> Call[models.ListKmsContractsResponse]:
    """``GET /kms`` as of API version 2026-06-23: KMS contracts with their root's public key, ``k256_pubkey``.

    ``page`` counts from 1, ``page_size`` is 1 to 100. Raises InputError before anything is sent.
    """
    params = _page(request, page, page_size, is_onchain)
    return Call("GET", "/kms", _as("ListKmsContractsResponse"), params=params, version=API_VERSION)


def get_kms_contract(
    request: Request | str | None = None, /, *, slug: str | None = None
) -> Call[models.KmsContract]:
    """``GET /kms/{slug}`` as of API version 2026-06-23: one KMS contract.

    Raises InputError before anything is sent, NotFoundError for an unknown one.
    """
    (kms,) = _required(merged(request, "slug", {"slug": slug}), "slug")
    return Call("GET", f"/kms/{segment(kms)}", _as("KmsContract"), version=API_VERSION)


def list_kms_contract_nodes(
    request: Request | str | None = None, /, *, slug: str | None = None
) -> Call[models.ListKmsContractNodesResponse]:
    """``GET /kms/{slug}/nodes``: the nodes of one KMS contract.

    Raises InputError before anything is sent, NotFoundError for an unknown one.
    """
    (kms,) = _required(merged(request, "slug", {"slug": slug}), "slug")
    path = f"/kms/{segment(kms)}/nodes"
    return Call("GET", path, _as("ListKmsContractNodesResponse"), version=API_VERSION)


# -- CVMs ---------------------------------------------------------------------------------------


def _cvm_path(arguments: Mapping[str, Any], tail: str = "") -> str:
    (text,) = _required(arguments, "id")
    return f"/cvms/{segment(parse_cvm(text).id)}{tail}"


def get_cvm_info(request: Request | str | None = None, /, *, id: str | None = None) -> Call[models.CvmInfo]:
    """``GET /cvms/{id}``: a CVM by name, ``cvm_…`` id, UUID, app id or ``instance_…``.

    Raises InputError before anything is sent, NotFoundError for an unknown one, ConflictError
    (``ERR-03-002``) for a name that several have.
    """
    path = _cvm_path(merged(request, "id", {"id": id}))
    return Call("GET", path, _as("CvmInfo"), version=API_VERSION)


def get_cvm_compose_file(
    request: Request | str | None = None,
    /,
    *,
    id: str | None = None,
) -> Call[models.AppCompose]:
    """``GET /cvms/{id}/compose_file``: the app-compose, with ``allowed_envs``, today's names.

    ``id`` and errors are those of ``get_cvm_info``: InputError, NotFoundError, ConflictError.
    """
    path = _cvm_path(merged(request, "id", {"id": id}), "/compose_file")
    return Call("GET", path, _as("AppCompose"))


def get_cvm_state(
    request: Request | str | None = None,
    /,
    *,
    id: str | None = None,
) -> Call[models.CvmState]:
    """``GET /cvms/{id}/state``: what the CVM is doing now.

    ``id`` and errors are those of ``get_cvm_info``: InputError, NotFoundError, ConflictError.
    """
    return Call("GET", _cvm_path(merged(request, "id", {"id": id}), "/state"), _as("CvmState"))


def get_cvm_operations(
    request: Request | str | None = None,
    /,
    *,
    id: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Call[models.GetCvmOperationsResponse]:
    """``GET /cvms/{id}/operations``: the CVM's operations, newest first; ``limit`` is 1 to 500.

    ``cursor`` is the ``next_cursor`` of the page before. ``id`` and errors are those of
    ``get_cvm_info``: InputError, NotFoundError, ConflictError.
    """
    arguments = merged(request, "id", {"id": id, "limit": limit, "cursor": cursor})
    params = _params(limit=_whole(arguments, "limit", 1, 500), cursor=arguments.get("cursor"))
    path = _cvm_path(arguments, "/operations")
    return Call("GET", path, _as("GetCvmOperationsResponse"), params=params)


def stream_cvm_state(cvm_id: str, target: str, interval: int, timeout: int) -> Call[models.CvmState]:
    """``GET /cvms/{id}/state`` as a stream of events until ``target``; times in seconds."""
    params = {"target": target, "interval": str(interval), "timeout": str(timeout)}
    return Call("GET", _cvm_path({"id": cvm_id}, "/state"), _as("CvmState"), params=params)


def state_event(kind: str, data: str) -> models.CvmStateEvent:
    """One server-sent event of a state stream, read; AnswerError when it is not one."""
    try:
        content = json.loads(data) if data else {}
    except (ValueError, RecursionError):
        raise AnswerError("an event of the state stream is not JSON", hint="run again") from None
    if not isinstance(content, dict):
        raise AnswerError("an event of the state stream is not an object", hint="run again")
    state = _validate("CvmState", {}, content) if kind == "state" else None
    event: models.CvmStateEvent = _validate(
        "CvmStateEvent", {}, {"type": kind, "state": state, "data": content}
    )
    return event


def get_app_cvms(
    request: Request | str | None = None, /, *, app_id: str | None = None
) -> Call[tuple[models.CvmInfo, ...]]:
    """``GET /apps/{app_id}/cvms``: every CVM of an app.

    ``app_id`` is 40 hex digits, with or without ``0x`` or ``app_``. Raises InputError before
    anything is sent, NotFoundError for an unknown one.
    """
    (app,) = _required(merged(request, "app_id", {"app_id": app_id}), "app_id")
    path = f"/apps/{parse_app_id(app, 'app_id')}/cvms"
    return Call("GET", path, partial(_as_list, "CvmInfo"), version=API_VERSION)


def patch_cvm_envs(
    cvm_id: str,
    encrypted_env: str,
    env_keys: list[str] | None,
    compose_hash: str | None = None,
    transaction_hash: str | None = None,
) -> Call[models.UpdateResult]:
    """``PATCH /cvms/{id}/envs``: replaces the whole set and restarts the CVM. Never repeated unasked."""
    body = {
        "encrypted_env": encrypted_env,
        "env_keys": env_keys,
        "compose_hash": compose_hash,
        "transaction_hash": transaction_hash,
    }
    return Call(
        "PATCH",
        _cvm_path({"id": cvm_id}, "/envs"),
        _as("UpdateCvmEnvsInProgress"),
        body={name: value for name, value in body.items() if value is not None},
        answers={465: _precondition},
        repeatable=False,
    )


# -- a chain's RPC ------------------------------------------------------------------------------


def rpc(url: str, request: Rpc[T], *, repeatable: bool = True) -> Call[T]:
    """A JSON-RPC request to a chain, as a Call to an absolute URL."""
    return Call("POST", url, request.read, body=request.payload(), repeatable=repeatable)
