"""A CVM in responses, by version of the API."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from phala_secrets.simulator.cvm import GATEWAY
from phala_secrets.simulator.formats import made_up, stamp
from phala_secrets.simulator.kms_shapes import kms_node

if TYPE_CHECKING:
    from phala_secrets.simulator.containers import Container
    from phala_secrets.simulator.cvm import Cvm

CREATED_AT = "2026-06-01T00:00:00+00:00"


def cvm_detail(cvm: Cvm) -> dict[str, Any]:
    """Return the body of ``GET /cvms/{id}`` from 2026-01-21."""
    return {**cvm_row(cvm), "compose_file": None}


def cvm_row(cvm: Cvm) -> dict[str, Any]:
    """Return a CVM in a list, from 2026-01-21."""
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
            "device_ids": [asdict(device) for device in cvm.devices],
            "ppid": None,
            "status": "ONLINE",
            "version": "v0.5.8",
        },
        "os": {
            "name": f"dstack-{cvm.os_version}",
            "version": cvm.os_version,
            "is_dev": False,
            "os_image_hash": made_up("os", "image", 32),
        },
        "kms_type": cvm.kms.kms_type,
        "kms_info": _cvm_kms(cvm),
        "status": cvm.status,
        "in_progress": operation is not None,
        "progress": None
        if operation is None
        else {
            "target": operation.target,
            "started_at": stamp(operation.started_at),
            "correlation_id": operation.correlation_id,
        },
        "compose_hash": cvm.compose_hash,
        "docker_compose_hash": hashlib.sha256(str(compose["docker_compose_file"]).encode()).hexdigest(),
        "pre_launch_script_hash": None,
        "gateway": {"base_domain": GATEWAY, "cname": None},
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
        "created_at": CREATED_AT,
        "deleted_at": None,
        "listed": False,
        "project_type": None,
    }


def legacy_detail(cvm: Cvm) -> dict[str, Any]:
    """Return the body of ``GET /cvms/{id}`` of 2025-10-28."""
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
        "base_image": f"dstack-{cvm.os_version}",
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
        "gateway_domain": GATEWAY,
    }


def legacy_row(cvm: Cvm) -> dict[str, Any]:
    """Return a CVM in a list of 2025-10-28."""
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
            "image_version": f"dstack-{cvm.os_version}",
            "events": [],
        },
        "managed_user": {"id": 1, "username": "simulator"},
        "node": detail["teepod"],
        "allow_upgrade": False,
        "billing_period": "hourly",
    }


def cvm_state(cvm: Cvm) -> dict[str, Any]:
    """Return the body of ``GET /cvms/{id}/state`` without unknown fields."""
    status = cvm.status
    state: dict[str, Any] = {
        "id": cvm.vm_uuid,
        "instance_id": cvm.instance_id,
        "name": cvm.name,
        "status": status,
    }
    if status == "running":
        state |= {"uptime": _uptime(cvm), "boot_progress": "done"}
    elif status in ("restarting", "starting"):
        state |= {"boot_progress": "booting"}
    elif status != "stopping":
        state |= {"exited_at": stamp(cvm.exited_at), "boot_error": cvm.boot_error}
    return state


def vm_record(cvm: Cvm, *, string_id: bool) -> dict[str, Any]:
    """Return the body of the routes that start and stop a CVM. Older versions have a number as ``id``."""
    detail = legacy_detail(cvm)
    kept = "name status teepod_id teepod app_id vm_uuid instance_id base_image vcpu memory disk_size"
    compose = cvm.app_compose
    return {
        "id": cvm.id if string_id else detail["id"],
        **{key: detail[key] for key in kept.split()},
        "user_id": "usr_simulator" if string_id else 1,
        "app_url": None,
        "manifest_version": compose["manifest_version"],
        "version": None,
        "runner": compose["runner"],
        "docker_compose_file": compose["docker_compose_file"],
        "features": compose["features"],
        "created_at": CREATED_AT,
        "encrypted_env_pubkey": detail["encrypted_env_pubkey"],
    }


def composition(cvm: Cvm) -> dict[str, Any]:
    """Return the body of ``GET /cvms/{id}/composition`` (``get_cvm_containers_stats.ts`` of the SDK)."""
    compose = cvm.app_compose
    online = cvm.is_online
    containers = cvm.look_at_containers() if online else None
    return {
        "is_online": online,
        "is_public": compose["public_sysinfo"],
        "error": None if online else "The CVM is not online",
        "docker_compose_file": compose["docker_compose_file"],
        "manifest_version": compose["manifest_version"],
        "version": None,
        "runner": compose["runner"],
        "features": compose["features"],
        "containers": None if containers is None else [_container(cvm, one) for one in containers],
    }


def _container(cvm: Cvm, one: Container) -> dict[str, Any]:
    return {
        "id": made_up("container", f"{cvm.id} {one.name}", 32),
        "names": [f"/{one.name}"],
        "image": one.image,
        "image_id": "sha256:" + made_up("image", one.image, 32),
        "command": None,
        "created": 1_790_000_000,
        "state": one.state,
        "status": one.status(cvm.uptime),
        "log_endpoint": None,
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
        "app": f"https://{cvm.app_id}-8080.{GATEWAY}",
        "instance": f"https://{cvm.instance_id}-8080.{GATEWAY}",
    }


def _uptime(cvm: Cvm) -> str:
    return f"{int(cvm.uptime)}s"
