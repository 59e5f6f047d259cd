"""A request as data, and how its response is read. Nothing here sends."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NamedTuple, TypeVar

from phala_secrets import flow
from phala_secrets.cloud.refusals import error_from
from phala_secrets.dstack.nested import loads
from phala_secrets.errors import AnswerError, TransportError

T = TypeVar("T")

MAX_BODY_BYTES = 16 * 1024 * 1024


def as_it_is(body: Any) -> Any:
    """Read a response as the JSON that it is."""
    return body


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request as data. ``path`` is quoted and relative to the API's URL, or absolute (a chain's RPC).

    ``parse`` gets the decoded JSON of a 2xx; ``others`` reads other statuses that are results and
    no errors. ``repeatable`` is whether it may be sent again after it may have been read;
    ``when_busy`` whether it is sent again unasked while the CVM is busy (409). ``given_by`` is the
    input that an absolute ``path`` comes from. With ``whole``, ``parse`` gets the ``Response``.
    """

    method: str
    path: str
    parse: Callable[[Any], T] = as_it_is
    params: Mapping[str, str] = field(default_factory=dict)
    body: Any = field(default=None, repr=False)
    version: str | None = None
    others: Mapping[int, Callable[[Any], T]] = field(default_factory=dict)
    repeatable: bool = True
    when_busy: bool = True
    given_by: str = "rpc-url"
    whole: bool = False

    @property
    def absolute(self) -> bool:
        """Whether ``path`` is a whole URL: another server's, which gets no API key."""
        return "://" in self.path

    def read_by(self, parse: Callable[[Any], T], **others: Callable[[Any], T]) -> Call[T]:
        """Return the same request with another reader; ``status_465=…`` reads that status."""
        statuses = {int(name.removeprefix("status_")): read for name, read in others.items()}
        return replace(self, parse=parse, others=statuses)


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
    """What came back: the API key and an RPC's credentials are taken out already."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def read(call: Call[T], response: Response) -> T:
    """Return what a response means to its call. Raise the error that it is otherwise."""
    status, headers, body = response
    parse = call.parse if 200 <= status < 300 else call.others.get(status)
    if parse is not None:
        try:
            if call.whole and 200 <= status < 300:
                refuse_compressed(headers)
                return parse(response)
            return parse(_decode(response))
        except AnswerError as garbled:
            sent = 200 <= status < 300  # a refusal stays one
            raise AnswerError(garbled.message, hint=garbled.hint, sent=sent) from None
    if 300 <= status < 400:
        raise AnswerError(
            f"HTTP {status} redirects to {headers.get('location', '')[:200]!a}; that is not followed",
            hint="set the URL to the one that answers, if you trust it",
            sent=False,
        )
    raise error_from(status, headers, body)


def refuse_compressed(headers: Mapping[str, str]) -> None:
    """AnswerError for what was packed though that was not asked for: nothing is unpacked here."""
    if headers.get("content-encoding", "identity") != "identity":
        raise AnswerError("the answer is compressed, though that was not asked for", hint="check the URL")


def _decode(response: Response) -> Any:
    status, headers, body = response
    refuse_compressed(headers)
    try:
        answer = loads(body)
        json.dumps(answer, ensure_ascii=False).encode()  # half a surrogate pair could be written nowhere
    except (ValueError, RecursionError):
        kind = headers.get("content-type", "no type")[:60]
        raise AnswerError(
            f"HTTP {status}, but the body is not JSON ({kind!a}, {len(body)} bytes)",
            hint="check the URL: it has to be the API's",
        ) from None
    return answer


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
            raise TransportError("the answer took too long", hint="raise timeout, or run again")

    def add(self, chunk: bytes) -> None:
        """Keeps one more piece."""
        self.count(chunk)
        self._parts.append(chunk)

    def bytes(self) -> bytes:
        """All of it."""
        return b"".join(self._parts)
