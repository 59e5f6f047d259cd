"""The dispatch of a request to its endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from phala_secrets.simulator import app_endpoints, cvm_endpoints, kms_endpoints
from phala_secrets.simulator.oidc import TOKEN_PATH
from phala_secrets.simulator.routing import capture
from phala_secrets.simulator.versions import VERSIONS, version
from phala_secrets.simulator.wire import Answer, RefusalError, Request

if TYPE_CHECKING:
    from phala_secrets.simulator.cloud import Cloud
    from phala_secrets.simulator.stream import Stream

_ROUTES = (*kms_endpoints.ROUTES, *cvm_endpoints.ROUTES, *app_endpoints.ROUTES)


def respond(cloud: Cloud, request: Request) -> Answer | Stream:
    """Carry out a request. Raise `RefusalError`, or OSError to break the connection."""
    if request.path == TOKEN_PATH:
        return cloud.github.respond(request)
    cloud.admit(request)
    if version(request) not in VERSIONS:
        raise RefusalError(400, f"Unsupported API version; one of {', '.join(VERSIONS)}")
    segments = [unquote(segment) for segment in request.path.strip("/").split("/")]
    known_path = False
    for method, pattern, endpoint in _ROUTES:
        captured = capture(pattern, segments)
        if captured is None:
            continue
        known_path = True
        if method == request.method:
            return endpoint(cloud, request, *captured)
    raise RefusalError(405, "Method Not Allowed") if known_path else RefusalError(404, "Not Found")
