"""Stories of an app whose KMS is a contract: new names, and the approval that they take.

Where a contract is asked, a chain on paper answers. A real chain, and all that can happen on one, is in
``tests/anvil``.
"""

from __future__ import annotations

import hashlib
import html
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from eth_account import Account

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.wire import Answer, Request
from tests.support.command import ROOT, Command
from tests.support.paper_chain import BASE_KMS, PaperChain
from tests.support.step import Done, Step

NAMES = ["OLD", "NEW"]
SECRET = "a-value-nobody-may-see"
ENV = f"OLD=2\nNEW={SECRET}"
TRANSACTION = "0x" + "7a" * 32
OTHER = "0b" * 32
OWNERS_KEY = "c0ffee" * 10 + "c0de"


@pytest.fixture
def cvm(cloud: Cloud) -> Cvm:
    """A CVM called my-app, whose KMS is the well-known contract on Base."""
    return cloud.add_cvm("my-app", kms=cloud.add_kms("base-1", 8453, BASE_KMS), environment={"OLD": "1"})


@pytest.fixture
def chain(cvm: Cvm) -> Iterator[PaperChain]:
    """A chain that knows the app, has approved its present app-compose, and allows its device."""
    with PaperChain() as chain:
        chain.hold(cvm)
        yield chain


@pytest.fixture
def prepare(step: Step, cvm: Cvm) -> Callable[..., Done]:
    """A step that stops where an approval is needed."""

    def prepare(**inputs: Any) -> Done:
        done = step(**{"env": ENV, "prepare_only": "true", **inputs})
        assert done.code == 0, done.log
        return done

    return prepare


def updates(cloud: Cloud) -> list[Request]:
    return [request for request in cloud.requests if request.method == "PATCH"]


def tells_nothing_secret(done: Done) -> bool:
    everything = done.shown + done.output_file + done.summary
    return SECRET not in everything and OWNERS_KEY not in everything


def commit(step: Step, prepared: Done, **changes: Any) -> Done:
    """The step that sends what was prepared, with the approval's transaction."""
    names = ("encrypted-env", "env-keys", "compose-hash", "prepared-digest")
    given = {name.replace("-", "_"): prepared.outputs[name] for name in names}
    return step(**{**given, "transaction_hash": TRANSACTION, **changes})


def rewrite(path: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Request, Answer], Answer]:
    """Answers to requests whose path ends so, rewritten as JSON."""

    def tamper(request: Request, answer: Answer) -> Answer:
        if not request.path.endswith(path) or not isinstance(answer.body, dict):
            return answer
        content = json.loads(json.dumps(answer.body))
        change(content)
        return replace(answer, body=content)

    return tamper


def ask_for(field: str, value: str) -> Callable[[Request, Answer], Answer]:
    """An API that asks for the approval of something else."""

    def change(content: dict[str, Any]) -> None:
        for row in content.get("details", []):
            row["value"] = value if row["field"] == field else row["value"]

    return rewrite("/envs", change)


# -- names that stay, names that change ----------------------------------------------------------


def test_the_same_names_need_no_approval(step: Step, cvm: Cvm, cloud: Cloud) -> None:
    done = step(env="OLD=2")
    assert done.code == 0, done.log
    assert cvm.environment == {"OLD": "2"}
    assert len(updates(cloud)) == 1
    assert "transaction-hash" not in done.outputs


def test_new_names_without_a_way_to_approve_them_show_both_ways(step: Step, cvm: Cvm, cloud: Cloud) -> None:
    done = step(env=ENV)
    assert done.code == 7
    (error,) = done.annotations("error")
    for part in (cvm.hash_with(NAMES), cvm.app_id, "8453", "private-key", "rpc-url", "prepare-only"):
        assert part in error.data
    outputs = done.outputs
    assert outputs["status"] == "failed"
    assert outputs["compose-hash"] == cvm.hash_with(NAMES)
    assert outputs["device-id"] == cvm.device_id
    assert outputs["chain-id"] == "8453"
    assert len(updates(cloud)) == 1
    assert cvm.environment == {"OLD": "1"}


@pytest.mark.parametrize("inputs", [{"private_key": OWNERS_KEY}, {"private_key": "0x" + OWNERS_KEY.upper()}])
def test_a_key_without_an_rpc_is_no_way_either(step: Step, cvm: Cvm, inputs: dict[str, Any]) -> None:
    done = step(env=ENV, **inputs)
    assert done.code == 7
    assert "private-key and rpc-url" in done.annotations("error")[0].data
    assert inputs["private_key"] in done.masks
    assert inputs["private_key"] not in done.shown + done.output_file + done.summary


