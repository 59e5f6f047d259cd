"""A job without an API key: the token of GitHub in its place, from the first request to the end of a wait."""

from __future__ import annotations

from typing import Any

import pytest

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.oidc import TOKEN_PATH
from phala_secrets.simulator.wire import Answer, Request
from tests.support.clock import ManualClock
from tests.support.faults import Fault
from tests.support.faulty import FaultySimulator
from tests.support.job import keyless
from tests.support.step import Done, Step

VALUE = "s3cr3t-v4lue"


@pytest.fixture
def job(step: Step, simulator: FaultySimulator, cvm: Cvm) -> Step:
    """A step without an API key, for a CVM that is there."""
    del step.inputs["api-key"]
    return step


def update(
    job: Step, simulator: FaultySimulator, changes: dict[str, str | None] | None = None, **inputs: str
) -> Done:
    environ = {**keyless(simulator), "TOKEN": VALUE, **(changes or {})}
    return job(environ=environ, secrets="TOKEN", allow_removal="true", **inputs)


def refusal(done: Done) -> str:
    """The error that ended a step, message and hint."""
    (error,) = done.annotations("error")
    return error.data


def api_requests(cloud: Cloud) -> list[Request]:
    return [request for request in cloud.requests if request.path != TOKEN_PATH]


# -- that it works ---------------------------------------------------------------------------------


def test_a_job_updates_a_cvm_without_an_api_key(
    job: Step, simulator: FaultySimulator, cloud: Cloud, cvm: Cvm
) -> None:
    done = update(job, simulator)
    assert done.code == 0, done.log
    assert cvm.environment == {"TOKEN": VALUE}
    assert done.outputs["status"] == "running"
    (token,) = cloud.github.issued
    assert all("x-api-key" not in request.headers for request in cloud.requests)
    assert {request.headers["authorization"] for request in api_requests(cloud)} == {f"Bearer {token}"}
    assert all("x-phala-workspace" not in request.headers for request in cloud.requests)


def test_the_token_is_for_this_service_alone_and_asked_for_once(
    job: Step, simulator: FaultySimulator, cloud: Cloud
) -> None:
    update(job, simulator)
    first, *others = cloud.requests
    assert first.path == TOKEN_PATH
    assert first.query == {"api-version": ["2.0"], "audience": [simulator.url]}
    assert first.headers["authorization"] == f"bearer {cloud.github.request_token}"
    assert {other.path for other in others} & {TOKEN_PATH} == set()


def test_one_line_says_who_logged_in_and_how(job: Step, simulator: FaultySimulator) -> None:
    done = update(job, simulator)
    told = [line for line in done.lines if "logged in" in line]
    assert told == ["logged in with GitHub's token for repo:octo-org/octo-app:ref:refs/heads/main"]


def test_both_tokens_are_masked_before_they_are_used_and_are_shown_nowhere(
    job: Step, simulator: FaultySimulator, cloud: Cloud
) -> None:
    done = update(job, simulator, {"RUNNER_DEBUG": "1"})
    (token,) = cloud.github.issued
    secret = [cloud.github.request_token, token, token.rpartition(".")[2]]
    assert set(secret) <= set(done.masks)
    first_request = next(number for number, line in enumerate(done.lines) if "GET " in line)
    before = "\n".join(done.lines[:first_request])
    assert cloud.github.request_token in before
    uses = [line for line in done.lines if "/cvms/my-app" in line]
    assert done.log.index(token) < done.log.index(uses[0])
    unmasked = "\n".join(line for line in done.lines if "::add-mask::" not in line)
    for text in (unmasked, done.output_file, done.summary):
        assert not any(one in text for one in secret)


def test_a_token_that_the_service_quotes_is_not_shown(
    job: Step, simulator: FaultySimulator, cloud: Cloud
) -> None:
    def quote(request: Request, answer: Answer) -> Answer:
        if request.path == TOKEN_PATH:
            return answer
        return Answer({"detail": f"no such token: {request.headers.get('authorization')}"}, 400)

    cloud.tamper = quote
    done = update(job, simulator)
    assert done.code == 5
    (token,) = cloud.github.issued
    assert token not in "\n".join(line for line in done.lines if "::add-mask::" not in line)
    assert "no such token: Bearer ***" in done.log


def test_the_workspace_is_named_where_it_is_given(
    job: Step, simulator: FaultySimulator, cloud: Cloud
) -> None:
    cloud.tokens.trusted["octo-org/octo-app"] = ["octo", "other"]
    done = update(job, simulator, workspace="octo")
    assert done.code == 0, done.log
    assert {request.headers.get("x-phala-workspace") for request in api_requests(cloud)} == {"octo"}
    assert "workspace" in refusal(update(job, simulator))


