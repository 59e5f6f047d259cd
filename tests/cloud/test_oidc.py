"""The login of a job in the library, sync and async: one token for all, renewed in time."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phala_secrets import (
    AnswerError,
    AuthError,
    InputError,
    TransportError,
    create_async_client,
    create_client,
    flow,
)
from phala_secrets.cloud.call import Attempt, Response
from phala_secrets.cloud.oidc import AUDIENCE, Keyless, login_of_job
from phala_secrets.cloud.refusals import error_from
from phala_secrets.cloud.requests import DEFAULT_URL
from phala_secrets.cloud.secret import Secret
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.oidc import TOKEN_PATH, _base64
from tests.support.clock import ManualClock
from tests.support.faults import Fault
from tests.support.faulty import FaultySimulator as Simulator
from tests.support.job import keyless

MANY = 12
CLAIM = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JSON = (
    CLAIM
    | st.lists(CLAIM, max_size=3)
    | st.dictionaries(st.sampled_from(["exp", "iat", "aud", "sub"]), CLAIM)
)
JOB = {
    "ACTIONS_ID_TOKEN_REQUEST_URL": "https://run.actions.example/token/1?api-version=2.0",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-canary-7f3a",
}


@pytest.fixture(autouse=True)
def job(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is a job that may ask for tokens."""
    for name, value in keyless(simulator).items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("PHALA_CLOUD_API_PREFIX", simulator.url)


def in_threads() -> list[Any]:
    """What many threads get of one client at the same moment."""
    together = threading.Barrier(MANY)

    with create_client() as client, ThreadPoolExecutor(MANY) as pool:

        def ask(_: int) -> Any:
            together.wait()
            try:
                return client.get_kms_info("phala").slug
            except (TransportError, AuthError) as error:
                return error

        return [*pool.map(ask, range(MANY)), *pool.map(ask, range(MANY))]


def in_tasks() -> list[Any]:
    """The same of the tasks of one loop."""

    async def ask_all() -> list[Any]:
        async with create_async_client() as client:
            both: list[Any] = []
            for _ in range(2):
                asked = (client.get_kms_info("phala") for _ in range(MANY))
                both += await asyncio.gather(*asked, return_exceptions=True)
            return [one if isinstance(one, Exception) else one.slug for one in both]

    return asyncio.run(ask_all())


@pytest.fixture(params=[in_threads, in_tasks])
def ask(request: pytest.FixtureRequest) -> Callable[[], list[Any]]:
    """Many requests at once, twice over."""
    asks: Callable[[], list[Any]] = request.param
    return asks


# -- one token for all -----------------------------------------------------------------------------


def test_one_token_serves_all_that_ask_at_once(ask: Callable[[], list[Any]], cloud: Cloud) -> None:
    assert ask() == ["phala"] * 2 * MANY
    assert len(cloud.github.issued) == 1


