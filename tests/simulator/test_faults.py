"""What can go wrong on the way does, when it is asked to, and only then."""

from __future__ import annotations

import socket
import time
import zlib
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from phala_secrets.simulator.cvm import Cvm
from tests.simulator.conftest import Api
from tests.support.faults import Fault
from tests.support.faulty import FaultySimulator

if TYPE_CHECKING:
    from phala_secrets.simulator.cloud import Cloud

MIB = 1024 * 1024


@pytest.fixture
def cvm(cloud: Cloud) -> Cvm:
    return cloud.add_cvm("my-app", environment={"A": "1"})


def test_an_error_for_some_requests(api: Api, simulator: FaultySimulator, cvm: Cvm) -> None:
    maintenance = {"detail": "maintenance"}
    simulator.faults.add(
        Fault("status", "PATCH", r"/envs$", 2, status=503, headers={"Retry-After": "7"}, body=maintenance)
    )
    assert api.get("/cvms/my-app").status_code == 200
    answers = [api.update("my-app", {"A": "2"}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 202]
    assert answers[0].json() == maintenance
    assert answers[0].headers["Retry-After"] == "7"
    assert len(cvm.operations) == 1
    asked = [asked.status for asked in simulator.cloud.requests if asked.method == "PATCH"]
    assert asked == [503, 503, 202]


def test_after_some_others_and_until_cleared(api: Api, simulator: FaultySimulator) -> None:
    simulator.faults.add(Fault("status", times=None, skip=1, status=429, body=b"slow down"))
    assert [api.get("/kms").status_code for _ in range(4)] == [200, 429, 429, 429]
    assert api.get("/kms").text == "slow down"
    simulator.faults.clear()
    assert api.get("/kms").status_code == 200


def test_a_reset_before_it_was_handled(api: Api, simulator: FaultySimulator, cvm: Cvm) -> None:
    simulator.faults.add(Fault("reset_before", "PATCH"))
    with pytest.raises(httpx.ReadError):
        api.update("my-app", {"A": "2"})
    assert not cvm.operations
    assert simulator.cloud.requests[-1].status == 0


def test_a_response_is_lost_after_the_update(api: Api, simulator: FaultySimulator, cvm: Cvm) -> None:
    simulator.faults.add(Fault("reset_after", "PATCH"))
    with pytest.raises(httpx.ReadError):
        api.update("my-app", {"A": "2"})
    assert simulator.cloud.requests[-1].status == 0
    assert cvm.wait().environment == {"A": "2"}


@pytest.mark.parametrize("handled", [True, False])
def test_a_page_of_a_proxy_in_place_of_the_answer(
    api: Api, simulator: FaultySimulator, cvm: Cvm, handled: bool
) -> None:
    simulator.faults.add(Fault("html_200", "PATCH", handled=handled))
    answer = api.update("my-app", {"A": "2"})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert len(cvm.operations) == handled


def test_what_is_no_json(api: Api, simulator: FaultySimulator) -> None:
    simulator.faults.add(Fault("not_json"))
    answer = api.get("/kms")
    assert answer.headers["Content-Type"] == "application/json"
    with pytest.raises(ValueError, match="Expecting value"):
        answer.json()


def test_a_redirect_to_somewhere_else(api: Api, simulator: FaultySimulator) -> None:
    simulator.faults.add(Fault("redirect", location="https://elsewhere.invalid/"))
    answer = api.get("/kms")
    assert (answer.status_code, answer.headers["Location"]) == (307, "https://elsewhere.invalid/")


def test_half_a_body(api: Api, simulator: FaultySimulator) -> None:
    simulator.faults.add(Fault("half_body"))
    with pytest.raises(httpx.RemoteProtocolError, match=r"complete message body|incomplete"):
        api.get("/kms")


def test_half_a_stream(api: Api, simulator: FaultySimulator, cvm: Cvm) -> None:
    simulator.faults.add(Fault("half_body", path="/state"))
    with pytest.raises(httpx.RemoteProtocolError, match=r"complete message body|incomplete"):
        api.get("/cvms/my-app/state", params={"target": "exited"})
    simulator.faults.add(Fault("reset_after", path="/state"))
    with pytest.raises(httpx.ReadError):
        api.get("/cvms/my-app/state", params={"target": "exited"})
    simulator.faults.add(Fault("stall", path="/state", where="body", seconds=0.05))
    assert "complete" in api.get("/cvms/my-app/state", params={"target": "running"}).text


@pytest.mark.parametrize("where", ["before", "after", "body"])
def test_a_stall_at_each_stage(simulator: FaultySimulator, cvm: Cvm, where: Any) -> None:
    simulator.faults.add(Fault("stall", "PATCH", where=where, seconds=600))
    with Api(simulator) as api:
        sealed = api.seal("my-app", {"A": "2"})
        with pytest.raises(httpx.ReadTimeout):
            api.patch("/cvms/my-app/envs", json={"encrypted_env": sealed}, timeout=0.1)
    assert len(cvm.operations) == (where != "before")


def test_a_stall_that_ends_leaves_the_answer_whole(api: Api, simulator: FaultySimulator) -> None:
    expected = api.get("/kms").json()
    for where in ("before", "after", "body"):
        simulator.faults.add(Fault("stall", where=where, seconds=0.01))
        assert api.get("/kms").json() == expected
    simulator.faults.add(Fault("drip", seconds=0.0))
    assert api.get("/kms").json() == expected


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_beyond_measure(api: Api, simulator: FaultySimulator, chunked: bool) -> None:
    size = 3 * MIB + 5
    simulator.faults.add(Fault("huge_body", size=size, chunked=chunked))
    answer = api.get("/kms")
    assert len(answer.content) == size
    assert answer.json() == {}
    assert ("Content-Length" in answer.headers) is not chunked


def test_a_bomb(api: Api, simulator: FaultySimulator) -> None:
    simulator.faults.add(Fault("gzip_bomb", size=64 * MIB))
    with api.stream("GET", "/kms") as answer:
        packed = b"".join(answer.iter_raw())
    assert answer.headers["Content-Encoding"] == "gzip"
    assert len(packed) < MIB
    unpacked = zlib.decompressobj(zlib.MAX_WBITS + 16).decompress(packed, 64 * MIB)
    assert unpacked == b" " * 64 * MIB


def test_every_answer_takes_its_time_to_arrive(cloud: Cloud) -> None:
    with FaultySimulator(cloud, latency=0.05) as simulator, Api(simulator) as api:
        api.get("/kms")
        asked = cloud.requests[0]
        assert asked.ended - asked.started >= 0.05


def test_what_is_no_http_is_refused(simulator: FaultySimulator) -> None:
    with socket.create_connection(("127.0.0.1", simulator.port), timeout=5) as connection:
        connection.sendall(b"hello\r\n\r\n")
        assert b"400" in connection.recv(4096)


def test_closing_ends_what_stalls(cloud: Cloud) -> None:
    simulator = FaultySimulator(cloud)
    simulator.faults.add(Fault("stall", seconds=600))
    with socket.create_connection(("127.0.0.1", simulator.port), timeout=5) as connection:
        connection.sendall(b"GET /api/v1/kms HTTP/1.1\r\nHost: localhost\r\n\r\n")
        while not cloud.requests:
            time.sleep(0.001)
        simulator.close()
        assert connection.recv(4096) == b""
