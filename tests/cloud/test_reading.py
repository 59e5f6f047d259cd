"""What of a response is kept: no credential, nothing without a bound."""

from __future__ import annotations

import json
from typing import Any

import pytest

from phala_secrets.cloud import progress, records, requests
from phala_secrets.cloud.call import Call, Response, read
from phala_secrets.cloud.reading import Hidden, decode
from phala_secrets.cloud.refusals import error_from
from phala_secrets.errors import AnswerError, ApiError, PhalaSecretsError
from phala_secrets.runners.secrecy import NOT_SHOWN

KEY = "phak_canary/0123"
HIDDEN = Hidden([KEY])
CVM = {"id": "cvm_1", "name": "my-app", "status": "running"}


def respond(call: Call[Any], body: object, status: int = 200) -> object:
    return read(call, Response(status, {}, json.dumps(body).encode(), HIDDEN))


# -- credentials -----------------------------------------------------------------------------------


@pytest.mark.parametrize("spelled", [r"phak_canary\/0123", r"\u0070hak_canary/0123"])
def test_the_api_key_is_taken_out_of_decoded_json(spelled: str) -> None:
    body = f'{{"{spelled}": ["a {spelled}", {{"b": "{spelled}"}}], "c": 1}}'.encode()
    assert decode(body, HIDDEN) == {"***": ["a ***", {"b": "***"}], "c": 1}


def test_a_text_that_spells_the_api_key_oddly_is_not_kept() -> None:
    assert HIDDEN.in_text(f"bad key {KEY}") == "bad key ***"
    assert HIDDEN.in_text("bad key phak%5Fcanary%2F0123") == NOT_SHOWN
    assert HIDDEN.in_text("bad key") == "bad key"


def test_the_tokens_of_a_465_are_not_kept() -> None:
    details = [
        {"field": "compose_hash", "value": "ab"},
        {"field": "commit_token", "value": "token-of-a-commit"},
        {"field": "commit_url", "value": "https://x.example/?t=token-of-a-commit"},
        {"field": "api_commit_url", "value": "https://x.example/api"},
    ]
    body = {"message": "use token-of-a-commit", "details": details, "commit_token": "token-of-a-commit"}
    read_back = decode(json.dumps(body).encode(), HIDDEN)
    assert read_back == {"message": "use ***", "details": details[:1]}
    with pytest.raises(ApiError) as raised:
        respond(requests.cvm("a"), body, 465)
    assert "token-of-a-commit" not in f"{raised.value} {vars(raised.value)}"


# -- bounds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"[" * 1_000_000, b'{"a":' * 1_000_000, b'"x"' + b"[" * 100])
def test_json_that_is_nested_too_deeply_is_none(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (json's own, or ours)
        decode(body, HIDDEN)


def test_brackets_in_a_text_do_not_nest() -> None:
    text = '[{"' * 1000 + "\\"
    assert decode(json.dumps({"a": text}).encode(), HIDDEN) == {"a": text}
    assert decode(json.dumps([{}] * 1000).encode(), HIDDEN) == [{}] * 1000


@pytest.mark.parametrize(
    ("call", "body"),
    [
        (records.compose("a"), {"allowed_envs": [f"V{n}" for n in range(1025)]}),
        (records.compose("a"), {"allowed_envs": ["$(x)"]}),
        (records.compose("a"), {"allowed_envs": ["A", ""]}),
        (records.compose("a"), {"allowed_envs": ["A" * 600]}),
        (records.contracts(), {"items": [{"id": "a", "contract_address": "b"}] * 1001}),
        (records.app_cvms("0x" + "ab" * 20), {"items": [CVM] * 5000}),
        (records.cvm("a"), {**CVM, "name": "x" * 2000}),
        (progress.operations("a"), {"items": [{"correlation_id": "c", "status": "x"}] * 5000}),
    ],
)
def test_what_no_service_says_is_no_response(call: Call[Any], body: dict[str, object]) -> None:
    with pytest.raises(AnswerError):
        respond(call, body)


def test_of_what_a_guest_says_so_much_is_kept() -> None:
    state = respond(progress.state("a"), {"status": "error", "boot_error": "x" * 100_000})
    assert isinstance(state, progress.State)
    assert len(state.boot_error) == 16 * 1024


def test_of_a_refusal_so_much_is_kept() -> None:
    error = error_from(
        400,
        {},
        {
            "message": "x" * 100_000,
            "request_id": "y" * 100_000,
            "details": [{"field": "a"}] * 10_000,
            "suggestions": ["z" * 100_000] * 10_000,
            "links": ["l"] * 10_000,
        },
    )
    assert len(str(error)) < 5_000
    assert len(error.hint) < 10_000
    assert max(len(error.details), len(error.suggestions), len(error.links)) <= 50


def test_a_workspace_without_credit_is_explained() -> None:
    assert "credit" in error_from(402, {}, {"message": "no"}).hint


def test_any_exception_of_a_reader_becomes_an_answer_error() -> None:
    def stumble(answer: object) -> object:
        raise KeyError(answer)

    for status in (200, 201):
        with pytest.raises(PhalaSecretsError, match="malformed") as raised:
            respond(requests.cvm("a").read_by(stumble), {}, status)
        assert isinstance(raised.value, AnswerError)
        assert raised.value.sent