@pytest.mark.parametrize(
    "key", ["ab" * 31, "zz" * 32, "00" * 32, "ff" * 32, "0x" + OWNERS_KEY + "00", f"{OWNERS_KEY} x"]
)
def test_what_is_no_private_key_is_said_so_before_anything_is_sent(
    step: Step, cvm: Cvm, cloud: Cloud, key: str
) -> None:
    done = step(env=ENV, private_key=key, rpc_url="http://127.0.0.1:1")
    assert done.code == 2
    assert "private-key" in done.annotations("error")[0].data
    assert key not in done.shown + done.output_file + done.summary
    assert not cloud.requests


# -- approving elsewhere -------------------------------------------------------------------------


def test_preparing_gives_out_all_that_an_approval_takes(
    prepare: Callable[..., Done], cvm: Cvm, cloud: Cloud
) -> None:
    done = prepare()
    outputs, hash_ = done.outputs, cvm.hash_with(NAMES)
    assert outputs["status"] == "precondition_required"
    assert outputs["compose-hash"] == hash_
    assert outputs["device-id"] == cvm.device_id
    assert outputs["chain-id"] == "8453"
    assert outputs["app-id"] == cvm.app_id
    assert outputs["calldata"] == f"0xdfc77223{hash_}"
    assert json.loads(outputs["env-keys"]) == NAMES
    assert "transaction-hash" not in outputs
    (call,) = json.loads(outputs["safe-transaction"])["transactions"]
    assert call["to"].lower() == f"0x{cvm.app_id}"
    assert (call["data"], call["value"]) == (outputs["calldata"], "0")
    everything = {
        "version": 2,
        "app_id": cvm.app_id,
        "cvm_id": cvm.id,
        "chain_id": 8453,
        "device_ids": [cvm.device_id],
        "public_key": cvm.kms.app_public_key(cvm.app_id),
        "env_keys": NAMES,
        "compose_hash": hash_,
        "encrypted_env": outputs["encrypted-env"],
    }
    line = json.dumps(everything, sort_keys=True, separators=(",", ":"))
    assert outputs["prepared-digest"] == "2:" + hashlib.sha256(line.encode()).hexdigest()
    assert cvm.environment == {"OLD": "1"}
    assert not cvm.operations
    assert tells_nothing_secret(done)


def test_a_plan_of_what_was_prepared_ends_as_the_update_would(
    step: Step, prepare: Callable[..., Done], chain: PaperChain, cloud: Cloud
) -> None:
    prepared = prepare()
    refused = commit(step, prepared, mode="plan", prepared_digest=f"2:{OTHER}")
    assert refused.code == 3
    assert "prepared-digest" in refused.annotations("error")[0].data
    waiting = commit(step, prepared, mode="plan", rpc_url=chain.url)
    assert waiting.code == 7
    assert "is not approved on chain 8453 yet" in waiting.annotations("error")[0].data
    chain.approved.add(prepared.outputs["compose-hash"])
    good = commit(step, prepared, mode="plan", rpc_url=chain.url)
    assert good.code == 0
    assert good.outputs["status"] == "planned"
    assert len(updates(cloud)) == 1, "the one of preparing"


def test_what_is_prepared_and_finds_no_room_is_no_success(step: Step, cvm: Cvm, cloud: Cloud) -> None:
    done = step.apart(env=ENV, prepare_only="true", under=("prlimit", "--fsize=1800"))
    assert done.code == 2, done.log
    assert "$GITHUB_OUTPUT cannot be written" in done.log
    assert done.outputs["cvm-id"] == cvm.id
    assert "prepared-digest" not in done.outputs
    assert len(updates(cloud)) == 1


def test_those_who_approve_get_steps_and_a_digest(prepare: Callable[..., Done], cvm: Cvm) -> None:
    done = prepare()
    for part in (
        "1. The app&#39;s owner approves",
        "2. Before approving",
        "3. Within 14 days",
        done.outputs["calldata"],
        f"0x{cvm.hash_with(NAMES)}",
        f"0x{cvm.device_id}",
        f"prepared-digest: {done.outputs['prepared-digest']}",
        f"explorer](https://basescan.org/address/0x{cvm.app_id})",
        "Base (chain 8453)",
        "Only Phala Cloud says",
        f"trusted-signers: &#34;0x{cvm.kms.root_public_key}&#34;",
    ):
        assert part in done.summary, part
    assert f"<pre>{done.outputs['safe-transaction']}</pre>" in html.unescape(done.summary)
    assert done.summary.count("### Prepared for my-app: an on-chain approval is needed\n") == 1


