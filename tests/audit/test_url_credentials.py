"""Finding 14: a credential in a URL is not shown when the other side repeats it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from .support import (
    Command,
    Simulator,
    Step,
    World,
    create_async_client,
    create_client,
    escaped,
    in_ci,
    local_server,
    on_chain,
)

LONG = "kxyz456789abcdef0123456789abcdef"
CASES = [
    pytest.param(f"{{}}/v2/{LONG}", f"bad key {escaped(LONG)}", LONG, id="escaped"),
    pytest.param("{}/v3/k3y-of-15-chars", "bad key k3y-of-15-chars", "k3y-of-15-chars", id="a short key"),
    pytest.param("{}/?key=k3y-of-15-chars", "bad key k3y-of-15-chars", "k3y-of-15-chars", id="query"),
    pytest.param("user:hunter2hunter2@{}/", "bad login user:hunter2hunter2", "hunter2hunter2", id="password"),
    pytest.param(
        "user:p%40ssword-is-long-enough@{}/",
        "bad login user:p@ssword-is-long-enough",
        "p@ssword-is-long-enough",
        id="encoded password",
    ),
]


@pytest.fixture
def world(simulator: Simulator) -> Iterator[World]:
    with on_chain(simulator) as world:
        yield world


@pytest.mark.parametrize(("url", "message", "secret"), CASES)
def test_a_credential_in_rpc_url_is_not_shown(
    run: Command, world: World, url: str, message: str, secret: str
) -> None:
    """The RPC repeats the credential in its error, and so does our log."""
    response = f'{{"jsonrpc":"2.0","id":1,"error":{{"code":-32000,"message":"{message}"}}}}'.encode()
    world.chain.meddle = lambda method, answer: response
    rpc_url = "http://" + url.format(world.chain.url.removeprefix("http://"))
    run.write(".env", "OLD=2\n")
    outcome = in_ci(run, "gitlab")("update", "--cvm", "my-app", "--env-file", ".env", "--rpc-url", rpc_url)
    assert outcome.code == 6, outcome.printed
    assert secret not in outcome.printed


@pytest.mark.parametrize(
    ("user", "secret"),
    [
        pytest.param("user:hunter2hunter2", "hunter2hunter2", id="password"),
        pytest.param("user:p%40ssword-is-long", "p@ssword-is-long", id="encoded password"),
    ],
)
def test_a_credential_in_rpc_url_is_masked(step: Step, world: World, user: str, secret: str) -> None:
    """GitHub masks no ``vars``, so a later step may print it."""
    rpc_url = world.chain.url.replace("http://", f"http://{user}@")
    done = step(env="OLD=2", rpc_url=rpc_url, wait="false")
    assert done.code == 0, done.log
    assert secret in done.masks


def test_the_login_of_a_proxy_is_not_shown(run: Command) -> None:
    """The proxy repeats its ``Proxy-Authorization`` in the reason phrase, and so does our log."""

    def refuse(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.send_response(407, f"no such login {handler.headers['Proxy-Authorization']}")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    login = "me:proxy-passw0rd"
    run.write(".env", "OLD=2\n")
    with local_server(refuse) as proxy:
        outcome = in_ci(run, "gitlab")(
            *("update", "--cvm", "my-app", "--env-file", ".env"),
            environ={
                "PHALA_CLOUD_API_PREFIX": "https://cloud.example/api/v1",
                "HTTPS_PROXY": f"http://{login}@{proxy}",
            },
        )
    assert outcome.code == 6, outcome.printed
    assert "407" in outcome.stderr
    assert base64.b64encode(login.encode()).decode() not in outcome.printed
    assert "proxy-passw0rd" not in outcome.printed


@pytest.mark.parametrize("create", [create_client, create_async_client])
def test_the_representation_of_a_client_has_no_credential(create: type) -> None:
    """``repr(client)`` has user and password."""
    client = create("phak_simulator", "https://me:s3cret-of-a-gateway@gw.example/api")
    assert "gw.example" in repr(client)
    assert "s3cret-of-a-gateway" not in repr(client)
