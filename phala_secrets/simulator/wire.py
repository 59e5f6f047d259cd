"""The server's data: a request, a response, a refusal."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from phala_secrets.errors import PhalaSecretsError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(slots=True)
class Request:
    """One request and its outcome.

    ``path`` is below the API's prefix and still percent-encoded; header names are in lower case.
    ``started`` and ``ended`` are in seconds of the clock's `monotonic`: when the request was read and when
    its response began. Until then ``ended`` and ``status`` are 0. ``connection`` is the client's port,
    which shows whether connections were reused.
    """

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    request_id: str
    connection: int
    started: float
    ended: float = 0.0
    status: int = 0

    @property
    def json(self) -> Any:
        """The body as JSON; ``None`` where there is none."""
        return json.loads(self.body) if self.body else None


@dataclass(slots=True)
class Answer:
    """A status, a body (JSON, or bytes as they are), headers; `Cloud.tamper` may change any of them."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class RefusalError(PhalaSecretsError):
    """A refusal of the API, in one of its two shapes.

    With an ``error_code`` it is a structured error, otherwise ``{"detail": message}``. An object as the
    message is the body itself.
    """

    def __init__(
        self,
        status: int,
        message: str | list[dict[str, Any]] | dict[str, Any],
        error_code: str | None = None,
        *,
        details: Sequence[dict[str, Any]] = (),
        suggestions: Sequence[str] = (),
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(str(message))
        self.status = status
        self.error_code = error_code
        self.detail = message
        self.details = list(details)
        self.suggestions = list(suggestions)
        self.headers = headers or {}

    def answer(self, request_id: str) -> Answer:
        """Return the response."""
        if isinstance(self.detail, dict):
            return Answer(self.detail, self.status, self.headers)
        if self.error_code is None:
            return Answer({"detail": self.detail}, self.status, self.headers)
        body = {
            "error_code": self.error_code,
            "message": self.detail,
            "request_id": request_id,
            "details": self.details,
            "suggestions": self.suggestions,
            "links": [],
        }
        return Answer(body, self.status, self.headers)


def invalid(where: Sequence[str], message: str, kind: str = "value_error") -> RefusalError:
    """Return FastAPI's 422. ``where`` is the invalid field's path (``("body", "encrypted_env")``)."""
    return RefusalError(422, [{"loc": list(where), "msg": message, "type": kind}])


def object_of(body: bytes) -> dict[str, Any]:
    """Return the object that a body is, or raise a 422."""
    try:
        content = json.loads(body)
    except ValueError:
        raise invalid(("body",), "JSON decode error", "json_invalid") from None
    if not isinstance(content, dict):
        raise invalid(("body",), "Input should be a valid dictionary", "model_type")
    return content


def integer(request: Request, name: str, default: int, low: int, high: int) -> int:
    """Return the query parameter ``name``, from ``low`` to ``high``. Raise a 422 otherwise."""
    text = request.query.get(name, [str(default)])[-1]
    try:
        number = int(text)
    except ValueError:
        raise invalid(("query", name), "Input should be a valid integer", "int_parsing") from None
    if not low <= number <= high:
        raise invalid(("query", name), f"Input should be from {low} to {high}", "out_of_range")
    return number


def boolean(request: Request, name: str) -> bool | None:
    """Return the query parameter ``name``, or None without it. Raise a 422 for an invalid one."""
    if name not in request.query:
        return None
    text = request.query[name][-1].lower()
    if text not in ("true", "false", "1", "0"):
        raise invalid(("query", name), "Input should be a valid boolean", "bool_parsing")
    return text in ("true", "1")
