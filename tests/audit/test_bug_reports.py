"""Finding 5: nothing that a server sends, and nothing that a user types, ends a run as a bug of ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from .support import (
    Answer,
    Cloud,
    Cvm,
    Fault,
    PhalaSecretsError,
    Request,
    Simulator,
    Step,
    change_answers,
    create_async_client,
    create_client,
    everything_of_step,
    updates,
)

COOKIE = {"Set-Cookie": "région=x; Path=/"}
NESTED = b'{"status":"running","x":' + b"[" * 300 + b"]" * 300 + b"}"


def is_patch(request: Request, answer: Answer) -> bool:
    return request.method == "PATCH"


def is_first(request: Request, answer: Answer) -> bool:
    return request.path == "/cvms/my-app"


@pytest.mark.parametrize("which", [is_first, is_patch])
def test_a_cookie_beyond_ascii_is_no_bug(
    step: Step, cloud: Cloud, cvm: Cvm, which: Callable[[Request, Answer], bool]
) -> None:
    """Exit 1 and "internal error in phala-secrets", on the 202 after the update was carried out.

    We have no use for cookies, so the run goes on as if there were none.
    """
    cloud.streams = False
    change_answers(cloud, which, headers=COOKIE)
    done = step(env="OLD=2")
    assert done.code == 0, done.log
    assert done.outputs["status"] == "running"
    assert cvm.environment == {"OLD": "2"}


def test_a_cookie_does_not_end_a_fleet_with_fail_fast_off(step: Step, cloud: Cloud) -> None:
    """The first CVM's response ends the run; ``results`` show exit code 0 for the other two."""
    cloud.streams = False
    cvms = [
        cloud.add_cvm(f"my-app-{number}", app_id="50" * 20, environment={"OLD": "1"}) for number in range(3)
    ]
    change_answers(cloud, is_patch, headers=COOKIE)
    done = step(cvm=None, app="50" * 20, env="OLD=2", fail_fast="false")
    assert [len(cvm.operations) for cvm in cvms] == [1, 1, 1]
    assert [row["status"] for row in json.loads(done.outputs["results"])] == ["running"] * 3
    assert done.code == 0, done.log


def test_a_cookie_with_a_huge_age_prints_no_traceback(step: Step, cloud: Cloud, cvm: Cvm) -> None:
    """The log has six lines of Python's own."""
    change_answers(cloud, is_first, headers={"Set-Cookie": "a=b; Max-Age=" + "9" * 400})
    done = step.apart(env="OLD=2", wait="false")
    assert done.code == 0, done.log
    assert "cookiejar" not in done.log
    assert "Traceback" not in done.log


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_cookie_is_no_unicode_error_in_the_library(
    simulator: Simulator, cloud: Cloud, cvm: Cvm, kind: str
) -> None:
    """The second call raises UnicodeEncodeError, which is none of the library's errors."""
    change_answers(cloud, is_first, headers=COOKIE)

    async def twice() -> list[str | None]:
        async with create_async_client(cloud.api_key, simulator.url) as client:
            return [(await client.get_cvm_info("my-app")).name for _ in range(2)]

    if kind == "async":
        assert asyncio.run(twice()) == ["my-app", "my-app"]
    else:
        with create_client(cloud.api_key, simulator.url) as client:
            assert [client.get_cvm_info("my-app").name for _ in range(2)] == ["my-app", "my-app"]


# -- after the update was accepted -----------------------------------------------------------------


@pytest.mark.parametrize("charset", ["utf-16", "zlib", "base64", "idna", "undefined", "rot13"])
def test_the_charset_of_an_event_stream_is_no_bug(
    step: Step, simulator: Simulator, cvm: Cvm, charset: str
) -> None:
    """It was exit 1, with the update carried out. A run opens no stream any more: it asks again."""
    stream = Fault(
        "status",
        "GET",
        "/state",
        status=200,
        headers={"Content-Type": f"text/event-stream; charset={charset}"},
        body=b'event: state\ndata: {"status":"running"}\n\n',
    )
    simulator.faults.add(stream)
    done = step(env="OLD=2", wait_timeout="20")
    assert done.code == 0, done.log
    assert done.outputs["status"] == "running"
    assert cvm.environment == {"OLD": "2"}


