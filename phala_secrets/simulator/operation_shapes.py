"""Operations and revisions of a CVM in responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from phala_secrets.simulator.formats import made_up, stamp

if TYPE_CHECKING:
    from phala_secrets.simulator.cvm import Cvm
    from phala_secrets.simulator.operation import Operation, Revision


def operation(cvm: Cvm, one: Operation) -> dict[str, Any]:
    """Return an operation in ``GET /cvms/{id}/operations``."""
    events = [{"event_type": "started", "timestamp": stamp(one.started_at), "state": "in_progress"}]
    duration = None
    if one.completed_at is not None:
        events.append({"event_type": one.status, "timestamp": stamp(one.completed_at), "state": one.status})
        duration = round((one.completed_at - one.started_at).total_seconds() * 1000)
    return {
        "correlation_id": one.correlation_id,
        "operation_type": one.operation_type,
        "target_state": one.target,
        "triggered_by": int(made_up("user", one.triggered_by, 2), 16),
        "triggered_by_username": one.triggered_by,
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
    """Return the body of ``GET /cvms/{id}/operation-status``."""
    operations = cvm.operations
    latest = operations[-1] if operations else None
    return {
        "in_progress": cvm.in_progress,
        "operation": None
        if latest is None
        else {
            "type": latest.operation_type,
            "phase": latest.status,
            "started_at": stamp(latest.started_at),
            "correlation_id": latest.correlation_id,
        },
    }


def revision(cvm: Cvm, one: Revision) -> dict[str, Any]:
    """Return a revision in ``GET /apps/{app_id}/revisions``."""
    return {
        "revision_id": one.revision_id,
        "app_id": cvm.app_id,
        "vm_uuid": cvm.vm_uuid,
        "compose_hash": one.compose_hash,
        "created_at": stamp(one.created_at),
        "trace_id": None,
        "operation_type": one.operation_type,
        "triggered_by": {"object_type": "user", "id": "usr_simulator", "username": one.triggered_by},
        "cvm": {"object_type": "cvm", "vm_uuid": cvm.vm_uuid, "app_id": cvm.app_id, "name": cvm.name},
        "workspace": None,
    }


def revision_detail(cvm: Cvm, one: Revision, *, raw: bool) -> dict[str, Any]:
    """Return one revision with its app-compose (as text if ``raw``) and its ciphertext."""
    return {
        **revision(cvm, one),
        "compose_file": one.measured if raw else one.app_compose,
        "encrypted_env": one.encrypted_env,
        "user_config": "",
    }
