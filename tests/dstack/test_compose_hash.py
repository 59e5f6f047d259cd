"""The hash of an app-compose, to the byte as dstack's SDKs and JavaScript write it."""

from __future__ import annotations

import copy
import datetime
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from phala_secrets.dstack.compose_hash import (
    FORMS,
    Form,
    candidates,
    find_form,
    get_compose_hash,
    measured,
    ordered,
    recognise,
    serialise,
)
from phala_secrets.errors import InputError

RECORDED = json.loads((Path(__file__).parents[1] / "vectors" / "compose_hashes.json").read_text())["rows"]

COMPACT = Form("compact", normalised=False, nulls_dropped=False)
PRETTY = Form("pretty", normalised=True, nulls_dropped=False)

RECORDED_FORMS = {
    "compact": COMPACT,
    "compact_normalised": COMPACT._replace(normalised=True),
    "pretty": PRETTY._replace(normalised=False),
    "pretty_normalised": PRETTY,
    "nulls_dropped": COMPACT._replace(nulls_dropped=True),
    "nulls_dropped_normalised": COMPACT._replace(normalised=True, nulls_dropped=True),
}

TYPICAL: dict[str, Any] = json.loads(RECORDED[0]["app_compose"])


def sha256(app_compose: dict[str, Any], form: Form) -> str:
    return hashlib.sha256(serialise(app_compose, form)).hexdigest()


@pytest.mark.parametrize("row", RECORDED, ids=lambda row: row["comment"])
def test_every_form_hashes_as_the_official_sdks_do(row: dict[str, str]) -> None:
    app_compose = json.loads(row["app_compose"])
    assert get_compose_hash(app_compose) == row["compact"]
    assert get_compose_hash(app_compose, normalize=True) == row["compact_normalised"]
    recorded = {name: row[name] for name in RECORDED_FORMS if name in row}
    assert {name: sha256(app_compose, RECORDED_FORMS[name]) for name in recorded} == recorded


@pytest.mark.parametrize("row", RECORDED, ids=lambda row: row["comment"])
def test_hashing_leaves_its_argument_as_it_is(row: dict[str, str]) -> None:
    app_compose = json.loads(row["app_compose"])
    before = json.dumps(app_compose)
    for form in FORMS:
        serialise(app_compose, form)
        candidates(app_compose, ["A"], form)
    assert json.dumps(app_compose) == before


def test_the_pretty_form_loses_the_space_after_every_quote_and_colon() -> None:
    app_compose = {"name": 'say "hi": loud', "list": [1, {}], "none": []}
    assert serialise(app_compose, PRETTY).decode() == (
        '{\n    "list":[\n        1,\n        {}\n    ],\n    "name":"say \\"hi\\":loud",\n    "none":[]\n}'
    )


def test_surrogates_that_stand_apart_in_memory_are_one_character_as_in_javascript() -> None:
    together, apart = {"a": "\U0001f600"}, {"a": "\ud83d\ude00"}
    assert serialise(apart, COMPACT) == serialise(together, COMPACT) == '{"a":"😀"}'.encode()


def as_javascript_reads(text: str | bytes) -> Any:
    """The JSON, every number a double."""
    return json.loads(text, parse_int=float)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


app_composes = st.dictionaries(st.text(max_size=8), json_values, max_size=6)


@given(app_composes, st.sampled_from([COMPACT, PRETTY._replace(normalised=False)]))
def test_what_is_written_means_what_was_given(app_compose: dict[str, Any], form: Form) -> None:
    wanted = json.dumps(app_compose, ensure_ascii=False)
    if form.style == "pretty":
        # The blanks that this form drops inside strings are gone for good.
        wanted = wanted.replace('": ', '":')
    assert as_javascript_reads(serialise(app_compose, form)) == as_javascript_reads(wanted)


@given(app_composes, st.randoms(), st.sampled_from(FORMS))
def test_the_order_of_keys_does_not_matter(app_compose: dict[str, Any], random: Any, form: Form) -> None:
    keys = list(app_compose)
    random.shuffle(keys)
    assert sha256({key: app_compose[key] for key in keys}, form) == sha256(app_compose, form)


@given(app_composes.filter(bool), st.sampled_from(FORMS))
def test_the_form_that_is_found_gives_the_hash(app_compose: dict[str, Any], form: Form) -> None:
    assume(serialise(app_compose, form) != b"{}")  # which every form writes alike
    found = find_form(app_compose, sha256(app_compose, form))
    assert found is not None
    # Another form that writes the same is as good, and still is when the names change.
    changed = {**app_compose, "allowed_envs": ["A", "B"]}
    assert sha256(changed, found) == sha256(changed, form)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_each_form_is_told_from_the_others(form: Form) -> None:
    app_compose = {**TYPICAL, "bash_script": "unused", "name": None}
    assert find_form(app_compose, sha256(app_compose, form)) == form
    assert find_form(app_compose, "0x" + sha256(app_compose, form).upper()) == form


@pytest.mark.parametrize("compose_hash", ["", "0x", "00" * 32, "not a hash", RECORDED[1]["app_compose"]])
def test_a_hash_of_something_else_has_no_form(compose_hash: str) -> None:
    assert find_form(TYPICAL, compose_hash) is None


def test_an_app_compose_that_was_swapped_has_no_form() -> None:
    approved = sha256(TYPICAL, PRETTY)
    swapped = {**TYPICAL, "docker_compose_file": "services: {thief: {image: thief}}"}
    assert find_form(TYPICAL, approved) is not None
    assert find_form(swapped, approved) is None


