"""The methods of both clients that change a CVM, and those that wait for one. They are like ``methods``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

from phala_secrets.cloud import known, readers, records, requests, trust
from phala_secrets.cloud import wait as waiting
from phala_secrets.cloud.arguments import Arguments, merged, required, whole
from phala_secrets.cloud.call import BaseUrl
from phala_secrets.cloud.committed import confirm
from phala_secrets.cloud.ids import parse_cvm
from phala_secrets.cloud.refusals import is_busy
from phala_secrets.cloud.removal import Removal
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
    """``POST /cvms/{id}/start``: start a CVM that is stopped; ``wait_for_cvm`` waits until it runs.

    ``id`` and errors are those of ``get_cvm_info``. ConflictError without an ``error_code`` is raised
    while another operation runs. Is never sent twice.
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
    """Wait until an operation is over and the CVM runs, and return the CVM.

    ``correlation_id`` is that of an update; without it the operation counts that runs at first.
    ``timeout`` is in seconds, 1 to 86400 (600).

    Raises InputError before anything is sent, BootError when the operation or the boot failed,
    WaitTimeoutError when the time is up, and ApiError when Phala Cloud refuses.
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
    """Return how many seconds to wait; raise InputError for another number."""
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
    """``PATCH /cvms/{id}/envs``: replaces the CVM's whole environment and restarts it.

    ``id`` is a name, ``cvm_…`` id, UUID, app id or ``instance_…``. Either ``encrypted_env``
    (hex, of ``encrypt_env_vars``) with its names in ``env_keys``; or ``envs``, plain values in
    any of the shapes of ``encrypt_env_vars``, which are encrypted here: the app's key is fetched
    (from ``kms``, a slug or id, instead of the CVM's own) and proven, and its signer compared
    with ``trusted_signers``, one or several secp256k1 keys as SEC1 hex; without these with the
    root that the API publishes, which is as good as the API; with the default API the Cloud KMS
    has to have its published root. ``envs`` that lack a variable of the CVM are refused, unless
    ``allow_removal`` is true; with ``"all"`` they may be empty, too. ``compose_hash`` and
    ``transaction_hash`` (hex) are for the second phase, after an approval on chain. With ``wait``
    an operation in the way is waited for, then ``envs`` are encrypted anew, and it returns when the
    CVM runs with them: ``timeout`` seconds each, 1 to 86400 (600).

    Returns UpdateCvmEnvsInProgress (202) or, when the compose hash has to be approved first,
    UpdateCvmEnvsPreconditionRequired (465), which changed nothing and has the ciphertext for the second
    phase. There AnswerError means that another run's may have been committed. Raises InputError and
    DeliveryError (the guest would refuse ``envs``, or the CVM would lose a variable) before the update
    is sent, ProofError when the key is not proven, then ApiError or TransportError; with ``wait`` also
    BootError and WaitTimeoutError. Is sent again only where the CVM was busy or the rate limited.
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
            "give either envs or encrypted_env", hint="envs are plain values, encrypted_env is hex"
        )
    names = names_of(arguments, "env_keys")
    second_phase = (hash_of(arguments, "compose_hash"), arguments.get("transaction_hash"))
    sealed = arguments.get("encrypted_env")
    if sealed is not None:
        sealed = parse_sealed(str(sealed), "encrypted_env")
        check_sealed(sealed)
    elif names is not None:
        raise InputError("env_keys go with encrypted_env", hint="leave them out: envs have their own names")

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

    ``committed`` is the ciphertext that a call commits, or nothing: a revision has to hold it then.
    With ``wait``, in seconds for each, an operation in the way is waited for, and the change itself.
    ``prepare`` is asked anew after another operation, since what it saw before may be old.
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
    """Encrypt ``envs`` to the proven key of a CVM's app. Return the ciphertext as hex, and the names.

    The names come in the order that the CVM has, since their order is measured.
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
    """Return a list of names, or None where it is not given; raise InputError for anything else."""
    names = arguments.get(field)
    if names is None:
        return None
    listed: list[Any] = [None] if isinstance(names, str) or not isinstance(names, Iterable) else [*names]
    if not all(isinstance(name, str) for name in listed):
        raise InputError(f"{field} has to be a list of names", hint="pass the names that were encrypted")
    return listed


def hash_of(arguments: Mapping[str, Any], name: str) -> str | None:
    """Return a hash in lower case without ``0x``, or None where it is not given; raise InputError."""
    text = arguments.get(name)
    return None if text is None else parse_hash(str(text), name)