def test_what_was_prepared_is_committed_to_the_byte(
    prepare: Callable[..., Done], step: Step, cvm: Cvm, cloud: Cloud
) -> None:
    prepared = prepare()
    cloud.approved_transactions.add(TRANSACTION)
    cloud.reset_requests()
    done = commit(step, prepared)
    assert done.code == 0, done.log
    assert cvm.environment == {"OLD": "2", "NEW": SECRET}
    assert cvm.sealed == prepared.outputs["encrypted-env"]
    assert len(updates(cloud)) == 1
    assert done.outputs["status"] == "running"
    assert done.outputs["compose-hash"] == prepared.outputs["compose-hash"]
    assert done.outputs["transaction-hash"] == TRANSACTION
    assert not done.annotations("warning")


def test_a_ciphertext_that_no_variable_can_hold_travels_as_a_file(
    prepare: Callable[..., Done], step: Step, cvm: Cvm, cloud: Cloud
) -> None:
    large = "x" * 100_000
    prepared = prepare(
        env=f"OLD={large}\nNEW={SECRET}", environ={"PHALA_SECRETS_OUTPUT_FILE": "prepared.env"}
    )
    take = "sed -n 's/^PHALA_ENCRYPTED_ENV=//p' prepared.env > encrypted-env"
    assert take in (ROOT / "docs" / "approvals.md").read_text()
    subprocess.run(["sh", "-c", take], cwd=step.workspace, check=True)
    assert (step.workspace / "encrypted-env").stat().st_size > 128 * 1024
    cloud.approved_transactions.add(TRANSACTION)
    done = commit(step, prepared, encrypted_env=None, encrypted_env_file="encrypted-env")
    assert done.code == 0, done.log
    assert cvm.environment == {"OLD": large, "NEW": SECRET}


def swap_ciphertext(prepared: Done) -> dict[str, str]:
    sealed = bytearray.fromhex(prepared.outputs["encrypted-env"])
    sealed[-1] ^= 1
    return {"encrypted_env": sealed.hex()}


@pytest.mark.parametrize(
    "change",
    [
        swap_ciphertext,
        lambda _: {"env_keys": '["NEW", "OLD"]'},
        lambda _: {"env_keys": '["OLD", "NEW", "MORE"]'},
        lambda _: {"compose_hash": OTHER},
        lambda _: {"prepared_digest": f"2:{OTHER}"},
        lambda _: {"cvm": "my-other-app"},
    ],
    ids=["ciphertext", "order", "names", "hash", "digest", "cvm"],
)
def test_anything_else_than_what_was_prepared_is_refused(
    prepare: Callable[..., Done],
    step: Step,
    cvm: Cvm,
    cloud: Cloud,
    change: Callable[[Done], dict[str, str]],
) -> None:
    cloud.add_cvm("my-other-app", app_id=cvm.app_id, kms=cvm.kms, environment={"OLD": "1"})
    prepared = prepare()
    cloud.approved_transactions.add(TRANSACTION)
    cloud.reset_requests()
    done = commit(step, prepared, **change(prepared))
    assert done.code == 3
    assert "prepared-digest" in done.annotations("error")[0].data
    assert not updates(cloud)


def on_another_device(cvm: Cvm, cloud: Cloud) -> None:
    cloud.tamper = rewrite(
        f"/cvms/{cvm.name}", lambda content: content.update(node_info={"device_id": OTHER})
    )


def with_another_key(cvm: Cvm, cloud: Cloud) -> None:
    cvm.kms.app_keys[cvm.app_id] = cvm.kms.app_key("11" * 20)


def of_another_app(cvm: Cvm, cloud: Cloud) -> None:
    cvm.identity = replace(cvm.identity, app_id="22" * 20)


def on_another_chain(cvm: Cvm, cloud: Cloud) -> None:
    cvm.kms.chain_id = 1


