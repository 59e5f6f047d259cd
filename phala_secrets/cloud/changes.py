"""The methods of both clients that change a CVM or wait for one. They work like ``methods``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from phala_secrets.cloud import known, readers, records, requests, trust
from phala_secrets.cloud import wait as waiting
from phala_secrets.cloud.arguments import Arguments, merged, required, whole
from phala_secrets.cloud.call import BaseUrl
from phala_secrets.cloud.ids import parse_cvm
from phala_secrets.cloud.refusals import is_busy
from phala_secrets.cloud.removal import Removal
from phala_secrets.cloud.revisions import confirm
from phala_secrets.dstack.compose_hash import ordered
from phala_secrets.dstack.encryption import parse_sealed, seal
from phala_secrets.dstack.env_vars import read_env_vars
from phala_secrets.dstack.guest_check import check_sealed
from phala_secrets.dstack.ids import parse_hash
from phala_secrets.dstack.key_proof import parse_signers
from phala_secrets.errors import ConflictError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from phala_secrets.cloud.call import Call
    from phala_secrets.cloud.models import CvmInfo, UpdateResult
    from phala_secrets.dstack.env_vars import EnvVars
    from phala_secrets.flow import Flow

_WAIT = 600
"""Seconds: a real update takes minutes."""


def start_cvm(request: Arguments | str | None = None, /, *, id: str | None = None) -> Call[CvmInfo]:
    """Start a stopped CVM: ``POST /cvms/{id}/start``. It is sent once; ``wait_for_cvm`` waits for the CVM.

    Args:
        request: the arguments as a mapping, or the ``id``.
        id: a name, ``cvm_…`` id, UUID, app id or ``instance_…``.

    Raises:
        InputError: an argument is invalid. Nothing was sent.
        NotFoundError: the CVM is unknown.
        ConflictError: another operation runs (no ``error_code``), or multiple CVMs have this name.
    """
    (cvm_id,) = required(merged(request, "id", {"id": id}), "id")
    return requests.start(cvm_id).read_by(readers.read("CvmInfo"))


def wait_for_cvm(
    request: Arguments | str | None = None,
    /,
    *,
    id: str | None = None,
    correlation_id: str | None = None,
    timeout: int | None = None,
) -> Flow[CvmInfo]:
    """Wait until an operation has ended and the CVM runs, then return the CVM.

    Args:
        request: the arguments as a mapping, or the ``id``.
        id: a name, ``cvm_…`` id, UUID, app id or ``instance_…``.
        correlation_id: that of an update. Without it, follow the operation that runs at the first look.
        timeout: seconds, 1 to 86400 (default 600).

    Raises:
        InputError: an argument is invalid. Nothing was sent.
        BootError: the operation or the boot failed.
        WaitTimeoutError: the time is up.
        ApiError: Phala Cloud refused.
    """
    arguments = merged(request, "id", {"id": id, "correlation_id": correlation_id, "timeout": timeout})
    (cvm_id,) = required(arguments, "id")
    seconds = timeout_of(arguments)
    info = requests.cvm(cvm_id).read_by(readers.read("CvmInfo"))  # checks the id
    followed = arguments.get("correlation_id")
    pick = waiting.by_id(followed) if followed else waiting.Current()
    yield from waiting.until_up(cvm_id, pick, seconds, unseen)
    result: CvmInfo = yield info
    return result


def timeout_of(arguments: Mapping[str, Any]) -> float:
    """Return how many seconds to wait. Raise InputError for an invalid number."""
    return float(whole(arguments, "timeout", 1, 86_400) or _WAIT)


def unseen(_what: str) -> None:
    """Show nothing: a library is silent."""


def update_cvm_envs(
    request: Arguments | str | None = None,
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
    allow_removal: bool | Literal["all"] | None = None,
    wait: bool | None = None,
    timeout: int | None = None,
) -> Flow[UpdateResult]:
    """Replace a CVM's whole environment and restart it: ``PATCH /cvms/{id}/envs``.

    Pass either ``envs`` or ``encrypted_env``. The update is sent again only if the CVM was busy or the
    rate limited.

    Args:
        request: the arguments as a mapping, or the ``id``.
        id: a name, ``cvm_…`` id, UUID, app id or ``instance_…``.
        encrypted_env: ciphertext from ``encrypt_env_vars``, as hex.
        env_keys: the names in ``encrypted_env``.
        envs: plain values in any shape that ``encrypt_env_vars`` takes. They are encrypted to the app's
            key once it is proven.
        compose_hash: 64 hex digits, for the second phase after an approval on chain.
        transaction_hash: the approval's transaction (hex), for the second phase.
        trusted_signers: one or more secp256k1 keys as SEC1 hex, of which one must have signed the app's
            key. The default is the root that the API publishes, so the proof is as good as the API.
            With the default API, the Cloud KMS must have its published root.
        kms: the slug or id of the KMS that serves the key. The default is the CVM's own.
        allow_removal: True if ``envs`` may lack variables that the CVM has. ``"all"`` if ``envs`` may be
            empty too.
        wait: wait for an operation in the way, encrypt ``envs`` again, and return once the CVM runs with
            them.
        timeout: seconds for each wait, 1 to 86400 (default 600).

    Returns:
        UpdateCvmEnvsInProgress (202), or UpdateCvmEnvsPreconditionRequired (465) if the compose hash must
        be approved first. A 465 changes nothing and has the ``encrypted_env`` for the second phase.

    Raises:
        InputError: an argument is invalid. No update was sent.
        DeliveryError: the guest would refuse ``envs``, or the CVM would lose a variable. No update was sent.
        ProofError: the key is not proven. No update was sent.
        ApiError: Phala Cloud refused.
        TransportError: Phala Cloud was unreachable or sent an invalid response. AnswerError in the second
            phase: Phala Cloud may have committed another run's ciphertext.
        BootError: the CVM failed to come up (only with ``wait``).
        WaitTimeoutError: the CVM did not run in time (only with ``wait``).
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
        "allow_removal": allow_removal,
        "wait": wait,
        "timeout": timeout,
    }
    arguments = merged(request, "id", given)
    seconds = timeout_of(arguments)
    removal = Removal(arguments)
    (cvm_id,) = required(arguments, "id")
    if ("encrypted_env" in arguments) == ("envs" in arguments):
        raise InputError(
            "pass either envs or encrypted_env", hint="pass envs as plain values or encrypted_env as hex"
        )
    names = names_of(arguments, "env_keys")
    second_phase = (hash_of(arguments, "compose_hash"), arguments.get("transaction_hash"))
    sealed = arguments.get("encrypted_env")
    if sealed is not None:
        sealed = parse_sealed(str(sealed), "encrypted_env")
        check_sealed(sealed)
    elif names is not None:
        raise InputError("env_keys without encrypted_env", hint="leave them out: envs have their own names")

    def prepare() -> Flow[Call[Any]]:
        if sealed is not None:
            return requests.update_envs(cvm_id, sealed, names, *second_phase)
        ciphertext, sent = yield from seal_envs(cvm_id, arguments, removal)
        return requests.update_envs(cvm_id, ciphertext, sent, *second_phase)

    accepted = readers.read("UpdateCvmEnvsInProgress")
    asked = readers.read_precondition("UpdateCvmEnvsPreconditionRequired")
    result: UpdateResult = yield from carry_out(
        cvm_id,
        prepare,
        accepted,
        asked,
        wait=seconds if arguments.get("wait") else None,
        committed=lambda call: str(call.body["encrypted_env"]) if second_phase[0] else "",
    )
    return result


