"""A KMS in responses: up to 2026-05-22 a node, from 2026-06-23 a contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from phala_secrets.simulator.formats import made_up
from phala_secrets.simulator.generations import DEFAULT_OS

if TYPE_CHECKING:
    from phala_secrets.simulator.kms import Kms, KmsNode

CHAINS = {"phala": 0, "ethereum": 1, "base": 8453, "anvil": 31337}


def kms_node(kms: Kms, node: KmsNode) -> dict[str, Any]:
    """Return a KMS up to 2026-05-22: one of its nodes."""
    return {
        "id": node.id,
        "slug": node.slug,
        "url": node.url,
        "version": kms.version,
        "chain_id": kms.chain_id if kms.is_on_chain else None,
        "kms_contract_address": kms.contract_address if kms.is_on_chain else None,
        "gateway_app_id": made_up("gateway", kms.slug, 20),
    }


def kms_contract(kms: Kms) -> dict[str, Any]:
    """Return a KMS from 2026-06-23: a contract with the root's public key."""
    return {
        "id": kms.id,
        "slug": kms.slug,
        "label": kms.label,
        "contract_address": kms.contract_address,
        "chain_id": kms.chain_id,
        "k256_pubkey": kms.root_public_key,
        "ca_pubkey": kms.ca_public_key,
        "node_count": len(kms.nodes),
    }


def kms_contract_node(kms: Kms, node: KmsNode) -> dict[str, Any]:
    """Return a node in the list of a contract's nodes."""
    return {
        "id": node.id,
        "slug": node.slug,
        "url": node.url,
        "version": kms.version,
        "kms_type": kms.kms_type,
    }


def kms_inspection(kms: Kms, node: KmsNode) -> dict[str, Any]:
    """Return a node's report about itself."""
    contract = kms_node(kms, node)
    return {
        "id": node.id,
        "slug": node.slug,
        "endpoint": node.url,
        "kms_type": kms.kms_type,
        "db_version": kms.version,
        "rpc": {
            "version": kms.version,
            "is_dev": False,
            "chain_id": contract["chain_id"],
            "kms_contract_address": contract["kms_contract_address"],
            "gateway_app_id": contract["gateway_app_id"],
            "bootstrap_info": {
                "k256_pubkey": kms.root_public_key,
                "ca_pubkey": kms.ca_public_key,
                "quote_length": 0,
                "eventlog_length": 0,
            },
            "version_synced": True,
        },
        "rpc_error": None,
        "guest_agent": None,
        "guest_agent_error": None,
        "teepods": [],
        "on_chain": None,
    }


def on_chain_contract(kms: Kms, chain_name: str, devices: list[str]) -> dict[str, Any]:
    """Return a contract in the detail of a chain. ``devices`` are the ids of its machines."""
    return {
        "contract_address": kms.contract_address,
        "chain_id": kms.chain_id,
        "chain_name": chain_name,
        "k256_pubkey": kms.root_public_key,
        "ca_pubkey": kms.ca_public_key,
        "devices": [
            {"device_id": device, "node_name": "prod1", "on_chain_allowed": True} for device in devices
        ],
        "os_images": [
            {
                "name": f"dstack-{DEFAULT_OS}",
                "version": DEFAULT_OS,
                "os_image_hash": made_up("os", "image", 32),
                "on_chain_allowed": True,
            }
        ],
    }