@pytest.mark.parametrize("change", [on_another_device, with_another_key, of_another_app, on_another_chain])
def test_a_prepared_approval_is_refused_after_a_change(
    prepare: Callable[..., Done],
    step: Step,
    cvm: Cvm,
    cloud: Cloud,
    change: Callable[[Cvm, Cloud], None],
) -> None:
    prepared = prepare()
    cloud.approved_transactions.add(TRANSACTION)
    change(cvm, cloud)
    cloud.reset_requests()
    done = commit(step, prepared)
    assert done.code == 3
    assert "prepared-digest" in done.annotations("error")[0].data
    assert not updates(cloud)


def test_a_device_that_is_no_longer_told_is_the_reason_given(
    prepare: Callable[..., Done], step: Step, cvm: Cvm, cloud: Cloud
) -> None:
    prepared = prepare()
    cloud.tamper = rewrite(f"/cvms/{cvm.name}", lambda content: content.pop("node_info"))
    done = commit(step, prepared)
    assert done.code == 3
    assert "does not say which device" in done.annotations("error")[0].data


def test_a_device_that_the_api_never_names_is_no_device_that_was_approved(
    prepare: Callable[..., Done], step: Step, cvm: Cvm, cloud: Cloud
) -> None:
    cloud.tamper = rewrite(f"/cvms/{cvm.name}", lambda content: content.update(node_info={}))
    prepared = prepare()
    assert prepared.outputs["device-id"] == cvm.device_id
    assert "an unnamed device" in prepared.summary
    cloud.approved_transactions.add(TRANSACTION)
    refused = commit(step, prepared)
    assert refused.code == 3
    assert "device" in refused.annotations("error")[0].data
    assert commit(step, prepared, prepared_digest="none").code == 0


def test_without_the_digest_a_warning_says_what_is_not_known(
    prepare: Callable[..., Done], step: Step, cvm: Cvm, cloud: Cloud
) -> None:
    prepared = prepare()
    cloud.approved_transactions.add(TRANSACTION)
    done = commit(step, prepared, prepared_digest="none")
    assert done.code == 0, done.log
    (warning,) = done.annotations("warning")
    assert "without prepared-digest" in warning.data


def test_an_api_that_calls_the_app_central_commits_no_approval(
    prepare: Callable[..., Done], step: Step, cvm: Cvm, cloud: Cloud
) -> None:
    prepared = prepare()
    cvm.kms.chain_id = 0
    cvm.kms.contract_address = "phala"
    cloud.kmses = [cvm.kms]
    cloud.reset_requests()
    done = commit(step, prepared)
    assert done.code == 3
    assert "no Onchain KMS" in done.annotations("error")[0].data
    assert not updates(cloud)


@pytest.mark.parametrize(
    "inputs",
    [
        {"compose_hash": None},
        {"compose_hash": None, "prepared_digest": None},
        {"transaction_hash": "0x12"},
        {"transaction_hash": None},
        {"env_keys": "OLD,NEW"},
        {"encrypted_env": "0xzz"},
        {"encrypted_env": None},
        {"env": "OLD=2"},
        {"encrypted_env_file": "too.hex"},
    ],
)
def test_what_does_not_belong_together_is_an_input_error(
    prepare: Callable[..., Done], step: Step, cvm: Cvm, cloud: Cloud, inputs: dict[str, str | None]
) -> None:
    prepared = prepare()
    cloud.reset_requests()
    done = commit(step, prepared, **inputs)
    assert done.code == 2
    assert not updates(cloud)


# -- an approval that is refused -----------------------------------------------------------------


def test_an_expired_approval_says_so(
    prepare: Callable[..., Done], step: Step, cvm: Cvm, cloud: Cloud
) -> None:
    prepared = prepare()
    cloud.approved_transactions.add(TRANSACTION)
    cloud.clock_offset += 15 * 86_400
    done = commit(step, prepared)
    assert done.code == 5
    (error,) = done.annotations("error")
    assert "HTTP 466" in error.data
    assert "14 days" in error.data
    assert "prepare the update again" in error.data


def test_a_transaction_that_is_not_verified_says_so(
    prepare: Callable[..., Done], step: Step, cvm: Cvm
) -> None:
    done = commit(step, prepare())
    assert done.code == 5
    (error,) = done.annotations("error")
    assert "HTTP 467" in error.data
    assert "confirmed" in error.data


