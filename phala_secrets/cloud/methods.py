"""Library calls that take several requests, each a flow that either client drives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from phala_secrets.cloud import records, requests, trust
from phala_secrets.cloud.ids import parse_cvm
from phala_secrets.dstack.encryption import parse_sealed, seal
from phala_secrets.dstack.env_vars import read_env_vars
from phala_secrets.dstack.ids import parse_hash
from phala_secrets.dstack.key_proof import parse_signers
from phala_secrets.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from phala_secrets.cloud.call import Flow
    from phala_secrets.cloud.models import UpdateResult
    from phala_secrets.cloud.requests import Request
    from phala_secrets.dstack.env_vars import EnvVars


def update_cvm_envs(
    request: Request | str | None = None,
    /,
    *,
    id: str | None = None,
    encrypted_env: str | None = None,
    env_keys: Iterable[str] | None = None,
    envs: EnvVars | None = None,
    compose_hash: str | None = None,
    transaction_hash: str | None = None,
    trusted_signers: str | Iterable[str] | None = None,
    kms: str | None = None,
) -> Flow[UpdateResult]:
    """``PATCH /cvms/{id}/envs``: replaces the CVM's whole environment and restarts it.

    ``id`` is a name, ``cvm_…`` id, UUID, app id or ``instance_…``. Either ``encrypted_env``
    (hex, of ``encrypt_env_vars``) with its names in ``env_keys``; or ``envs``, plain values in
    any of the shapes of ``encrypt_env_vars``, which are encrypted here: the app's key is fetched
    (from ``kms``, a slug or id, instead of the CVM's own) and proven, and its signer compared
    with ``trusted_signers``, one or several secp256k1 keys as SEC1 hex; without these with the
    root that the API publishes, which is as good as the API. ``compose_hash`` and
    ``transaction_hash`` (hex) are for the second phase, after an approval on chain.

    Returns UpdateCvmEnvsInProgress (202) or, when the compose hash has to be approved first,
    UpdateCvmEnvsPreconditionRequired (465). Raises InputError and DeliveryError (the guest would
    refuse ``envs``) before anything is sent, ProofError when the key is not proven, then ApiError
    or TransportError. Is sent again only where the CVM was busy or the rate limited.
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
    arguments = requests.merged(request, "id", given)
    cvm_id = arguments.get("id", "")
    if ("encrypted_env" in arguments) == ("envs" in arguments):
        raise InputError(
            "give either envs or encrypted_env", hint="envs are plain values, encrypted_env is hex"
        )
    names = _names(arguments.get("env_keys"))
    second_phase = (_hash(arguments, "compose_hash"), arguments.get("transaction_hash"))
    if "encrypted_env" in arguments:
        sealed = parse_sealed(str(arguments["encrypted_env"]), "encrypted_env")
    elif names is not None:
        raise InputError("env_keys go with encrypted_env", hint="leave them out: envs have their own names")
    else:
        sealed, names = yield from _seal(cvm_id, arguments)
    (result,) = yield (requests.patch_cvm_envs(cvm_id, sealed, names, *second_phase),)
    answer: UpdateResult = result
    return answer


def _seal(cvm_id: str, arguments: Mapping[str, Any]) -> Flow[tuple[str, list[str]]]:
    environment = read_env_vars(arguments["envs"])
    first_requests = (records.cvm(cvm_id), records.contracts())  # checks the id
    signers = arguments.get("trusted_signers")
    policy = trust.Policy(
        signers=() if signers is None else tuple(parse_signers(signers)),
        kms=arguments.get("kms"),
        app_id=parse_cvm(cvm_id).app_id,
    )
    cvm, first = yield first_requests
    contracts = yield from trust.all_contracts(first)
    key = yield from trust.prove_key(cvm, contracts, policy)
    return seal(environment.as_dict().items(), key.public_key).hex(), environment.names


def _names(names: Any) -> list[str] | None:
    if names is None:
        return None
    listed: list[Any] = [None] if isinstance(names, str) or not isinstance(names, Iterable) else [*names]
    if not all(isinstance(name, str) for name in listed):
        raise InputError("env_keys has to be a list of names", hint="pass the names that were encrypted")
    return listed


def _hash(arguments: Mapping[str, Any], name: str) -> str | None:
    text = arguments.get(name)
    return None if text is None else parse_hash(str(text), name)
