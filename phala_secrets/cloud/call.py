"""A request as data, and what comes after each answer: read it, wait and try again, or give up.

Nothing here sends: ``client`` does.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from phala_secrets import errors
from phala_secrets.errors import AnswerError, ApiError, PhalaSecretsError, TransportError

T = TypeVar("T")

MAX_TRIES = 4
MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_PAUSE = 60.0
"""Seconds: a ``Retry-After`` beyond this is given up on."""

_FIRST_PAUSE = 0.5
_LIMITED_GROWTH = 5
"""How much longer each pause is after a 429 without ``Retry-After``: limits are often by the minute."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One request as data. ``path`` is quoted and relative to the API's URL, or absolute (a chain's RPC).

    ``parse`` gets the decoded JSON of a 2xx; ``answers`` reads other statuses that are
    answers and no errors. ``repeatable`` is whether it may be sent again after it may
    have been read; ``when_busy`` whether it is sent again unasked while the CVM is busy (409).
    """

    method: str
    path: str
    parse: Callable[[Any], T]
    params: Mapping[str, str] = field(default_factory=dict)
    body: Any = field(default=None, repr=False)
    version: str | None = None
    answers: Mapping[int, Callable[[Any], T]] = field(default_factory=dict)
    repeatable: bool = True
    when_busy: bool = True

    @property
    def absolute(self) -> bool:
        """Whether ``path`` is a whole URL: another server's, which gets no API key."""
        return "://" in self.path


Batch = tuple[Call[Any], ...]
"""Calls that do not depend on each other, sent together."""

Flow = Generator[Batch, list[Any], T]
"""Requests in sequence: yields batches, is sent their answers in the same order, returns the result."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait this many seconds, then send the same call again."""

    seconds: float
    reason: str


def together(*flows: Flow[Any]) -> Flow[list[Any]]:
    """Several flows in step with each other: their batches go out as one; their results in order."""
    results: list[Any] = [None] * len(flows)
    waiting: dict[int, Batch] = {}
    answers: dict[int, list[Any] | None] = dict.fromkeys(range(len(flows)))
    while answers:
        waiting.clear()
        for index, answer in answers.items():
            try:
                waiting[index] = flows[index].send(answer)  # type: ignore[arg-type]  # None starts a generator
            except StopIteration as stop:
                results[index] = stop.value
        if not waiting:
            break
        received = iter((yield tuple(call for batch in waiting.values() for call in batch)))
        answers = {index: [next(received) for _ in batch] for index, batch in waiting.items()}
    return results