def test_candidates_differ_from_the_app_compose_in_nothing_but_the_names() -> None:
    assert TYPICAL["allowed_envs"] == ["DATABASE_URL", "API_SECRET"]
    names = ["ZONE", "API_SECRET", "DATABASE_URL", "BASE"]
    orders = {
        "as sent": names,
        "kept": ["DATABASE_URL", "API_SECRET", "ZONE", "BASE"],
        "sorted": ["API_SECRET", "BASE", "DATABASE_URL", "ZONE"],
    }
    for form in FORMS:
        assert candidates(TYPICAL, names, form) == {
            sha256({**TYPICAL, "allowed_envs": ordered}, form): order for order, ordered in orders.items()
        }


def test_names_that_are_dropped_are_not_kept_as_old_ones() -> None:
    found = candidates(TYPICAL, ["API_SECRET", "A"], COMPACT)
    assert set(found.values()) == {"as sent", "sorted"}
    assert found[sha256({**TYPICAL, "allowed_envs": ["API_SECRET", "A"]}, COMPACT)] == "as sent"


@pytest.mark.parametrize("allowed", [None, [], "DATABASE_URL", 7, {"A": 1}, [["A"], 7]])
def test_an_app_without_usable_old_names_has_the_names_as_sent_and_sorted(allowed: Any) -> None:
    app_compose = {**TYPICAL, "allowed_envs": allowed}
    assert sorted(candidates(app_compose, ["B", "A"], COMPACT).values()) == ["as sent", "sorted"]
    del app_compose["allowed_envs"]
    assert sorted(candidates(app_compose, ["B", "A"], COMPACT).values()) == ["as sent", "sorted"]


def test_unchanged_names_have_the_hash_that_there_is() -> None:
    present = sha256(TYPICAL, PRETTY)
    assert candidates(TYPICAL, ["API_SECRET", "DATABASE_URL"], PRETTY)[present] == "kept"
    assert candidates(TYPICAL, ["DATABASE_URL", "API_SECRET"], PRETTY)[present] == "as sent"


@pytest.mark.parametrize(
    ("value", "failure"),
    [
        (b"bytes", "contains a bytes"),
        (datetime.date(2026, 1, 1), "contains a date"),
        ({"set"}, "contains a set"),
        ({1: "a"}, "a key that is a int"),
        ({None: "a"}, "a key that is a NoneType"),
    ],
)
def test_what_json_cannot_express_is_refused(value: Any, failure: str) -> None:
    for app_compose in ({"x": value}, {"x": [{"y": value}]}):
        with pytest.raises(InputError, match=failure):
            get_compose_hash(app_compose)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10**400])
def test_numbers_that_are_none_are_null_as_in_javascript(value: float) -> None:
    assert serialise({"a": value}, COMPACT) == b'{"a":null}'


def test_tuples_are_lists() -> None:
    assert get_compose_hash({"a": (1, 2)}) == get_compose_hash({"a": [1, 2]})


def test_a_nest_without_end_is_an_error_and_not_a_crash() -> None:
    nest: Any = []
    for _ in range(100_000):
        nest = [nest]
    with pytest.raises(InputError, match="nested too deeply"):
        get_compose_hash({"x": nest})
    shallow: Any = 0
    for _ in range(50):
        shallow = {"x": [shallow]}
    assert get_compose_hash({"x": shallow}) == get_compose_hash(copy.deepcopy({"x": shallow}))


# The order of names

names = st.lists(st.sampled_from(["A", "B", "C", "D", "E", "F"]), unique=True)


@given(names, names)
def test_names_keep_today_s_order_and_new_ones_stand_behind(today: list[str], given_: list[str]) -> None:
    found = ordered(today, given_)
    assert sorted(found) == sorted(given_)
    kept = [name for name in today if name in given_]
    assert found == kept + [name for name in given_ if name not in today]


def test_the_same_names_in_another_order_keep_the_compose_hash() -> None:
    today = TYPICAL["allowed_envs"]
    assert ordered(today, reversed(today)) == today
    assert ordered([], ["B", "A"]) == ["B", "A"]
    assert ordered(["B", "A", "B"], ["A", "B", "C", "A"]) == ["B", "A", "C"]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_order_and_the_form_of_a_hash_are_recognised(form: Form) -> None:
    app_compose = {**TYPICAL, "bash_script": "unused", "name": None}
    sent = ["ZONE", "API_SECRET", "DATABASE_URL", "BASE"]
    orders = {"as sent": sent, "kept": ordered(TYPICAL["allowed_envs"], sent), "sorted": sorted(sent)}
    for order, listed in orders.items():
        compose_hash = sha256({**app_compose, "allowed_envs": listed}, form)
        assert recognise(app_compose, sent, compose_hash) == (order, form)
        assert recognise(app_compose, sent, "0x" + compose_hash.upper()) == (order, form)
    other = sha256({**app_compose, "allowed_envs": sent[::-1]}, form)
    assert recognise(app_compose, sent, other) is None


# The measured document


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_the_measured_document_is_hashed_as_it_stands(form: Form) -> None:
    text = serialise(TYPICAL, form).decode()
    assert measured(text).compose_hash == sha256(TYPICAL, form)
    spaced = " " + text
    assert measured(spaced).compose_hash == hashlib.sha256(spaced.encode()).hexdigest()
    assert measured(spaced).app_compose["allowed_envs"] == TYPICAL["allowed_envs"]


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"a": "\ud800"}', "[" * 100_000])
def test_a_measured_document_that_is_no_app_compose_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a JSON object") as refusal:
        measured(text)
    assert refusal.value.hint
