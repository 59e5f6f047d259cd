"""An expression that comes to nothing, or an input that nothing looks at, must not switch a check off."""

from __future__ import annotations

import pytest

from phala_secrets.simulator.measured_boot import os_measurements

from .support import Cloud, Command, Cvm, Outcome, Simulator, Step, updates

UPDATE = ("update", "--cvm", "my-app", "--env-file", ".env", "--json")
VERIFY = ("verify", "--cvm", "my-app", "--json")
OTHER_HASH = "ee" * 32


@pytest.fixture
def attest(run: Command, simulator: Simulator, cvm: Cvm) -> dict[str, str]:
    """The variables of a run that attests the CVM my-app."""
    run.write(".env", "OLD=2\n")
    return {
        "PHALA_SECRETS_PCCS_URL": simulator.origin,
        "PHALA_SECRETS_ATTESTATION_ROOT": str(run.write("root.pem", simulator.cloud.tee.root_pem)),
        "PHALA_SECRETS_TRUSTED_OS": os_measurements(cvm),
        "PHALA_SECRETS_TRUSTED_KMS_CA": cvm.kms.ca_public_key,
        "PHALA_SECRETS_ATTEST": "require",
    }


def refused(done: Outcome, cloud: Cloud, *said: str) -> None:
    assert done.code == 2, done.printed
    assert all(one in done.errors[0] for one in said), done.errors
    assert not updates(cloud)


@pytest.mark.parametrize(
    "name", ["attest", "require-trust", "trusted-os", "trusted-kms-ca", "require-digest"]
)
def test_a_check_that_is_given_empty_is_an_error(run: Command, cvm: Cvm, cloud: Cloud, name: str) -> None:
    run.write(".env", "OLD=2\n")
    if name != "require-digest":  # its flag takes no value
        refused(run(*UPDATE, f"--{name}="), cloud, name, "is empty")
    variable = {f"PHALA_SECRETS_{name.upper().replace('-', '_')}": " "}
    refused(run(*UPDATE, environ=variable), cloud, "is empty")


@pytest.mark.parametrize("commas", [",", " , ,", ",\n,"])
def test_two_empty_expressions_with_a_comma_are_no_app_id(
    step: Step, cvm: Cvm, cloud: Cloud, commas: str
) -> None:
    done = step(env="OLD=2", app_id=commas)
    assert done.code == 2, done.log
    assert "app-id has only commas" in done.annotations("error")[0].data
    assert not updates(cloud)


@pytest.mark.parametrize("name", ["trusted-os", "trusted-kms-ca", "allow-tcb", "evidence-file"])
def test_what_is_held_against_evidence_is_an_error_while_attest_is_off(
    run: Command, cvm: Cvm, cloud: Cloud, name: str
) -> None:
    run.write(".env", "OLD=2\n")
    refused(
        run(*UPDATE, f"--{name}", "UpToDate"),
        cloud,
        f"{name} is set, but has no effect because attest is off",
    )


def test_verify_without_attest_takes_no_compose_hash(run: Command, cvm: Cvm, cloud: Cloud) -> None:
    refused(
        run(*VERIFY, "--compose-hash", OTHER_HASH),
        cloud,
        "compose-hash is set, but has no effect because attest is off",
    )


@pytest.mark.parametrize(("word", "code"), [(UPDATE, 9), (VERIFY, 3)], ids=["update", "verify"])
def test_the_compose_hash_that_is_named_is_the_one_that_has_to_run(
    run: Command, attest: dict[str, str], cvm: Cvm, word: tuple[str, ...], code: int
) -> None:
    """What the CVM has is the API's word otherwise: it may show other code, and evidence of that."""
    done = run(*word, "--compose-hash", OTHER_HASH, environ=attest)
    assert done.code == code, done.printed
    assert f"the compose hash is {cvm.compose_hash}, not {OTHER_HASH}" in done.errors[-1]
    assert run(*word, "--compose-hash", cvm.compose_hash, environ=attest).code == 0


def test_verify_of_a_cvm_is_not_made_of_a_file_of_the_checkout(
    run: Command, attest: dict[str, str], cvm: Cvm, cloud: Cloud
) -> None:
    """Somebody commits evidence of a good boot where a workflow meant to keep its own."""
    expected = ("--app-id", cvm.app_id, "--compose-hash", cvm.compose_hash, "--evidence-file", "kept.json")
    assert run(*UPDATE, *expected, environ=attest).code == 0
    cloud.reset_requests()
    cvm.firmware.os = "somebody's own"
    refused(run(*VERIFY, *expected, environ=attest), cloud, "both cvm and evidence-file are set")
    assert run("verify", *expected, environ=attest).code == 0
