"""An app in responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phala_secrets.simulator.approval import Registry
    from phala_secrets.simulator.cvm import Cvm


def app_kms(cvm: Cvm) -> dict[str, Any]:
    """Return the body of ``GET /apps/{app_id}/kms-info``."""
    if not cvm.kms.is_on_chain:
        return {"is_onchain_kms": False, "is_contract": False}
    contract = cvm.deployer_type != "eoa"
    owner = cvm.identity.deployer_address
    return {
        "is_onchain_kms": True,
        "chain_id": cvm.kms.chain_id,
        "kms_contract_address": cvm.kms.contract_address,
        "app_contract_address": f"0x{cvm.app_id}",
        "deployer_address": owner,
        "deployer_type": cvm.deployer_type,
        "is_contract": contract,
        "safe_app_url": f"https://safe.invalid/home?safe={owner}" if cvm.deployer_type == "safe" else None,
    }


def is_allowed(cvm: Cvm, compose_hash: str, device_id: str, registry: Registry) -> dict[str, Any]:
    """Return the body of ``POST /apps/{app_id}/is-allowed``: the verdict of the app's contract."""
    any_device = registry.allows_any_device()
    device = None if any_device else registry.allows_device(device_id)
    hash_allowed = registry.allows_hash(compose_hash)
    return {
        "app_contract_address": f"0x{cvm.app_id}",
        "compose_hash": compose_hash,
        "device_id": device_id,
        "compose_hash_allowed": hash_allowed,
        "allow_any_device": any_device,
        "device_id_allowed": device,
        "is_allowed": hash_allowed and (any_device or bool(device)),
        "error": None,
    }
