"""Routes, and what they have in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from phala_secrets.simulator.stream import Stream
from phala_secrets.simulator.wire import Answer, Request, integer

Endpoint = Callable[..., Answer | Stream]
"""A function of the cloud, a request and what its path names; raises `RefusalError`."""

Route = tuple[str, list[str], Endpoint]

_APP_ID = re.compile(r"(?:0x)?([0-9a-f]{40})", re.IGNORECASE)
_MOST_PAGES = 1_000_000


def route(method: str, path: str, endpoint: Endpoint) -> Route:
    """Return a route; each ``*`` of ``path`` is a segment that the endpoint gets."""
    return method, path.split("/"), endpoint


def capture(pattern: Sequence[str], segments: Sequence[str]) -> list[str] | None:
    """Return the segments that stand for a ``*`` in ``pattern``, or ``None`` for another path."""
    if len(pattern) != len(segments):
        return None
    pairs = list(zip(pattern, segments, strict=True))
    if any(part not in ("*", segment) for part, segment in pairs):
        return None
    return [segment for part, segment in pairs if part == "*"]


def app_id_of(text: str) -> str | None:
    """Return an app id in lower case without ``0x``, or None for anything else."""
    matched = _APP_ID.fullmatch(text)
    return matched[1].lower() if matched else None


def page_of(request: Request, items: list[Any], most: int) -> dict[str, Any]:
    """Return the requested page of ``items``, with at most ``most`` of them."""
    page = integer(request, "page", 1, 1, _MOST_PAGES)
    page_size = integer(request, "page_size", 20, 1, most)
    start = (page - 1) * page_size
    return {
        "items": items[start : start + page_size],
        "total": len(items),
        "page": page,
        "page_size": page_size,
        "pages": -(-len(items) // page_size),
    }