def test_one_asks_for_the_next_token_and_the_others_wait(
    ask: Callable[[], list[Any]], cloud: Cloud, clock: ManualClock
) -> None:
    """Each response is so late that the token has to be replaced for the second half."""
    asked = 0

    def late(request: Any, answer: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked == MANY:
            clock.advance(250.0)
        return answer

    cloud.tamper = late
    assert ask() == ["phala"] * 2 * MANY
    assert len(cloud.github.issued) == 2
    sent = [request.headers["authorization"] for request in cloud.requests if request.path != TOKEN_PATH]
    assert sent[-1] == f"Bearer {cloud.github.issued[1]}"


def test_waiters_share_the_failure_of_a_token_request(
    ask: Callable[[], list[Any]], simulator: Simulator, cloud: Cloud
) -> None:
    simulator.faults.add(Fault("status", path=TOKEN_PATH, status=403, times=None))
    outcomes = ask()
    assert {type(outcome) for outcome in outcomes} == {AnswerError}
    assert {str(outcome) for outcome in outcomes} == {"GitHub refused a token: HTTP 403"}
    asked = [request for request in cloud.requests if request.path == TOKEN_PATH]
    assert len(asked) < MANY
    assert len(asked) == len(cloud.requests)


def test_a_refusal_names_the_missing_key_and_the_route(ask: Callable[[], list[Any]], cloud: Cloud) -> None:
    cloud.tokens.trusted.clear()
    outcomes = ask()
    assert {type(outcome) for outcome in outcomes} == {AuthError}
    assert {str(outcome).partition(":")[0] for outcome in outcomes} == {
        "api-key is missing, and Phala Cloud refused GitHub's token for GET /kms/phala"
    }


def test_streams_log_in_too(cvm: Cvm, cloud: Cloud) -> None:
    with create_client() as client:
        assert [event.type for event in client.watch_cvm_state(cvm.name)][-1] == "complete"

    async def watched() -> list[str]:
        async with create_async_client() as client:
            return [event.type async for event in client.watch_cvm_state(cvm.name)]

    assert asyncio.run(watched())[-1] == "complete"
    assert len(cloud.github.issued) == 2


def test_a_stream_that_is_refused_says_so_too(cvm: Cvm, cloud: Cloud) -> None:
    cloud.tokens.refused_routes = "/state$"
    with (
        create_client() as client,
        pytest.raises(AuthError, match=r"api-key is missing.* for GET /cvms/my-app/state"),
    ):
        list(client.watch_cvm_state(cvm.name))


def test_the_workspace_goes_with_the_token(cloud: Cloud) -> None:
    cloud.tokens.trusted["octo-org/octo-app"].append("other")
    with create_client(workspace="octo") as client:
        assert client.get_kms_info("phala").slug == "phala"

    async def awaited() -> str | None:
        async with create_async_client(workspace="octo") as client:
            return (await client.get_kms_info("phala")).slug

    assert asyncio.run(awaited()) == "phala"
    with create_client() as client, pytest.raises(AuthError, match="Several workspaces"):
        client.get_kms_info("phala")


def test_an_api_key_does_without(cloud: Cloud, simulator: Simulator) -> None:
    with create_client(cloud.api_key) as client:
        client.get_kms_info("phala")
    assert cloud.github.issued == []
    assert [request.headers.get("authorization") for request in cloud.requests] == [None]


def test_where_no_job_is_there_is_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "false")
    with pytest.raises(InputError, match="no API key") as refused:
        create_client()
    assert refused.value.hint == "pass api_key, or set PHALA_CLOUD_API_KEY"
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.delenv("ACTIONS_ID_TOKEN_REQUEST_URL")
    with pytest.raises(InputError, match="no API key") as refused:
        create_client()
    assert refused.value.hint.startswith("pass api_key, or set PHALA_CLOUD_API_KEY; ")
    assert "id-token: write" in refused.value.hint


# -- by hand ---------------------------------------------------------------------------------------


def login(api_url: str = DEFAULT_URL, workspace: str = "", **environ: str) -> Keyless:
    return login_of_job({**JOB, **environ}, api_url, workspace, "give api-key")


def token_for(audience: str, cloud: Cloud) -> Response:
    body = json.dumps({"value": cloud.github.token(audience)}).encode()
    return Response(200, {}, body)


def first_attempt(keyless: Keyless) -> Attempt:
    renewal = keyless.renewal(7.0)
    assert renewal
    step = next(renewal)
    assert isinstance(step, Attempt)
    return step


def test_phala_clouds_token_has_phala_clouds_audience() -> None:
    attempt = first_attempt(login())
    assert attempt.seconds == 7.0
    assert (
        attempt.call.path == f"{JOB['ACTIONS_ID_TOKEN_REQUEST_URL']}&audience=https%3A%2F%2Fcloud.phala.com"
    )
    assert attempt.call.headers == {"Authorization": "bearer request-canary-7f3a"}
    assert attempt.call.absolute


def test_a_request_url_without_a_query_gets_one() -> None:
    attempt = first_attempt(login(ACTIONS_ID_TOKEN_REQUEST_URL="https://run.actions.example/token"))
    assert attempt.call.path == "https://run.actions.example/token?audience=https%3A%2F%2Fcloud.phala.com"


@pytest.mark.parametrize("url", [DEFAULT_URL, "https://CLOUD-API.phala.com:443/api/v2"])
def test_phala_clouds_own_url_is_its_host(url: str) -> None:
    assert "cloud.phala.com" in first_attempt(login(url)).call.path