def test_lookups_log_in_alike(job: Step, simulator: FaultySimulator, cloud: Cloud) -> None:
    done = job._command("kms", "list", environ=job.variables({}, keyless(simulator)))
    assert done.code == 0, done.stdout
    assert len(cloud.github.issued) == 1


# -- that an API key does without ------------------------------------------------------------------


def test_a_run_with_an_api_key_asks_github_for_nothing(
    job: Step, simulator: FaultySimulator, cloud: Cloud
) -> None:
    done = update(job, simulator, api_key=cloud.api_key, workspace="octo")
    assert done.code == 0, done.log
    assert cloud.github.issued == []
    assert all("authorization" not in request.headers for request in cloud.requests)
    assert all("x-phala-workspace" not in request.headers for request in cloud.requests)
    assert "logged in" not in done.log


# -- that a long wait outlasts a token -------------------------------------------------------------


def test_a_token_is_replaced_before_it_ends_in_a_long_wait(
    job: Step, simulator: FaultySimulator, cloud: Cloud, cvm: Cvm
) -> None:
    cloud.restart_seconds = 900.0
    done = update(job, simulator, wait_timeout="30m")
    assert done.code == 0, done.log
    assert cvm.environment == {"TOKEN": VALUE}
    assert 4 <= len(cloud.github.issued) <= 6
    assert set(cloud.github.issued) <= set(done.masks)
    assert done.log.count("logged in") == 1


def test_a_clock_that_is_off_changes_nothing(job: Step, simulator: FaultySimulator, cloud: Cloud) -> None:
    """GitHub's clock and the service's agree, and ours does not: a token is as old as it is here."""
    cloud.restart_seconds = 400.0
    for offset in (-3600.0, 3600.0):
        cloud.clock_offset = offset
        done = update(job, simulator, wait_timeout="30m")
        assert done.code == 0, done.log
    assert 4 <= len(cloud.github.issued) <= 6


def test_a_service_that_is_ahead_of_github_refuses_and_that_is_told(
    job: Step, simulator: FaultySimulator, cloud: Cloud
) -> None:
    cloud.github.clock_offset = -400.0
    done = update(job, simulator)
    assert done.code == 5
    assert "Invalid token: expired" in refusal(done)


def test_github_may_be_away_for_a_moment_in_a_wait(
    job: Step, simulator: FaultySimulator, cloud: Cloud, cvm: Cvm
) -> None:
    cloud.restart_seconds = 900.0
    simulator.faults.add(Fault("status", path=TOKEN_PATH, status=503, skip=1, times=2))
    simulator.faults.add(Fault("reset_before", path=TOKEN_PATH, skip=1, times=2))
    done = update(job, simulator, wait_timeout="30m")
    assert done.code == 0, done.log
    assert done.outputs["status"] == "running"


def test_a_token_that_cannot_be_had_for_the_update_is_no_lost_update(
    job: Step, simulator: FaultySimulator, cloud: Cloud, cvm: Cvm, clock: ManualClock
) -> None:
    """The first token is over just before the update is sent, and GitHub gives no other."""

    def dawdle(request: Request, answer: Answer) -> Answer:
        if request.path.endswith("/compose_file"):
            clock.advance(280.0)
            simulator.faults.add(Fault("reset_after", path=TOKEN_PATH, times=None))
        return answer

    cloud.tamper = dawdle
    done = update(job, simulator)
    assert done.code == 6
    assert "no token from GitHub" in refusal(done)
    assert "may have been accepted" not in done.log
    assert all(request.method != "PATCH" for request in cloud.requests)
    assert cvm.environment == {"OLD": "1"}


def test_a_fleet_asks_for_one_token_at_a_time(
    job: Step, simulator: FaultySimulator, cloud: Cloud, cvm: Cvm
) -> None:
    replicas = [cvm, *(cloud.add_cvm(f"my-app-{n}", app_id=cvm.app_id) for n in range(1, 12))]
    cloud.restart_seconds = 200.0
    done = update(job, simulator, cvm="", app=cvm.app_id, max_parallel="4", wait_timeout="30m")
    assert done.code == 0, done.log
    assert all(replica.environment == {"TOKEN": VALUE} for replica in replicas)
    asked = [request for request in cloud.requests if request.path == TOKEN_PATH]
    ends = [asked[0].started, *(request.ended for request in asked)]
    assert all(request.started >= end for request, end in zip(asked, ends, strict=False))
    assert len(asked) <= 8