def test_a_deeply_nested_state_is_no_bug(step: Step, simulator: Simulator, cloud: Cloud, cvm: Cvm) -> None:
    """It was exit 1, with the update carried out, and not a word that it was accepted."""
    cloud.streams = False
    simulator.faults.add(Fault("status", "GET", "/state", status=200, body=NESTED))
    done = step(env="OLD=2", wait_timeout="20")
    assert len(cvm.operations) == 1
    assert "a bug" not in done.log
    assert done.code in (0, 6, 8), done.log  # passed over, or not understood; both say that it was accepted
    assert done.outputs["correlation-id"] == cvm.operations[0].correlation_id
    assert done.code == 0 or "accepted" in done.annotations("error")[0].data


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_the_charset_of_an_event_stream_is_no_bug_in_the_library(
    simulator: Simulator, cloud: Cloud, cvm: Cvm, kind: str
) -> None:
    """TypeError comes out of ``watch_cvm_state``."""
    stream = Fault(
        "status",
        "GET",
        "/state",
        times=None,
        status=200,
        headers={"Content-Type": "text/event-stream; charset=rot13"},
        body=b'event: state\ndata: {"status":"running"}\n\nevent: complete\ndata: {"status":"running"}\n\n',
    )
    simulator.faults.add(stream)
    given = {"id": "my-app", "target": "running", "timeout": 10}

    async def watch() -> list[str]:
        async with create_async_client(cloud.api_key, simulator.url) as client:
            return [event.type async for event in client.watch_cvm_state(given)]

    if kind == "async":
        types = asyncio.run(watch())
    else:
        with create_client(cloud.api_key, simulator.url) as client:
            types = [event.type for event in client.watch_cvm_state(given)]
    assert types == ["state", "complete"]


# -- before it was sent ----------------------------------------------------------------------------


def test_a_precondition_with_an_odd_field_is_no_bug(step: Step, simulator: Simulator, cvm: Cvm) -> None:
    """Exit 1. A response that is not what it should be has exit 6."""
    body = {"details": [{"field": ["compose_hash"], "value": "00"}]}
    simulator.faults.add(Fault("status", "PATCH", status=465, body=body))
    done = step(env="OLD=2\nNEW=3")
    assert done.code == 6, done.log
    assert "a bug" not in done.log


def test_a_precondition_with_an_odd_field_is_no_bug_in_the_library(
    simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    """TypeError comes out of ``update_cvm_envs``, where every method raises an error of the library."""
    body = {"details": [{"field": ["compose_hash"], "value": "00"}]}
    simulator.faults.add(Fault("status", "PATCH", status=465, body=body))
    with create_client(cloud.api_key, simulator.url) as client, pytest.raises(PhalaSecretsError):
        client.update_cvm_envs("my-app", envs={"OLD": "2", "NEW": "3"})


# -- what a user typed -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param("api-url", "https://api..example.com/v1", id="api-url, an empty label"),
        pytest.param("api-url", "http://[::1]x/", id="api-url, a rest after the brackets"),
        pytest.param("api-url", "https://" + "a" * 64 + ".example", id="api-url, a long label"),
        pytest.param("timeout", "0000000019999999999", id="timeout"),
        pytest.param("wait-timeout", "000000001" + "9" * 5000, id="wait-timeout"),
    ],
)
def test_a_malformed_input_is_no_bug(step: Step, cloud: Cloud, cvm: Cvm, name: str, text: str) -> None:
    """Exit 1 and "internal error in phala-secrets". An input that is wrong has exit 2, and is named."""
    given: dict[str, Any] = {name.replace("-", "_"): text}
    done = step.apart(env="OLD=2", **given)  # apart: a crash leaves sockets open
    assert done.code == 2, done.log
    (error,) = done.annotations("error")
    assert name in error.data
    assert not updates(cloud)


def test_a_nested_phala_toml_is_no_bug(step: Step, cloud: Cloud, cvm: Cvm) -> None:
    """Exit 1 and "internal error in phala-secrets"."""
    step.write("phala.toml", "name = " + "[" * 5000 + "]" * 5000)
    done = step.apart(cvm=None, env="OLD=2")
    assert done.code == 2, done.log
    assert "phala.toml" in everything_of_step(done)
    assert not updates(cloud)
