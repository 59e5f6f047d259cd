"""Stories of a bad day: whatever the network and the other side do, a run ends, and says what is known.

Which failures are tried again, and after which pause, is in ``tests/cloud/test_retry.py``.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from phala_secrets import create_client
from phala_secrets.errors import TransportError
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.wire import Answer, Request
from tests.support.clock import ManualClock
from tests.support.command import Command, Outcome
from tests.support.faults import Fault
from tests.support.faulty import FaultySimulator as Simulator
from tests.support.step import Step

ENDPOINTS = {
    "the CVM": "^/cvms/my-app$",
    "the KMS": "^/kms$",
    "the key": "/pubkey/",
    "today's names": "/compose_file$",
}


SECRET = "canary-9d1e77"


def new_year(year: int) -> datetime:
    return datetime(year, 1, 1, tzinfo=UTC)


def update(run: Command, *arguments: str) -> Outcome:
    """An update that is told in full, and tells neither its value nor the API key."""
    run.write(".env", f"OLD={SECRET}\n")
    given = ("--cvm", "my-app", "--env-file", ".env", "--json", "--verbose", *arguments)
    done = run("update", *given)
    assert SECRET not in done.printed
    assert str(run.environ["PHALA_CLOUD_API_KEY"]) not in done.printed
    return done


def patches(cloud: Cloud) -> list[Request]:
    return [request for request in cloud.requests if request.method == "PATCH"]


def assert_error(done: Outcome, code: int, *words: str) -> None:
    """It failed with this exit code and one line that has these words, and without a traceback."""
    assert done.code == code, done.printed
    assert len(done.errors) == 1, done.printed
    for word in words:
        assert word in done.errors[0]
    assert done.hints
    assert "Traceback" not in done.printed
    assert done.json.get("status", "failed") == "failed"


# -- what passes --------------------------------------------------------------------------------

PASSING = [
    Fault("reset_before"),
    Fault("reset_after"),
    Fault("half_body"),
    Fault("stall", seconds=20),
    Fault("stall", seconds=20, where="body"),
    Fault("drip", seconds=0.1),
    Fault("status", status=500),
    Fault("status", status=502, body=b"<html>Bad gateway</html>"),
    Fault("status", status=502, body=b"\x1f\x8b", headers={"Content-Encoding": "gzip"}),
    Fault("status", status=503, headers={"Retry-After": "1"}),
    Fault("status", status=504),
    Fault("status", status=429, body={"detail": "slower"}),
    Fault("status", status=429, headers={"Retry-After": "1"}),
    Fault("status", status=409, body={"detail": "busy"}),
]


@pytest.mark.parametrize("fault", PASSING, ids=lambda f: f"{f.kind}-{f.status}-{f.where}")
def test_retry_survives_one_fault_of_every_request(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm, fault: Fault
) -> None:
    paths = ["/pubkey/"] if fault.kind == "stall" else ENDPOINTS.values()  # a stall takes real time
    for path in paths:
        simulator.faults.add(replace(fault, path=path))
    done = update(run, "--no-wait", *(["--timeout", "1"] if fault.kind in ("stall", "drip") else []))
    assert done.code == 0, done.printed
    assert cvm.wait().environment == {"OLD": SECRET}


def test_retry_after_is_respected(run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm) -> None:
    headers = {"Retry-After": "2"}
    simulator.faults.add(Fault("status", path="/pubkey/", status=429, headers=headers))
    assert update(run, "--no-wait").code == 0
    first, second = [request for request in cloud.requests if "/pubkey/" in request.path]
    assert second.started - first.ended == pytest.approx(2)


def test_a_pause_that_nobody_would_wait_for_ends_the_run(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    headers = {"Retry-After": "86400"}
    body = {"detail": "come back tomorrow"}
    simulator.faults.add(Fault("status", path="/pubkey/", status=429, headers=headers, body=body))
    assert_error(update(run), 5, "come back tomorrow")
    assert not patches(cloud)


# -- what stays ---------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 504])
def test_retry_ends_after_four_requests(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm, status: int
) -> None:
    fault = Fault("status", path="/pubkey/", status=status, body={"detail": "no such luck"}, times=None)
    simulator.faults.add(fault)
    assert_error(update(run), 6, "no such luck", str(status))
    assert sum("/pubkey/" in request.path for request in cloud.requests) == 4
    assert not patches(cloud)


@pytest.mark.parametrize("kind", ["reset_after", "half_body"])
def test_a_connection_that_keeps_breaking_is_tried_four_times(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm, kind: Any
) -> None:
    simulator.faults.add(Fault(kind, path="/pubkey/", times=None))
    assert_error(update(run), 6, "127.0.0.1", "broke off")
    assert sum("/pubkey/" in request.path for request in cloud.requests) == 4
    assert not patches(cloud)


NONSENSE = [
    Fault("html_200", times=None),
    Fault("not_json", times=None),
    Fault("huge_body", times=None),
    Fault("huge_body", times=None, chunked=True),
    Fault("gzip_bomb", times=None),
    Fault("status", times=None, status=204, body=b""),
    Fault("status", times=None, status=200, body=b"[" * 200_000),
    Fault("status", times=None, status=200, body=b"9" * 200_000),
    Fault("status", times=None, status=200, body=b'{"id": "\xff\xfe"}'),
]


@pytest.mark.parametrize("path", ENDPOINTS.values(), ids=ENDPOINTS)
@pytest.mark.parametrize("fault", NONSENSE, ids=lambda f: f"{f.kind}-{f.chunked}-{f.body!r:.9}")
def test_an_invalid_response_ends_the_run(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm, fault: Fault, path: str
) -> None:
    simulator.faults.add(replace(fault, path=path))
    assert_error(update(run), 6)
    assert not patches(cloud)


def test_a_gigabyte_is_not_taken_in(run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm) -> None:
    """In a process that may have 512 MiB, which is what a small runner has."""
    simulator.faults.add(Fault("huge_body", path="/pubkey/", times=None, chunked=True))
    start = (
        "import resource, runpy; resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20)); "
        "runpy.run_module('phala_secrets', run_name='__main__')"
    )
    run.write(".env", "OLD=2\n")
    arguments = ("update", "--cvm", "my-app", "--env-file", ".env", "--json")
    done = run.apart(*arguments, python=(sys.executable, "-c", start))
    assert_error(done, 6, "16 MiB")


FORGED = "a\n::error::b\r##[error]c"
HOSTILE: list[Any] = [None, FORGED, -1, [None], "z" * 70_000, "\ud800", {}, 10**400, "", True]


@pytest.mark.parametrize("path", [*ENDPOINTS.values(), "/envs$"], ids=[*ENDPOINTS, "the update"])
def test_no_response_crashes_the_run(run: Command, cloud: Cloud, cvm: Cvm, path: str) -> None:
    """The answer, and each of its fields in turn, is something else than it should be."""

    fields: list[str | None] = [None]

    def note(request: Request, answer: Answer) -> Answer:
        if re.search(path, request.path) and isinstance(answer.body, dict):
            fields[1:] = answer.body
        return answer

    def change(field: str | None, value: Any) -> None:
        def tamper(request: Request, answer: Answer) -> Answer:
            if not re.search(path, request.path):
                return answer
            return Answer(value if field is None else {**answer.body, field: value}, answer.status)

        cloud.tamper = tamper

    cloud.tamper, cloud.restart_seconds = note, 0
    assert update(run).code == 0
    for field, value in zip(fields, itertools.cycle(HOSTILE), strict=False):
        change(field, value)
        done = update(run, "--no-wait", "--output-file", "outputs")
        assert done.code in (0, 2, 3, 4, 5, 6), (field, value, done.printed)
        assert "Traceback" not in done.printed
        assert FORGED not in done.printed


# -- nobody there -------------------------------------------------------------------------------


def test_a_refused_connection_is_told_with_the_host(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    run.environ["PHALA_CLOUD_API_PREFIX"] = f"http://127.0.0.1:{port}/api/v1"
    done = update(run)
    assert_error(done, 6, "127.0.0.1", "could not be reached")
    assert "api-url" in done.hints[0]


def test_a_host_without_an_address_is_told_by_its_name(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    run.environ["PHALA_CLOUD_API_PREFIX"] = "https://cloud.invalid/api/v1"
    assert_error(update(run), 6, "cloud.invalid", "could not be reached")


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that accepts connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_silent_host_is_a_timeout(clock: ManualClock, silent: int, scheme: str) -> None:
    url = f"{scheme}://127.0.0.1:{silent}/api/v1"
    with (
        create_client("phak_1", url, timeout=0.1) as client,
        pytest.raises(TransportError, match=r"127\.0\.0\.1:\d+ .*in time") as failed,
    ):
        client.get_kms_info("phala")
    assert "HTTPS_PROXY" in failed.value.hint
    assert clock.slept == [0.5, 1, 2]


def test_a_server_without_tls_is_an_error(run: Command, simulator: Simulator, cvm: Cvm) -> None:
    run.environ["PHALA_CLOUD_API_PREFIX"] = simulator.url.replace("http://", "https://")
    assert_error(update(run), 6, "TLS", "127.0.0.1")


@pytest.mark.parametrize(
    ("certificate", "hint"),
    [
        ({"not_after": datetime(2020, 1, 2, tzinfo=UTC)}, "clock"),
        (
            {"not_before": datetime(2120, 1, 2, tzinfo=UTC), "not_after": datetime(2121, 1, 1, tzinfo=UTC)},
            "clock",
        ),
        ({}, "SSL_CERT_FILE"),
    ],
    ids=["expired", "not yet valid", "of somebody else"],
)
def test_a_certificate_that_does_not_hold_is_told_with_what_may_be_the_matter(
    run: Command, tmp_path: Path, certificate: dict[str, Any], hint: str
) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", **certificate).configure_cert(context)
    known = authority if certificate else trustme.CA()
    known.cert_pem.write_to_path(tmp_path / "ca.pem")
    with Simulator(tls=context) as simulator:
        run.environ |= {"PHALA_CLOUD_API_PREFIX": simulator.url, "SSL_CERT_FILE": str(tmp_path / "ca.pem")}
        done = update(run)
        assert_error(done, 6, "no trusted TLS connection to 127.0.0.1")
        assert hint in done.hints[0]
        assert not simulator.cloud.requests


def test_a_wrong_api_key_is_401(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    run.environ["PHALA_CLOUD_API_KEY"] = "phak_mistyped"
    done = update(run)
    assert_error(done, 5, "401")
    assert "check the API key" in done.hints[0]
    assert "phak_mistyped" not in done.printed


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("/pubkey/", 6, "could not be reached"),
        ("/compose_file$", 6, "127.0.0.1"),
        ("/state$", 8, "not running after 3 s"),
    ],
    ids=["amid the key", "before the update", "amid the wait"],
)
def test_a_network_that_goes_away_is_told_of_with_what_is_known(
    run: Command, clock: ManualClock, path: str, code: int, words: str
) -> None:
    cut = threading.Event()

    def unplug(request: Request, answer: Answer) -> Answer:
        if re.search(path, request.path) and not cut.is_set():
            cut.set()
            threading.Thread(target=simulator.close).start()
            simulator._server.closing.wait()
        return answer

    with Simulator(Cloud(restart_seconds=60, clock=clock)) as simulator:
        cvm = simulator.cloud.add_cvm("my-app", environment={"OLD": "1"})
        simulator.cloud.tamper = unplug
        run.environ |= {
            "PHALA_CLOUD_API_PREFIX": simulator.url, "PHALA_CLOUD_API_KEY": simulator.cloud.api_key
        }  # fmt: skip
        done = update(run, "--wait-timeout", "3")
    assert cut.is_set()
    assert_error(done, code, words)
    assert bool(cvm.operations) == (code == 8)
    if cvm.operations:
        assert cvm.operations[-1].correlation_id in done.errors[0]


# -- the machine itself -------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has /dev/full")
def test_a_full_disk_stops_the_run_before_anything_is_sent(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    done = update(run, "--output-file", "/dev/full")
    assert_error(done, 2, "/dev/full")
    assert not patches(cloud)


def test_an_output_file_that_goes_away_does_not_take_the_update_back(
    run: Command, cloud: Cloud, cvm: Cvm
) -> None:
    folder = run.folder / "outputs"
    folder.mkdir()

    def unplug(request: Request, answer: Answer) -> Answer:
        if request.method == "PATCH":
            (folder / "file").unlink()
            folder.rmdir()
        return answer

    cloud.tamper = unplug
    done = update(run, "--output-file", "outputs/file")
    assert done.code == 0
    assert cvm.wait().environment == {"OLD": SECRET}
    assert cvm.operations[-1].correlation_id in done.printed
    assert "outputs/file" in done.printed


def test_a_fleet_is_told_of_though_its_outputs_cannot_be_written(
    run: Command, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    """The first CVM is refused, the second one accepted, and then there is no place for outputs."""
    second = cloud.add_cvm("second", app_id=cvm.app_id, environment={"OLD": "1"})
    file = run.folder / "outputs"
    simulator.faults.add(Fault("status", "PATCH", status=403, body={"detail": "not yours"}))

    def unplug(request: Request, answer: Answer) -> Answer:
        if request.method == "PATCH":
            file.unlink(missing_ok=True)
            file.mkdir(exist_ok=True)
        return answer

    cloud.tamper = unplug
    run.write(".env", f"OLD={SECRET}\n")
    done = run(
        "update", "--app", cvm.app_id, "--env-file", ".env", "--no-fail-fast", "--output-file", "outputs"
    )
    assert done.code == 5, done.printed
    assert "not yours" in done.errors[0]
    assert "the output results is missing there" in done.printed
    assert "second: running (1 of 2)" in done.lines
    assert second.environment == {"OLD": SECRET}


@pytest.mark.parametrize("room", [150, 300, 450, 600])
def test_a_disk_that_gets_full_leaves_the_outputs_of_a_step_whole(step: Step, cvm: Cvm, room: int) -> None:
    """prlimit(1) lets no file get larger, and what would is written in part."""
    done = step.apart(env="OLD=2", under=("prlimit", f"--fsize={room}"))
    assert "cannot be written" in done.log
    assert done.outputs.get("cvm-id") in (None, cvm.id), "the runner can read what there is"
    assert bool(cvm.operations) == (done.code == 0)


def test_a_closed_standard_output_is_no_crash(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    run.write(".env", "OLD=2\n")
    done = subprocess.run(
        [sys.executable, "-m", "phala_secrets", "encrypt", "--cvm", "my-app", "--env-file", ".env"],
        cwd=run.folder,
        env=run.variables(),
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
        check=False,
    )
    os.close(writer)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert done.returncode != 0
