"""Stories of attestation in the library: an honest CVM, and each lie with the link that it breaks."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

import phala_secrets
from phala_secrets import Attestation, Client, EvidenceError, InputError, verify_attestation
from phala_secrets.cloud import requests
from phala_secrets.cloud.attest import app_evidence, collateral_for
from phala_secrets.dstack import evidence as forms
from phala_secrets.dstack.attestation import Expected, check_cvm
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.measured_boot import os_measurements
from tests.support.attested import APP_ID, LINKS, Sabotage, expected, kms_record
from tests.support.faulty import FaultySimulator as Simulator

pytestmark = pytest.mark.usefixtures("time_passes")


@pytest.fixture
def cvm(cloud: Cloud) -> Cvm:
    return cloud.add_cvm("my-app", app_id=APP_ID, environment={"OLD": "1"})


@pytest.fixture
def client(simulator: Simulator) -> Iterator[Client]:
    with phala_secrets.create_client(simulator.cloud.api_key, simulator.url) as client:
        yield client


def attest(client: Client, simulator: Simulator, wanted: dict[str, Any], **more: Any) -> Attestation:
    arguments = {"pccs_url": simulator.origin, "now": simulator.cloud.now().timestamp(), **wanted, **more}
    return verify_attestation(client.get_cvm_attestation("my-app"), **arguments)


def link(attestation: Attestation, name: str) -> phala_secrets.Link:
    return next(one for one in attestation.links if one.name == name)


def test_an_honest_cvm_is_attested_link_by_link(
    client: Client, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    cvm.firmware.app_events.append(("compose-hash", b"\xee" * 32))
    found = attest(client, simulator, expected(cloud, cvm))
    assert found.attested, found.broken
    assert found.simulated
    assert link(found, "quote").what == "simulated TEE"
    assert {one.name for one in found.links if one.ok} == found.required
    assert link(found, "certificate").ok is None
    assert (found.tcb_status, found.advisories) == ("UpToDate", ())
    told = found.as_json()
    assert told["attested"] is True
    assert told["tee"] == "simulated TEE"
    assert re.fullmatch(r"[0-9a-f]{64}", told["evidence_sha256"])
    assert json.loads(json.dumps(told)) == told


@pytest.mark.parametrize("sabotage", LINKS.values(), ids=LINKS)
def test_each_lie_breaks_a_link_and_has_a_reason_of_its_own(
    client: Client, simulator: Simulator, cloud: Cloud, cvm: Cvm, sabotage: Sabotage
) -> None:
    wanted = expected(cloud, cvm)
    sabotage.commit(cloud, cvm)
    now = cloud.now().timestamp()
    content = client.send(requests.attestation("my-app"))
    found = verify_attestation(content, pccs_url=simulator.origin, now=now, **wanted)
    assert not found.attested
    broken = {one.name: one.what for one in found.broken}
    assert re.search(sabotage.reason, broken[sabotage.link]), broken
    assert found.as_json()["attested"] is False


def test_a_quote_by_a_root_that_is_not_intels_is_none(
    client: Client, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    wanted = expected(cloud, cvm) | {"root": None}
    found = attest(client, simulator, wanted)
    assert not found.attested
    assert not link(found, "quote").ok
    assert found.as_json()["tee"] == "Intel TDX"


LEFT_OUT = {
    "app_id": "app",
    "compose_hash": "compose hash",
    "instance_id": "instance",
    "trusted_os": "OS",
    "trusted_kms_ca": "KMS",
}


@pytest.mark.parametrize(("argument", "name"), LEFT_OUT.items(), ids=LEFT_OUT)
def test_what_is_not_expected_is_not_compared_and_not_attested(
    client: Client, simulator: Simulator, cloud: Cloud, cvm: Cvm, argument: str, name: str
) -> None:
    wanted = expected(cloud, cvm)
    del wanted[argument]
    found = attest(client, simulator, wanted)
    assert not found.attested
    assert [(one.name, one.ok) for one in found.broken] == [(name, None)]
    assert "not compared" in link(found, name).what


def test_the_binding_of_the_certificate_is_checked_where_its_key_is_there(
    client: Client, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    of_cvm = forms.of_cvm(client.get_cvm_attestation("my-app").model_dump(mode="json"))
    collateral = client.run(collateral_for(of_cvm, simulator.origin))
    wanted = Expected(
        cvm.app_id,
        cvm.compose_hash,
        cvm.instance_id,
        frozenset({os_measurements(cvm)}),
        {cvm.kms.ca_public_key: "the test"},
        root=cloud.tee.root,
    )

    def found(key: bytes) -> Attestation:
        now = int(cloud.now().timestamp())
        return check_cvm(of_cvm.quote, of_cvm.event_log, collateral, wanted, now=now, certificate_key=key)

    good = found(f"certificate {cvm.instance_id} {cvm.boots[-1].number}".encode())
    assert (good.attested, link(good, "certificate").ok) == (True, True), good.broken
    bad = found(b"another key")
    assert (bad.attested, [one.name for one in bad.broken]) == (False, ["certificate"])


def test_in_async_code_it_is_verified_in_a_thread(simulator: Simulator, cloud: Cloud, cvm: Cvm) -> None:
    async def attested() -> Attestation:
        async with phala_secrets.create_async_client(cloud.api_key, simulator.url) as client:
            content = await client.get_cvm_attestation("my-app")
        wanted = {**expected(cloud, cvm), "now": cloud.now().timestamp()}
        return await asyncio.to_thread(verify_attestation, content, pccs_url=simulator.origin, **wanted)

    assert asyncio.run(attested()).attested


def test_a_tcb_status_that_is_named_passes_and_advisories_are_listed(
    client: Client, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    cloud.tee.status, cloud.tee.advisories = "SWHardeningNeeded", ["INTEL-SA-00837"]
    found = attest(client, simulator, expected(cloud, cvm), allow_tcb="OutOfDate SWHardeningNeeded")
    assert found.attested, found.broken
    assert link(found, "TCB").what == "SWHardeningNeeded (INTEL-SA-00837)"
    assert not attest(client, simulator, expected(cloud, cvm), allow_tcb=["OutOfDate"]).attested
    for status in ("Revoked", "uptodate"):
        with pytest.raises(InputError, match="not a TCB status that can be accepted"):
            attest(client, simulator, {}, allow_tcb=[status])


def test_a_debug_vm_never_passes(client: Client, simulator: Simulator, cloud: Cloud, cvm: Cvm) -> None:
    cvm.firmware.debug = True
    found = attest(client, simulator, expected(cloud, cvm), allow_tcb=["OutOfDate"])
    assert {"quote", "debug"} <= {one.name for one in found.broken}


def test_collateral_may_be_stored_and_used_at_its_time(
    client: Client, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    content = client.get_cvm_attestation("my-app").model_dump(mode="json")
    collateral = client.run(collateral_for(forms.of_cvm(content), simulator.origin))
    assert not isinstance(collateral, EvidenceError)
    cloud.tee.pccs_is_down = True
    wanted = {**expected(cloud, cvm), "collateral": collateral.as_json()}
    now = int(time.time())
    assert verify_attestation(content, now=now, **wanted).attested
    later = verify_attestation(content, now=now + 31 * 86_400, **wanted)
    assert "expired" in link(later, "quote").what
    with pytest.raises(EvidenceError):
        verify_attestation(content, **{**wanted, "collateral": {}})


def test_no_key_goes_to_the_pccs_and_it_is_asked_four_things(
    client: Client, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    attest(client, simulator, expected(cloud, cvm))
    assert sorted(cloud.tee.asked) == [
        "/sgx/certification/v4/pckcrl",
        "/sgx/certification/v4/rootcacrl",
        "/tdx/certification/v4/qe/identity",
        "/tdx/certification/v4/tcb",
    ]


def test_arguments_are_checked_and_nothing_of_a_key_is_quoted() -> None:
    for wrong in (
        {"app_id": "x"},
        {"compose_hash": "00"},
        {"trusted_os": "zz"},
        {"trusted_kms_ca": "00"},
        {"pccs_url": "http://pccs.invalid"},
    ):
        with pytest.raises(InputError):
            verify_attestation({"quote": "00", "event_log": []}, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [None, [], "text", 3, {}, {"k256_pubkey": "02"}], ids=repr)
def test_invalid_evidence_is_refused(content: Any) -> None:
    with pytest.raises(EvidenceError):
        verify_attestation(content)


def test_a_cvm_that_is_not_online_or_not_public_has_no_evidence(
    client: Client, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    cvm.stop()
    found = attest(client, simulator, expected(cloud, cvm))
    assert not found.attested
    assert not link(found, "quote").ok


def test_the_evidence_of_an_app_is_picked_by_its_instance(
    client: Client, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    cloud.add_cvm("replica", app_id=APP_ID)
    found = client.send(app_evidence(APP_ID, cvm.instance_id))
    wanted = {**expected(cloud, cvm), "pccs_url": simulator.origin, "now": cloud.now().timestamp()}
    assert verify_attestation(found.as_json(), **wanted).attested
    missing = client.send(app_evidence(APP_ID, "00" * 20))
    assert "do not include the instance" in missing.missing


def test_a_kms_record_is_bound_to_its_keys(simulator: Simulator, cloud: Cloud, cvm: Cvm) -> None:
    record = kms_record(cloud, cvm)
    common: dict[str, Any] = {
        "trusted_os": os_measurements(cvm),
        "root": cloud.tee.root,
        "pccs_url": simulator.origin,
        "now": cloud.now().timestamp(),
    }
    assert verify_attestation(record, **common).attested
    other = cloud.add_kms("base", 8453, "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C")
    for change in ({"k256_pubkey": other.root_public_key}, {"ca_pubkey": other.ca_public_key}):
        found = verify_attestation(record | change, **common)
        assert [one.name for one in found.broken] == ["CA and root"]
    assert not verify_attestation(record, **common | {"trusted_os": ()}).attested


def test_verifying_takes_little_of_a_processor(
    client: Client, simulator: Simulator, cloud: Cloud, cvm: Cvm
) -> None:
    """A figure with room to spare: the bench has the exact one."""
    content = client.get_cvm_attestation("my-app").model_dump(mode="json")
    before = time.thread_time()
    verify_attestation(content, pccs_url=simulator.origin, **expected(cloud, cvm))
    assert time.thread_time() - before < 0.3
