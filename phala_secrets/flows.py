"""Library calls that take several requests, each a flow that either client drives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from phala_secrets import answers, api, trust
from phala_secrets.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from phala_secrets.api import Request
    from phala_secrets.calls import Flow
    from phala_secrets.models import UpdateResult


def update_cvm_envs(
    request: Request | None = None,
    /,
    *,
    id: str | None = None,  # noqa: A002 (the API's own name)
    encrypted_env: str | None = None,
    env_keys: Iterable[str] | None = None,
    envs: Mapping[str, str] | None = None,
    compose_hash: str | None = None,
    transaction_hash: str | None = None,
    trusted_signers: str | Iterable[str] | None = None,
    kms: str | None = None,
) -> Flow[UpdateResult]:
    """``PATCH /cvms/{id}/envs``: replaces the CVM's whole environment and restarts it.

    Either ``encrypted_env`` (hex, of ``encrypt_env_vars``) with its names in ``env_keys``;
    or ``envs``, plain values, which are encrypted here: the app's key is fetched and proven,
    its signer compared with ``trusted_signers`` (SEC1 hex), or without them with the root
    that the API publishes. ``compose_hash`` and ``transaction_hash`` are for the second
    phase, after an approval on chain.

    Returns UpdateCvmEnvsInProgress (202), or UpdateCvmEnvsPreconditionRequired (465) when
    the compose hash has to be approved first. Raises InputError before anything is sent,
    ProofError when the key is not proven, ApiError, TransportError.
    """
    given = {
        "id": id,
        "encrypted_env": encrypted_env,
        "env_keys": env_keys,
        "envs": envs,
        "compose_hash": compose_hash,
        "transaction_hash": transaction_hash,
        "trusted_signers": trusted_signers,
        "kms": kms,
    }
    arguments = api.merged(request, "id", given)
    cvm_id, plain = arguments.get("id"), arguments.get("envs")
    sealed: Any = arguments.get("encrypted_env")
    if not isinstance(cvm_id, str):
        raise InputError("id is missing", hint="name the CVM")
    if (sealed is None) == (plain is None):
        raise InputError(
            "give either envs or encrypted_env", hint="envs are plain values, encrypted_env is hex"
        )
    names = _names(arguments.get("env_keys"))
    if plain is not None:
        sealed, names = yield from _seal(cvm_id, plain, arguments)
    elif not _is_hex(sealed):
        raise InputError("encrypted_env is not hex", hint="pass what encrypt_env_vars returned")
    phase_two = (arguments.get("compose_hash"), arguments.get("transaction_hash"))
    (result,) = yield (api.patch_cvm_envs(cvm_id, sealed, names, *phase_two),)
    answer: UpdateResult = result
    return answer


def _seal(cvm_id: str, plain: Any, arguments: Mapping[str, Any]) -> Flow[tuple[str, list[str]]]:
    from phala_secrets.identifiers import parse_cvm
    from phala_secrets.library import encrypt_env_vars
    from phala_secrets.proof import parse_signer

    signers = arguments.get("trusted_signers") or ()
    pins = signers.replace(",", " ").split() if isinstance(signers, str) else signers
    policy = trust.Policy(
        signers=tuple(map(parse_signer, pins)), kms=arguments.get("kms"), app_id=parse_cvm(cvm_id).app_id
    )
    cvm, first = yield (answers.cvm(cvm_id), answers.contracts())
    contracts = yield from trust.all_contracts(first)
    key = yield from trust.prove_key(cvm, contracts, policy)
    return encrypt_env_vars(plain, key.public_key.hex()), list(plain)


def _names(names: Any) -> list[str] | None:
    if names is None:
        return None
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise InputError("env_keys has to be a list of names", hint="pass the names that were encrypted")
    return list(names)


def _is_hex(text: Any) -> bool:
    try:
        return isinstance(text, str) and len(bytes.fromhex(text.removeprefix("0x"))) > 0
    except ValueError:
        return False