def test_a_hash_that_the_contract_does_not_allow_says_so(
    prepare: Callable[..., Done], step: Step, cvm: Cvm, cloud: Cloud, chain: PaperChain
) -> None:
    prepared = prepare()
    cloud.rpc_urls[8453] = chain.url
    chain.transactions[TRANSACTION] = prepared.outputs["compose-hash"]
    done = commit(step, prepared)
    assert done.code == 5
    (error,) = done.annotations("error")
    assert "HTTP 468" in error.data
    assert "on chain first" in error.data


def test_an_api_that_asks_again_for_what_it_was_shown_is_refused(
    step: Step, cvm: Cvm, cloud: Cloud, chain: PaperChain
) -> None:
    chain.approved.add(cvm.hash_with(NAMES))
    asked: list[Answer] = []

    def again(request: Request, answer: Answer) -> Answer:
        if request.method == "PATCH":
            asked.append(answer)
            return asked[0]
        return answer

    cloud.tamper = again
    done = step(env=ENV, rpc_url=chain.url)
    assert done.code == 5
    assert "asks again" in done.annotations("error")[0].data
    assert len(asked) == 2


# -- no blind signing ----------------------------------------------------------------------------


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("form", ["compact", "pretty"])
@pytest.mark.parametrize("order", ["sent", "kept", "sorted"])
def test_the_hash_is_recomputed_in_every_form(
    prepare: Callable[..., Done],
    cvm: Cvm,
    cloud: Cloud,
    order: Any,
    form: Any,
    normalised: bool,
    flat: bool,
) -> None:
    cloud.allowed_envs_order, cloud.compose_form, cloud.compose_normalised = order, form, normalised
    cloud.flat_preconditions = flat
    cvm.app_compose |= {"allowed_envs": ["OLD", "B"], "bash_script": 'echo "a": 1', "pre_launch_script": ""}
    done = prepare(env="NEW=1\nB=2\nOLD=3")
    ordered = {"sent": ["OLD", "B", "NEW"], "kept": ["OLD", "B", "NEW"], "sorted": ["B", "NEW", "OLD"]}
    assert done.outputs["compose-hash"] == cvm.hash_with(ordered[order])


def another_compose_file(request: Request, answer: Answer) -> Answer:
    """Both sources of the app-compose show another one than the CVM's compose hash is of."""
    if request.path.endswith("/attestation"):
        return rewrite("/attestation", lambda content: content.update(compose_file="{}"))(request, answer)
    other = {"docker_compose_file": "services: {}"}
    return rewrite("/compose_file", lambda content: content.update(other))(request, answer)


REFUSED = {
    "another hash": ask_for("compose_hash", OTHER),
    "another app-compose": another_compose_file,
    "another present hash": rewrite("/cvms/my-app", lambda content: content.update(compose_hash=OTHER)),
    "no present hash": rewrite("/cvms/my-app", lambda content: content.update(compose_hash=None)),
}


@pytest.mark.parametrize("lie", REFUSED.values(), ids=REFUSED)
def test_an_api_that_asks_for_another_compose_file_gets_no_approval(
    step: Step, cvm: Cvm, cloud: Cloud, lie: Callable[[Request, Answer], Answer]
) -> None:
    cloud.tamper = lie
    ways: list[dict[str, Any]] = [{"prepare_only": "true"}, {"private_key": OWNERS_KEY}, {}]
    for inputs in ways:
        done = step(env=ENV, **inputs)
        assert done.code == 3
        assert "approve nothing" in done.annotations("error")[0].data
        for output in ("compose-hash", "calldata", "safe-transaction", "prepared-digest"):
            assert not done.outputs.get(output)
        assert "dfc77223" not in done.log + done.summary
    assert len(updates(cloud)) == 3
    assert cvm.environment == {"OLD": "1"}


def test_both_hashes_are_printed(step: Step, cvm: Cvm, cloud: Cloud) -> None:
    cloud.tamper = ask_for("compose_hash", OTHER)
    (error,) = step(env=ENV, prepare_only="true").annotations("error")
    assert OTHER in error.data
    assert cvm.hash_with(NAMES) in error.data


def test_a_hash_that_is_named_may_be_approved_all_the_same(
    prepare: Callable[..., Done], cvm: Cvm, cloud: Cloud
) -> None:
    cloud.tamper = ask_for("compose_hash", OTHER)
    done = prepare(compose_hash="0x" + OTHER.upper())
    assert done.outputs["compose-hash"] == OTHER
    assert "because compose-hash names it" in done.summary


