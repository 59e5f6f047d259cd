"""Once an update is accepted, nothing that becomes of the evidence is a refusal, or passes for fresh."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest

from phala_secrets.simulator.measured_boot import evidence, os_measurements

from .support import Answer, Cloud, Command, Cvm, Outcome, Request, Simulator, on_chain

APP_ID = "a1" * 20


@pytest.fixture
def cvm(cloud: Cloud) -> Cvm:
    return cloud.add_cvm("my-app", app_id=APP_ID, environment={"OLD": "1"})


@pytest.fixture
def attested(run: Command, simulator: Simulator) -> dict[str, str]:
    """The variables of a run that attests simulated CVMs."""
    root = run.write("root.pem", simulator.cloud.tee.root_pem)
    run.write(".env", "OLD=2\n")
    return {
        "PHALA_SECRETS_PCCS_URL": simulator.origin,
        "PHALA_SECRETS_ATTESTATION_ROOT": str(root),
        "PHALA_SECRETS_ATTEST": "require",
    }


def update(run: Command, cvm: Cvm, environ: dict[str, str], **more: str) -> Outcome:
    of_cvm = {
        "PHALA_SECRETS_TRUSTED_OS": os_measurements(cvm),
        "PHALA_SECRETS_TRUSTED_KMS_CA": cvm.kms.ca_public_key,
    }
    arguments = ("update", "--cvm", "my-app", "--env-file", ".env", "--json")
    return run(*arguments, environ={**of_cvm, **environ, **more})


@pytest.mark.parametrize("status", [403, 404, 409, 422])
@pytest.mark.parametrize(("attest", "code"), [("require", 9), ("warn", 0)])
def test_evidence_that_is_refused_after_the_update_leaves_the_cvm_not_attested(
    run: Command, attested: dict[str, str], cvm: Cvm, cloud: Cloud, status: int, attest: str, code: int
) -> None:
    def tamper(request: Request, answer: Answer) -> Answer:
        refused = request.path.endswith("/attestation") and cvm.operations
        return Answer({"detail": "no evidence for you"}, status) if refused else answer

    cloud.tamper = tamper
    done = update(run, cvm, attested, PHALA_SECRETS_ATTEST=attest)
    assert done.code == code, done.printed
    assert done.json["attested"] is False
    assert done.json["status"] == ("running" if attest == "warn" else "failed")
    assert "no evidence for you" in done.json["attestation"]


def test_an_rpc_that_is_gone_after_the_update_leaves_the_cvm_not_attested(
    run: Command, attested: dict[str, str], simulator: Simulator
) -> None:
    with on_chain(simulator) as world:

        def meddle(method: str, answer: Any) -> Any:
            return {**answer, "result": "0x"} if method == "eth_call" and world.cvm.operations else answer

        world.chain.meddle = meddle
        given = {
            "PHALA_SECRETS_RPC_URL": world.chain.url,
            "PHALA_SECRETS_TRUSTED_OS": os_measurements(world.cvm),
        }
        arguments = ("update", "--cvm", "my-app", "--env-file", ".env", "--json")
        done = run(*arguments, environ={**attested, **given})
    assert done.code == 9, done.printed
    assert "the update was accepted" in done.errors[-1]
    assert "KMS not compared" in done.json["attestation"]


@pytest.mark.parametrize("shown", ["by the public route", "for another certificate"])
def test_another_quote_of_the_boot_before_is_not_fresh(
    run: Command, attested: dict[str, str], cvm: Cvm, cloud: Cloud, shown: str
) -> None:
    """A boot has several quotes, each with its own report data. After the update the API shows the other."""
    cloud.attests_after = 1e9  # the new boot never attests
    other = evidence(cloud.tee, cvm, replace(cvm.boots[-1], number=99)).quote.hex()

    def tamper(request: Request, answer: Answer) -> Answer:
        body = answer.body
        if request.path.endswith("/attestations") and shown == "by the public route":
            return Answer({**body, "instances": [{**body["instances"][0], "quote": other}]})
        if request.path.endswith("/attestation"):
            first = body["app_certificates"][0]
            pair = [first, {**first, "quote": other}]
            if shown == "by the public route":
                pair = [] if cvm.operations else pair[:1]
            return Answer({**body, "app_certificates": pair[::-1] if cvm.operations else pair})
        return answer

    cloud.tamper = tamper
    done = update(run, cvm, attested)
    assert done.code == 9, done.printed
    assert "fresh: the evidence is from the boot before" in done.errors[-1]


def test_nothing_is_sent_where_nothing_can_verify_a_quote(
    run: Command, attested: dict[str, str], cvm: Cvm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dcap_qvl", None)
    done = update(run, cvm, attested)
    assert done.code == 2, done.printed
    assert "dcap-qvl" in done.errors[-1]
    assert cvm.operations == []


@pytest.mark.parametrize("event", [("boot", b"with a-value-nobody-may-see"), ("a-value-nobody-may-see", b"")])
def test_evidence_that_holds_a_value_is_not_kept(
    run: Command, attested: dict[str, str], cvm: Cvm, event: tuple[str, bytes]
) -> None:
    """An app may add events of its own. Evidence files are artifacts, which many read."""
    cvm.firmware.app_events.append(event)
    run.write(".env", "OLD=a-value-nobody-may-see\n")
    done = update(run, cvm, attested, PHALA_SECRETS_EVIDENCE_FILE="kept.json")
    assert done.code == 0, done.printed
    assert "evidence-file is not written: it would contain the value of OLD" in done.printed
    assert not (run.folder / "kept.json").exists()
    run.write(".env", "OLD=another-value\n")
    assert update(run, cvm, attested, PHALA_SECRETS_EVIDENCE_FILE="kept.json").code == 0
    assert (run.folder / "kept.json").exists()


def test_evidence_of_many_megabytes_is_not_kept(
    run: Command, attested: dict[str, str], cvm: Cvm, cloud: Cloud
) -> None:
    def tamper(request: Request, answer: Answer) -> Answer:
        if request.path.endswith("/attestation") and cvm.operations:
            tcb = {**answer.body["tcb_info"], "event_log": "[" + " " * (3 << 20) + "]"}
            return Answer({**answer.body, "tcb_info": tcb})
        return answer

    cloud.tamper = tamper
    done = update(run, cvm, attested, PHALA_SECRETS_EVIDENCE_FILE="kept.json")
    assert done.code == 9, done.printed
    assert "the evidence is too large" in done.printed
