"""Stories of attestation in a run: what has to hold after an update, and what is said where it does not."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phala_secrets.cloud import known
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.measured_boot import os_measurements, os_of
from tests.support.attested import APP_ID, FOREIGN_CA, LINKS, STALE, Sabotage, kms_record
from tests.support.command import Command, Outcome
from tests.support.faults import Fault, Kind
from tests.support.faulty import FaultySimulator as Simulator
from tests.support.paper_chain import BASE_KMS, PaperChain
from tests.support.step import Step

Attest = Callable[..., Outcome]


@pytest.fixture
def cvm(cloud: Cloud) -> Cvm:
    return cloud.add_cvm("my-app", app_id=APP_ID, environment={"OLD": "1"})


@pytest.fixture
def inputs(simulator: Simulator, cloud: Cloud, cvm: Cvm, tmp_path: Path) -> dict[str, str]:
    root = tmp_path / "root.pem"
    root.write_text(cloud.tee.root_pem)
    return {
        "PHALA_SECRETS_PCCS_URL": simulator.origin,
        "PHALA_SECRETS_ATTESTATION_ROOT": str(root),
        "PHALA_SECRETS_TRUSTED_OS": os_measurements(cvm),
        "PHALA_SECRETS_TRUSTED_KMS_CA": cvm.kms.ca_public_key,
    }


@pytest.fixture
def update(run: Command, inputs: dict[str, str]) -> Attest:
    """``update(*flags, **variables)``: an update that has to be attested."""

    def update(*flags: str, attest: str = "require", cvm: str = "my-app", **more: str | None) -> Outcome:
        run.write(".env", "OLD=2\n")
        arguments = ("--cvm", cvm, "--env-file", ".env", "--attest", attest, "--json", *flags)
        return run("update", *arguments, environ={**inputs, **more})

    return update


@pytest.fixture
def verify(run: Command, inputs: dict[str, str]) -> Attest:
    def verify(*flags: str, attest: str = "require", **more: str | None) -> Outcome:
        return run("verify", *flags, "--attest", attest, "--json", environ={**inputs, **more})

    return verify


def test_an_update_is_attested_link_by_link(update: Attest, cvm: Cvm, cloud: Cloud) -> None:
    cloud.attests_after = 45
    done = update()
    assert done.code == 0, done.printed
    assert done.json["attested"] is True
    assert done.json["os_measurements"] == os_measurements(cvm)
    told = json.loads(done.json["attestation"])
    assert told["tee"] == "simulated TEE"
    assert {link["name"] for link in told["links"] if link["ok"]} == {
        *("quote", "TCB", "debug", "OS", "event log", "app", "compose hash", "instance", "KMS", "fresh")
    }
    assert "attested (simulated TEE)" in done.stderr
    assert re.search(r"event log +holds +replays to RTMR3", done.stderr)
    assert re.search(r"certificate +not checked +not available", done.stderr)
    assert cvm.environment == {"OLD": "2"}


def test_a_step_shows_the_chain_in_its_summary(step: Step, inputs: dict[str, str], cvm: Cvm) -> None:
    given: dict[str, Any] = {"env": "OLD=2", "attest": "require", "environ": inputs}
    done = step(**given)
    assert (done.code, done.outputs["attested"]) == (0, "true"), done.log
    summary = re.sub("<[^>]+>", "", done.summary)
    assert "attested (simulated TEE)" in summary.splitlines()[0]
    told = json.loads(done.outputs["attestation"])
    for link in told["links"]:
        assert f"<td>{link['name']}</td>" in done.summary
    assert re.fullmatch(r"[0-9a-f]{64}", told["evidence_sha256"])
    cvm.firmware.debug = True
    refused = step(**given)
    assert (refused.code, refused.outputs["attested"]) == (9, "false"), refused.log
    summary = re.sub("<[^>]+>", "", refused.summary)
    assert "not attested (simulated TEE)" in summary
    assert "<td>debug</td><td>does not hold</td><td>a debug VM" in refused.summary
    assert "debug: a debug VM" in refused.annotations("error")[-1].data


def test_new_names_are_another_compose_hash_which_is_what_is_expected(
    run: Command, inputs: dict[str, str], cvm: Cvm
) -> None:
    run.write(".env", "OLD=2\nNEW=3\n")
    done = run(
        "update", "--cvm", "my-app", "--env-file", ".env", "--attest", "require", "--json", environ=inputs
    )
    assert done.code == 0, done.printed
    assert done.json["compose_hash"] in done.json["attestation"]


@pytest.mark.parametrize("order", ["sent", "sorted"])
def test_names_that_the_service_puts_in_another_order_are_still_those_sent(
    run: Command, inputs: dict[str, str], cvm: Cvm, cloud: Cloud, order: Any
) -> None:
    cloud.allowed_envs_order = order
    run.write(".env", "OLD=2\nB=3\nA=4\n")
    done = run(
        "update", "--cvm", "my-app", "--env-file", ".env", "--attest", "require", "--json", environ=inputs
    )
    assert done.code == 0, done.printed


@pytest.mark.parametrize("sabotage", [*LINKS.values(), STALE], ids=[*LINKS, "of before the update"])
def test_each_lie_ends_an_update_with_9_and_its_own_reason(
    update: Attest, cvm: Cvm, cloud: Cloud, sabotage: Sabotage
) -> None:
    sabotage.commit(cloud, cvm)
    done = update()
    assert done.code == 9, done.printed
    assert done.json["attested"] is False
    broken = {link["name"]: link["what"] for link in json.loads(done.json["attestation"])["links"]}
    assert re.search(sabotage.reason, broken[sabotage.link]), broken
    assert "the update was accepted" in done.errors[-1]
    assert "it is not attested" in done.errors[-1]
    assert cvm.environment == {"OLD": "2"}


def test_a_deploy_that_is_not_attested_names_what_ran_before(update: Attest, run: Command, cvm: Cvm) -> None:
    run.write("docker-compose.yml", "services:\n  app:\n    image: nginx\n    environment: [OLD]\n")
    assert update("--compose-file", "docker-compose.yml").code == 0
    cvm.firmware.os = "somebody's own"
    before, revision = cvm.compose_hash, cvm.revisions[-1].revision_id
    run.write("docker-compose.yml", "services:\n  app:\n    image: httpd\n    environment: [OLD]\n")
    done = update("--compose-file", "docker-compose.yml")
    assert done.code == 9, done.printed
    assert (
        f"to roll back, deploy what ran before: compose hash {before}, revision {revision}" in done.hints[-1]
    )


def test_sixteen_mebibytes_of_evidence_are_none(update: Attest, cvm: Cvm, cloud: Cloud) -> None:
    def inflate(request: Any, answer: Any) -> Any:
        if request.path.endswith("/attestation") and cvm.operations:
            answer.body = {**answer.body, "error": "x" * (16 << 20)}
        return answer

    cloud.tamper = inflate
    done = update()
    assert done.code == 9, done.printed
    assert "over 16 MiB" in done.errors[-1]
    asked = [request for request in cloud.requests if request.path.endswith("/attestation")]
    assert len(asked) <= 6


def test_evidence_that_nobody_can_read_before_the_update_sends_nothing(
    update: Attest, cvm: Cvm, simulator: Simulator
) -> None:
    simulator.faults.add(Fault("huge_body", path="/attestation$", times=None))
    done = update()
    assert (done.code, cvm.operations) == (6, []), done.printed
    assert "over 16 MiB" in done.errors[-1]


@pytest.mark.parametrize("kind", ["huge_body", "gzip_bomb", "html_200", "half_body", "redirect", "status"])
def test_a_pccs_that_lies_or_fails_verifies_nothing(
    update: Attest, cvm: Cvm, simulator: Simulator, kind: Kind
) -> None:
    fault = Fault(kind, path="/certification/", status=404, location="http://127.0.0.1:9/", times=None)
    simulator.faults.add(fault)
    done = update(PHALA_SECRETS_PCCS_URL=simulator.url)
    assert done.code == 9, done.printed
    (quote,) = (link for link in json.loads(done.json["attestation"])["links"] if link["name"] == "quote")
    assert not quote["ok"]
    assert "not verified: " in quote["what"]


def test_warn_goes_on_and_says_so(update: Attest, cvm: Cvm) -> None:
    done = update(attest="warn", PHALA_SECRETS_TRUSTED_OS=None)
    assert done.code == 0, done.printed
    assert done.json["attested"] is False
    assert "OS not compared" in done.printed
    assert [line for line in done.lines if line.startswith("warning: my-app is not attested: OS")]


def test_verify_attests_what_runs_and_ends_with_3_otherwise(verify: Attest, cvm: Cvm) -> None:
    done = verify("--cvm", "my-app")
    assert done.code == 0, done.printed
    assert done.json["attested"] is True
    assert done.json["status"] == "verified"
    cvm.firmware.os = "somebody's own"
    refused = verify("--cvm", "my-app")
    assert refused.code == 3
    assert "is not attested: OS: the OS measures" in refused.errors[-1]
    assert refused.json["status"] == "failed"
    warned = verify("--cvm", "my-app", attest="warn")
    assert (warned.code, warned.json["attested"]) == (0, False)


def test_what_status_attests_is_proven_the_names_included(
    run: Command, inputs: dict[str, str], cvm: Cvm
) -> None:
    def known(attest: str) -> dict[str, bool]:
        done = run("status", "--cvm", "my-app", "--attest", attest, environ=dict(inputs))
        assert done.code == (3 if attest == "require" and cvm.firmware.os else 0), done.printed
        facts = ("compose hash", "variables", "attestation", "state")
        rows = {fact: line for line in done.lines for fact in facts if line.strip().startswith(fact)}
        return {fact: "  proven  " in line for fact, line in rows.items()}

    proven = {"compose hash": True, "variables": True, "attestation": True, "state": False}
    assert known("warn") == proven
    cvm.firmware.os = "somebody's own"
    for attest in ("warn", "require"):
        assert not any(known(attest).values())


@pytest.mark.parametrize(
    ("flags", "more", "reason"),
    [
        ((), {"PHALA_SECRETS_TRUSTED_OS": None}, "trusted-os is empty"),
        (("--no-wait",), {}, "attest needs wait: true"),
        (("--trusted-os", "zz"), {}, "trusted-os"),
        (("--trusted-kms-ca", "00"), {}, "trusted-kms-ca is not a P-256 key"),
        (("--allow-tcb", "Revoked"), {}, "allow-tcb: 'Revoked'"),
        (("--pccs-url", "http://pccs.invalid"), {}, "pccs-url"),
        (("--attestation-root", "nothing.pem"), {}, "attestation-root does not exist"),
        (("--attestation-root", ".env"), {}, "attestation-root is not a certificate"),
    ],
    ids=str,
)
def test_inputs_are_refused_before_anything_is_sent(
    update: Attest, cloud: Cloud, flags: tuple[str, ...], more: dict[str, str | None], reason: str
) -> None:
    done = update(*flags, **more)
    assert done.code == 2, done.printed
    assert reason in done.errors[-1]
    assert list(cloud.requests) == []


@pytest.mark.parametrize("attest", ["off", "require"])
def test_a_root_of_simulated_quotes_is_for_loopback_alone(update: Attest, cloud: Cloud, attest: str) -> None:
    done = update(attest=attest, PHALA_CLOUD_API_PREFIX="https://cloud-api.invalid/api/v1")
    assert done.code == 2, done.printed
    assert "attestation-root is set, but api-url is not a loopback address" in done.errors[-1]


@pytest.mark.parametrize("mode", ["plan", "encrypt"])
def test_modes_that_change_nothing_pass_attest_over_and_say_so(
    run: Command, inputs: dict[str, str], cloud: Cloud, mode: str
) -> None:
    run.write(".env", "OLD=2\n")
    flags = ("--cvm", "my-app", "--env-file", ".env", "--attest", "require")
    done = run(mode, *flags, environ=inputs)
    assert done.code == 0, done.printed
    assert f"attest has no effect: {mode} does not attest" in done.printed
    assert cloud.tee.asked == []


def test_the_kms_is_that_of_the_known_root_where_none_is_named(
    update: Attest, cvm: Cvm, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = update(PHALA_SECRETS_TRUSTED_KMS_CA=None)
    assert refused.code == 9
    assert "KMS not compared" in refused.errors[-1]
    published = known.Published(cvm.kms.root_public_key, cvm.kms.ca_public_key, simulator.url)
    monkeypatch.setattr(known, "published", published)
    done = update(PHALA_SECRETS_TRUSTED_KMS_CA=None)
    assert done.code == 0, done.printed
    assert "the published record of the Cloud KMS" in done.printed


def test_the_kms_is_that_of_the_contract_where_an_rpc_reads_it(
    update: Attest, inputs: dict[str, str], cloud: Cloud
) -> None:
    kms = cloud.add_kms("base-1", 8453, BASE_KMS)
    cvm = cloud.add_cvm("on-chain", kms=kms, environment={"OLD": "1"})
    with PaperChain() as chain:
        chain.root, chain.apps, chain.ca = kms.root_public_key, {cvm.app_id}, bytes.fromhex(kms.ca_public_key)
        rpc = ("--rpc-url", chain.url)
        done = update(*rpc, cvm="on-chain", PHALA_SECRETS_TRUSTED_KMS_CA=None)
        assert done.code == 0, done.printed
        assert f"the KMS contract {BASE_KMS}" in done.json["attestation"]
        chain.ca = bytes.fromhex(FOREIGN_CA)
        refused = update(*rpc, cvm="on-chain", PHALA_SECRETS_TRUSTED_KMS_CA=None)
        assert refused.code == 9
        assert "which is not trusted" in refused.errors[-1]


@pytest.mark.parametrize("allowed", [True, False, None], ids=["allowed", "not allowed", "not asked"])
def test_what_the_contract_says_of_the_os_image_is_shown_and_is_no_link(
    update: Attest, cloud: Cloud, allowed: bool | None
) -> None:
    kms = cloud.add_kms("base-1", 8453, BASE_KMS)
    cvm = cloud.add_cvm("on-chain", kms=kms, environment={"OLD": "1"})
    image = hashlib.sha256(os_of(cvm).encode()).hexdigest()
    with PaperChain() as chain:
        chain.hold(cvm)
        chain.images = {image} if allowed else set()
        rpc = ("--rpc-url", chain.url) if allowed is not None else ()
        ca = {"PHALA_SECRETS_TRUSTED_KMS_CA": kms.ca_public_key}
        done = update(*rpc, "--app-id", cvm.app_id, cvm="on-chain", **ca)
    assert (done.code, done.json["attested"]) == (0, True), done.printed
    told = json.loads(done.json["attestation"])
    assert (told["os_image_hash"], told["os_image_allowed"]) == (image, allowed)
    assert "OS image" not in {link["name"] for link in told["links"]}
    said = {True: "; the KMS contract allows it", False: "; the KMS contract does not allow it", None: ""}
    assert re.search(rf"OS image +no link +{image}, as the guest says{said[allowed]}\n", done.stderr)


def test_the_public_evidence_of_the_app_serves_where_the_owners_route_has_none(
    update: Attest, cvm: Cvm, cloud: Cloud
) -> None:
    def hide(request: Any, answer: Any) -> Any:
        if request.path.endswith("/attestation"):
            answer.body = {**answer.body, "app_certificates": None}
        return answer

    cloud.tamper = hide
    done = update()
    assert done.code == 0, done.printed
    assert done.json["attested"] is True


def test_in_a_fleet_8_comes_before_9_and_one_that_is_not_attested_has_failed(
    update: Attest, cvm: Cvm, cloud: Cloud
) -> None:
    other = cloud.add_cvm("other", app_id=APP_ID, environment={"OLD": "1"})
    other.firmware.os = "somebody's own"
    done = update("--no-fail-fast", cvm="my-app,other")
    assert done.code == 9, done.printed
    rows = {row["name"]: row for row in done.json["results"]}
    assert (rows["my-app"]["status"], rows["other"]["status"]) == ("running", "failed")
    assert rows["other"]["exit-code"] == 9
    cvm.boot_fails("no disk")
    assert update("--no-fail-fast", cvm="my-app,other").code == 8


def test_a_rolling_update_stops_at_the_first_cvm_that_is_not_attested(
    update: Attest, cvm: Cvm, cloud: Cloud
) -> None:
    other = cloud.add_cvm("other", app_id=APP_ID, environment={"OLD": "1"})
    cvm.firmware.os = "somebody's own"
    done = update(cvm="my-app,other")
    assert done.code == 9, done.printed
    assert (len(cvm.operations), other.operations) == (1, [])


@pytest.mark.parametrize(("seconds", "code"), [(55, 0), (70, 9)])
def test_the_attestation_has_the_time_to_itself(
    update: Attest, cvm: Cvm, cloud: Cloud, seconds: int, code: int
) -> None:
    cvm.restart_seconds, cloud.attests_after = 50, seconds
    done = update("--wait-timeout", "60")
    assert done.code == code, done.printed
    assert ("from the boot before the update after 60 s" in done.printed) == bool(code)


def test_the_evidence_of_the_boot_before_is_read_just_before_each_update(
    update: Attest, cvm: Cvm, cloud: Cloud
) -> None:
    other = cloud.add_cvm("other", app_id=APP_ID, environment={"OLD": "1"})
    done = update(cvm="my-app,other")
    assert done.code == 0, done.printed
    for one in (cvm, other):
        paths = [request.path for request in cloud.requests if f"/cvms/{one.id}/" in request.path]
        sent = next(
            at
            for at, request in enumerate(cloud.requests)
            if request.method == "PATCH" and f"/cvms/{one.id}/" in request.path
        )
        assert f"/cvms/{one.id}/attestation" in cloud.requests[sent - 1].path, paths


# -- evidence files ---------------------------------------------------------------------------------


def test_evidence_is_kept_and_verified_again_with_no_cvm_and_no_key(
    update: Attest, verify: Attest, run: Command, cvm: Cvm, cloud: Cloud
) -> None:
    assert update("--evidence-file", "evidence.json").code == 0
    cloud.requests.clear()
    common = ("--evidence-file", "evidence.json", "--app-id", cvm.app_id)
    named = {"PHALA_CLOUD_API_KEY": None, "PHALA_SECRETS_COMPOSE_HASH": cvm.compose_hash}
    done = verify(*common, attest="warn", **named)
    assert done.code == 0, done.printed
    assert done.json["os_measurements"] == os_measurements(cvm)
    assert list(cloud.requests) == []
    required = verify(*common, "--compose-hash", cvm.compose_hash, PHALA_CLOUD_API_KEY=None)
    assert (required.code, required.json["attested"]) == (0, True), required.printed
    other = verify(*common, "--compose-hash", "ee" * 32, PHALA_CLOUD_API_KEY=None)
    assert other.code == 3
    assert "the compose hash is" in other.errors[-1]
    cloud.tee.pccs_is_down = True
    refused = verify(*common, attest="warn", **named)
    assert refused.code == 3
    assert "no collateral from pccs-url" in refused.errors[-1]
    at = str(int(cloud.now().timestamp()))
    assert verify(*common, "--at", at, attest="warn", **named).code == 0
    late = verify(*common, "--at", "2049-01-01T00:00:00Z", attest="warn", **named)
    assert late.code == 3
    assert "expired" in late.errors[-1]


def test_a_changed_evidence_file_does_not_hold(
    update: Attest, verify: Attest, run: Command, cvm: Cvm
) -> None:
    assert update("--evidence-file", "evidence.json").code == 0
    path = run.folder / "evidence.json"
    content = json.loads(path.read_text())
    for row in content["event_log"]:
        if row["event"] == "app-id":
            row["event_payload"] = "00" * 20
    path.write_text(json.dumps(content))
    done = verify("--evidence-file", "evidence.json", attest="warn")
    assert done.code == 3
    assert "does not match it" in done.errors[-1]


@pytest.mark.parametrize(
    ("content", "code"), [(None, 2), ("", 3), ("[" * 5_000, 3), ("{}", 3), ('{"quote": 1}', 3)], ids=str
)
def test_a_file_that_is_no_evidence_is_told(
    verify: Attest, run: Command, content: str | None, code: int
) -> None:
    if content is not None:
        run.write("evidence.json", content)
    assert verify("--evidence-file", "evidence.json", attest="warn").code == code
    assert verify("--evidence-file", "evidence.json", "--at", "noon", attest="warn").code in (2, 3)


def test_the_record_of_a_kms_is_verified_as_a_file(
    verify: Attest, run: Command, cvm: Cvm, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is published, and as ``kmsInfo()`` has it."""
    record = kms_record(cloud, cvm)
    on_chain = {
        "k256Pubkey": "0x" + record["k256_pubkey"],
        "caPubkey": "0x" + record["ca_pubkey"],
        "quote": "0x" + record["quote"],
        "eventlog": "0x" + json.dumps(record["event_log"]).encode().hex(),
    }
    common: dict[str, Any] = {"PHALA_CLOUD_API_KEY": None}
    for content in (record, on_chain):
        run.write("record.json", json.dumps(content))
        done = verify("--evidence-file", "record.json", **common)
        assert (done.code, done.json["attested"]) == (0, True), done.printed
        assert re.search(r"CA and root +holds", done.stderr)
        assert re.search(rf"code +holds +compose hash {cvm.compose_hash}", done.stderr)
        assert "another root" in done.stderr
    published = known.Published(record["k256_pubkey"], record["ca_pubkey"], "https://api.invalid")
    monkeypatch.setattr(known, "published", published)
    assert (
        "the root that ships with phala-secrets" in verify("--evidence-file", "record.json", **common).stderr
    )
    other = cloud.add_kms("base-1", 8453, BASE_KMS)
    for change in ({"k256_pubkey": other.root_public_key}, {"ca_pubkey": other.ca_public_key}):
        run.write("record.json", json.dumps({**record, **change}))
        refused = verify("--evidence-file", "record.json", attest="warn", **common)
        assert refused.code == 3
        assert "CA and root: the quote's report data does not bind these keys" in refused.errors[-1]


