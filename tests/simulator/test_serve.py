"""A person starts the simulator, and finds what it takes to use it."""

from __future__ import annotations

import re
import signal
import socket
import ssl
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import trustme

from phala_secrets.errors import InputError
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.kms import Kms
from phala_secrets.simulator.serve import serve
from phala_secrets.simulator.server import Simulator
from phala_secrets.simulator.stage import Stage

if TYPE_CHECKING:
    from tests.simulator.conftest import Api

# A process that a script runs in the background starts with SIGINT ignored; a terminal's does not.
PROGRAM = """
import signal
from phala_secrets.simulator.serve import serve
from phala_secrets.simulator.stage import Stage
signal.signal(signal.SIGINT, signal.default_int_handler)
serve(Stage(0, 'phak_mine', ('shop', 'blog'), boot_seconds=0.1))
"""


def test_it_prints_what_to_set_and_ends_when_interrupted() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = ""
        while "Requests, as they come:" not in printed:
            printed += process.stdout.readline()
        exports = dict(re.findall(r"^export (\w+)=(\S+)$", printed, re.MULTILINE))
        signer = re.search(r"^trusted-signers: 0x(\w{66})", printed, re.MULTILINE)
        (guest, *_) = re.findall(r"guest +(\S+)", printed)
        assert exports["PHALA_CLOUD_API_KEY"] == "phak_mine"
        assert httpx.get(exports["PHALA_SECRETS_PCCS_URL"] + "/sgx/certification/v4/rootcacrl").is_success
        root = Path(exports["PHALA_SECRETS_ATTESTATION_ROOT"])
        assert root.read_text().startswith("-----BEGIN CERTIFICATE-----")
        assert re.fullmatch(r"[0-9a-f]{64}", exports["PHALA_SECRETS_TRUSTED_OS"])
        assert re.fullmatch(r"3059[0-9a-f]{178}", exports["PHALA_SECRETS_TRUSTED_KMS_CA"])
        answer = httpx.get(
            exports["PHALA_CLOUD_API_PREFIX"] + "/kms/phala",
            headers={"X-API-Key": "phak_mine", "X-Phala-Version": "2026-06-23"},
        )
        assert signer is not None
        assert signer[1] == answer.json()["k256_pubkey"]
        assert httpx.get(guest).json()["environment"] == {"GREETING": "hello from before"}
        lines = [process.stdout.readline() for _ in range(3)]
        assert re.fullmatch(r"GET   /sgx/certification/v4/rootcacrl  200  \d+ ms\n", lines[0])
        assert re.fullmatch(r"GET   /api/v1/kms/phala  200  \d+ ms\n", lines[1])
        url = httpx.URL(exports["PHALA_CLOUD_API_PREFIX"])
        with socket.create_connection((url.host, url.port)) as hostile:
            hostile.sendall(b"GET /api/v1/\x1b[31m HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert hostile.recv(100)
        assert process.stdout.readline().startswith(r"GET   /api/v1/\x1b[31m  401")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
        assert not root.exists()


def test_its_keys_are_the_same_every_time() -> None:
    clouds = [Cloud(seed=b"phala-secrets simulate") for _ in range(2)]
    assert clouds[0].kmses[0].root_public_key == clouds[1].kmses[0].root_public_key


def test_a_port_that_is_taken(simulator: Simulator) -> None:
    with pytest.raises(InputError, match=f"port {simulator.port}"):
        serve(Stage(simulator.port), out=StringIO())
    with pytest.raises(InputError, match=f"port {simulator.port}"):
        serve(Stage(simulator.port - 1, on_chain=True), out=StringIO())


def test_the_guest_can_be_looked_into_from_this_machine_alone(
    api: Api, simulator: Simulator, cloud: Cloud
) -> None:
    cvm = cloud.add_cvm("my-app", environment={"A": "1"})
    api.update("my-app", {"B": "2"})
    cvm.wait()
    peek = f"{simulator.origin}/_simulator/cvms/my-app"
    assert httpx.get(peek).json()["environment"] == {"B": "2"}
    assert httpx.get(peek, headers={"Host": "rebound.invalid"}).status_code == 403
    assert httpx.get(f"{simulator.origin}/_simulator/cvms/none").status_code == 404
    assert httpx.post(peek).status_code == 404
    assert httpx.get(f"{simulator.origin}/").status_code == 404


def test_a_kms_says_nothing_of_its_root_when_it_is_printed() -> None:
    kms = Kms("phala", b"seed of the root")
    assert "seed of the root" not in repr(kms)


def test_it_speaks_tls_with_a_certificate_of_ones_own(cloud: Cloud) -> None:
    authority = trustme.CA()
    server, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(trusting)
    cloud.add_cvm("my-app")
    with Simulator(cloud, tls=server) as simulator:
        headers = {"X-API-Key": cloud.api_key}
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            httpx.get(f"{simulator.url}/kms")
        with httpx.Client(base_url=simulator.url, headers=headers, verify=trusting) as client:
            assert client.get("/kms").status_code == 200
            streamed = client.get("/cvms/my-app/state", params={"target": "running"})
            assert "complete" in streamed.text
