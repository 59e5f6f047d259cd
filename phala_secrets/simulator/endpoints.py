"""The endpoints: each a function of the cloud, a request and what its path names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote

from phala_secrets.simulator import shapes
from phala_secrets.simulator.stream import Stream
from phala_secrets.simulator.updates import update_envs
from phala_secrets.simulator.wire import Answer, RefusalError, Request, boolean, integer, invalid

if TYPE_CHECKING:
    from phala_secrets.simulator.cloud import Cloud
    from phala_secrets.simulator.cvm import Cvm, Operation

_Endpoint = Callable[..., Answer | Stream]
_Route = tuple[str, list[str], _Endpoint]
_APP_ID = re.compile(r"(?:0x)?([0-9a-f]{40})", re.IGNORECASE)


def respond(cloud: Cloud, request: Request) -> Answer | Stream:
    """Carry a request out; raises `RefusalError`."""
    cloud.admit(request)
    if _version(request) not in shapes.VERSIONS:
        raise RefusalError(400, f"Unsupported API version; one of {', '.join(shapes.VERSIONS)}")
    segments = [unquote(segment) for segment in request.path.strip("/").split("/")]
    known_path = False
    for method, pattern, endpoint in _ROUTES:
        captured = _capture(pattern, segments)
        if captured is None:
            continue
        known_path = True
        if method == request.method:
            return endpoint(cloud, request, *captured)
    raise RefusalError(405, "Method Not Allowed") if known_path else RefusalError(404, "Not Found")


def _capture(pattern: Sequence[str], segments: Sequence[str]) -> list[str] | None:
    if len(pattern) != len(segments):
        return None
    pairs = list(zip(pattern, segments, strict=True))
    if any(part not in ("*", segment) for part, segment in pairs):
        return None
    return [segment for part, segment in pairs if part == "*"]


def _version(request: Request) -> str:
    """The version asked for; without the header the oldest."""
    return request.headers.get("x-phala-version", shapes.LEGACY)


def _is_contract_keyed(request: Request) -> bool:
    return _version(request) >= shapes.CONTRACTS_SINCE


def _is_legacy(request: Request) -> bool:
    return _version(request) == shapes.LEGACY


def _list_kms(cloud: Cloud, request: Request) -> Answer:
    page = integer(request, "page", 1, 1, 1_000_000)
    page_size = integer(request, "page_size", 20, 1, 100)
    on_chain = boolean(request, "is_onchain")
    kmses = [kms for kms in cloud.kmses if on_chain is None or kms.is_on_chain == on_chain]
    if _is_contract_keyed(request):
        items = [shapes.kms_contract(kms) for kms in kmses]
    else:
        items = [shapes.kms_node(kms, node) for kms in kmses for node in kms.nodes]
    start = (page - 1) * page_size
    return Answer(
        {
            "items": items[start : start + page_size],
            "total": len(items),
            "page": page,
            "page_size": page_size,
            "pages": -(-len(items) // page_size),
        }
    )


def _get_kms(cloud: Cloud, request: Request, reference: str) -> Answer:
    kms = cloud.find_kms(reference)
    if _is_contract_keyed(request):
        return Answer(shapes.kms_contract(kms))
    return Answer(shapes.kms_node(kms, kms.node(reference) or kms.nodes[0]))


def _list_kms_nodes(cloud: Cloud, _request: Request, reference: str) -> Answer:
    kms = cloud.find_kms(reference)
    items = [shapes.kms_contract_node(kms, node) for node in kms.nodes]
    return Answer({"items": items, "total": len(items)})


def _inspect_kms(cloud: Cloud, _request: Request, reference: str) -> Answer:
    kms = cloud.find_kms(reference)
    return Answer(shapes.kms_inspection(kms, kms.node(reference) or kms.nodes[0]))


def _get_chain(cloud: Cloud, _request: Request, chain: str) -> Answer:
    if chain not in shapes.CHAINS:
        raise RefusalError(400, f"Unsupported chain: {chain}")
    chain_id = shapes.CHAINS[chain]
    contracts = []
    for kms in cloud.kmses:
        if kms.chain_id == chain_id:
            devices = sorted({cvm.device_id for cvm in cloud.cvms if cvm.kms is kms})
            contracts.append(shapes.on_chain_contract(kms, chain, devices))
    return Answer({"chain_name": chain, "chain_id": chain_id, "contracts": contracts})


def _get_key(cloud: Cloud, _request: Request, reference: str, app: str) -> Answer:
    matched = _APP_ID.fullmatch(app)
    if matched is None:
        raise RefusalError(400, "Invalid app_id: 40 hex digits, with or without 0x")
    kms = cloud.find_kms(reference)
    if not kms.online:
        raise RefusalError(500, "KMS is not available")
    timestamp = int(cloud.now().timestamp()) if cloud.v1_signatures else None
    return Answer(kms.answer(matched[1].lower(), timestamp))


def _next_app_ids(cloud: Cloud, request: Request) -> Answer:
    return Answer({"app_ids": cloud.next_app_ids(integer(request, "counts", 1, 1, 20))})


def _get_cvm(cloud: Cloud, request: Request, reference: str) -> Answer:
    cvm = cloud.find_cvm(reference)
    with cloud.changed:
        return Answer(shapes.legacy_detail(cvm) if _is_legacy(request) else shapes.cvm_detail(cvm))


def _get_compose_file(cloud: Cloud, _request: Request, reference: str) -> Answer:
    return Answer(cloud.find_cvm(reference).app_compose)


def _get_state(cloud: Cloud, request: Request, reference: str) -> Answer | Stream:
    cvm = cloud.find_cvm(reference)
    interval = integer(request, "interval", 5, 5, 30)
    timeout = integer(request, "timeout", 300, 10, 600)
    target = request.query.get("target", [""])[-1]
    if target and cloud.streams:
        return Stream(cloud, cvm, target, interval, timeout)
    with cloud.changed:
        return Answer(shapes.cvm_state(cvm))


def _list_operations(cloud: Cloud, request: Request, reference: str) -> Answer:
    cvm = cloud.find_cvm(reference)
    start = integer(request, "cursor", 0, 0, 1_000_000_000)
    limit = integer(request, "limit", 50, 1, 500)
    after, before = _moment(request, "start_time"), _moment(request, "end_time")
    types = request.query.get("operation_types", ["update_envs"])
    with cloud.changed:
        operations = [
            shapes.operation(cvm, one)
            for one in reversed(cvm.operations)
            if _is_within(one, after, before) and "update_envs" in types
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
        return Answer(shapes.operation_status(cvm))


def _update_envs(cloud: Cloud, request: Request, reference: str) -> Answer:
    return update_envs(cloud, cloud.find_cvm(reference), request.body)


def _list_app_cvms(cloud: Cloud, request: Request, app: str) -> Answer:
    row = shapes.legacy_row if _is_legacy(request) else shapes.cvm_row
    with cloud.changed:
        return Answer([row(cvm) for cvm in _cvms_of(cloud, app)])


def _get_app_kms(cloud: Cloud, _request: Request, app: str) -> Answer:
    return Answer(shapes.app_kms(_cvms_of(cloud, app)[0]))


def _cvms_of(cloud: Cloud, app: str) -> list[Cvm]:
    matched = _APP_ID.fullmatch(app.removeprefix("app_"))
    if matched is None:
        raise invalid(("path", "app_id"), "Not an app id")
    return cloud.cvms_of(matched[1].lower())


def _route(method: str, path: str, endpoint: _Endpoint) -> _Route:
    return method, path.split("/"), endpoint


_ROUTES = (
    _route("GET", "kms", _list_kms),
    _route("GET", "kms/phala/next_app_id", _next_app_ids),
    _route("GET", "kms/on-chain/*", _get_chain),
    _route("GET", "kms/*/nodes", _list_kms_nodes),
    _route("GET", "kms/*/info", _inspect_kms),
    _route("GET", "kms/*/pubkey/*", _get_key),
    _route("GET", "kms/*", _get_kms),
    _route("GET", "cvms/*", _get_cvm),
    _route("GET", "cvms/*/compose_file", _get_compose_file),
    _route("GET", "cvms/*/state", _get_state),
    _route("GET", "cvms/*/operations", _list_operations),
    _route("GET", "cvms/*/operation-status", _get_operation_status),
    _route("PATCH", "cvms/*/envs", _update_envs),
    _route("GET", "apps/*/cvms", _list_app_cvms),
    _route("GET", "apps/*/kms-info", _get_app_kms),
)
