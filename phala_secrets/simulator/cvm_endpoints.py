"""The endpoints under ``/cvms``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from phala_secrets.simulator import attestation_shapes, cvm_shapes, operation_shapes
from phala_secrets.simulator.composefile import with_defaults
from phala_secrets.simulator.patches import patch_cvm
from phala_secrets.simulator.routing import Route, page_of, route
from phala_secrets.simulator.stream import Stream
from phala_secrets.simulator.updates import refuse_while_busy, update_envs
from phala_secrets.simulator.versions import has_string_ids, is_legacy
from phala_secrets.simulator.wire import Answer, Request, integer, invalid

if TYPE_CHECKING:
    from phala_secrets.simulator.cloud import Cloud
    from phala_secrets.simulator.operation import Operation

_MOST_ON_A_PAGE = 1_000  # neither the API's excerpt nor the SDKs give a limit


def _list_cvms(cloud: Cloud, request: Request) -> Answer:
    row = cvm_shapes.legacy_row if is_legacy(request) else cvm_shapes.cvm_row
    with cloud.changed:
        return Answer(page_of(request, [row(cvm) for cvm in cloud.cvms], _MOST_ON_A_PAGE))


def _get_cvm(cloud: Cloud, request: Request, reference: str) -> Answer:
    cvm = cloud.find_cvm(reference)
    with cloud.changed:
        return Answer(cvm_shapes.legacy_detail(cvm) if is_legacy(request) else cvm_shapes.cvm_detail(cvm))


def _get_compose_file(cloud: Cloud, _request: Request, reference: str) -> Answer:
    compose = cloud.find_cvm(reference).app_compose
    return Answer(with_defaults(compose) if cloud.compose_file_has_defaults else compose)


def _get_attestation(cloud: Cloud, _request: Request, reference: str) -> Answer:
    cvm = cloud.find_cvm(reference)
    with cloud.changed:
        return Answer(attestation_shapes.attestation(cloud, cvm))


def _get_composition(cloud: Cloud, _request: Request, reference: str) -> Answer:
    cvm = cloud.find_cvm(reference)
    with cloud.changed:
        return Answer(cvm_shapes.composition(cvm))


def _get_state(cloud: Cloud, request: Request, reference: str) -> Answer | Stream:
    cvm = cloud.find_cvm(reference)
    interval = integer(request, "interval", 5, 5, 30)
    timeout = integer(request, "timeout", 300, 10, 600)
    target = request.query.get("target", [""])[-1]
    if target and cloud.streams:
        return Stream(cloud, cvm, target, interval, timeout)
    with cloud.changed:
        return Answer(cvm_shapes.cvm_state(cvm))


def _list_operations(cloud: Cloud, request: Request, reference: str) -> Answer:
    cvm = cloud.find_cvm(reference)
    start = integer(request, "cursor", 0, 0, 1_000_000_000)
    limit = integer(request, "limit", 50, 1, 500)
    after, before = _moment(request, "start_time"), _moment(request, "end_time")
    types = request.query.get("operation_types")
    with cloud.changed:
        operations = [
            operation_shapes.operation(cvm, one)
            for one in reversed(cvm.operations)
            if _is_within(one, after, before) and (types is None or one.operation_type in types)
        ]
    following = start + limit
    return Answer(
        {
            "items": operations[start:following],
            "next_cursor": str(following) if following < len(operations) else None,
            "total": len(operations),
        }
    )


def _moment(request: Request, name: str) -> datetime | None:
    if name not in request.query:
        return None
    try:
        moment = datetime.fromisoformat(request.query[name][-1])
    except ValueError:
        raise invalid(("query", name), "Input should be a valid datetime", "datetime_parsing") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _is_within(one: Operation, after: datetime | None, before: datetime | None) -> bool:
    return (after is None or one.started_at >= after) and (before is None or one.started_at <= before)


def _get_operation_status(cloud: Cloud, _request: Request, reference: str) -> Answer:
    cvm = cloud.find_cvm(reference)
    with cloud.changed:
        return Answer(operation_shapes.operation_status(cvm))


def _update_envs(cloud: Cloud, request: Request, reference: str) -> Answer:
    return update_envs(cloud, cloud.find_cvm(reference), request.body)


def _patch_cvm(cloud: Cloud, request: Request, reference: str) -> Answer:
    return patch_cvm(cloud, cloud.find_cvm(reference), request)


def _start(cloud: Cloud, request: Request, reference: str) -> Answer:
    """Start a CVM; one that runs is left alone, as nobody states what else happens (*inferred*)."""
    cvm = cloud.find_cvm(reference)
    with cloud.changed:
        refuse_while_busy(cvm)
        if cvm.status != "running":
            cvm.begin_operation("start")
        record = cvm_shapes.vm_record(cvm, string_id=has_string_ids(request))
    return Answer(record if cvm.operation is None else {**record, "status": "starting"})


ROUTES: tuple[Route, ...] = (
    route("GET", "cvms/paginated", _list_cvms),
    route("GET", "cvms/*", _get_cvm),
    route("GET", "cvms/*/compose_file", _get_compose_file),
    route("GET", "cvms/*/attestation", _get_attestation),
    route("GET", "cvms/*/composition", _get_composition),
    route("GET", "cvms/*/state", _get_state),
    route("GET", "cvms/*/operations", _list_operations),
    route("GET", "cvms/*/operation-status", _get_operation_status),
    route("PATCH", "cvms/*", _patch_cvm),
    route("PATCH", "cvms/*/envs", _update_envs),
    route("POST", "cvms/*/start", _start),
)
