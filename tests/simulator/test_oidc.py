"""Whose tokens the simulated service takes, and whose it does not."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from phala_secrets.simulator.authority import p256
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.server import Simulator

Spoil = Callable[[Cloud], None]


def status_of(url: str, **headers: str) -> tuple[int, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=named)) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


def asked(simulator: Simulator, token: str, **headers: str) -> tuple[int, Any]:
    return status_of(f"{simulator.url}/kms", Authorization=f"Bearer {token}", **headers)


def test_a_job_gets_a_token_and_is_let_in_with_it(simulator: Simulator) -> None:
    github = simulator.cloud.github
    url = f"{simulator.token_url}&audience={simulator.url}"
    assert status_of(url)[0] == 401
    assert status_of(url, Authorization="bearer wrong")[0] == 401
    assert status_of(url, Authorization=f"basic {github.request_token}")[0] == 401
    code, answer = status_of(url, Authorization=f"bearer {github.request_token}")
    assert code == 200
    assert github.issued == [answer["value"]]
    assert asked(simulator, answer["value"])[0] == 200


def test_a_token_without_an_audience_is_for_nobody_here(simulator: Simulator) -> None:
    authorized = f"bearer {simulator.cloud.github.request_token}"
    _, answer = status_of(simulator.token_url, Authorization=authorized)
    assert asked(simulator, answer["value"]) == (401, {"detail": "Invalid token: audience"})


SPOILED: dict[str, tuple[dict[str, Any], str]] = {
    "another issuer": ({"iss": "https://token.example"}, "issuer"),
    "another audience": ({"aud": "https://cloud.phala.com"}, "audience"),
    "several audiences": ({"aud": ["https://cloud.phala.com"]}, "audience"),
    "expired": ({"exp": 1}, "expired"),
    "not yet valid": ({"nbf": 1 << 40}, "not yet valid"),
    "no expiry": ({"exp": None}, "no expiry"),
    "an expiry that is text": ({"exp": "9999999999"}, "no expiry"),
    "another repository": ({"repository": "evil/fork"}, "not trusted"),
    "no repository": ({"repository": None}, "not trusted"),
}


@pytest.mark.parametrize(("claims", "reason"), SPOILED.values(), ids=SPOILED)
def test_a_claim_that_is_wrong_is_refused(simulator: Simulator, claims: dict[str, Any], reason: str) -> None:
    github = simulator.cloud.github
    github.claims = claims
    code, answer = asked(simulator, github.token(simulator.url))
    assert code in (401, 403)
    assert reason in answer["detail"]


def test_a_signature_counts_alone_with_the_key_of_github(simulator: Simulator) -> None:
    github = simulator.cloud.github
    good = github.token(simulator.url)
    head, claims, signature = good.split(".")
    for token in (
        github.token(simulator.url, key=p256(b"another", "github")),
        f"{head}.{claims}.{signature[:-4]}AAAA",
        f"{head}.{claims}.{signature[:40]}",
        f"{head}.{claims[:-4]}.{signature}",
        f"{head}.{claims}",
        "not-a-token",
        f"eyJhbGciOiJub25lIn0.{claims}.{signature}",
        "",
    ):
        assert asked(simulator, token)[0] == 401, token
    assert status_of(f"{simulator.url}/kms", Authorization=f"Basic {good}")[0] == 401
    assert asked(simulator, good)[0] == 200


def test_an_api_key_wins_over_a_token(simulator: Simulator) -> None:
    good = simulator.cloud.github.token(simulator.url)
    assert asked(simulator, good, X_API_Key="wrong")[0] == 401
    assert asked(simulator, "not-a-token", X_API_Key=simulator.cloud.api_key)[0] == 200


def test_the_workspace_is_to_be_named_where_several_trust_the_repository(simulator: Simulator) -> None:
    tokens = simulator.cloud.tokens
    good = simulator.cloud.github.token(simulator.url)
    assert asked(simulator, good, X_Phala_Workspace="octo")[0] == 200
    assert asked(simulator, good, X_Phala_Workspace="other")[0] == 403
    tokens.trusted["octo-org/octo-app"].append("other")
    assert asked(simulator, good)[0] == 403
    assert asked(simulator, good, X_Phala_Workspace="octo")[0] == 200
    assert asked(simulator, good, X_Phala_Workspace="other") == (403, {"detail": "CVM not in workspace"})


def test_some_routes_may_take_an_api_key_alone(simulator: Simulator) -> None:
    good = simulator.cloud.github.token(simulator.url)
    simulator.cloud.tokens.refused_routes = "^GET /kms"
    assert asked(simulator, good)[0] == 403
    simulator.cloud.tokens.refusal = 401
    assert asked(simulator, good)[0] == 401
    simulator.cloud.tokens.refused_routes = "^PATCH "
    assert asked(simulator, good)[0] == 200