class Exchange(Generic[T]):
    """One call and its tries. Says what comes next, and does no I/O.

    At most MAX_TRIES are made. What may have been read by the server is sent again
    only when the call is repeatable. After a refusal that says "not now" (429, a 409
    without an error code) nothing has happened, so that any call is.
    """

    def __init__(self, call: Call[T], deadline: float = float("inf"), *, max_tries: int = MAX_TRIES) -> None:
        """``deadline``: when it all has to be over, on the clock of ``time.monotonic``."""
        self.call = call
        self.tries = 0
        self._deadline = deadline
        self._max_tries = max_tries

    def seconds_left(self, limit: float) -> float:
        """How long the next try may take: ``limit``, or what is left to the deadline."""
        return max(0.001, min(limit, self._deadline - time.monotonic()))

    def wait(self, seconds: float) -> float:
        """How long to wait for its turn; TransportError when that is longer than it may take."""
        if time.monotonic() + seconds > self._deadline:
            raise TransportError(
                "the rate limit leaves no time for another request",
                hint="lower max-parallel, or give it more time",
                sent=False,
            )
        return seconds

    def answered(self, status: int, headers: Mapping[str, str], body: bytes) -> T | Pause:
        """The result, or how long to wait; or raises what the answer means."""
        self.tries += 1
        read = self.call.parse if 200 <= status < 300 else self.call.answers.get(status)
        if read is not None:
            try:
                return read(_decode(status, headers, body))
            except AnswerError as garbled:
                garbled.sent = 200 <= status < 300  # a refusal stays one
                raise
        if 300 <= status < 400:
            raise AnswerError(
                f"HTTP {status} redirects to {headers.get('location', '')[:200]!a}; that is not followed",
                hint="set the URL to the one that answers, if you trust it",
                sent=False,
            )
        error = error_from(status, headers, body)
        if self.call.absolute:  # a chain's RPC: its refusals are no errors of Phala Cloud
            if status in (429, 500, 502, 503, 504) and (pause := self._pause(error.retry_after, "")):
                return pause
            raise AnswerError(f"the RPC answered HTTP {status}", hint="check rpc-url, and its key and limits")
        limited = isinstance(error, errors.RateLimitError)
        later = (
            limited
            or (is_busy(error) and self.call.when_busy)
            or (status in (500, 502, 503, 504) and self.call.repeatable)
        )
        growth = _LIMITED_GROWTH if limited else 2
        if later and (pause := self._pause(error.retry_after, error.message, growth)):
            return pause
        raise error

    def failed(self, error: TransportError) -> Pause:
        """How long to wait after no answer; or raises the error."""
        self.tries += 1
        repeatable = self.call.repeatable or not error.sent
        if repeatable and not isinstance(error, AnswerError) and (pause := self._pause(None, error.message)):
            return pause
        raise error

    def pause_after(self, error: PhalaSecretsError) -> float | None:
        """Seconds until one more try, for who decides about it; None when none is left."""
        asked = error.retry_after if isinstance(error, ApiError) else None
        pause = self._pause(asked, error.message)
        return pause.seconds if pause else None

    def _pause(self, asked: float | None, reason: str, growth: int = 2) -> Pause | None:
        if self.tries >= self._max_tries or (asked or 0) > MAX_PAUSE:
            return None
        seconds = max(asked or 0.0, _FIRST_PAUSE * growth ** (self.tries - 1))
        return Pause(seconds, reason) if time.monotonic() + seconds < self._deadline else None


def is_busy(error: PhalaSecretsError) -> bool:
    """Whether another operation is in the way that will be over."""
    return isinstance(error, errors.ConflictError) and error.error_code is None


def refuse_compressed(headers: Mapping[str, str]) -> None:
    """AnswerError for what was packed though that was not asked for: nothing is unpacked here."""
    if headers.get("content-encoding", "identity") != "identity":
        raise AnswerError("the answer is compressed, though that was not asked for", hint="check the URL")


def _decode(status: int, headers: Mapping[str, str], body: bytes) -> Any:
    refuse_compressed(headers)
    try:
        answer = json.loads(body)
        json.dumps(answer, ensure_ascii=False).encode()  # half a surrogate pair could be written nowhere
    except (ValueError, RecursionError):
        kind = headers.get("content-type", "no type")[:60]
        raise AnswerError(
            f"HTTP {status}, but the body is not JSON ({kind!a}, {len(body)} bytes)",
            hint="check the URL: it has to be the API's",
        ) from None
    return answer


