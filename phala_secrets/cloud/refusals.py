"""What a refusal means: an error with its class, its hint and what the API says of it."""

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
"""Characters of a message: a runner shows half of them, so that no secret is cut here and then overlooked."""

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
    401: "check the API key: it may be mistyped, expired or of another workspace",
    402: "the workspace is out of credit, or suspended: see its billing in the dashboard",
    403: "this API key may not do that: use one of the workspace that owns the CVM",
    404: "check the name or id, and that the API key is of the workspace that owns it",
    409: "another operation is running on this CVM: run again when it is over",
    422: "the API did not accept the request as it stands",
    429: "Phala Cloud limits the rate of requests: run again later",
    466: "the compose hash is unknown or expired (14 days): prepare it again",
    467: "the transaction is not verified: check that it is confirmed on the app's chain, then run again",
    468: "the app's contract does not allow this compose hash or device: approve it on chain first",
}


_SAID = {409: "another operation runs", 429: "too many requests"}
"""What a status means where the response does not say it in words."""


def error_from(status: int, headers: Mapping[str, str], answer: Any, hidden: Hidden = _NOTHING) -> ApiError:
    """Return the error that an answer is: structured, ``{"detail": …}``, FastAPI's list, or no JSON."""
    answer = answer if isinstance(answer, dict) else {}
    detail = answer.get("detail")
    if isinstance(detail, dict):
        answer, detail = detail, None
    if isinstance(detail, list):
        detail = "; ".join(
            f"{'.'.join(_text(part, _SHORT) for part in _rows(row.get('loc')))}: {_text(row.get('msg', ''))}"
            for row in detail[:_ROWS]
            if isinstance(row, dict)
        )
    code = answer.get("error_code")
    code = code if isinstance(code, str) and len(code) <= _SHORT else None
    message = answer.get("message") or detail
    request_id = _text(answer.get("request_id") or headers.get("x-request-id") or "", _SHORT)
    suggestions = [_text(text) for text in _rows(answer.get("suggestions")) if isinstance(text, str)]
    suggestions = [hidden.in_text(text) for text in suggestions]
    notes = " ".join(filter(None, [code, f"HTTP {status}", f"request {request_id}" if request_id else None]))
    kind = _ERROR_CLASSES.get(status) or (errors.ServerError if status >= 500 else ApiError)
    hint = _HINTS.get(code or "") or _HINTS.get(status) or "run again; if it stays, ask Phala's support"
    otherwise = _SAID.get(status) or ("it failed" if status >= 500 else "it refused")
    said = untrusted(hidden.in_text(_text(message))) if message else otherwise
    notes = hidden.in_text(notes)
    return kind(
        f"Phala Cloud: {said} ({untrusted(notes) if code or request_id else notes})",
        status_code=status,
        error_code=code,
        details=_rows(answer.get("details")),
        suggestions=suggestions,
        links=_rows(answer.get("links")),
        request_id=request_id or None,
        retry_after=_retry_after(headers),
        hint="; ".join(filter(None, [hint, *map(untrusted, suggestions[:2])])),
    )


def of_a_token(error: PhalaSecretsError, request: str) -> PhalaSecretsError:
    """Return a refusal as it is to be understood without an API key: some requests may take nothing else."""
    if not isinstance(error, errors.AuthError):
        return error
    return error.saying(
        f"no api-key is given, and GitHub's token is refused for {request[:_SHORT]}: {error.marked}",
        hint="give api-key, or let the workspace trust this repository; if multiple do, give workspace",
    )


def _rows(value: Any) -> list[Any]:
    return value[:_ROWS] if isinstance(value, list) else []


def _text(value: Any, limit: int = _TEXT) -> str:
    """Return a text, or what else stands in its place, cut; nothing that is large is written out first."""
    if isinstance(value, list | dict):
        value = f"({len(value)} fields)"
    return str(value)[:limit]


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds; a date counts from the answer's own, since this machine's clock may be off."""
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
    """Return whether another operation is in the way that will be over."""
    return isinstance(error, errors.ConflictError) and error.error_code is None


def may_have_happened(error: PhalaSecretsError) -> bool:
    """Return whether the request may have been carried out although it failed."""
    return isinstance(error, errors.ServerError) or (isinstance(error, errors.TransportError) and error.sent)


def retry_after(error: PhalaSecretsError) -> float | None:
    """Return the seconds that a refusal asks to wait, where it does."""
    return error.retry_after if isinstance(error, ApiError) else None
