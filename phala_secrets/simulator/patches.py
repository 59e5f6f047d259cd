"""``PATCH /cvms/{id}``: compose file, names and environment at once, in one operation with one restart.

Only what is present in the body applies. For an app whose KMS is a contract, a change of the compose
hash takes two requests: the second has an empty body, and the approval in its headers.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from phala_secrets.simulator import approval, precondition
from phala_secrets.simulator.composefile import new_names
from phala_secrets.simulator.operation import Pending
from phala_secrets.simulator.updates import (
    names_of,
    refuse_while_busy,
    sealed_of,
    text_of,
)
from phala_secrets.simulator.wire import Answer, RefusalError, Request, invalid, object_of

if TYPE_CHECKING:
    from phala_secrets.simulator.cloud import Cloud
    from phala_secrets.simulator.cvm import Cvm

MOST_BYTES = 200 * 1024
"""Bytes of compose file and pre-launch script together."""

_TEXTS = ("docker_compose_file", "pre_launch_script")
_SWITCHES = ("public_logs", "public_sysinfo", "public_tcbinfo")
_KNOWN = (*_TEXTS, *_SWITCHES, "allowed_envs", "encrypted_env")


def patch_cvm(cloud: Cloud, cvm: Cvm, request: Request) -> Answer:
    """Change ``cvm``: 202, or a refusal."""
    shown = [request.headers.get(name, "") for name in ("x-compose-hash", "x-transaction-hash")]
    with cloud.changed:
        refuse_while_busy(cvm)
    if any(shown):
        update = _committed(cloud, cvm, request, *shown)
    else:
        with cloud.changed:
            update = _parse(cloud, cvm, request.body)
            changed = _hash_with(cvm, update) != cvm.compose_hash
        if changed and cvm.kms.is_on_chain:
            prepare_only = request.headers.get("x-prepare-only", "").lower() == "true"
            raise precondition.ask(cloud, cvm, update, _more(cloud, cvm, update, prepare_only=prepare_only))
    with cloud.changed:
        refuse_while_busy(cvm)
        operation = cvm.change(update.changes, update.sealed, "update_cvm")
    return Answer({"correlation_id": operation.correlation_id}, 202)


def _committed(cloud: Cloud, cvm: Cvm, request: Request, compose_hash: str, transaction_hash: str) -> Pending:
    if request.body and object_of(request.body):
        raise RefusalError(400, "The second phase takes an empty body")  # inferred: so it is documented
    update = precondition.waiting(cloud, cvm, compose_hash)
    precondition.settle(cloud, cvm, compose_hash, transaction_hash)
    return update


def _parse(cloud: Cloud, cvm: Cvm, body: bytes) -> Pending:
    content = {name: value for name, value in object_of(body).items() if value is not None}
    for name in content:
        if name not in _KNOWN:
            raise invalid(("body", name), "A simulated CVM has nothing of the kind")
    changes: dict[str, Any] = {name: text_of(content, name) for name in _TEXTS if name in content}
    for name in _SWITCHES:
        if name in content:
            if not isinstance(content[name], bool):
                raise invalid(("body", name), "Input should be a valid boolean", "bool_type")
            changes[name] = content[name]
    names = names_of(content, "allowed_envs")
    if names is not None:
        changes["allowed_envs"] = new_names(cvm.allowed_envs, names, cloud.allowed_envs_order)
    sealed = sealed_of(content) if "encrypted_env" in content else None
    if not changes and sealed is None:
        raise RefusalError(400, "No fields to update")  # inferred: nothing says what happens
    both = (str({**cvm.app_compose, **changes}.get(name) or "") for name in _TEXTS)
    if sum(len(text.encode()) for text in both) > MOST_BYTES:
        raise invalid(("body", "docker_compose_file"), f"At most {MOST_BYTES} bytes with the script")
    return Pending(changes, sealed, precondition.expiry(cloud))


def _hash_with(cvm: Cvm, update: Pending) -> str:
    return cvm.hash_with(**{"allowed_envs": cvm.allowed_envs, **update.changes})


def _more(cloud: Cloud, cvm: Cvm, update: Pending, *, prepare_only: bool) -> dict[str, Any]:
    """Return the extra details of this route's 465: the chain's state and the commit credentials."""
    registry = approval.ask(cloud, cvm)
    hash_allowed = registry.allows_hash(_hash_with(cvm, update))
    device_allowed = registry.allows_any_device() or registry.allows_device(cvm.device_id)
    status = {
        "compose_hash_allowed": hash_allowed,
        "device_id_allowed": device_allowed,
        "is_allowed": hash_allowed and device_allowed,
    }
    if not (prepare_only or cloud.commit_tokens_unasked):
        return {"onchain_status": status}
    token = f"ct_{uuid.uuid4().hex}"
    path = f"cvms/{cvm.id}/commit-update?token={token}"
    return {
        "commit_token": token,
        "commit_url": f"https://cloud.invalid/{path}",
        "api_commit_url": f"https://cloud-api.invalid/api/v1/{path}",
        "onchain_status": status,
    }