# -- that it is refused ----------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "expired": ({"exp": 1, "iat": 0}, "Invalid token: expired"),
    "of another issuer": ({"iss": "https://token.example"}, "Invalid token: issuer"),
    "of another repository": ({"repository": "evil/fork"}, "Repository is not trusted"),
}


@pytest.mark.parametrize(("claims", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_token_that_the_service_refuses_ends_the_run_with_what_to_do(
    job: Step, simulator: FaultySimulator, cloud: Cloud, cvm: Cvm, claims: dict[str, Any], reason: str
) -> None:
    cloud.github.claims = claims
    done = update(job, simulator)
    assert done.code == 5
    assert cvm.environment == {"OLD": "1"}
    message, hint = refusal(done).split("\n")
    assert message.startswith("api-key is missing, and Phala Cloud refused GitHub's token for GET /")
    assert reason in message
    assert hint.startswith("set api-key, or let the workspace trust this repository")


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("route", ["GET /cvms/my-app$", "GET /kms", "PATCH /cvms/.*/envs"])
def test_a_route_that_takes_no_token_is_named_after_the_missing_key(
    job: Step, simulator: FaultySimulator, cloud: Cloud, cvm: Cvm, route: str, status: int
) -> None:
    cloud.tokens.refused_routes, cloud.tokens.refusal = f"^{route}", status
    done = update(job, simulator)
    assert done.code == 5
    message = refusal(done)
    assert message.index("api-key") < message.index(route.partition("/cvms/.*")[0].rstrip("$"))
    assert f"HTTP {status}" in message
    assert cvm.environment == {"OLD": "1"}


RESPONSES: dict[str, tuple[Fault, int, str]] = {
    "a redirect": (Fault("redirect", location="http://127.0.0.1:1/"), 6, "redirects to"),
    "no JSON": (Fault("not_json"), 6, "token is malformed"),
    "a page": (Fault("html_200"), 6, "token is malformed"),
    "too large": (Fault("huge_body"), 6, "over 16 MiB"),
    "too large, in chunks": (Fault("huge_body", chunked=True), 6, "over 16 MiB"),
    "packed": (Fault("gzip_bomb"), 6, "compressed"),
    "no permission": (
        Fault("status", status=403, body={"message": "no"}),
        6,
        "GitHub refused a token: HTTP 403",
    ),
    "no token": (Fault("status", status=200, body={"count": 0}), 6, "token is malformed"),
    "no object": (Fault("status", status=200, body=[]), 6, "token is malformed"),
    "no text": (Fault("status", status=200, body={"value": 7}), 6, "token is malformed"),
    "a long token": (Fault("status", status=200, body={"value": "a." * 9000 + "a"}), 6, "token is malformed"),
    "two parts": (Fault("status", status=200, body={"value": "a.b"}), 6, "token is malformed"),
    "parts of nothing": (Fault("status", status=200, body={"value": "a.b.c"}), 6, "token is malformed"),
    "a header": (Fault("status", status=200, body={"value": "a.e30.c\r\nX: 1"}), 6, "token is malformed"),
}


@pytest.mark.parametrize(("fault", "code", "said"), RESPONSES.values(), ids=RESPONSES)
def test_a_response_that_is_no_token_ends_the_run_before_phala_cloud_is_asked(
    job: Step, simulator: FaultySimulator, cloud: Cloud, cvm: Cvm, fault: Fault, code: int, said: str
) -> None:
    fault.path, fault.times = TOKEN_PATH, None
    simulator.faults.add(fault)
    done = update(job, simulator)
    assert done.code == code, done.log
    assert said in refusal(done)
    assert api_requests(cloud) == []
    assert cvm.environment == {"OLD": "1"}


CLAIMS: dict[str, tuple[dict[str, Any], str]] = {
    "for another audience": ({"aud": "https://cloud.phala.com"}, "another audience"),
    "for several audiences": (
        {"aud": ["https://cloud.phala.com", "https://other.example"]},
        "another audience",
    ),
    "over before it began": ({"exp": 5, "iat": 9}, "lifetime"),
    "for ever": ({"exp": 1 << 60}, "lifetime"),
    "without an end": ({"exp": None}, "malformed"),
    "with an end in words": ({"exp": "soon"}, "malformed"),
    "of nobody": ({"sub": None, "repository": None}, "malformed"),
}


@pytest.mark.parametrize(("claims", "said"), CLAIMS.values(), ids=CLAIMS)
def test_a_token_that_cannot_be_meant_is_not_sent(
    job: Step, simulator: FaultySimulator, cloud: Cloud, claims: dict[str, Any], said: str
) -> None:
    cloud.github.claims = claims
    done = update(job, simulator)
    assert done.code == 6
    assert said in refusal(done)
    assert api_requests(cloud) == []


def test_a_response_that_drips_ends_when_its_time_is_up(
    job: Step, simulator: FaultySimulator, cloud: Cloud
) -> None:
    simulator.faults.add(Fault("drip", path=TOKEN_PATH, times=None, seconds=2.0))
    done = update(job, simulator, timeout="10")
    assert done.code == 6
    assert "no token from GitHub: the response took too long" in refusal(done)
    assert api_requests(cloud) == []


def test_github_that_is_down_is_tried_again_and_then_told(
    job: Step, simulator: FaultySimulator, cloud: Cloud, clock: ManualClock
) -> None:
    simulator.faults.add(Fault("status", path=TOKEN_PATH, status=503, times=None))
    done = update(job, simulator)
    assert done.code == 6
    assert "no token from GitHub: HTTP 503" in refusal(done)
    assert {0.5, 1.0, 2.0} <= set(clock.slept)


# -- that it is not tried --------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"])
def test_a_job_without_the_permission_is_told_of_it(
    job: Step, simulator: FaultySimulator, cloud: Cloud, missing: str
) -> None:
    done = update(job, simulator, {missing: None})
    assert done.code == 2
    message, hint = refusal(done).split("\n")
    assert message == "no API key"
    assert "id-token: write" in hint
    assert hint.startswith("set api-key")
    assert list(cloud.requests) == []


def test_a_pull_request_of_a_fork_is_told_that_it_gets_neither(job: Step, simulator: FaultySimulator) -> None:
    environ = {"ACTIONS_ID_TOKEN_REQUEST_URL": None, "GITHUB_EVENT_NAME": "pull_request"}
    assert "fork" in refusal(update(job, simulator, environ))


BAD_URLS = {
    "http": ("http://actions.example/token", "is not https"),
    "no URL": ("token", "is not a URL"),
    "no host": ("https:///token", "is not a URL"),
    "two lines": ("https://actions.example/\nX: 1", "is not a URL"),
}


@pytest.mark.parametrize(("url", "said"), BAD_URLS.values(), ids=BAD_URLS)
def test_a_request_url_that_would_show_the_token_is_refused(
    job: Step, simulator: FaultySimulator, cloud: Cloud, url: str, said: str
) -> None:
    done = update(job, simulator, {"ACTIONS_ID_TOKEN_REQUEST_URL": url})
    assert done.code == 2
    assert f"ACTIONS_ID_TOKEN_REQUEST_URL {said}" in refusal(done)
    assert list(cloud.requests) == []


def test_http_to_this_machine_is_for_an_api_on_this_machine(job: Step, simulator: FaultySimulator) -> None:
    done = update(job, simulator, api_url="https://cloud-api.phala.com/api/v1")
    assert done.code == 2
    assert "ACTIONS_ID_TOKEN_REQUEST_URL is not https" in refusal(done)


@pytest.mark.parametrize(
    "url", ["https://cloud.example/api/v1", "https://cloud-api.phala.com.example/api/v1"]
)
def test_another_service_is_given_no_token(
    job: Step, simulator: FaultySimulator, cloud: Cloud, url: str
) -> None:
    done = update(job, simulator, api_url=url)
    assert done.code == 2
    assert "not with this api-url" in refusal(done)
    assert list(cloud.requests) == []


@pytest.mark.parametrize("value", ["1", "True", "TRUE", "yes"])
def test_only_true_is_github(job: Step, simulator: FaultySimulator, cloud: Cloud, value: str) -> None:
    done = update(job, simulator, {"GITHUB_ACTIONS": value})
    assert done.code == 2
    assert "no API key" in done.log
    assert list(cloud.requests) == []


@pytest.mark.parametrize("token", ["two words", "tok\r\nX-Evil: 1", "tökén"])
def test_a_request_token_that_is_none_is_refused_unseen(
    job: Step, simulator: FaultySimulator, cloud: Cloud, token: str
) -> None:
    done = update(job, simulator, {"ACTIONS_ID_TOKEN_REQUEST_TOKEN": token})
    assert done.code == 2
    assert "invalid ACTIONS_ID_TOKEN_REQUEST_TOKEN" in refusal(done)
    assert token not in done.log
    assert list(cloud.requests) == []


@pytest.mark.parametrize("workspace", ["two words", "wörk", "w" * 256])
def test_a_workspace_that_is_no_word_is_refused(
    job: Step, simulator: FaultySimulator, cloud: Cloud, workspace: str
) -> None:
    done = update(job, simulator, workspace=workspace)
    assert done.code == 2
    assert "invalid workspace" in refusal(done)
    assert list(cloud.requests) == []
