"""An app on an Onchain KMS: nodes that serve its key, the order of names, devices, the measured bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.identity import Device
from phala_secrets.simulator.wire import Answer, Request
from tests.support.command import Command
from tests.support.deploys import OWNERS_KEY, chain_of
from tests.support.paper_chain import BASE_KMS, PaperChain
from tests.support.step import Done, Step

ENV = "OLD=2\nNEW=a-value-nobody-may-see"
ELSEWHERE, RETIRED = "a1" * 32, "d2" * 32


@pytest.fixture
def cvm(cloud: Cloud) -> Cvm:
    """A CVM whose KMS is the well-known contract on Base, served by two nodes."""
    kms = cloud.add_kms("base-1", 8453, BASE_KMS, nodes=2)
    return cloud.add_cvm("my-app", kms=kms, environment={"OLD": "1"})


@pytest.fixture
def chain(cvm: Cvm, cloud: Cloud) -> Iterator[PaperChain]:
    """A chain that knows the app and its owner, and that the service looks approvals up on."""
    with chain_of(cvm, cloud) as chain:
        yield chain


def owned(step: Step, chain: PaperChain, **inputs: Any) -> Done:
    """A step with the owner's key."""
    return step(**{"env": ENV, "rpc_url": chain.url, "private_key": OWNERS_KEY, **inputs})


# -- who serves the key ----------------------------------------------------------------------------


def test_the_key_comes_from_a_node_of_the_contract(step: Step, cvm: Cvm) -> None:
    done = step(env="OLD=2")
    assert done.code == 0, done.log
    assert done.outputs["kms"] == "base-1-1"
    assert cvm.environment == {"OLD": "2"}


@pytest.mark.parametrize("trouble", ["down", "reset", "unknown app"])
def test_the_next_node_is_asked_when_one_has_no_key(step: Step, cvm: Cvm, trouble: str) -> None:
    first = cvm.kms.nodes[0]
    if trouble == "unknown app":
        first.unknown_apps.add(cvm.app_id)
    else:
        first.state = trouble  # type: ignore[assignment]
    done = step(env="OLD=2")
    assert done.code == 0, done.log
    assert done.outputs["kms"] == "base-1-2"


def test_without_any_node_that_answers_the_error_names_those_asked(step: Step, cvm: Cvm) -> None:
    cvm.kms.online = False
    done = step(env="OLD=2")
    assert done.code == 6
    assert "base-1-1, base-1-2" in done.annotations("error")[0].data


@pytest.mark.parametrize("contract_serves_keys", [False, True])
def test_a_contract_that_is_given_as_kms_is_asked_through_its_nodes(
    step: Step, cvm: Cvm, cloud: Cloud, contract_serves_keys: bool
) -> None:
    cloud.contract_serves_keys = contract_serves_keys
    done = step(env="OLD=2", kms="base-1")
    assert done.code == 0, done.log
    assert done.outputs["kms"] == "base-1-1"


def test_an_unknown_kms_is_answered_with_those_that_there_are(step: Step, cvm: Cvm) -> None:
    done = step(env="OLD=2", kms="base-7")
    assert done.code == 5
    message = done.annotations("error")[0].data
    assert "unknown kms 'base-7'" in message
    assert "base-1" in message
    assert "kms nodes" in message


def test_kms_list_has_contracts_and_kms_nodes_their_nodes(run: Command, cvm: Cvm) -> None:
    listed = run("kms", "list", "--json").json["items"]
    assert [row["slug"] for row in listed] == ["phala", "base-1"]
    nodes = run("kms", "nodes", "base-1", "--json").json["items"]
    assert [(row["contract"], row["slug"]) for row in nodes] == [
        ("base-1", "base-1-1"),
        ("base-1", "base-1-2"),
    ]
    assert len(run("kms", "nodes", "--json").json["items"]) == 3
    assert run("kms", "info", "base-1-2", "--json").json["slug"] == "base-1-2"


# -- what is measured ------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["sent", "kept", "sorted"])
def test_the_same_names_in_another_order_are_sent_in_the_order_of_the_cvm(
    step: Step, cloud: Cloud, order: str
) -> None:
    cloud.allowed_envs_order = order  # type: ignore[assignment]
    kms = cloud.add_kms("base-2", 8453, "0x" + "ab" * 20)
    cvm = cloud.add_cvm("in-order", kms=kms, environment={"A": "1", "C": "1", "Z": "1"})
    before = cvm.compose_hash
    done = step(cvm=cvm.id, kms="base-2-1", trusted_signers=kms.root_public_key, env="Z=2\nA=2\nC=2")
    assert done.code == 0, done.log
    assert cvm.compose_hash == before
    assert done.outputs["compose-hash"] == done.outputs["previous-compose-hash"] == before


@pytest.mark.parametrize("order", ["sent", "kept", "sorted"])
def test_the_compose_hash_to_come_is_output_and_the_one_that_came_is_recognised(
    step: Step, cloud: Cloud, order: str
) -> None:
    cloud.allowed_envs_order = order  # type: ignore[assignment]
    cvm = cloud.add_cvm("central", environment={"M": "1", "B": "1"})
    before = cvm.compose_hash
    done = step(cvm=cvm.id, env="A=1\nB=2\nM=2")
    assert done.code == 0, done.log
    assert done.outputs["previous-compose-hash"] == before
    assert done.outputs["compose-hash"] == cvm.compose_hash
    assert ("another order (sorted)" in done.log) is (order == "sorted")


