"""The simulated TEE: quotes that dcap-qvl verifies with its root, a PCCS, and evidence that replays."""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import dcap_qvl
import httpx
import pytest
from cryptography import x509

from phala_secrets.simulator.measured_boot import os_measurements

if TYPE_CHECKING:
    from phala_secrets.simulator.cloud import Cloud
    from phala_secrets.simulator.cvm import Cvm
    from tests.simulator.conftest import Api
    from tests.support.clock import ManualClock
    from tests.support.faulty import FaultySimulator


@pytest.fixture
def cvm(cloud: Cloud) -> Cvm:
    return cloud.add_cvm("my-app", environment={"A": "1"})


def quote_of(api: Api, cvm: str = "my-app") -> bytes:
    (certificate,) = api.get(f"/cvms/{cvm}/attestation").json()["app_certificates"]
    return bytes.fromhex(certificate["quote"])


def collateral(origin: str, quote: bytes) -> Any:
    """Ask the PCCS, as anybody does."""
    parsed = dcap_qvl.parse_quote(quote)
    with httpx.Client(base_url=origin, verify=False) as http:
        pck = http.get("/sgx/certification/v4/pckcrl", params={"ca": parsed.ca(), "encoding": "der"})
        root = http.get("/sgx/certification/v4/rootcacrl")
        tcb = http.get("/tdx/certification/v4/tcb", params={"fmspc": parsed.fmspc()})
        qe = http.get("/tdx/certification/v4/qe/identity", params={"update": "standard"})

    def signed(response: httpx.Response, name: str) -> tuple[str, bytes]:
        text = response.text
        begin = text.index("{", 1)
        return text[begin : text.rindex("}", 0, -1) + 1], bytes.fromhex(response.json()["signature"])

    return dcap_qvl.QuoteCollateralV3(
        unquote(pck.headers["SGX-PCK-CRL-Issuer-Chain"]),
        bytes.fromhex(root.text),
        pck.content,
        unquote(tcb.headers["TCB-Info-Issuer-Chain"]),
        *signed(tcb, "tcbInfo"),
        unquote(qe.headers["SGX-Enclave-Identity-Issuer-Chain"]),
        *signed(qe, "enclaveIdentity"),
    )


def verify(simulator: FaultySimulator, quote: bytes) -> Any:
    now = int(simulator.cloud.clock.time())
    parts = collateral(simulator.origin, quote)
    return dcap_qvl.verify_with_root_ca(quote, parts, simulator.cloud.tee.root, now)


def test_a_quote_verifies_with_the_simulated_root_and_no_other(
    api: Api, simulator: FaultySimulator, cloud: Cloud, cvm: Cvm
) -> None:
    quote = quote_of(api)
    report = verify(simulator, quote)
    assert (report.status, report.advisory_ids) == ("UpToDate", [])
    with pytest.raises(ValueError, match="Failed"):
        dcap_qvl.verify(quote, collateral(simulator.origin, quote), int(cloud.clock.time()))


def test_a_root_stays_the_same_with_a_seed() -> None:
    from phala_secrets.simulator.cloud import Cloud

    assert Cloud(seed=b"seed").tee.root == Cloud(seed=b"seed").tee.root != Cloud().tee.root
    x509.load_pem_x509_certificate(Cloud(seed=b"seed").tee.root_pem.encode())


def test_the_status_of_the_platform_and_its_advisories_are_intels(
    api: Api, simulator: FaultySimulator, cloud: Cloud, cvm: Cvm
) -> None:
    cloud.tee.status, cloud.tee.advisories = "OutOfDate", ["INTEL-SA-00837"]
    report = verify(simulator, quote_of(api))
    assert (report.status, report.advisory_ids) == ("OutOfDate", ["INTEL-SA-00837"])


def _revoke(cloud: Cloud) -> None:
    cloud.tee.revoked = True


def _expire(cloud: Cloud) -> None:
    cloud.tee.collateral_age = timedelta(days=31)


def _of_another(cloud: Cloud) -> None:
    cloud.tee.collateral_fmspc = bytes(6)


