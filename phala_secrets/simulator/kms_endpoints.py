"""The endpoints under ``/kms``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.simulator import kms_shapes
from phala_secrets.simulator.routing import Route, app_id_of, page_of, route
from phala_secrets.simulator.versions import is_contract_keyed
from phala_secrets.simulator.wire import Answer, RefusalError, Request, boolean, integer

if TYPE_CHECKING:
    from phala_secrets.simulator.cloud import Cloud
    from phala_secrets.simulator.kms import Kms, KmsNode


def _list_kms(cloud: Cloud, request: Request) -> Answer:
    on_chain = boolean(request, "is_onchain")
    kmses = [kms for kms in cloud.kmses if on_chain is None or kms.is_on_chain == on_chain]
    if is_contract_keyed(request):
        items = [kms_shapes.kms_contract(kms) for kms in kmses]
    else:
        items = [kms_shapes.kms_node(kms, node) for kms in kmses for node in kms.nodes]
    return Answer(page_of(request, items, most=100))


def _get_kms(cloud: Cloud, request: Request, reference: str) -> Answer:
    if is_contract_keyed(request):
        return Answer(kms_shapes.kms_contract(cloud.find_contract(reference)))
    return Answer(kms_shapes.kms_node(*cloud.find_node(reference)))


def _list_kms_nodes(cloud: Cloud, _request: Request, reference: str) -> Answer:
    kms = cloud.find_contract(reference)
    items = [kms_shapes.kms_contract_node(kms, node) for node in kms.nodes]
    return Answer({"items": items, "total": len(items)})


def _inspect_kms(cloud: Cloud, _request: Request, reference: str) -> Answer:
    kms = cloud.find_kms(reference)
    return Answer(kms_shapes.kms_inspection(kms, kms.node(reference) or kms.nodes[0]))


def _get_chain(cloud: Cloud, _request: Request, chain: str) -> Answer:
    if chain not in kms_shapes.CHAINS:
        raise RefusalError(400, f"Unsupported chain: {chain}")
    chain_id = kms_shapes.CHAINS[chain]
    contracts = []
    for kms in cloud.kmses:
        if kms.chain_id == chain_id:
            devices = {one.device_id for cvm in cloud.cvms if cvm.kms is kms for one in cvm.devices}
            contracts.append(kms_shapes.on_chain_contract(kms, chain, sorted(devices)))
    return Answer({"chain_name": chain, "chain_id": chain_id, "contracts": contracts})


def _get_key(cloud: Cloud, _request: Request, reference: str, app: str) -> Answer:
    """Serve a key from a node. A contract or a ``kms_type`` does not serve keys."""
    app_id = app_id_of(app)
    if app_id is None:
        raise RefusalError(400, "Invalid app_id: 40 hex digits, with or without 0x")
    kms, node = _serving(cloud, reference)
    if node.state == "reset":
        raise ConnectionResetError
    if node.state == "down" or not kms.online:
        raise RefusalError(500, "KMS is not available")
    if app_id in node.unknown_apps:
        raise RefusalError(404, "App not found")
    timestamp = int(cloud.now().timestamp()) if cloud.v1_signatures else None
    return Answer(kms.answer(app_id, timestamp))


def _serving(cloud: Cloud, reference: str) -> tuple[Kms, KmsNode]:
    if not cloud.contract_serves_keys:
        return cloud.find_node(reference)
    kms = cloud.find_kms(reference)
    up = (node for node in kms.nodes if node.state == "up")
    return kms, kms.node(reference) or next(up, kms.nodes[0])


def _next_app_ids(cloud: Cloud, request: Request) -> Answer:
    return Answer({"app_ids": cloud.next_app_ids(integer(request, "counts", 1, 1, 20))})


ROUTES: tuple[Route, ...] = (
    route("GET", "kms", _list_kms),
    route("GET", "kms/phala/next_app_id", _next_app_ids),
    route("GET", "kms/on-chain/*", _get_chain),
    route("GET", "kms/*/nodes", _list_kms_nodes),
    route("GET", "kms/*/info", _inspect_kms),
    route("GET", "kms/*/pubkey/*", _get_key),
    route("GET", "kms/*", _get_kms),
)
