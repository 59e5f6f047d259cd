"""``PATCH /cvms/{id}/envs``: one step for most apps, two for those whose KMS is a contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from phala_secrets.simulator import precondition
from phala_secrets.simulator.composefile import new_names
from phala_secrets.simulator.guest import SEALED_OVERHEAD
from phala_secrets.simulator.operation import Pending
from phala_secrets.simulator.wire import Answer, RefusalError, invalid, object_of

if TYPE_CHECKING:
    from phala_secrets.simulator.cloud import Cloud
    from phala_secrets.simulator.cvm import Cvm


@dataclass(frozen=True, slots=True)
class _Update:
    """The body of the request; ``names`` is ``None`` where they stay as they are."""

    sealed: bytes
    names: list[str] | None
    compose_hash: str | None
    transaction_hash: str | None


def update_envs(cloud: Cloud, cvm: Cvm, body: bytes) -> Answer:
    """Replace the environment of ``cvm``: 202, or a refusal."""
    update = _parse(body, takes_empty=cloud.takes_empty_env)
    with cloud.changed:
        refuse_while_busy(cvm)
        old = cvm.allowed_envs
        names = old if update.names is None else new_names(old, update.names, cloud.allowed_envs_order)
    changed = names != old  # their order is measured as well
    if changed and cvm.kms.is_on_chain:
        changes = {"allowed_envs": names}
        if update.compose_hash is None or update.transaction_hash is None:
            raise precondition.ask(cloud, cvm, Pending(changes, update.sealed, precondition.expiry(cloud)))
        waiting = precondition.waiting(cloud, cvm, update.compose_hash)
        if waiting.changes != changes:
            raise precondition.unknown(update.compose_hash)
        precondition.settle(cloud, cvm, update.compose_hash, update.transaction_hash)
    with cloud.changed:
        refuse_while_busy(cvm)
        operation = cvm.update(update.sealed, names)
    return Answer(
        {
            "status": "in_progress",
            "message": "Environment update initiated",
            "correlation_id": operation.correlation_id,
            "allowed_envs_changed": changed,
        },
        202,
    )


def _parse(body: bytes, *, takes_empty: bool) -> _Update:
    content = object_of(body)
    if "encrypted_env" not in content:
        raise invalid(("body", "encrypted_env"), "Field required", "missing")
    empty = takes_empty and content["encrypted_env"] == ""
    return _Update(
        sealed=b"" if empty else sealed_of(content),
        names=names_of(content, "env_keys"),
        compose_hash=text_of(content, "compose_hash"),
        transaction_hash=text_of(content, "transaction_hash"),
    )


def sealed_of(content: dict[str, Any]) -> bytes:
    """Return the ciphertext of a body, or raise a 422."""
    text = text_of(content, "encrypted_env") or ""
    try:
        sealed = bytes.fromhex(text)
    except ValueError:
        raise invalid(("body", "encrypted_env"), "Not a hex string") from None
    if len(sealed) * 2 != len(text) or len(sealed) <= SEALED_OVERHEAD:
        raise invalid(("body", "encrypted_env"), "Not an encrypted environment")
    return sealed


def names_of(content: dict[str, Any], field: str) -> list[str] | None:
    """Return the names of a body, or None without any. Raise a 422 for anything but a list of names."""
    names = content.get(field)
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise invalid(("body", field), "Input should be a valid list of strings", "list_type")
    return names


def text_of(content: dict[str, Any], name: str) -> str | None:
    """Return a text of a body, or None without one. Raise a 422 for anything else."""
    value = content.get(name)
    if value is not None and not isinstance(value, str):
        raise invalid(("body", name), "Input should be a valid string", "string_type")
    return value


def refuse_while_busy(cvm: Cvm) -> None:
    """Raise a 409 without a code while another operation runs."""
    if cvm.operation is not None:
        raise RefusalError(409, "Another operation is in progress for this CVM")