@pytest.mark.parametrize("spoil", [_revoke, _expire, _of_another])
def test_collateral_that_is_not_good_is_refused(
    api: Api, simulator: FaultySimulator, cloud: Cloud, cvm: Cvm, spoil: Any
) -> None:
    spoil(cloud)
    with pytest.raises(ValueError, match="Verification failed"):
        verify(simulator, quote_of(api))


def test_the_pccs_may_be_down_and_knows_its_own_platform_alone(
    api: Api, simulator: FaultySimulator, cloud: Cloud
) -> None:
    url = f"{simulator.origin}/tdx/certification/v4/tcb"
    assert httpx.get(url, params={"fmspc": "00" * 6}).status_code == 404
    assert httpx.get(f"{simulator.origin}/sgx/certification/v4/nothing").status_code == 404
    cloud.tee.pccs_is_down = True
    assert httpx.get(url, params={"fmspc": "00" * 6}).status_code == 503


def replayed(log: list[dict[str, Any]]) -> bytes:
    value = bytes(48)
    for row in log:
        if row["imr"] == 3:
            value = hashlib.sha384(value + bytes.fromhex(row["digest"])).digest()
    return value


def test_the_event_log_is_that_of_the_quote(api: Api, cloud: Cloud, cvm: Cvm) -> None:
    cvm.firmware.app_events.append(("my-app-says", b"hello"))
    found = api.get("/cvms/my-app/attestation").json()
    report = dcap_qvl.parse_quote(quote_of(api)).report
    log = found["tcb_info"]["event_log"]
    assert replayed(log) == report.rt_mr3
    assert found["tcb_info"]["rtmr3"] == report.rt_mr3.hex()
    claims = {row["event"]: row["event_payload"] for row in log if row["imr"] == 3}
    assert claims["compose-hash"] == cvm.compose_hash
    assert claims["app-id"] == cvm.app_id
    assert json.loads(bytes.fromhex(claims["key-provider"]))["id"] == cvm.kms.ca_public_key
    names = [row["event"] for row in log if row["imr"] == 3]
    assert names[-2:] == ["system-ready", "my-app-says"]
    measured = hashlib.sha256(report.mr_td + report.rt_mr1 + report.rt_mr2).hexdigest()
    assert measured == os_measurements(cvm)


def test_another_os_measures_otherwise_and_a_debug_vm_says_so(api: Api, cloud: Cloud, cvm: Cvm) -> None:
    before = os_measurements(cvm)
    cvm.firmware.os, cvm.firmware.debug = "of somebody's own", True
    assert os_measurements(cvm) != before
    assert dcap_qvl.parse_quote(quote_of(api)).report.td_attributes[0] == 1


def test_each_boot_has_evidence_of_its_own_and_it_comes_late(
    api: Api, cloud: Cloud, cvm: Cvm, clock: ManualClock
) -> None:
    cloud.attests_after = 60
    before = dcap_qvl.parse_quote(quote_of(api)).report.report_data
    api.update("my-app", {"A": "2"})
    cvm.wait()
    assert dcap_qvl.parse_quote(quote_of(api)).report.report_data == before
    clock.advance(60)
    assert dcap_qvl.parse_quote(quote_of(api)).report.report_data != before


def test_an_apps_attestations_need_no_key(api: Api, simulator: FaultySimulator, cvm: Cvm) -> None:
    found = httpx.get(f"{simulator.url}/apps/{cvm.app_id}/attestations").json()
    (instance,) = found["instances"]
    assert bytes.fromhex(instance["quote"])[48:632] == quote_of(api)[48:632]
    assert json.loads(instance["eventlog"])[-1]["event"] == "system-ready"
    assert httpx.get(f"{simulator.url}/apps/{'00' * 20}/attestations").status_code == 404


def test_what_is_not_public_or_not_online_has_no_evidence(api: Api, cloud: Cloud, cvm: Cvm) -> None:
    cloud.add_cvm("private", app_compose={"public_tcbinfo": False})
    cvm.stop()
    for name in ("private", "my-app"):
        found = api.get(f"/cvms/{name}/attestation").json()
        assert (found["app_certificates"], found["tcb_info"]) == (None, None)
    assert api.get(f"/apps/{cvm.app_id}/attestations").json()["instances"] == []