def test_naming_one_hash_lets_no_other_through(step: Step, cvm: Cvm, cloud: Cloud) -> None:
    cloud.tamper = ask_for("compose_hash", OTHER)
    assert step(env=ENV, prepare_only="true", compose_hash="0c" * 32).code == 3


def test_another_hash_than_the_one_prepared_is_not_approved_on_the_way(
    prepare: Callable[..., Done], step: Step, cvm: Cvm, cloud: Cloud, chain: PaperChain
) -> None:
    prepared = prepare()
    chain.approved.add(cvm.hash_with(NAMES))
    cvm.app_compose |= {"public_logs": False}
    chain.approved.add(cvm.compose_hash)

    def ask_anew(request: Request, answer: Answer) -> Answer:
        if request.method != "PATCH":
            return answer
        asked = {"compose_hash": cvm.hash_with(NAMES), "app_id": cvm.app_id, "device_id": cvm.device_id}
        return Answer({"message": "another one", **asked}, 465)

    cloud.tamper = ask_anew
    done = commit(step, prepared, rpc_url=chain.url, private_key=OWNERS_KEY)
    assert done.code == 3
    assert "was prepared" in done.annotations("error")[0].data
    assert tells_nothing_secret(done)


def test_a_hash_from_an_artifact_is_not_approved_by_that_name(
    prepare: Callable[..., Done], step: Step, cvm: Cvm, cloud: Cloud
) -> None:
    prepared = prepare()
    asked = {"compose_hash": OTHER, "app_id": cvm.app_id, "device_id": cvm.device_id}
    cloud.tamper = lambda request, answer: Answer(asked, 465) if request.method == "PATCH" else answer
    done = commit(step, prepared, compose_hash=OTHER, prepared_digest="none", prepare_only="true")
    assert done.code == 3
    assert "calldata" not in done.outputs


@pytest.mark.parametrize(
    ("field", "value"),
    [("app_id", "22" * 20), ("app_id", "all of them"), ("compose_hash", "0x1"), ("device_id", "::error::")],
)
def test_a_malformed_approval_request_is_refused(
    step: Step, cvm: Cvm, cloud: Cloud, field: str, value: str
) -> None:
    cloud.tamper = ask_for(field, value)
    done = step(env=ENV, prepare_only="true")
    assert done.code == 3
    assert "calldata" not in done.outputs


def test_an_app_of_the_central_kms_is_never_approved_on_chain(step: Step, cloud: Cloud) -> None:
    cvm = cloud.add_cvm("my-app", environment={"OLD": "1"})
    asked = {"compose_hash": cvm.hash_with(NAMES), "app_id": cvm.app_id}

    def ask(request: Request, answer: Answer) -> Answer:
        return Answer(asked, 465) if request.method == "PATCH" else answer

    cloud.tamper = ask
    done = step(env=ENV, prepare_only="true")
    assert done.code == 3
    assert "no Onchain KMS" in done.annotations("error")[0].data


# -- with a chain to ask -------------------------------------------------------------------------


def test_an_approval_that_exists_is_enough_without_a_key(
    step: Step, cvm: Cvm, cloud: Cloud, chain: PaperChain
) -> None:
    cloud.rpc_urls[8453] = chain.url
    chain.approved.add(cvm.hash_with(NAMES))
    ways: list[dict[str, Any]] = [{}, {"prepare_only": "true"}]
    for inputs in ways:
        done = step(env=ENV, rpc_url=chain.url, **inputs)
        assert done.code == 0, done.log
        assert done.outputs["status"] == "running"
        assert done.outputs["trust"] == "chain"
        if not inputs:
            assert done.outputs["transaction-hash"] == "already-registered"
    assert cvm.environment == {"OLD": "2", "NEW": SECRET}


def test_a_baseline_that_nobody_approved_is_no_baseline(step: Step, cvm: Cvm, chain: PaperChain) -> None:
    chain.approved.clear()
    done = step(env=ENV, rpc_url=chain.url, prepare_only="true")
    assert done.code == 3
    (error,) = done.annotations("error")
    assert cvm.compose_hash in error.data
    assert cvm.hash_with(NAMES) in error.data
    assert "calldata" not in done.outputs


