"""A request as data, and how its response is read. Nothing here sends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeVar

from phala_secrets import flow
from phala_secrets.cloud.reading import Hidden, decode
from phala_secrets.cloud.refusals import error_from, of_a_token
from phala_secrets.errors import AnswerError, PhalaSecretsError, TransportError, untrusted

T = TypeVar("T")

_NOTHING: Mapping[str, str] = MappingProxyType({})

MAX_BODY_BYTES = 16 * 1024 * 1024


def as_it_is(body: Any) -> Any:
    """Return the JSON of a response unchanged."""
    return body


class Call(NamedTuple, Generic[T]):
    """One request as data. ``path`` is quoted and relative to the API's URL, or absolute (a chain's RPC).

    ``parse`` gets the decoded JSON of a 2xx. ``others`` reads other statuses that are results rather than
    errors. ``headers`` are added to those of every request. ``repeatable`` is whether a retry is safe
    after the server may have read the request, ``when_busy`` whether to retry while the CVM is busy
    (409). ``given_by`` is the input behind an absolute ``path``. With ``whole``, ``parse`` gets the
    ``Response``.
    """

    method: str
    path: str
    parse: Callable[[Any], T] = as_it_is
    params: Mapping[str, str] = _NOTHING
    body: Any = None
    headers: Mapping[str, str] = _NOTHING
    version: str | None = None
    others: Mapping[int, Callable[[Any], T]] = MappingProxyType({})
    repeatable: bool = True
    when_busy: bool = True
    given_by: str = "rpc-url"
    whole: bool = False

    def __repr__(self) -> str:
        return f"Call({self.method} {self.path})"

    @property
    def absolute(self) -> bool:
        """Whether ``path`` is the URL of another server, which gets no API key."""
        return "://" in self.path

    def read_by(self, parse: Callable[[Any], T], **others: Callable[[Any], T]) -> Call[T]:
        """Return the same request with another reader. ``status_465=…`` reads that status."""
        statuses = {int(name.removeprefix("status_")): read for name, read in others.items()}
        return self._replace(parse=parse, others=statuses)


class Attempt(NamedTuple):
    """A step: send a call once, within ``seconds``."""

    call: Call[Any]
    seconds: float


class Within(NamedTuple):
    """A step: send a call with safe retries, within ``seconds`` in all."""

    call: Call[Any]
    seconds: float


class BaseUrl(NamedTuple):
    """A step that sends nothing and results in the API's URL."""


class Response(NamedTuple):
    """A response. ``hidden`` has the credentials that no message or result may contain.

    ``by_token`` is whether a job's token replaced the API key of the request.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    hidden: Hidden = Hidden()
    by_token: bool = False


def read(call: Call[T], response: Response) -> T:
    """Return the result of a response, or raise its error.

    Every response is read here, so each failure is a PhalaSecretsError.
    """
    status, headers = response.status, response.headers
    parse = call.parse if 200 <= status < 300 else call.others.get(status)
    try:
        if parse is not None:
            if call.whole and 200 <= status < 300:
                refuse_compressed(headers)
                return parse(response)
            return parse(_decode(response))
        refusal = _refusal(response)
    except AnswerError as garbled:
        sent = 200 <= status < 300  # a refusal stays one
        raise AnswerError(garbled.marked, hint=garbled.marked_hint, sent=sent) from None
    except PhalaSecretsError:
        raise
    except Exception as error:  # noqa: BLE001 (no response may end a run as a bug)
        raise AnswerError(
            f"HTTP {status}, but the response is malformed ({type(error).__name__})",
            hint="check the URL; if it is right, report that the API has changed",
            sent=200 <= status < 300,
        ) from None
    if 300 <= status < 400:
        location = ascii(headers.get("location", "")[:200])
        raise AnswerError(
            f"HTTP {status} redirects to {untrusted(location)}, which is not followed",
            hint="use that URL if you trust it",
            sent=False,
        )
    raise of_a_token(refusal, f"{call.method} {call.path}") if response.by_token else refusal


def refuse_compressed(headers: Mapping[str, str]) -> None:
    """Raise AnswerError for a compressed response: no request asks for one."""
    if headers.get("content-encoding", "identity") != "identity":
        raise AnswerError(
            "the response is compressed, but no compression was requested", hint="check the URL"
        )


def _decode(response: Response) -> Any:
    status, headers, body, hidden, _ = response
    refuse_compressed(headers)
    try:
        return decode(body, hidden)
    except (ValueError, RecursionError):
        kind = headers.get("content-type", "no type")[:60]
        raise AnswerError(
            f"HTTP {status}, but the body is not JSON ({untrusted(ascii(kind))}, {len(body)} bytes)",
            hint="check that the URL is the API's",
        ) from None


def _refusal(response: Response) -> PhalaSecretsError:
    try:
        body = decode(response.body, response.hidden)
    except (ValueError, RecursionError):
        body = None
    return error_from(response.status, response.headers, body, response.hidden)


class Body:
    """A response's body, bounded by MAX_BODY_BYTES and a deadline (``time.monotonic`` seconds)."""

    def __init__(self, deadline: float) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._deadline = deadline

    def count(self, chunk: bytes) -> None:
        """Count one more piece. Raise AnswerError for too many bytes, TransportError after the deadline."""
        self._size += len(chunk)
        if self._size > MAX_BODY_BYTES:
            raise AnswerError(f"the response is over {MAX_BODY_BYTES >> 20} MiB", hint="check the URL")
        if flow.clock.monotonic() > self._deadline:
            raise TransportError("the response took too long", hint="raise `timeout`, or run again")

    def add(self, chunk: bytes) -> None:
        """Keep one more piece."""
        self.count(chunk)
        self._parts.append(chunk)

    def bytes(self) -> bytes:
        """Return the whole body."""
        return b"".join(self._parts)
