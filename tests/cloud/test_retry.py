"""What is tried again, when and how often: ``exchange`` and ``Pace`` driven by hand, pauses and all."""

from __future__ import annotations

import math
from typing import Any

import pytest

from phala_secrets import flow
from phala_secrets.cloud import records, requests
from phala_secrets.cloud.call import Attempt, Call, Response
from phala_secrets.cloud.refusals import error_from
from phala_secrets.cloud.retry import Pace, Turn, exchange
from phala_secrets.errors import (
    AnswerError,
    ApiError,
    ConflictError,
    PhalaSecretsError,
    RateLimitError,
    ServerError,
    TransportError,
)
from phala_secrets.flow import Pause
from tests.support.clock import ManualClock

READ = requests.kms("phala")
WRITE = requests.update_envs("my-app", "ab", ["A"])
WRITE_THAT_WAITS_ITSELF = records.update("my-app", "ab", ["A"])
RPC: Call[Any] = Call("POST", "https://rpc.example/key", repeatable=False)
GOOD = Response(200, {}, b'{"id": "kms_1"}')

LOST = TransportError("the connection broke off")
REFUSED = TransportError("the connection was refused", sent=False)
GARBLED = AnswerError("no JSON")


def status(code: int, retry_after: str | None = None, body: bytes = b"{}") -> Response:
    return Response(code, {} if retry_after is None else {"retry-after": retry_after}, body)


class Hand:
    """Takes the steps of an exchange: pauses move the clock, each attempt gets the next of ``answers``."""

    def __init__(self, clock: ManualClock, *answers: Response | PhalaSecretsError) -> None:
        self._clock = clock
        self._answers = list(answers)
        self.attempts: list[Attempt] = []
        self.pauses: list[Pause] = []

    def take(self, step: Attempt | Pause) -> Response | None:
        if isinstance(step, Pause):
            self.pauses.append(step)
            self._clock.sleep(step.seconds)
            return None
        self.attempts.append(step)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, PhalaSecretsError):
            raise answer
        return answer

    @property
    def seconds(self) -> list[float]:
        return [pause.seconds for pause in self.pauses]


# -- which, and how long after -------------------------------------------------------------------

BY_DOUBLING = [0.5, 1, 2]
BY_THE_MINUTE = [0.5, 2.5, 12.5]


@pytest.mark.parametrize(
    ("call", "answer", "pauses"),
    [
        pytest.param(READ, status(429), BY_THE_MINUTE, id="429"),
        pytest.param(WRITE, status(429), BY_THE_MINUTE, id="429, an update"),
        pytest.param(RPC, status(429), BY_DOUBLING, id="429, an RPC"),
        pytest.param(WRITE, status(409), BY_DOUBLING, id="409, busy"),
        pytest.param(WRITE_THAT_WAITS_ITSELF, status(409), [], id="409, where the caller waits"),
        pytest.param(WRITE, status(409, body=b'{"error_code": "ERR-03-002"}'), [], id="409 with a code"),
        pytest.param(RPC, status(409), [], id="409, an RPC"),
        *(pytest.param(READ, status(code), BY_DOUBLING, id=str(code)) for code in (500, 502, 503, 504)),
        pytest.param(WRITE, status(503), [], id="503, an update"),
        pytest.param(RPC, status(503), BY_DOUBLING, id="503, an RPC"),
        pytest.param(READ, status(501), [], id="501"),
        pytest.param(READ, REFUSED, BY_DOUBLING, id="connection refused"),
        pytest.param(WRITE, REFUSED, BY_DOUBLING, id="connection refused, an update"),
        pytest.param(READ, LOST, BY_DOUBLING, id="connection lost"),
        pytest.param(WRITE, LOST, [], id="connection lost, an update"),
        pytest.param(READ, GARBLED, [], id="garbled"),
        *(pytest.param(READ, status(code), [], id=str(code)) for code in (307, 400, 401, 403, 404, 422)),
    ],
)
def test_what_is_tried_four_times_and_what_once(
    clock: ManualClock, call: Call[Any], answer: Response | PhalaSecretsError, pauses: list[float]
) -> None:
    hand = Hand(clock, answer)
    with pytest.raises(PhalaSecretsError):
        flow.drive(exchange(call, Pace(), 30), hand.take)
    assert hand.seconds == pauses
    assert [attempt.call for attempt in hand.attempts] == [call] * (len(pauses) + 1)


