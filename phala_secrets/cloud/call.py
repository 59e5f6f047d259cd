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
    """Read a response as the JSON that it is."""
    return body


class Call(NamedTuple, Generic[T]):
    """One request as data. ``path`` is quoted and relative to the API's URL, or absolute (a chain's RPC).

    ``parse`` gets the decoded JSON of a 2xx; ``others`` reads other statuses that are results and
    no errors. ``headers`` are sent beside those of every request. ``repeatable`` is whether it may be
    sent again after it may have been read; ``when_busy`` whether it is sent again unasked while the
    CVM is busy (409). ``given_by`` is the input that an absolute ``path`` comes from. With ``whole``,
    ``parse`` gets the ``Response``.
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
        """Whether ``path`` is a whole URL: another server's, which gets no API key."""
        return "://" in self.path

    def read_by(self, parse: Callable[[Any], T], **others: Callable[[Any], T]) -> Call[T]:
        """Return the same request with another reader; ``status_465=…`` reads that status."""
        statuses = {int(name.removeprefix("status_")): read for name, read in others.items()}
        return self._replace(parse=parse, others=statuses)


class Attempt(NamedTuple):
    """A step: send a call once, within so many seconds."""

    call: Call[Any]
    seconds: float


class Within(NamedTuple):
    """A step: send a call, again where that is right, within so many seconds in all."""

    call: Call[Any]
    seconds: float


class BaseUrl(NamedTuple):
    """A step: nothing is sent, and its result is the URL of the API that calls go to."""


class Response(NamedTuple):
    """What came back. ``hidden`` is what must not come into a message or a result.

    ``by_token`` is whether the request was sent with a job's token in place of an API key.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    hidden: Hidden = Hidden()
    by_token: bool = False


def read(call: Call[T], response: Response) -> T:
    """Return what a response means to its call. Raise the error that it is otherwise.

    This is the one place where a response is read: whatever it is, what comes out is one of our errors.
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
            hint="check the URL; if it is right, the API has changed: report it",
            sent=200 <= status < 300,
        ) from None
    if 300 <= status < 400:
        location = ascii(headers.get("location", "")[:200])
        raise AnswerError(
            f"HTTP {status} redirects to {untrusted(location)}; that is not followed",
            hint="set the URL to the one that answers, if you trust it",
            sent=False,
        )
    raise of_a_token(refusal, f"{call.method} {call.path}") if response.by_token else refusal


def refuse_compressed(headers: Mapping[str, str]) -> None:
    """AnswerError for what was packed though that was not asked for: nothing is unpacked here."""
    if headers.get("content-encoding", "identity") != "identity":
        raise AnswerError("the answer is compressed, though that was not asked for", hint="check the URL")


def _decode(response: Response) -> Any:
    status, headers, body, hidden, _ = response
    refuse_compressed(headers)
    try:
        return decode(body, hidden)
    except (ValueError, RecursionError):
        kind = headers.get("content-type", "no type")[:60]
        raise AnswerError(
            f"HTTP {status}, but the body is not JSON ({untrusted(ascii(kind))}, {len(body)} bytes)",
            hint="check the URL: it has to be the API's",
        ) from None


def _refusal(response: Response) -> PhalaSecretsError:
    try:
        answer = decode(response.body, response.hidden)
    except (ValueError, RecursionError):
        answer = None
    return error_from(response.status, response.headers, answer, response.hidden)


class Body:
    """Collects an answer's body within MAX_BODY_BYTES and a deadline (``time.monotonic`` seconds)."""

    def __init__(self, deadline: float) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._deadline = deadline

    def count(self, chunk: bytes) -> None:
        """AnswerError when one more piece is too much, TransportError when it all takes too long."""
        self._size += len(chunk)
        if self._size > MAX_BODY_BYTES:
            raise AnswerError(f"the answer is over {MAX_BODY_BYTES >> 20} MiB", hint="check the URL")
        if flow.clock.monotonic() > self._deadline:
            raise TransportError("the answer took too long", hint="raise `timeout`, or run again")

    def add(self, chunk: bytes) -> None:
        """Keeps one more piece."""
        self.count(chunk)
        self._parts.append(chunk)

    def bytes(self) -> bytes:
        """All of it."""
        return b"".join(self._parts)
