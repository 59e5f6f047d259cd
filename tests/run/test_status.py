"""``status``: what a CVM has today, and of each line whether it is proven or the API's word."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.containers import Container
from phala_secrets.simulator.cvm import Cvm
from tests.support.command import Command, Outcome
from tests.support.faults import Fault
from tests.support.faulty import FaultySimulator as Simulator
from tests.support.paper_chain import BASE_KMS, PaperChain
from tests.support.step import Step


def lines(done: Outcome) -> dict[str, tuple[str, str]]:
    """Each fact by its name: how it is known, and what it is."""
    found = {}
    for line in done.stderr.splitlines():
        for known in ("proven", "API's word"):
            what, separator, today = line.strip().partition(f"  {known}")
            if separator:
                found[what.strip()] = (known, today.strip())
    return found


def test_everything_of_a_cvm_is_shown_and_nothing_changes(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    cvm.containers = [Container("web", "healthy", seconds=180), Container("migrate", "exited", 0)]
    run.write(".env", "OLD=2\nNEW=3\n")
    assert run("update", "--cvm", "my-app", "--env-file", ".env").code == 0
    cloud.reset_requests()
    done = run("status", "--cvm", "my-app", "--full")
    assert done.code == 0, done.printed
    shown = lines(done)
    assert shown["CVM"] == ("API's word", f"my-app ({cvm.id})")
    assert shown["app"][1] == cvm.app_id
    assert shown["state"] == ("API's word", "running")
    assert shown["variables"] == ("API's word", "2: OLD, NEW")
    assert shown["compose hash"] == ("API's word", cvm.compose_hash)
    assert shown["approval"] == ("API's word", "not needed: Cloud KMS")
    for part in ("completed", " ago"):
        assert part in shown["last operation"][1]
    assert "web: Up 3 minutes (healthy); migrate: Exited (0)" in shown["containers"][1]
    assert {request.method for request in cloud.requests} == {"GET"}
    outputs = run("status", "--cvm", "my-app", "--json").json
    assert outputs["status"] == "running"
    assert outputs["env_keys"] == ["OLD", "NEW"]
    assert outputs["compose_hash"] == cvm.compose_hash
    assert outputs["correlation_id"] == cvm.operations[-1].correlation_id


def test_what_is_pinned_is_proven(run: Command, cvm: Cvm) -> None:
    api = lines(run("status", "--cvm", "my-app"))
    assert {api["app"][0], api["KMS root"][0]} == {"API's word"}
    pins = ("--app-id", cvm.app_id, "--trusted-signers", cvm.kms.root_public_key)
    pinned = lines(run("status", "--cvm", "my-app", *pins))
    assert {pinned["app"][0], pinned["KMS root"][0]} == {"proven"}
    assert pinned["state"][0] == "API's word"


def test_a_cvm_in_error_says_why_and_what_cannot_be_read_is_said(
    run: Command, cvm: Cvm, simulator: Simulator
) -> None:
    cvm.boot_fails("no space left on device")
    run.write(".env", "OLD=2\n")
    assert run("update", "--cvm", "my-app", "--env-file", ".env").code == 8
    for path in ("/composition", "/operations"):
        simulator.faults.add(Fault("status", "GET", path, status=403, body={"detail": "not yours"}, times=9))
    done = run("status", "--cvm", "my-app")
    assert done.code == 0, done.printed
    shown = lines(done)
    assert "no space left on device" in shown["state"][1]
    for what in ("containers", "last operation"):
        assert shown[what][1].startswith("unknown: Phala Cloud: not yours")


def test_a_cvm_that_shows_nothing(run: Command, cloud: Cloud) -> None:
    cvm = cloud.add_cvm("my-app", environment={})
    cvm.looks += [None]
    shown = lines(run("status", "--cvm", "my-app"))
    assert shown["variables"][1] == "none"
    assert shown["last operation"][1] == "none"
    assert shown["containers"][1] == "not visible"


def test_a_fleet_has_a_table_for_each_and_rows(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    cloud.add_cvm("twin", app_id=cvm.app_id, environment={"OLD": "1"})
    done = run("status", "--app", cvm.app_id, "--json")
    assert [line for line in done.lines if line.endswith(": running")] == [
        "my-app: running",
        "twin: running",
    ]
    assert [row["status"] for row in done.json["results"]] == ["running", "running"]


def test_a_step_of_a_workflow_has_it_as_outputs_and_in_the_summary(step: Step, cvm: Cvm) -> None:
    done = step(mode="status")
    assert done.code == 0, done.log
    assert done.outputs["status"] == "running"
    assert done.outputs["env-keys"] == '["OLD"]'
    assert "last operation" in done.summary


def test_the_text_of_a_guest_is_no_command_of_the_log(step: Step, cvm: Cvm) -> None:
    cvm.containers = [Container("::error::forged ##[error]forged")]
    done = step(mode="status")
    assert done.code == 0
    assert not done.annotations("error")


# -- on chain --------------------------------------------------------------------------------------


@pytest.fixture
def chain(cloud: Cloud) -> Iterator[PaperChain]:
    """A chain with the app of ``on-chain``, a CVM of its own."""
    cvm = cloud.add_cvm("on-chain", kms=cloud.add_kms("base-1", 8453, BASE_KMS), environment={"OLD": "1"})
    with PaperChain() as chain:
        cloud.rpc_urls[8453] = chain.url
        chain.hold(cvm)
        yield chain


def test_the_contract_proves_an_approval_and_the_api_only_says_so(run: Command, chain: PaperChain) -> None:
    said = lines(run("status", "--cvm", "on-chain"))["approval"]
    assert said[0] == "API's word"
    assert said[1].startswith("given on chain 8453")
    proven = lines(run("status", "--cvm", "on-chain", "--rpc-url", chain.url))["approval"]
    assert proven == ("proven", "given: the app's contract allows the compose hash and the device")


def test_an_approval_that_is_missing_is_said(run: Command, chain: PaperChain, cloud: Cloud) -> None:
    chain.devices.clear()
    device = lines(run("status", "--cvm", "on-chain", "--rpc-url", chain.url))["approval"]
    assert device[0] == "proven"
    assert "does not allow the device" in device[1]
    chain.approved = set()
    proven = lines(run("status", "--cvm", "on-chain", "--rpc-url", chain.url))["approval"]
    assert proven == ("proven", "the app's contract does not allow this compose hash")
    assert lines(run("status", "--cvm", "on-chain"))["approval"][1].startswith("missing on chain 8453")


def test_an_approval_that_nobody_tells_is_unknown(
    run: Command, chain: PaperChain, simulator: Simulator
) -> None:
    simulator.faults.add(Fault("status", "POST", "/is-allowed", status=403, body={"detail": "no"}, times=9))
    assert lines(run("status", "--cvm", "on-chain"))["approval"][1].startswith("unknown: Phala Cloud: no")