def test_a_compose_hash_that_no_order_gives_is_reported(step: Step, cloud: Cloud) -> None:
    cvm = cloud.add_cvm("central", environment={"A": "1"})
    another = "0b" * 32

    def lie(request: Request, answer: Answer) -> Answer:
        sent = any(earlier.method == "PATCH" for earlier in cloud.requests)
        if sent and request.method == "GET" and request.path == f"/cvms/{cvm.id}":
            return replace(answer, body={**answer.body, "compose_hash": another})
        return answer

    cloud.tamper = lie
    done = step(cvm=cvm.id, env="A=1\nB=2", wait="false")
    assert done.code == 0, done.log
    (warning,) = done.annotations("warning")
    assert f"the compose hash is {another}, not " in warning.data
    assert "and no order of these names explains it" in warning.data
    assert done.outputs["compose-hash"] == another


def show_a_default(request: Request, answer: Answer) -> Answer:
    """The object of the API has a default that the measured document lacks."""
    if request.path.endswith("/compose_file"):
        return replace(answer, body={**answer.body, "a_default_of_the_api": "x"})
    return answer


@pytest.mark.parametrize("default", ["none", "null", "a value"])
def test_the_exact_measured_bytes_are_taken_where_the_object_does_not_hash(
    step: Step, cvm: Cvm, chain: PaperChain, cloud: Cloud, default: str
) -> None:
    cloud.compose_file_has_defaults = default == "null"
    if default == "a value":
        cloud.tamper = show_a_default
    done = owned(step, chain)
    assert done.code == 0, done.log
    assert cvm.environment == {"OLD": "2", "NEW": "a-value-nobody-may-see"}
    asked = any(request.path.endswith("/attestation") for request in cloud.requests)
    assert asked is (default == "a value")


def test_without_either_source_of_the_measured_bytes_nothing_is_approved(
    step: Step, cvm: Cvm, chain: PaperChain, cloud: Cloud
) -> None:
    cloud.attestation_compose_file = False
    cloud.tamper = show_a_default
    done = owned(step, chain)
    assert done.code == 3
    assert chain.transactions == {}


# -- devices ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [False, True])
def test_an_approval_covers_every_enabled_device(
    step: Step, cvm: Cvm, chain: PaperChain, cloud: Cloud, every: bool
) -> None:
    cloud.every_device_checked = every
    cvm.devices = [Device(cvm.device_id), Device(ELSEWHERE, 2), Device(RETIRED, 1, enabled=False)]
    refused = owned(step, chain)
    assert refused.code == 7
    assert ELSEWHERE in refused.annotations("error")[0].data
    done = owned(step, chain, allow_device=ELSEWHERE)
    assert done.code == 0, done.log
    assert chain.devices == {cvm.device_id, ELSEWHERE}
    assert done.outputs["device-id"].split() == sorted([cvm.device_id, ELSEWHERE])


def test_the_file_for_a_safe_adds_each_device_that_may_be_added(
    step: Step, cvm: Cvm, chain: PaperChain
) -> None:
    cvm.devices = [Device(cvm.device_id), Device(ELSEWHERE, 2)]
    done = step(env=ENV, rpc_url=chain.url, prepare_only="true", allow_device=ELSEWHERE)
    assert done.code == 0, done.log
    batch = done.outputs["safe-transaction"]
    assert "\n" not in batch
    methods = [call["contractMethod"]["name"] for call in json.loads(batch)["transactions"]]
    assert methods == ["addDevice", "addComposeHash"]


# -- approvals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", [False, True])
def test_an_approval_of_before_is_made_once_more_where_the_service_wants_its_transaction(
    step: Step, cvm: Cvm, chain: PaperChain, cloud: Cloud, taken: bool
) -> None:
    cloud.already_registered = taken
    chain.approved.add(cvm.hash_with(["OLD", "NEW"]))
    done = owned(step, chain)
    assert done.code == 0, done.log
    assert len(chain.transactions) == (0 if taken else 1)
    assert ("To approve on chain" in done.log) is not taken  # what is signed is shown, each time
    assert cvm.environment == {"OLD": "2", "NEW": "a-value-nobody-may-see"}


def test_without_a_key_the_refusal_of_already_registered_says_what_it_takes(
    step: Step, cvm: Cvm, chain: PaperChain, cloud: Cloud
) -> None:
    cloud.already_registered = False
    chain.approved.add(cvm.hash_with(["OLD", "NEW"]))
    done = owned(step, chain, private_key=None)
    assert done.code == 5
    message = done.annotations("error")[0].data
    assert "wants the transaction" in message
    assert "transaction-hash" in message


def test_encrypt_gives_out_a_digest_that_is_checked_when_it_is_sent(step: Step, cloud: Cloud) -> None:
    cvm = cloud.add_cvm("central", environment={"A": "1"})
    sealed = step(cvm=cvm.id, mode="encrypt", env="A=2").outputs
    given: dict[str, Any] = {
        name: sealed[name.replace("_", "-")] for name in ("encrypted_env", "env_keys", "prepared_digest")
    }
    assert sealed["prepared-digest"].startswith("2:")
    other = step(cvm=cvm.id, mode="encrypt", env="A=3").outputs["encrypted-env"]
    assert step(cvm=cvm.id, **{**given, "encrypted_env": other}).code == 3
    assert cvm.environment == {"A": "1"}
    assert step(cvm=cvm.id, **given).code == 0
    assert cvm.environment == {"A": "2"}


def test_a_digest_of_an_earlier_release_is_named_as_that(step: Step, cvm: Cvm) -> None:
    done = step(encrypted_env="00" * 80, env_keys='["A"]', compose_hash="0b" * 32, prepared_digest="0b" * 32)
    assert done.code == 2
    assert "earlier release" in done.annotations("error")[0].data