class Pace:
    """How fast requests may follow each other: as fast as they like until a 429, then slower together.

    One for all the threads of a client, so that none of them runs into the limit that another
    has just met. Whoever was limited goes first, in the order in which that happened, so that
    four tries are enough however many wait. Says when to go, and does not sleep itself.
    """

    _SLOWEST = 5.0
    _AT_FIRST = 0.05
    _RECOVERY = 0.95

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._interval = 0.0
        self._next = 0.0
        self._slowed = 0.0
        self._limited: list[Exchange[Any]] = []

    def turn(self, exchange: Exchange[Any]) -> float:
        """Seconds to wait before asking again; 0 when it is the turn of this exchange, which takes it."""
        if not self._interval:
            return 0.0
        with self._lock:
            wait = self._next - time.monotonic()
            if wait > 0:
                return wait
            if self._limited and self._limited[0] is not exchange:
                return max(self._interval, self._AT_FIRST)
            self._next = time.monotonic() + self._interval
            self._interval *= self._RECOVERY
            if self._interval < self._AT_FIRST / 10 and not self._limited:
                self._interval = 0.0
            return 0.0

    def slow_down(self, exchange: Exchange[Any], pause: float, began: float) -> None:
        """One that set out at ``began`` was limited: nothing goes out for ``pause`` seconds, and then less
        often than before. One that was under way already when that last happened changes nothing more."""
        with self._lock:
            if exchange not in self._limited:
                self._limited.append(exchange)
            now = time.monotonic()
            self._next = max(self._next, now + pause)
            if began >= self._slowed:
                self._interval = min(max(2 * self._interval, self._AT_FIRST), self._SLOWEST)
                self._slowed = now

    def over(self, exchange: Exchange[Any]) -> None:
        """An exchange got through, or was given up: the next one's turn."""
        if self._limited:
            with self._lock:
                self._limited = [waiting for waiting in self._limited if waiting is not exchange]


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
        if time.monotonic() > self._deadline:
            raise TransportError("the answer took too long", hint="raise timeout, or run again")

    def add(self, chunk: bytes) -> None:
        """Keeps one more piece."""
        self.count(chunk)
        self._parts.append(chunk)

    def bytes(self) -> bytes:
        """All of it."""
        return b"".join(self._parts)


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
    "ERR-02-011": "check kms, a slug or id: phala-secrets kms list shows them",
    "ERR-03-002": "name the CVM by its cvm_… id, as the dashboard shows it",
    400: "the API did not accept the request as it stands",
    401: "check api-key: it may be mistyped, expired or of another workspace",
    403: "this API key may not do that: use one of the workspace that owns the CVM",
    404: "check the name or id, and that the API key is of the workspace that owns it",
    409: "another operation is running on this CVM: run again when it is over",
    422: "the API did not accept the request as it stands",
    429: "Phala Cloud limits the rate of requests: run again later",
    466: "the compose hash is unknown or expired (14 days): prepare it again",
    467: "the transaction is not verified: check that it is confirmed on the app's chain, then run again",
    468: "the app's contract does not allow this compose hash or device: approve it on chain first",
}


def error_from(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """The error that an answer is: structured, ``{"detail": …}``, FastAPI's list, or no JSON at all."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    answer = answer if isinstance(answer, dict) else {}
    detail = answer.get("detail")
    if isinstance(detail, dict):
        answer, detail = detail, None
    if isinstance(detail, list):
        detail = "; ".join(
            f"{'.'.join(str(part) for part in _sequence(row.get('loc')))}: {row.get('msg', '')}"
            for row in detail
            if isinstance(row, dict)
        )
    code = answer.get("error_code")
    code = code if isinstance(code, str) else None
    message = answer.get("message") or detail or f"HTTP {status}"
    request_id = answer.get("request_id") or headers.get("x-request-id")
    suggestions = [text for text in _sequence(answer.get("suggestions")) if isinstance(text, str)]
    notes = " ".join(filter(None, [code, f"HTTP {status}", f"request {request_id}" if request_id else None]))
    kind = _ERROR_CLASSES.get(status) or (errors.ServerError if status >= 500 else ApiError)
    hint = _HINTS.get(code or "") or _HINTS.get(status) or "run again; if it stays, ask Phala's support"
    return kind(
        f"Phala Cloud: {str(message)[:500]} ({notes})",
        status_code=status,
        error_code=code,
        details=_sequence(answer.get("details")),
        suggestions=suggestions,
        links=_sequence(answer.get("links")),
        request_id=str(request_id) if request_id else None,
        retry_after=_retry_after(headers),
        hint="; ".join(filter(None, [hint, *suggestions[:2]])),
    )


def _sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


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
