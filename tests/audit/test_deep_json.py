"""Finding 17: deep JSON is an error of the library, whatever recursion limit the process has."""

from __future__ import annotations

import subprocess
import sys

import pytest

from .support import Cloud, Cvm, Fault, Simulator

SYNC = """
import sys, phala_secrets
sys.setrecursionlimit(100_000)  # as importing eth_account does
try:
    with phala_secrets.create_client(sys.argv[1], sys.argv[2]) as client:
        client.get_cvm_info("my-app")
except phala_secrets.PhalaSecretsError as error:
    print(type(error).__name__)
"""
ASYNC = """
import asyncio, sys, phala_secrets
sys.setrecursionlimit(100_000)  # as importing eth_account does
async def ask():
    async with phala_secrets.create_async_client(sys.argv[1], sys.argv[2]) as client:
        await client.get_cvm_info("my-app")
try:
    asyncio.run(ask())
except phala_secrets.PhalaSecretsError as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize("program", [pytest.param(SYNC, id="sync"), pytest.param(ASYNC, id="async")])
@pytest.mark.parametrize(("status", "error"), [(200, "AnswerError"), (400, "ApiError")])
def test_deep_json_is_no_crash(
    simulator: Simulator, cloud: Cloud, cvm: Cvm, program: str, status: int, error: str
) -> None:
    """The process dies of a segmentation fault: a megabyte of ``[`` is enough."""
    simulator.faults.add(Fault("status", times=None, status=status, body=b"[" * 1_000_000))
    done = subprocess.run(
        [sys.executable, "-c", program, cloud.api_key, simulator.url],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == error


EVIDENCE = """
import sys
from phala_secrets.dstack import attestation, collateral, event_log
from phala_secrets.errors import EvidenceError
sys.setrecursionlimit(100_000)  # as importing eth_account does
for read in (
    lambda: event_log.parse_event_log("[" * 4_000_000),
    lambda: collateral.signed_object(b'{"tcbInfo":' + b"[" * 1_000_000, "tcbInfo"),
    lambda: attestation._kms(b"[" * 65_536, {}),
):
    try:
        read()
    except EvidenceError:
        print("EvidenceError")
"""


def test_deep_evidence_is_no_crash_where_a_key_is_signed_with() -> None:
    """An event log, a key-provider and collateral are JSON within JSON: the update was accepted by then."""
    done = subprocess.run([sys.executable, "-c", EVIDENCE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["EvidenceError"] * 3
