"""When a request is retried, and how fast requests may follow each other.

====================================  ======================  ====================================
what happened                         retried                 pause
====================================  ======================  ====================================
429: the rate is limited              always                  ``Retry-After``, else 0.5, 2.5, 12.5 s
409 without a code: the CVM is busy   unless the caller waits ``Retry-After``, else 0.5, 1, 2 s
500, 502, 503, 504                    what is repeatable      the same
connection refused, or never made     always                  the same
connection lost, no response in time  what is repeatable      the same
anything else                         never
====================================  ======================  ====================================

The numbers are in ``flow``. An update is not repeatable: ``run.deliver`` finds out whether it happened.
"""

from __future__ import annotations

import threading
from typing import TypeVar

from phala_secrets import flow
from phala_secrets.cloud.call import Attempt, Call, Response, read
from phala_secrets.cloud.refusals import is_busy, retry_after
from phala_secrets.errors import AnswerError, ApiError, PhalaSecretsError, RateLimitError, TransportError
from phala_secrets.flow import Flow, Pause

T = TypeVar("T")

_PASSING = (500, 502, 503, 504)


def exchange(
    call: Call[T], pace: Pace, timeout: float, *, within: float = float("inf"), tries: int = flow.TRIES
) -> Flow[T]:
    """Send one call with safe retries and return its result.

    ``timeout`` is the limit of one try in seconds, ``within`` that of all together.
    """
    deadline = flow.clock.monotonic() + within
    made = 0
    turn = Turn()
    try:
        while True:
            yield from pace.wait(turn, deadline)
            made += 1
            left = deadline - flow.clock.monotonic()
            began = flow.clock.monotonic()
            try:
                response: Response = yield Attempt(call, max(0.001, min(timeout, left)))
                return read(call, response)
            except PhalaSecretsError as error:
                pause = None if made >= tries else _pause_after(call, error, made)
                if pause is not None and isinstance(error, RateLimitError):
                    pace.slow_down(turn, pause, began)
                if pause is None or flow.clock.monotonic() + pause >= deadline:
                    if call.absolute and isinstance(error, ApiError):
                        raise _of_another(error, call.given_by) from None
                    raise
                yield Pause(
                    pause, f"{error.marked}; trying again in {pause:.1f} s (try {made + 1} of {tries})"
                )
    finally:
        pace.over(turn)


def _pause_after(call: Call[T], error: PhalaSecretsError, made: int) -> float | None:
    """Return the seconds until the next try, or None to give up."""
    limited = isinstance(error, RateLimitError)
    if isinstance(error, ApiError):
        again = (
            limited
            or (is_busy(error) and call.when_busy and not call.absolute)
            or (error.status_code in _PASSING and (call.repeatable or call.absolute))
        )
    else:
        again = (
            isinstance(error, TransportError)
            and not isinstance(error, AnswerError)
            and (call.repeatable or not error.sent)
        )
    if not again:
        return None
    growth = flow.LIMITED_GROWTH if limited and not call.absolute else flow.GROWTH
    return flow.pause_before(made, retry_after(error), growth=growth)


def _of_another(error: ApiError, given_by: str) -> AnswerError:
    """Return the error for a refusal by another server, such as a chain's RPC."""
    if given_by == "rpc-url":
        return AnswerError(
            f"the RPC returned HTTP {error.status_code}", hint="check rpc-url, and its key and limits"
        )
    return AnswerError(f"{given_by} returned HTTP {error.status_code}", hint=f"check {given_by}")


class Turn:
    """The place of one exchange in the queue of rate-limited ones."""


class Pace:
    """The pace of requests: unlimited until a 429, then slower for all.

    The threads of a client share one, so that none runs into the limit that another just hit. Limited
    exchanges go first, in the order of their 429s, so that their tries suffice however many wait.
    """

    _AT_FIRST = 0.05
    """Seconds between requests after the first 429: a shared API bears twenty per second."""

    _SLOWEST = 5.0
    """Seconds: twelve per minute is the lowest limit seen in such APIs."""

    _RECOVERY = 0.95
    """Factor of the interval after each request: back to full speed after about fifty."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._interval = 0.0
        self._next = 0.0
        self._slowed = 0.0
        self._limited: list[Turn] = []

    def wait(self, turn: Turn, deadline: float) -> Flow[None]:
        """Pause until it is the turn of this exchange.

        Raise TransportError if that is after ``deadline``.
        """
        while seconds := self._seconds(turn):
            if flow.clock.monotonic() + seconds > deadline:
                raise TransportError(
                    "the rate limit leaves no time for another request",
                    hint="lower max-parallel, or allow more time",
                    sent=False,
                )
            yield Pause(seconds)

    def _seconds(self, turn: Turn) -> float:
        """Return the seconds to wait before the next call, or 0 once the turn is taken."""
        if not self._interval:
            return 0.0
        with self._lock:
            now = flow.clock.monotonic()
            if (wait := self._next - now) > 0:
                return wait
            if self._limited and self._limited[0] is not turn:
                return max(self._interval, self._AT_FIRST)
            self._next = now + self._interval
            self._interval *= self._RECOVERY
            if self._interval < self._AT_FIRST / 10 and not self._limited:
                self._interval = 0.0
            return 0.0

    def slow_down(self, turn: Turn, pause: float, began: float) -> None:
        """Send nothing for ``pause`` seconds and less often afterwards.

        A request that began before the last slowdown (``began``) does not slow down further.
        """
        with self._lock:
            if turn not in self._limited:
                self._limited.append(turn)
            now = flow.clock.monotonic()
            self._next = max(self._next, now + pause)
            if began >= self._slowed:
                self._interval = min(max(2 * self._interval, self._AT_FIRST), self._SLOWEST)
                self._slowed = now

    def over(self, turn: Turn) -> None:
        """Give the turn to the next exchange."""
        if self._limited:
            with self._lock:
                self._limited = [other for other in self._limited if other is not turn]