def carry_out(
    cvm_id: str,
    prepare: Callable[[], Flow[Call[Any]]],
    accepted: Callable[[Any], Any],
    asked: Callable[[Any], Any],
    *,
    wait: float | None,
    committed: Callable[[Call[Any]], str],
) -> Flow[Any]:
    """Send a change. Return what ``accepted`` reads or, from a 465, ``asked`` with the ciphertext (hex).

    With ``wait`` (seconds for each), wait for an operation in the way and then for the change itself.
    Call ``prepare`` again after another operation, since its facts may be outdated. ``committed`` returns
    the ciphertext that a call commits, or "": a revision must then contain it.
    """
    patience: waiting.Patience | None = None
    while True:
        call = yield from prepare()
        try:
            result: Any = yield call.read_by(accepted, status_465=asked)
            break
        except ConflictError as error:
            if wait is None or not is_busy(error):
                raise
            patience = patience or waiting.Patience(wait)
            if patience.left <= 0:
                raise
        yield from waiting.until_free(cvm_id, patience, unseen)
    if result.status != "in_progress":
        return result.model_copy(update={"encrypted_env": (call.body or {}).get("encrypted_env")})
    if ciphertext := committed(call):
        yield from confirm(cvm_id, ciphertext)
    if wait is not None:
        yield from waiting.until_up(cvm_id, waiting.by_id(result.correlation_id), wait, unseen)
    return result


def seal_envs(cvm_id: str, arguments: Mapping[str, Any], removal: Removal) -> Flow[tuple[str, list[str]]]:
    """Encrypt ``envs`` to the proven key of a CVM's app. Return the ciphertext (hex) and the names.

    The names keep the CVM's order, since the order is measured.
    """
    environment = read_env_vars(arguments["envs"])
    first_requests = (records.cvm(cvm_id), records.contracts(), records.compose(cvm_id))  # checks the id
    signers = arguments.get("trusted_signers")
    policy = trust.Policy(
        signers=() if signers is None else tuple(parse_signers(signers)),
        kms=arguments.get("kms"),
        app_id=parse_cvm(cvm_id).app_id,
        cloud_root=known.expected_root((yield BaseUrl())),
    )
    removal.check_given(environment)
    cvm, first, compose = yield first_requests
    contracts = yield from trust.all_contracts(first)
    key = yield from trust.prove_key(cvm, contracts, policy)
    today = compose.allowed_envs or ()
    removal.check(cvm.name, today, environment)
    names = ordered(today, environment.names)
    return seal(environment.as_dict().items(), key.public_key).hex(), names


def names_of(arguments: Mapping[str, Any], field: str) -> list[str] | None:
    """Return a list of names, or None if it is missing. Raise InputError for anything else."""
    names = arguments.get(field)
    if names is None:
        return None
    listed: list[Any] = [None] if isinstance(names, str) or not isinstance(names, Iterable) else [*names]
    if not all(isinstance(name, str) for name in listed):
        raise InputError(f"{field} is not a list of names", hint="pass the names in the ciphertext")
    return listed


def hash_of(arguments: Mapping[str, Any], name: str) -> str | None:
    """Return a hash in lower case without ``0x``, or None if it is missing. Raise InputError."""
    text = arguments.get(name)
    return None if text is None else parse_hash(str(text), name)
