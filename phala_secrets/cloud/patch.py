"""The method ``patch_cvm`` of both clients: compose file and secrets in one step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from phala_secrets.cloud import readers, requests
from phala_secrets.cloud.arguments import merged, required
from phala_secrets.cloud.changes import carry_out, hash_of, names_of, seal_envs, timeout_of
from phala_secrets.cloud.removal import Removal
from phala_secrets.dstack.encryption import parse_sealed
from phala_secrets.dstack.guest_check import check_sealed
from phala_secrets.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from phala_secrets.cloud.arguments import Arguments
    from phala_secrets.cloud.call import Call
    from phala_secrets.cloud.models import PatchResult
    from phala_secrets.dstack.env_vars import EnvVars
    from phala_secrets.flow import Flow

_FIRST = ("docker_compose_file", "envs", "allowed_envs")
_SECOND = ("compose_hash", "transaction_hash")


def patch_cvm(
    request: Arguments | str | None = None,
    /,
    *,
    id: str | None = None,
    docker_compose_file: str | None = None,
    envs: EnvVars | None = None,
    encrypted_env: str | None = None,
    allowed_envs: Iterable[str] | None = None,
    compose_hash: str | None = None,
    transaction_hash: str | None = None,
    trusted_signers: str | Iterable[str] | None = None,
    kms: str | None = None,
    allow_removal: bool | Literal["all"] | None = None,
    wait: bool | None = None,
    timeout: int | None = None,
) -> Flow[PatchResult]:
    """Change a CVM's compose file and environment in one operation with one restart: ``PATCH /cvms/{id}``.

    Whatever you leave out stays as it is. After an approval on chain, pass ``compose_hash`` and
    ``transaction_hash`` to carry out the earlier change, with at most the 465's ``encrypted_env`` added. A
    change is sent again only if the CVM was busy or the rate limited.

    Args:
        request: the arguments as a mapping, or the ``id``.
        id: a name, ``cvm_…`` id, UUID, app id or ``instance_…``.
        docker_compose_file: the text of a compose file, sent unchanged.
        envs: plain values that replace the environment, as in ``update_cvm_envs``.
        encrypted_env: ciphertext that replaces the environment, as hex. After an approval, that of the 465,
            to check what was committed.
        allowed_envs: the names in ``encrypted_env``.
        compose_hash: the approved compose hash, 64 hex digits.
        transaction_hash: the approval's transaction, hex.
        trusted_signers: as in ``update_cvm_envs``.
        kms: as in ``update_cvm_envs``.
        allow_removal: as in ``update_cvm_envs``.
        wait: as in ``update_cvm_envs``.
        timeout: as in ``update_cvm_envs``.

    Returns:
        PatchCvmInProgress (202), or PatchCvmPreconditionRequired (465) if the compose hash must be
        approved first.

    Raises:
        InputError: an argument is invalid. No change was sent.
        DeliveryError: the guest would refuse ``envs``, or the CVM would lose a variable. No change was sent.
        ProofError: the key is not proven. No change was sent.
        ApiError: Phala Cloud refused.
        TransportError: Phala Cloud was unreachable or sent an invalid response. AnswerError after an
            approval: Phala Cloud may have committed another ciphertext.
        BootError: the CVM failed to come up (only with ``wait``).
        WaitTimeoutError: the CVM did not run in time (only with ``wait``).
    """
    given = {
        "id": id,
        "docker_compose_file": docker_compose_file,
        "envs": envs,
        "encrypted_env": encrypted_env,
        "allowed_envs": allowed_envs,
        "compose_hash": compose_hash,
        "transaction_hash": transaction_hash,
        "trusted_signers": trusted_signers,
        "kms": kms,
        "allow_removal": allow_removal,
        "wait": wait,
        "timeout": timeout,
    }
    arguments = merged(request, "id", given)
    (cvm_id,) = required(arguments, "id")
    seconds = timeout_of(arguments)
    removal = Removal(arguments)
    expected = _expected(arguments)
    accepted = readers.read("PatchCvmInProgress")
    asked = readers.read_precondition("PatchCvmPreconditionRequired")
    result: PatchResult = yield from carry_out(
        cvm_id,
        lambda: _call(cvm_id, arguments, removal),
        accepted,
        asked,
        wait=seconds if arguments.get("wait") else None,
        committed=lambda call: "" if call.body else expected,
    )
    return result


def _call(cvm_id: str, arguments: Mapping[str, Any], removal: Removal) -> Flow[Call[Any]]:
    if any(name in arguments for name in _SECOND):
        return _commit(cvm_id, arguments)
    changes = yield from _changes(cvm_id, arguments, removal)
    return requests.patch_cvm(cvm_id, **changes)


def _expected(arguments: Mapping[str, Any]) -> str:
    """Return the ciphertext (hex) that a commit must contain, or an empty string."""
    sealed = arguments.get("encrypted_env")
    return "" if sealed is None else parse_sealed(str(sealed), "encrypted_env")


def _commit(cvm_id: str, arguments: Mapping[str, Any]) -> Call[Any]:
    if beside := [name for name in _FIRST if name in arguments]:
        raise InputError(
            f"compose_hash excludes {', '.join(beside)}",
            hint="leave it out: compose_hash commits the earlier change",
        )
    compose_hash = hash_of(arguments, "compose_hash")
    if not compose_hash or "transaction_hash" not in arguments:
        raise InputError("compose_hash and transaction_hash belong together", hint="pass both, or neither")
    (transaction_hash,) = required(arguments, "transaction_hash")
    return requests.commit_patch(cvm_id, compose_hash, transaction_hash)


def _changes(cvm_id: str, arguments: Mapping[str, Any], removal: Removal) -> Flow[dict[str, Any]]:
    """Return what to change, by the names of ``requests.patch_cvm``."""
    changes: dict[str, Any] = {}
    if "docker_compose_file" in arguments:
        if not isinstance(arguments["docker_compose_file"], str):
            raise InputError("docker_compose_file is not text", hint="pass the content of the file")
        changes["docker_compose_file"] = arguments["docker_compose_file"]
    names = names_of(arguments, "allowed_envs")
    if ("encrypted_env" in arguments) != (names is not None):
        raise InputError(
            "encrypted_env and allowed_envs belong together", hint="pass both, or envs: plain values"
        )
    if names is not None:
        if "envs" in arguments:
            raise InputError("envs and encrypted_env exclude each other", hint="pass one of them")
        sealed = parse_sealed(str(arguments["encrypted_env"]), "encrypted_env")
        check_sealed(sealed)
        changes["encrypted_env"] = sealed
        changes["allowed_envs"] = names
    elif "envs" in arguments:
        changes["encrypted_env"], changes["allowed_envs"] = yield from seal_envs(cvm_id, arguments, removal)
    if not changes:
        raise InputError("nothing to change", hint="pass docker_compose_file, envs or encrypted_env")
    return changes
