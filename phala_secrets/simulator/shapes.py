"""What a CVM and a KMS look like in answers, by version of the API."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from phala_secrets.simulator.cvm import Cvm, Operation
    from phala_secrets.simulator.kms import Kms, KmsNode

LEGACY = "2025-10-28"
CONTRACTS_SINCE = "2026-06-23"
VERSIONS = (LEGACY, "2026-01-21", "2026-05-22", CONTRACTS_SINCE)

CHAINS = {"phala": 0, "ethereum": 1, "base": 8453, "anvil": 31337}
_GATEWAY = "gateway.invalid"
_OS = {"name": "dstack-0.5.8", "version": "0.5.8"}


def stamp(moment: datetime | None) -> str | None:
    """ISO 8601, or ``None``."""
    return None if moment is None else moment.isoformat()


def kms_node(kms: Kms, node: KmsNode) -> dict[str, Any]:
    """A KMS up to 2026-05-22: one of its nodes."""
    return {
        "id": node.id,
        "slug": node.slug,
        "url": node.url,
        "version": kms.version,
        "chain_id": kms.chain_id if kms.is_on_chain else None,
        "kms_contract_address": kms.contract_address if kms.is_on_chain else None,
        "gateway_app_id": _hex("gateway", kms.slug, 20),
    }


def kms_contract(kms: Kms) -> dict[str, Any]:
    """A KMS from 2026-06-23: a contract, with the root's public key."""
    return {
        "id": kms.id,
        "slug": kms.slug,
        "label": kms.label,
        "contract_address": kms.contract_address,
        "chain_id": kms.chain_id,
        "k256_pubkey": kms.root_public_key,
        "ca_pubkey": _hex("ca", kms.slug, 32),
        "node_count": len(kms.nodes),
    }


def kms_contract_node(kms: Kms, node: KmsNode) -> dict[str, Any]:
    """A node in the list of a contract's nodes."""
    return {
        "id": node.id,
        "slug": node.slug,
        "url": node.url,
        "version": kms.version,
        "kms_type": kms.kms_type,
    }


def kms_inspection(kms: Kms, node: KmsNode) -> dict[str, Any]:
    """What a node says of itself."""
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
                "ca_pubkey": _hex("ca", kms.slug, 32),
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
    """A contract in the detail of a chain; ``devices`` are the ids of its machines."""
    return {
        "contract_address": kms.contract_address,
        "chain_id": kms.chain_id,
        "chain_name": chain_name,
        "k256_pubkey": kms.root_public_key,
        "ca_pubkey": _hex("ca", kms.slug, 32),
        "devices": [
            {"device_id": device, "node_name": "prod1", "on_chain_allowed": True} for device in devices
        ],
        "os_images": [{**_OS, "os_image_hash": _hex("os", "image", 32), "on_chain_allowed": True}],
    }


def cvm_detail(cvm: Cvm) -> dict[str, Any]:
    """``GET /cvms/{id}`` from 2026-01-21."""
    return {**cvm_row(cvm), "compose_file": None}


def cvm_row(cvm: Cvm) -> dict[str, Any]:
    """A CVM in a list, from 2026-01-21."""
    operation = cvm.operation if cvm.in_progress else None
    compose = cvm.app_compose
    return {
        "id": cvm.id,
        "name": cvm.name,
        "app_id": cvm.app_id,
        "vm_uuid": cvm.vm_uuid,
        "instance_id": cvm.instance_id,
        "resource": {
            "instance_type": "tdx.small",
            "vcpu": 1,
            "memory_in_gb": 2.0,
            "disk_in_gb": 20,
            "gpus": 0,
            "compute_billing_price": "0.058",
            "billing_period": "hourly",
        },
        "node_info": {
            "object_type": "node",
            "id": 1,
            "node_id": 1,
            "name": "prod1",
            "region": "US-WEST-1",
            "device_id": cvm.device_id,
            "ppid": None,
            "status": "ONLINE",
            "version": "v0.5.8",
        },
        "os": {**_OS, "is_dev": False, "os_image_hash": _hex("os", "image", 32)},
        "kms_type": cvm.kms.kms_type,
        "kms_info": _cvm_kms(cvm),
        "status": cvm.status,
        "in_progress": operation is not None,
        "progress": None
        if operation is None
        else {
            "target": "running",
            "started_at": stamp(operation.started_at),
            "correlation_id": operation.correlation_id,
        },
        "compose_hash": cvm.compose_hash,
        "docker_compose_hash": hashlib.sha256(str(compose["docker_compose_file"]).encode()).hexdigest(),
        "pre_launch_script_hash": None,
        "gateway": {"base_domain": _GATEWAY, "cname": None},
        "logs": {"serial": None, "stdout": None, "stderr": None, "container_log_base": None},
        "services": [],
        "endpoints": [_urls(cvm)],
        "public_logs": compose["public_logs"],
        "public_sysinfo": compose["public_sysinfo"],
        "public_tcbinfo": compose["public_tcbinfo"],
        "gateway_enabled": compose["gateway_enabled"],
        "secure_time": compose["secure_time"],
        "storage_fs": compose["storage_fs"],
        "workspace": {"object_type": "workspace", "id": "wks_simulator", "name": "Simulator", "slug": "sim"},
        "creator": {"object_type": "user", "id": "usr_simulator", "username": "simulator"},
        "created_at": "2026-06-01T00:00:00+00:00",
        "deleted_at": None,
        "listed": False,
        "project_type": None,
    }