def test_a_baseline_that_is_approved_leaves_nothing_to_remark(
    prepare: Callable[..., Done], chain: PaperChain
) -> None:
    assert "word" not in prepare(rpc_url=chain.url, app_id=next(iter(chain.apps))).summary


def methods(done: Done) -> list[str]:
    return [
        call["contractMethod"]["name"]
        for call in json.loads(done.outputs["safe-transaction"])["transactions"]
    ]


def test_a_device_is_in_the_file_where_it_is_named_and_needed(
    prepare: Callable[..., Done], cvm: Cvm, chain: PaperChain
) -> None:
    assert methods(prepare()) == ["addComposeHash"]
    assert methods(prepare(allow_device=cvm.device_id)) == ["addDevice", "addComposeHash"]
    assert methods(prepare(allow_device=OTHER)) == ["addComposeHash"]
    assert methods(prepare(allow_device=cvm.device_id, rpc_url=chain.url)) == ["addComposeHash"]
    chain.devices.clear()
    done = prepare(allow_device=f"{OTHER}\n0x{cvm.device_id.upper()}", rpc_url=chain.url)
    assert methods(done) == ["addDevice", "addComposeHash"]
    chain.any_device = True
    assert methods(prepare(allow_device=cvm.device_id, rpc_url=chain.url)) == ["addComposeHash"]


def test_a_device_that_is_needed_and_not_named_is_told(
    prepare: Callable[..., Done], cvm: Cvm, chain: PaperChain
) -> None:
    chain.devices.clear()
    done = prepare(rpc_url=chain.url, app_id=cvm.app_id)
    assert methods(done) == ["addComposeHash"]
    (warning,) = done.annotations("warning")
    assert cvm.device_id in warning.data
    assert "allow-device" in warning.data


def test_a_device_alone_may_be_what_is_missing(step: Step, cvm: Cvm, chain: PaperChain) -> None:
    chain.approved.add(cvm.hash_with(NAMES))
    chain.devices.clear()
    done = step(env=ENV, rpc_url=chain.url)
    assert done.code == 7
    (error,) = done.annotations("error")
    assert f"the device {cvm.device_id}" in error.data
    assert cvm.hash_with(NAMES) not in error.data


def test_committing_looks_for_the_approval_first(
    prepare: Callable[..., Done], step: Step, cvm: Cvm, cloud: Cloud, chain: PaperChain
) -> None:
    prepared = prepare()
    cloud.rpc_urls[8453] = chain.url
    cloud.reset_requests()
    done = commit(step, prepared, rpc_url=chain.url)
    assert done.code == 7
    assert "not approved" in done.annotations("error")[0].data
    assert not updates(cloud)

    chain.approved.add(prepared.outputs["compose-hash"])
    chain.devices.clear()
    done = commit(step, prepared, rpc_url=chain.url)
    assert done.code == 7
    assert f"device {cvm.device_id}" in done.annotations("error")[0].data
    assert not updates(cloud)

    chain.any_device = True
    done = commit(step, prepared, rpc_url=chain.url, transaction_hash=None)
    assert done.code == 0, done.log
    assert done.outputs["transaction-hash"] == "already-registered"
    assert cvm.environment == {"OLD": "2", "NEW": SECRET}


def test_a_chain_that_breaks_off_in_the_middle_stops_the_run(
    step: Step, cvm: Cvm, cloud: Cloud, chain: PaperChain
) -> None:
    def garble(method: str, answer: Any) -> Any:
        return b"<html>" if cloud.requests and cloud.requests[-1].method == "PATCH" else answer

    chain.meddle = garble
    done = step(env=ENV, rpc_url=chain.url, prepare_only="true")
    assert done.code == 6
    assert "calldata" not in done.outputs
    assert cvm.environment == {"OLD": "1"}


# -- signing here --------------------------------------------------------------------------------


@pytest.fixture
def owned(cloud: Cloud, chain: PaperChain) -> PaperChain:
    """The chain, with the app owned by the key that is at hand; the service asks that chain too."""
    cloud.rpc_urls[8453] = chain.url
    chain.owner = str(Account.from_key(OWNERS_KEY).address).lower()
    return chain


