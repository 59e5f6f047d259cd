"""Shapes of responses for both readers: a list, and a 465 in its two forms."""

from __future__ import annotations

from typing import Any

from phala_secrets.errors import AnswerError

MOST_ROWS = 4096
"""Rows per list: a page has a hundred, and a few hundred CVMs are a large fleet."""


def rows(content: Any) -> list[Any]:
    """Return the rows of a list, paged or not."""
    listed = content.get("items") if isinstance(content, dict) else content
    if not isinstance(listed, list):
        raise AnswerError("Phala Cloud's response is not a list", hint="check api-url")
    if len(listed) > MOST_ROWS:
        raise AnswerError(f"Phala Cloud's response has too many rows: {len(listed)}", hint="check api-url")
    return listed


def precondition_fields(content: Any) -> dict[str, Any]:
    """Return the fields of a 465: from structured ``details``, or from the older flat form."""
    body: dict[str, Any] = content if isinstance(content, dict) else {}
    nested = body.get("detail")
    if isinstance(nested, dict):
        body = nested
    details = body.get("details")
    fields = (
        {
            row["field"]: row.get("value")
            for row in details[:MOST_ROWS]
            if isinstance(row, dict) and isinstance(row.get("field"), str)
        }
        if isinstance(details, list)
        else body
    )
    names = ("compose_hash", "app_id", "device_id", "kms_info")
    return {"message": body.get("message")} | {n: fields[n] for n in names if fields.get(n) is not None}