@pytest.mark.parametrize(
    "url",
    [
        "https://cloud-api.phala.com:8443/api/v1",
        "https://me@cloud-api.phala.com/api/v1",
        "https://api.phala.com/v1",
        "https://cloud-api.phala.com.example/api/v1",
    ],
)
def test_another_url_is_not(url: str) -> None:
    with pytest.raises(InputError, match="no API key"):
        login(url)


def test_a_loopback_api_is_its_own_audience() -> None:
    attempt = first_attempt(login("http://127.0.0.1:8080/api/v1"))
    assert attempt.call.path.endswith("&audience=http%3A%2F%2F127.0.0.1%3A8080%2Fapi%2Fv1")


def test_nothing_shows_a_token(cloud: Cloud) -> None:
    keyless = login(workspace="octo")
    attempt = first_attempt(keyless)
    renewal = keyless.renewal(7.0)
    assert renewal
    next(renewal)
    with pytest.raises(StopIteration):
        renewal.send(token_for(AUDIENCE, cloud))
    token = keyless.headers()["Authorization"].removeprefix("Bearer ")
    assert keyless.headers()["X-Phala-Workspace"] == "octo"
    shown = (
        f"{keyless!r} {keyless} {attempt!r} {vars(keyless)['_token']!r} {vars(keyless)['_request_token']!r}"
    )
    assert token not in shown
    assert "request-canary-7f3a" not in shown


def test_a_token_is_good_until_a_minute_before_its_end(clock: ManualClock, cloud: Cloud) -> None:
    keyless = login()
    renewal = keyless.renewal(7.0)
    assert renewal
    next(renewal)
    clock.advance(5.0)  # GitHub takes that long
    with pytest.raises(StopIteration):
        renewal.send(token_for(AUDIENCE, cloud))
    assert keyless.renewal(7.0) is None
    clock.advance(300.0 - flow.TOKEN_MARGIN - 5.0 - 1.0)
    assert keyless.renewal(7.0) is None
    clock.advance(1.0)
    assert keyless.renewal(7.0) is not None


def test_a_short_token_is_good_for_half_its_time(clock: ManualClock, cloud: Cloud) -> None:
    cloud.github.lifetime = 60.0
    keyless = Keyless("https://run.actions.example", Secret("t"), AUDIENCE)
    renewal = keyless.renewal(7.0)
    assert renewal
    next(renewal)
    with pytest.raises(StopIteration):
        renewal.send(token_for(AUDIENCE, cloud))
    clock.advance(29.0)
    assert keyless.renewal(7.0) is None
    clock.advance(1.0)
    assert keyless.renewal(7.0) is not None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (429, TransportError),
        (500, TransportError),
        (503, TransportError),
        (400, AnswerError),
        (404, AnswerError),
    ],
)
def test_what_passes_may_be_tried_again_and_nothing_was_sent(status: int, kind: type[TransportError]) -> None:
    renewal = login().renewal(7.0)
    assert renewal
    next(renewal)
    with pytest.raises(TransportError) as failed:
        renewal.send(Response(status, {}, b"{}"))
    assert type(failed.value) is kind
    assert not failed.value.sent


def test_a_lost_response_of_github_is_no_lost_update() -> None:
    renewal = login().renewal(7.0)
    assert renewal
    next(renewal)
    with pytest.raises(TransportError) as failed:
        renewal.throw(TransportError("it broke off", hint="check the network", sent=True))
    assert type(failed.value) is TransportError
    assert not failed.value.sent
    assert failed.value.hint == "check the network"


@given(
    st.binary()
    | st.builds(lambda value: json.dumps({"value": value}).encode(), JSON | st.text("ab._-=", max_size=40))
    | st.builds(
        lambda claims: json.dumps({"value": f"e30.{_base64(json.dumps(claims).encode())}.c"}).encode(), JSON
    )
)
def test_any_response_of_github_is_a_token_or_a_phala_secrets_error(body: bytes) -> None:
    renewal = login().renewal(7.0)
    assert renewal
    next(renewal)
    with pytest.raises((AnswerError, StopIteration)):
        renewal.send(Response(200, {}, body))


def test_a_refusal_of_another_kind_is_left_alone(cloud: Cloud) -> None:
    from phala_secrets.cloud.refusals import of_a_token

    error = error_from(404, {}, {"detail": "no such CVM"})
    assert of_a_token(error, "GET /cvms/my-app") is error
