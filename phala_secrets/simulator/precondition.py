"""A 465: what must be registered on chain first, and the update that waits for it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from phala_secrets.simulator import approval
from phala_secrets.simulator.kms_shapes import kms_node
from phala_secrets.simulator.wire import RefusalError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from phala_secrets.simulator.cloud import Cloud
    from phala_secrets.simulator.cvm import Cvm
    from phala_secrets.simulator.operation import Pending

_TEXTS = {
    "compose_hash": "Register this compose hash on chain",
    "app_id": "The app's contract",
    "device_id": "The device has to be allowed as well",
    "kms_info": "The KMS of the app",
}


def expiry(cloud: Cloud) -> datetime:
    """Return when an update requested now expires."""
    return cloud.now() + timedelta(seconds=cloud.approval_seconds)


def ask(cloud: Cloud, cvm: Cvm, update: Pending, more: Mapping[str, Any] | None = None) -> RefusalError:
    """Make an update wait for its approval. Return the 465, whose details include ``more``."""
    with cloud.changed:
        compose_hash = cvm.hash_with(**{"allowed_envs": cvm.allowed_envs, **update.changes})
        # A newer preparation takes the place of an older one, which is a 466 from now on.
        cvm.pending = {compose_hash: update}
    message = "Compose hash registration required"
    asked: dict[str, Any] = {
        "compose_hash": compose_hash,
        "app_id": cvm.app_id,
        "device_id": cvm.device_id,
        "kms_info": kms_node(cvm.kms, cvm.kms.nodes[0]),
        **(more or {}),
    }
    if cloud.flat_preconditions:
        return RefusalError(465, {"message": message, **asked})
    details = [
        {"field": field, "value": value, "message": _TEXTS.get(field, "")} for field, value in asked.items()
    ]
    return RefusalError(
        465,
        message,
        "ERR-01-005",
        details=details,
        suggestions=["Call addComposeHash, then repeat the request with compose_hash and transaction_hash"],
    )


def waiting(cloud: Cloud, cvm: Cvm, compose_hash: str) -> Pending:
    """Return the update that waits with this hash. Raise a 466 if it is missing or expired."""
    with cloud.changed:
        update = cvm.pending.get(_bare(compose_hash))
    if update is None or cloud.now() >= update.expires:
        raise unknown(compose_hash)
    return update


def settle(cloud: Cloud, cvm: Cvm, compose_hash: str, transaction_hash: str) -> None:
    """Verify the approval of the hash, or raise a 467 or 468. Then it waits no longer."""
    approval.verify(cloud, cvm, _bare(compose_hash), transaction_hash)
    with cloud.changed:
        cvm.pending.clear()


def unknown(compose_hash: str) -> RefusalError:
    """Return the 466 for a hash that nothing waits with."""
    return approval.refused(466, f"Compose hash {_bare(compose_hash)} is invalid or expired")


def _bare(compose_hash: str) -> str:
    return compose_hash.removeprefix("0x").lower()
