"""The endpoints under ``/apps``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from phala_secrets.simulator import app_shapes, approval, attestation_shapes, cvm_shapes, operation_shapes
from phala_secrets.simulator.routing import Route, app_id_of, route
from phala_secrets.simulator.versions import is_legacy
from phala_secrets.simulator.wire import Answer, RefusalError, Request, boolean, integer, invalid, object_of

if TYPE_CHECKING:
    from phala_secrets.simulator.cloud import Cloud
    from phala_secrets.simulator.cvm import Cvm
    from phala_secrets.simulator.operation import Revision


def _list_app_cvms(cloud: Cloud, request: Request, app: str) -> Answer:
    row = cvm_shapes.legacy_row if is_legacy(request) else cvm_shapes.cvm_row
    with cloud.changed:
        return Answer([row(cvm) for cvm in _cvms_of(cloud, app)])


def _list_attestations(cloud: Cloud, _request: Request, app: str) -> Answer:
    with cloud.changed:
        return Answer(attestation_shapes.attestations(cloud, _cvms_of(cloud, app)))


def _get_app_kms(cloud: Cloud, _request: Request, app: str) -> Answer:
    return Answer(app_shapes.app_kms(_cvms_of(cloud, app)[0]))


def _list_revisions(cloud: Cloud, request: Request, app: str) -> Answer:
    page = integer(request, "page", 1, 1, 1_000_000)
    page_size = integer(request, "page_size", 50, 1, 1_000)
    revisions = _revisions_of(cloud, app)
    start = (page - 1) * page_size
    return Answer(
        {
            "revisions": [operation_shapes.revision(*one) for one in revisions[start : start + page_size]],
            "total": len(revisions),
            "page": page,
            "page_size": page_size,
            "total_pages": -(-len(revisions) // page_size),
        }
    )


def _get_revision(cloud: Cloud, request: Request, app: str, revision_id: str) -> Answer:
    raw = boolean(request, "raw_compose_file") or False
    for cvm, one in _revisions_of(cloud, app):
        if one.revision_id == revision_id:
            return Answer(operation_shapes.revision_detail(cvm, one, raw=raw))
    raise RefusalError(404, "Revision not found")


def _revisions_of(cloud: Cloud, app: str) -> list[tuple[Cvm, Revision]]:
    """Return the revisions of all the app's CVMs, newest first."""
    with cloud.changed:
        found = [(cvm, one) for cvm in _cvms_of(cloud, app) for one in cvm.revisions]
    found.reverse()  # of the same moment, the later one first
    return sorted(found, key=lambda pair: pair[1].created_at, reverse=True)


def _is_allowed(cloud: Cloud, request: Request, app: str) -> Answer:
    cvm = _cvms_of(cloud, app)[0]
    content = object_of(request.body)
    compose_hash = _hex(content, "compose_hash", None)
    device_id = _hex(content, "device_id", cvm.device_id)
    if not cvm.kms.is_on_chain:
        raise RefusalError(400, "The app has no contract")  # inferred: nothing says what happens
    return Answer(app_shapes.is_allowed(cvm, compose_hash, device_id, approval.ask(cloud, cvm)))


def _hex(content: dict[str, Any], name: str, default: str | None) -> str:
    value = content.get(name)
    if value is None:
        value = default
    if not isinstance(value, str):
        raise invalid(("body", name), "Input should be a valid string", "string_type")
    return value.removeprefix("0x").lower()


def _cvms_of(cloud: Cloud, app: str) -> list[Cvm]:
    app_id = app_id_of(app.removeprefix("app_"))
    if app_id is None:
        raise invalid(("path", "app_id"), "Not an app id")
    return cloud.cvms_of(app_id)


ROUTES: tuple[Route, ...] = (
    route("GET", "apps/*/cvms", _list_app_cvms),
    route("GET", "apps/*/attestations", _list_attestations),
    route("GET", "apps/*/kms-info", _get_app_kms),
    route("GET", "apps/*/revisions", _list_revisions),
    route("GET", "apps/*/revisions/*", _get_revision),
    route("POST", "apps/*/is-allowed", _is_allowed),
)
