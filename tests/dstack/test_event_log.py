"""Event logs: what replays to RTMR3, what a guest may claim and when, and what is refused as malformed."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phala_secrets.dstack import event_log
from phala_secrets.dstack.event_log import Claims, parse_event_log, replay
from phala_secrets.errors import EvidenceError

APP, COMPOSE = "ab" * 20, "cd" * 32
FIRST_DIGEST = (
    "f9974020ef507068183313d0ca808e0d1ca9b2d1ad0c61f5784e7157c362c06536f5ddacdad4451693f48fcc72fff624"
)
"""Of ``system-preparing``, which is the same in every log of dstack."""


def event(name: str, payload: str = "", **more: Any) -> dict[str, Any]:
    kind = more.get("event_type", 0x08000001)
    message = kind.to_bytes(4, "little") + b":" + name.encode() + b":" + bytes.fromhex(payload)
    digest = hashlib.sha384(message).hexdigest()
    return {"imr": 3, "event_type": kind, "digest": digest, "event": name, "event_payload": payload} | more


def boot(*more: dict[str, Any]) -> list[dict[str, Any]]:
    return [event("system-preparing"), event("app-id", APP), event("compose-hash", COMPOSE), *more]


READY = event("system-ready")


def test_the_digest_of_an_event_is_that_of_a_recorded_one() -> None:
    (parsed,) = parse_event_log([event("system-preparing", digest=FIRST_DIGEST)])
    assert parsed.recomputed().hex() == FIRST_DIGEST


def test_rtmr3_is_replayed_from_its_own_events_in_order() -> None:
    expected = bytes(48)
    for row in boot(READY):
        expected = hashlib.sha384(expected + bytes.fromhex(row["digest"])).digest()
    others = [event("", imr=0, digest="11" * 48), *boot(READY), event("", imr=1, digest="22" * 48)]
    assert replay(parse_event_log(others)) == expected
    assert replay(parse_event_log(json.dumps(others))) == expected
    assert replay(parse_event_log(boot(READY)[::-1])) != expected


def test_a_log_without_digests_is_replayed_from_what_it_says() -> None:
    bare = [{**row, "digest": ""} for row in boot(READY)]
    assert replay(parse_event_log(bare)) == replay(parse_event_log(boot(READY)))


@pytest.mark.parametrize(
    "change",
    [{"event_payload": "ee" * 20}, {"event": "app-ix"}, {"event_type": 1}, {"digest": "00" * 48}],
    ids=str,
)
def test_an_event_whose_digest_is_not_its_own_is_named(change: dict[str, Any]) -> None:
    rows = boot(READY)
    rows[1] = {**rows[1], **change}
    with pytest.raises(EvidenceError, match=r"digest of RTMR3 event 2 \('app-i[dx]'\) does not match it"):
        replay(parse_event_log(rows))


def test_claims_count_before_system_ready_only() -> None:
    claims = Claims(parse_event_log(boot(READY, event("compose-hash", "ee" * 32), event("late", "01"))))
    assert claims.one("compose-hash").hex() == COMPOSE
    assert claims.optional("late") is None
    with pytest.raises(EvidenceError, match="no late before system-ready"):
        claims.one("late")


def test_a_claim_counts_once() -> None:
    claims = Claims(parse_event_log(boot(event("compose-hash", "ee" * 32), READY)))
    with pytest.raises(EvidenceError, match="2 compose-hash events before system-ready"):
        claims.one("compose-hash")


def test_a_log_without_system_ready_claims_nothing() -> None:
    with pytest.raises(EvidenceError, match="no system-ready"):
        Claims(parse_event_log(boot()))


def test_an_event_of_another_register_or_kind_claims_nothing() -> None:
    stray = [event("instance-id", "11" * 20, imr=2), event("instance-id", "22" * 20, event_type=4)]
    claims = Claims(parse_event_log([*stray, *boot(READY)]))
    with pytest.raises(EvidenceError, match="no instance-id"):
        claims.one("instance-id")


def test_a_colon_in_a_name_makes_no_claim_of_another() -> None:
    """``a:b`` with payload ``c`` and ``a`` with payload ``b:c`` have one digest, so a log can be respelt."""
    genuine = event("compose-hash", b"x:y".hex())
    respelt = {**genuine, "event": "compose-hash:x", "event_payload": b"y".hex()}
    claims = Claims(parse_event_log([event("app-id", APP), respelt, READY]))
    with pytest.raises(EvidenceError, match="no compose-hash"):
        claims.one("compose-hash")


MALFORMED: dict[str, tuple[Any, str]] = {
    "none": (None, "has no event log"),
    "empty": ([], "is empty"),
    "an object": ({}, "not a list"),
    "no JSON": ("[", "not JSON"),
    "deep JSON": ("[" * 100_000, "not JSON"),
    "long JSON": (" " * (event_log.MAX_LOG + 1), "over 4 MiB"),
    "too many": ([event("x")] * (event_log.MAX_EVENTS + 1), "over 4096 events"),
    "a row that is a list": ([[]], "event 1 is not an object"),
    "register 4": ([event("x", imr=4)], "imr"),
    "register true": ([event("x", imr=True)], "imr"),
    "a type that is no number": ([{**event("x"), "event_type": "1"}], "event_type"),
    "a type of 33 bits": ([{**event("x"), "event_type": 2**32}], "event_type"),
    "a short digest": ([event("x", digest="00")], "digest"),
    "a digest of spaces": ([event("x", digest=" " * 96)], "digest"),
    "a name that is a number": ([{**event("x"), "event": 1}], "invalid name"),
    "a long name": ([{**event("x"), "event": "x" * 2_000}], "invalid name"),
    "half a surrogate": ([{**event("x"), "event": "\ud800"}], "invalid name"),
    "half a byte": ([{**event("x"), "event_payload": "0"}], "payload"),
    "a long payload": ([{**event("x"), "event_payload": "00" * 65_537}], "payload"),
    "a payload that is a list": ([{**event("x"), "event_payload": []}], "payload"),
}


@pytest.mark.parametrize("case", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_log_is_refused_for_what_is_wrong_with_it(case: tuple[Any, str]) -> None:
    log, reason = case
    with pytest.raises(EvidenceError, match=reason):
        parse_event_log(log)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)


@given(st.lists(st.fixed_dictionaries(dict.fromkeys(event("x"), json_values)), max_size=3) | json_values)
def test_whatever_comes_is_a_log_or_an_evidence_error(log: Any) -> None:
    with suppress(EvidenceError):
        replay(parse_event_log(log))