@pytest.mark.parametrize("key", [OWNERS_KEY, f"0x{OWNERS_KEY}"])
def test_the_owners_key_approves_and_is_seen_nowhere(
    step: Step, cvm: Cvm, owned: PaperChain, key: str
) -> None:
    owned.devices.clear()
    debug = {"RUNNER_DEBUG": "1"}
    done = step(env=ENV, rpc_url=owned.url, private_key=key, allow_device=cvm.device_id, environ=debug)
    assert done.code == 0, done.log
    assert cvm.environment == {"OLD": "2", "NEW": SECRET}
    assert len(owned.transactions) == 2
    approval = done.outputs["transaction-hash"]
    assert owned.transactions[approval] == cvm.compose_hash == done.outputs["compose-hash"]
    assert f"https://basescan.org/tx/{approval}" in done.log
    for call, transaction in zip(("addDevice", "addComposeHash"), owned.transactions, strict=True):
        assert f"Sending {call} as transaction {transaction}" in done.log
    assert f"explorer](https://basescan.org/tx/{approval})" in done.summary
    assert tells_nothing_secret(done)
    assert {key, OWNERS_KEY} <= {*done.masks}


def test_the_key_may_come_from_a_file_or_from_where_other_tools_have_it(
    run: Command, cvm: Cvm, owned: PaperChain
) -> None:
    run.write(".env", ENV)
    run.write("owner.key", f"0x{OWNERS_KEY}\n")
    arguments = ("update", "--cvm", "my-app", "--env-file", ".env", "--verbose")
    done = run(*arguments, "--rpc-url", owned.url, "--private-key-file", "owner.key")
    assert done.code == 0, done.printed
    assert len(owned.transactions) == 1
    assert OWNERS_KEY not in done.printed

    run.write(".env", f"{ENV}\nMORE=1")
    done = run(*arguments, environ={"ETH_RPC_URL": owned.url, "PRIVATE_KEY": OWNERS_KEY})
    assert done.code == 0, done.printed
    assert len(owned.transactions) == 2
    assert OWNERS_KEY not in done.printed


def test_outputs_of_a_failed_run_have_the_transaction(step: Step, cvm: Cvm, owned: PaperChain) -> None:
    def deny(method: str, answer: Any) -> Any:
        return {**answer, "result": None} if method == "eth_getTransactionReceipt" else answer

    def forget(method: str, answer: Any) -> Any:
        owned.approved.discard(cvm.hash_with(NAMES))
        return deny(method, answer)

    owned.meddle = forget
    done = step(env=ENV, rpc_url=owned.url, private_key=OWNERS_KEY, wait_timeout="1")
    assert done.code == 6
    (approval,) = owned.transactions
    assert done.outputs["transaction-hash"] == approval
    assert done.outputs["status"] == "failed"
    assert approval in done.annotations("error")[0].data
    assert cvm.environment == {"OLD": "1"}


def test_dropping_names_takes_an_approval_too_and_a_word_in_each_run(
    prepare: Callable[..., Done], step: Step, cvm: Cvm, cloud: Cloud
) -> None:
    assert step(env="NEW=1", prepare_only="true").code == 4
    prepared = prepare(env="NEW=1", allow_removal="true")
    assert prepared.outputs["compose-hash"] == cvm.hash_with(["NEW"])
    cloud.approved_transactions.add(TRANSACTION)
    assert commit(step, prepared).code == 4
    assert commit(step, prepared, allow_removal="true").code == 0
    assert cvm.environment == {"NEW": "1"}


# -- several CVMs --------------------------------------------------------------------------------


def test_what_is_prepared_is_for_one_cvm(step: Step, cvm: Cvm, cloud: Cloud) -> None:
    cloud.add_cvm("my-app-2", app_id=cvm.app_id, kms=cvm.kms, environment={"OLD": "1"})
    done = step(env=ENV, prepare_only="true", cvm="my-app\nmy-app-2")
    assert done.code == 2
    assert "one CVM" in done.annotations("error")[0].data
    assert not updates(cloud)


def test_replicas_share_an_approval(step: Step, cvm: Cvm, cloud: Cloud, chain: PaperChain) -> None:
    other = cloud.add_cvm("my-app-2", app_id=cvm.app_id, kms=cvm.kms, environment={"OLD": "1"})
    other.app_compose |= {"name": "my-app"}
    cloud.rpc_urls[8453] = chain.url
    chain.approved |= {cvm.hash_with(NAMES), other.compose_hash}
    done = step(env=ENV, cvm=None, app=cvm.app_id, rpc_url=chain.url)
    assert done.code == 0, done.log
    assert cvm.environment == other.environment == {"OLD": "2", "NEW": SECRET}
