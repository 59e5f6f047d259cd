"""The error for a refusal: its class, its hint and the API's own text."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from phala_secrets import errors
from phala_secrets.cloud.reading import Hidden
from phala_secrets.errors import ApiError, PhalaSecretsError, untrusted

if TYPE_CHECKING:
    from collections.abc import Mapping

_NOTHING = Hidden()

_TEXT = 4000
"""Characters of a message. A runner shows half of them, so this cut never hides a secret from the mask."""

_SHORT = 200
"""Characters of a code or an id."""

_ROWS = 50
"""Rows of details, suggestions or links: a schema has fewer fields."""

_ERROR_CLASSES: dict[int, type[ApiError]] = {
    401: errors.AuthError,
    403: errors.AuthError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    429: errors.RateLimitError,
    466: errors.ApprovalRefusedError,
    467: errors.ApprovalRefusedError,
    468: errors.ApprovalRefusedError,
}

_HINTS: dict[int | str, str] = {
    "ERR-02-011": "check `kms`, a slug or id: phala-secrets kms list shows them",
    "ERR-03-002": "name the CVM by its cvm_… id: phala-secrets list shows it",
    400: "the API did not accept the request as it stands",
    401: "check the API key: it may be mistyped, expired or from another workspace",
    402: "check the workspace's billing in the dashboard: it is out of credit or suspended",
    403: "use an API key of the workspace that owns the CVM: this one may not do that",
    404: "check the name or id, and that the API key belongs to the workspace that owns it",
    409: "run again once the other operation on this CVM has ended",
    422: "the API did not accept the request as it stands",
    429: "run again later: Phala Cloud limits the rate of requests",
    466: "prepare the update again: the compose hash is unknown or expired (14 days)",
    467: "check that the transaction is confirmed on the app's chain, then run again",
    468: "approve this compose hash or device on chain first: the app's contract does not allow it",
}


_SAID = {409: "another operation runs", 429: "too many requests"}
"""The meaning of a status if the response has no message."""


def error_from(status: int, headers: Mapping[str, str], body: Any, hidden: Hidden = _NOTHING) -> ApiError:
    """Return the error for a response: structured, ``{"detail": …}``, FastAPI's list, or not JSON."""
    body = body if isinstance(body, dict) else {}
    detail = body.get("detail")
    if isinstance(detail, dict):
        body, detail = detail, None
    if isinstance(detail, list):
        detail = "; ".join(
            f"{'.'.join(_text(part, _SHORT) for part in _rows(row.get('loc')))}: {_text(row.get('msg', ''))}"
            for row in detail[:_ROWS]
            if isinstance(row, dict)
        )
    code = body.get("error_code")
    code = code if isinstance(code, str) and len(code) <= _SHORT else None
    message = body.get("message") or detail
    request_id = _text(body.get("request_id") or headers.get("x-request-id") or "", _SHORT)
    suggestions = [_text(text) for text in _rows(body.get("suggestions")) if isinstance(text, str)]
    suggestions = [hidden.in_text(text) for text in suggestions]
    notes = " ".join(filter(None, [code, f"HTTP {status}", f"request {request_id}" if request_id else None]))
    kind = _ERROR_CLASSES.get(status) or (errors.ServerError if status >= 500 else ApiError)
    hint = _HINTS.get(code or "") or _HINTS.get(status) or "run again; if this persists, ask Phala's support"
    otherwise = _SAID.get(status) or ("it failed" if status >= 500 else "it refused")
    said = untrusted(hidden.in_text(_text(message))) if message else otherwise
    notes = hidden.in_text(notes)
    return kind(
        f"Phala Cloud: {said} ({untrusted(notes) if code or request_id else notes})",
        status_code=status,
        error_code=code,
        details=_rows(body.get("details")),
        suggestions=suggestions,
        links=_rows(body.get("links")),
        request_id=request_id or None,
        retry_after=_retry_after(headers),
        hint="; ".join(filter(None, [hint, *map(untrusted, suggestions[:2])])),
    )


def of_a_token(error: PhalaSecretsError, request: str) -> PhalaSecretsError:
    """Return a refusal of a token with its own hint: some requests may need an API key."""
    if not isinstance(error, errors.AuthError):
        return error
    return error.saying(
        f"api-key is missing, and Phala Cloud refused GitHub's token for {request[:_SHORT]}: {error.marked}",
        hint="set api-key, or let the workspace trust this repository; if multiple do, set workspace",
    )


def _rows(value: Any) -> list[Any]:
    return value[:_ROWS] if isinstance(value, list) else []


def _text(value: Any, limit: int = _TEXT) -> str:
    """Return a truncated text for any value. Do not write out a large value first."""
    if isinstance(value, list | dict):
        value = f"({len(value)} fields)"
    return str(value)[:limit]


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return seconds. A date counts from that of the response, since the local clock may be off."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value) if len(value) < 300 else math.inf
    if not value:
        return None
    from email.utils import parsedate_to_datetime

    def moment(text: str) -> float:
        return parsedate_to_datetime(text).timestamp()

    try:
        now = moment(headers["date"]) if headers.get("date") else time.time()
        return max(0.0, moment(value) - now)
    except (ValueError, OverflowError):
        return None


def is_busy(error: PhalaSecretsError) -> bool:
    """Return whether another operation is in the way for now."""
    return isinstance(error, errors.ConflictError) and error.error_code is None


def may_have_happened(error: PhalaSecretsError) -> bool:
    """Return whether the request may have taken effect although it failed."""
    return isinstance(error, errors.ServerError) or (isinstance(error, errors.TransportError) and error.sent)


def retry_after(error: PhalaSecretsError) -> float | None:
    """Return the seconds of a refusal's ``Retry-After``, or None."""
    return error.retry_after if isinstance(error, ApiError) else None