def test_a_retry_that_works_ends_it_and_says_what_it_waits_for(clock: ManualClock) -> None:
    hand = Hand(clock, status(503), LOST, GOOD)
    assert flow.drive(exchange(READ, Pace(), 30), hand.take) == {"id": "kms_1"}
    said = "Phala Cloud: it failed (HTTP 503); trying again in 0.5 s (try 2 of 4)"
    assert hand.pauses[0].message == said
    assert hand.pauses[1].message == "the connection broke off; trying again in 1.0 s (try 3 of 4)"


def test_fewer_tries_where_they_are_given(clock: ManualClock) -> None:
    hand = Hand(clock, status(503))
    with pytest.raises(ServerError):
        flow.drive(exchange(READ, Pace(), 30, tries=2), hand.take)
    assert hand.seconds == [0.5]


@pytest.mark.parametrize("code", [429, 409, 503])
@pytest.mark.parametrize(("asked", "pause"), [("7", 7), ("0", 0.5), ("60", 60), ("61", None), ("soon", 0.5)])
def test_retry_after_is_kept_up_to_a_minute(
    clock: ManualClock, code: int, asked: str, pause: float | None
) -> None:
    hand = Hand(clock, status(code, asked), GOOD)
    if pause is None:
        with pytest.raises(ApiError):
            flow.drive(exchange(READ, Pace(), 30), hand.take)
    else:
        flow.drive(exchange(READ, Pace(), 30), hand.take)
    assert hand.seconds == ([] if pause is None else [pause])


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("Sat, 01 Jan 2000 00:00:07 GMT", 7),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0),
        ("0000000000003", 3),
        ("9" * 5000, float("inf")),
        ("soon", None),
        ("-1", None),
    ],
)
def test_retry_after_is_read_whatever_this_machine_s_clock_says(value: str, seconds: float | None) -> None:
    headers = {"retry-after": value, "date": "Sat, 01 Jan 2000 00:00:00 GMT"}
    assert error_from(503, headers, b"{}").retry_after == seconds


# -- timeouts and deadlines ----------------------------------------------------------------------


def test_each_try_has_the_timeout_of_a_request_and_all_of_them_the_deadline(clock: ManualClock) -> None:
    hand = Hand(clock, status(503))
    with pytest.raises(ServerError):
        flow.drive(exchange(READ, Pace(), 2, within=3), hand.take)
    assert hand.seconds == [0.5, 1], "a third pause would be over at 3.5 s"
    assert [attempt.seconds for attempt in hand.attempts] == [2, 2, 1.5]


def test_a_pause_that_ends_with_the_deadline_is_not_made(clock: ManualClock) -> None:
    hand = Hand(clock, status(429, "3"))
    with pytest.raises(RateLimitError):
        flow.drive(exchange(READ, Pace(), 2, within=3), hand.take)
    assert hand.seconds == []


def test_a_deadline_that_is_over_leaves_a_try_that_cannot_take_long(clock: ManualClock) -> None:
    hand = Hand(clock, GOOD)
    flow.drive(exchange(READ, Pace(), 2, within=0), hand.take)
    assert 0 < hand.attempts[0].seconds < 0.01


# -- refusals of others --------------------------------------------------------------------------


def test_what_an_rpc_refuses_is_none_of_phala_clouds_errors(clock: ManualClock) -> None:
    with pytest.raises(AnswerError, match="the RPC returned HTTP 403") as refused:
        flow.drive(exchange(RPC, Pace(), 30), Hand(clock, status(403)).take)
    assert "rpc-url" in refused.value.hint


def test_a_409_is_raised_once_the_tries_are_used_up(clock: ManualClock) -> None:
    with pytest.raises(ConflictError):
        flow.drive(exchange(WRITE, Pace(), 30), Hand(clock, status(409)).take)


# -- the rate limit of all together --------------------------------------------------------------