def legacy_detail(cvm: Cvm) -> dict[str, Any]:
    """``GET /cvms/{id}`` of 2025-10-28."""
    return {
        "id": cvm.identity.number,
        "teepod_id": 1,
        "teepod": {"id": 1, "name": "prod1", "region_identifier": "us-west-1"},
        "name": cvm.name,
        "status": cvm.status,
        "in_progress": cvm.in_progress,
        "app_id": cvm.app_id,
        "vm_uuid": cvm.vm_uuid,
        "instance_id": cvm.instance_id,
        "vcpu": 1,
        "memory": 2048,
        "disk_size": 20,
        "base_image": "dstack-0.5.8",
        "encrypted_env_pubkey": cvm.kms.app_public_key(cvm.app_id),
        "listed": False,
        "project_id": None,
        "project_type": None,
        "instance_type": "tdx.small",
        "public_sysinfo": True,
        "public_logs": True,
        "dapp_dashboard_url": None,
        "syslog_endpoint": None,
        "kms_info": kms_node(cvm.kms, cvm.kms.nodes[0]),
        "contract_address": f"0x{cvm.app_id}" if cvm.kms.is_on_chain else None,
        "deployer_address": cvm.identity.deployer_address if cvm.kms.is_on_chain else None,
        "scheduled_delete_at": None,
        "public_urls": [_urls(cvm)],
        "gateway_domain": _GATEWAY,
    }


def legacy_row(cvm: Cvm) -> dict[str, Any]:
    """A CVM in a list of 2025-10-28."""
    detail = legacy_detail(cvm)
    kept = (
        "name status in_progress listed dapp_dashboard_url syslog_endpoint project_id project_type kms_info "
        "contract_address deployer_address vcpu memory disk_size gateway_domain public_urls"
    )
    return {
        **{key: detail[key] for key in kept.split()},
        "hosted": {
            **dict.fromkeys(("exited_at", "boot_progress", "boot_error", "shutdown_progress")),
            **cvm_state(cvm),
            "uptime": _uptime(cvm),
            "app_url": None,
            "app_id": cvm.app_id,
            "image_version": "dstack-0.5.8",
            "events": [],
        },
        "managed_user": {"id": 1, "username": "simulator"},
        "node": detail["teepod"],
        "allow_upgrade": False,
        "billing_period": "hourly",
    }


def cvm_state(cvm: Cvm) -> dict[str, Any]:
    """``GET /cvms/{id}/state``: what is not known is left out."""
    status = cvm.status
    state: dict[str, Any] = {
        "id": cvm.vm_uuid,
        "instance_id": cvm.instance_id,
        "name": cvm.name,
        "status": status,
    }
    if status == "running":
        state |= {"uptime": _uptime(cvm), "boot_progress": "done"}
    elif status == "restarting":
        state |= {"boot_progress": "booting"}
    else:
        state |= {"exited_at": stamp(cvm.exited_at), "boot_error": cvm.boot_error}
    return state


def operation(cvm: Cvm, one: Operation) -> dict[str, Any]:
    """An operation in ``GET /cvms/{id}/operations``."""
    events = [{"event_type": "started", "timestamp": stamp(one.started_at), "state": "in_progress"}]
    duration = None
    if one.completed_at is not None:
        events.append({"event_type": one.status, "timestamp": stamp(one.completed_at), "state": one.status})
        duration = round((one.completed_at - one.started_at).total_seconds() * 1000)
    return {
        "correlation_id": one.correlation_id,
        "operation_type": "update_envs",
        "target_state": "running",
        "triggered_by": 1,
        "triggered_by_username": "simulator",
        "triggered_by_email": None,
        "started_at": stamp(one.started_at),
        "completed_at": stamp(one.completed_at),
        "duration_ms": duration,
        "status": one.status,
        "error_message": one.error_message,
        "sub_operations": [],
        "events": events,
        "instance_name": cvm.name,
        "compose_hash": one.compose_hash,
    }


def operation_status(cvm: Cvm) -> dict[str, Any]:
    """``GET /cvms/{id}/operation-status``."""
    operations = cvm.operations
    latest = operations[-1] if operations else None
    return {
        "in_progress": cvm.in_progress,
        "operation": None
        if latest is None
        else {
            "type": "update_envs",
            "phase": latest.status,
            "started_at": stamp(latest.started_at),
            "correlation_id": latest.correlation_id,
        },
    }


def app_kms(cvm: Cvm) -> dict[str, Any]:
    """``GET /apps/{app_id}/kms-info``."""
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


def _cvm_kms(cvm: Cvm) -> dict[str, Any]:
    kms = cvm.kms
    return {
        "chain_id": kms.chain_id if kms.is_on_chain else None,
        "dstack_kms_address": kms.contract_address if kms.is_on_chain else None,
        "dstack_app_address": f"0x{cvm.app_id}" if kms.is_on_chain else None,
        "deployer_address": cvm.identity.deployer_address if kms.is_on_chain else None,
        "rpc_endpoint": None,
        "encrypted_env_pubkey": kms.app_public_key(cvm.app_id),
        "k256_pubkey": kms.root_public_key,
    }


def _urls(cvm: Cvm) -> dict[str, str]:
    return {
        "app": f"https://{cvm.app_id}-8080.{_GATEWAY}",
        "instance": f"https://{cvm.instance_id}-8080.{_GATEWAY}",
    }


def _uptime(cvm: Cvm) -> str:
    return f"{int(time.monotonic() - cvm.started)}s"


def _hex(purpose: str, name: str, length: int) -> str:
    return hashlib.sha256(f"{purpose} {name}".encode()).hexdigest()[: 2 * length]
