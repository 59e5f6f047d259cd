"""``PATCH /cvms/{id}/envs``: one step for most apps, two for those whose KMS is a contract."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from phala_secrets.simulator import approval
from phala_secrets.simulator.composefile import new_names
from phala_secrets.simulator.guest import SEALED_OVERHEAD
from phala_secrets.simulator.kms_shapes import kms_node
from phala_secrets.simulator.wire import Answer, RefusalError, invalid

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
        _approve(cloud, cvm, update, names)
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
    try:
        content = json.loads(body)
    except ValueError:
        raise invalid(("body",), "JSON decode error", "json_invalid") from None
    if not isinstance(content, dict):
        raise invalid(("body",), "Input should be a valid dictionary", "model_type")
    if "encrypted_env" not in content:
        raise invalid(("body", "encrypted_env"), "Field required", "missing")
    text = _text(content, "encrypted_env") or ""
    try:
        sealed = bytes.fromhex(text)
    except ValueError:
        raise invalid(("body", "encrypted_env"), "Not a hex string") from None
    empty = takes_empty and text == "" and content["encrypted_env"] is not None
    if not empty and (len(sealed) * 2 != len(text) or len(sealed) <= SEALED_OVERHEAD):
        raise invalid(("body", "encrypted_env"), "Not an encrypted environment")
    names = content.get("env_keys")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise invalid(("body", "env_keys"), "Input should be a valid list of strings", "list_type")
    return _Update(sealed, names, _text(content, "compose_hash"), _text(content, "transaction_hash"))


def _text(content: dict[str, Any], name: str) -> str | None:
    value = content.get(name)
    if value is not None and not isinstance(value, str):
        raise invalid(("body", name), "Input should be a valid string", "string_type")
    return value


def refuse_while_busy(cvm: Cvm) -> None:
    """Raise a 409 without a code while another operation runs."""
    if cvm.operation is not None:
        raise RefusalError(409, "Another operation is in progress for this CVM")


def _approve(cloud: Cloud, cvm: Cvm, update: _Update, names: list[str]) -> None:
    """Raise a 465 that asks for an approval, unless one is shown that holds."""
    if update.compose_hash is None or update.transaction_hash is None:
        raise _precondition(cloud, cvm, names)
    compose_hash = update.compose_hash.removeprefix("0x").lower()
    with cloud.changed:
        pending, expires = cvm.pending.get(compose_hash, ([], cloud.now()))
    if cloud.now() >= expires or pending != names:
        raise approval.refused(466, f"Compose hash {compose_hash} is invalid or expired")
    approval.verify(cloud, cvm, compose_hash, update.transaction_hash)
    with cloud.changed:
        cvm.pending.clear()


def _precondition(cloud: Cloud, cvm: Cvm, names: list[str]) -> RefusalError:
    with cloud.changed:
        compose_hash = cvm.hash_with(names)
        # A newer preparation takes the place of an older one, which is a 466 from now on.
        cvm.pending = {compose_hash: (names, cloud.now() + timedelta(seconds=cloud.approval_seconds))}
    message = "Compose hash registration required"
    asked: dict[str, Any] = {
        "compose_hash": compose_hash,
        "app_id": cvm.app_id,
        "device_id": cvm.device_id,
        "kms_info": kms_node(cvm.kms, cvm.kms.nodes[0]),
    }
    if cloud.flat_preconditions:
        return RefusalError(465, {"message": message, **asked})
    texts = {
        "compose_hash": "Register this compose hash on chain",
        "app_id": "The app's contract",
        "device_id": "The device has to be allowed as well",
        "kms_info": "The KMS of the app",
    }
    details = [{"field": field, "value": value, "message": texts[field]} for field, value in asked.items()]
    return RefusalError(
        465,
        message,
        "ERR-01-005",
        details=details,
        suggestions=["Call addComposeHash, then repeat the request with compose_hash and transaction_hash"],
    )