def test_evidence_that_cannot_be_kept_is_told_and_an_update_that_is_done_stays_done(
    update: Attest, cvm: Cvm
) -> None:
    done = update("--evidence-file", "no/such/folder/evidence.json")
    assert (done.code, done.json["attested"]) == (0, True), done.printed
    assert "evidence-file 'no/such/folder/evidence.json' cannot be written" in done.printed


def test_one_file_holds_the_evidence_of_one_cvm(update: Attest, cvm: Cvm, cloud: Cloud) -> None:
    cloud.add_cvm("other", app_id=APP_ID, environment={"OLD": "1"})
    done = update("--evidence-file", "evidence.json", cvm="my-app,other")
    assert done.code == 2, done.printed
    assert [request.path for request in cloud.requests if request.method != "GET"] == []


def test_a_run_that_does_not_ask_loads_nothing_of_it(run: Command, cvm: Cvm) -> None:
    run.write(".env", "OLD=2\n")
    code = (
        "import sys; from phala_secrets.run import command; "
        "code = command.main(['update', '--cvm', 'my-app', '--env-file', '.env']); "
        "print([name for name in sys.modules if 'dcap' in name or 'attest' in name or 'pccs' in name "
        "or name.endswith(('quote', 'event_log', 'evidence'))]); sys.exit(code)"
    )
    import sys

    done = run.apart(python=(sys.executable, "-c", code))
    assert done.code == 0, done.printed
    assert done.stdout == "[]\n"