def seconds_until(pace: Pace, turn: Turn, deadline: float = math.inf) -> float:
    """The first pause of a turn, or 0 where there is none: the turn is taken then."""
    waiting = pace.wait(turn, deadline)
    try:
        pause: Pause = next(waiting)
    except StopIteration:
        return 0.0
    waiting.close()
    return pause.seconds


def test_whoever_met_the_rate_limit_first_goes_first(clock: ManualClock) -> None:
    """So that four tries are enough for each, however many wait."""
    pace = Pace()
    first, second, fresh = Turn(), Turn(), Turn()
    assert seconds_until(pace, fresh) == 0, "nobody waits before there is a limit"
    began = clock.monotonic()
    pace.slow_down(first, 0.0, began)
    pace.slow_down(second, 0.0, began)
    assert seconds_until(pace, fresh) > 0
    assert seconds_until(pace, second) > 0
    assert seconds_until(pace, first) == 0
    pace.over(first)
    pause = seconds_until(pace, second)
    assert pause > 0, "they follow each other at a distance"
    clock.advance(pause)
    assert seconds_until(pace, fresh) > 0
    assert seconds_until(pace, second) == 0
    pace.over(second)
    clock.advance(seconds_until(pace, fresh))
    assert seconds_until(pace, fresh) == 0


def test_a_rate_limit_of_one_request_holds_up_the_others(clock: ManualClock) -> None:
    pace = Pace()
    hand = Hand(clock, status(429, "9"), GOOD)
    limited = exchange(READ, pace, 30)
    limited.send(None)
    assert limited.send(status(429, "9")) == Pause(9, hand_message(status(429, "9")))
    other = exchange(READ, pace, 30)
    assert next(other) == Pause(9), "nothing is sent for as long"
    clock.sleep(9)
    assert isinstance(next(limited), Attempt)
    with pytest.raises(StopIteration):
        limited.send(GOOD)
    flow.drive(other, hand.take)


def hand_message(response: Response) -> str:
    said = error_from(response.status, response.headers, response.body).message
    return f"{said}; trying again in 9.0 s (try 2 of 4)"


def test_the_distance_doubles_with_each_limit_and_shrinks_with_each_success(clock: ManualClock) -> None:
    pace, turn = Pace(), Turn()
    distances = []
    for _ in range(10):
        clock.advance(100)
        pace.slow_down(turn, 0.0, clock.monotonic())
        seconds_until(pace, turn)
        distances.append(seconds_until(pace, turn))
    assert distances == sorted(distances)
    assert distances[0] == pytest.approx(0.05)
    assert distances[-1] == pytest.approx(5, rel=0.06), "twelve a minute at least"
    pace.over(turn)
    sent = 0
    while pause := seconds_until(pace, turn):
        clock.advance(pause)
        sent += 1
        assert seconds_until(pace, turn) == 0
    assert 50 < sent < 200, "and then at full speed again"


def test_requests_under_way_when_the_limit_was_met_slow_it_down_once(clock: ManualClock) -> None:
    pace = Pace()
    began = clock.monotonic()
    clock.advance(1)
    turns = [Turn() for _ in range(8)]
    for turn in turns:
        pace.slow_down(turn, 0.0, began)
    for turn in turns:
        pace.over(turn)
    seconds_until(pace, Turn())
    assert seconds_until(pace, Turn()) == pytest.approx(0.05)


def test_a_turn_that_comes_after_the_deadline_is_not_waited_for(clock: ManualClock) -> None:
    pace, turn = Pace(), Turn()
    pace.slow_down(Turn(), 60.0, clock.monotonic())
    with pytest.raises(TransportError, match="the rate limit leaves no time") as failed:
        seconds_until(pace, turn, deadline=clock.monotonic() + 10)
    assert not failed.value.sent
    assert "max-parallel" in failed.value.hint


def test_an_exchange_that_is_left_gives_up_its_turn(clock: ManualClock) -> None:
    pace = Pace()
    left = exchange(READ, pace, 30)
    left.send(None)
    left.send(status(429))
    left.close()
    clock.advance(60)
    assert seconds_until(pace, Turn()) == 0
