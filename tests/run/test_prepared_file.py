"""Stories of an approval made elsewhere: one file from the first half to the second, and one digest."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import stat
from collections.abc import Iterator
from typing import Any

import pytest

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.wire import Request
from tests.support.clock import ManualClock
from tests.support.deploys import AFTER, BEFORE, ENV, SECRET, TRANSACTION, add_on_chain
from tests.support.paper_chain import PaperChain
from tests.support.step import Done, Step

FILE = "prepared.json"


@pytest.fixture
def cvm(cloud: Cloud) -> Cvm:
    """A CVM on an Onchain KMS."""
    return add_on_chain(cloud)


@pytest.fixture
def chain(cvm: Cvm, cloud: Cloud) -> Iterator[PaperChain]:
    with PaperChain() as chain:
        cloud.rpc_urls[8453] = chain.url
        chain.hold(cvm)
        yield chain


def prepare(step: Step, **inputs: Any) -> Done:
    """The first half, with a compose file unless told otherwise."""
    step.write("docker-compose.yml", AFTER)
    given: dict[str, Any] = {
        "env": ENV,
        "compose_file": "docker-compose.yml",
        "prepared_file": FILE,
        "prepare_only": "true",
    }
    done = step(**{**given, **inputs})
    assert done.code == 0, done.log
    assert done.outputs["status"] == "precondition_required"
    return done


def commit(step: Step, prepared: Done, **inputs: Any) -> Done:
    """The second half: one file and one digest, and the approval."""
    digest = prepared.outputs["prepared-digest"]
    given: dict[str, Any] = {
        "prepared_file": FILE,
        "prepared_digest": digest,
        "transaction_hash": TRANSACTION,
        **inputs,
    }
    return step(**given)


def updates(cloud: Cloud) -> list[Request]:
    return [request for request in cloud.requests if request.method == "PATCH"]


def content(step: Step) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((step.workspace / FILE).read_text())
    return found


def rewrite(step: Step, **fields: Any) -> None:
    step.write(FILE, json.dumps({**content(step), **fields}))


# -- the first half --------------------------------------------------------------------------------


def test_the_file_has_all_that_was_prepared_and_nothing_secret(step: Step, cvm: Cvm, cloud: Cloud) -> None:
    done = prepare(step)
    (asked,) = updates(cloud)
    assert asked.headers["x-prepare-only"] == "true"
    path = step.workspace / FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert content(step) == {
        "version": 1,
        "app_id": cvm.app_id,
        "cvm_id": cvm.id,
        "chain_id": 8453,
        "device_ids": [cvm.device_id],
        "public_key": done.outputs["public-key"],
        "env_keys": ["OLD", "TOKEN"],
        "compose_hash": cvm.hash_with(["OLD", "TOKEN"], docker_compose_file=AFTER),
        "encrypted_env": done.outputs["encrypted-env"],
        "docker_compose_file": AFTER,
    }
    everything = path.read_text() + done.shown + done.output_file + done.summary
    assert SECRET not in everything
    assert "ct_" not in everything
    assert "commit" not in path.read_text()
    assert cvm.operations == []
    assert "prepared-file: prepared.json" in done.log


def test_prepared_file_is_world_readable_under_a_strict_umask(step: Step, cvm: Cvm) -> None:
    before = os.umask(0o077)
    try:
        prepare(step)
        (step.workspace / FILE).chmod(0o600)
        step.write(FILE, "x" * 100_000)
        prepare(step)
    finally:
        os.umask(before)
    assert stat.S_IMODE((step.workspace / FILE).stat().st_mode) == 0o644
    assert content(step)["cvm_id"] == cvm.id


@pytest.mark.parametrize("form", ["dotenv", "shell", "json"])
def test_the_file_for_a_safe_is_one_line_in_every_format(step: Step, cvm: Cvm, form: str) -> None:
    done = prepare(
        step, environ={"PHALA_SECRETS_OUTPUT_FILE": "outputs", "PHALA_SECRETS_OUTPUT_FORMAT": form}
    )
    batch = json.loads(done.outputs["safe-transaction"])
    assert "\n" not in done.outputs["safe-transaction"]
    text = (step.workspace / "outputs").read_text()
    if form == "json":
        assert json.loads(json.loads(text)["safe_transaction"]) == batch
        return
    (line,) = [line for line in text.splitlines() if "SAFE_TRANSACTION" in line]
    written = line.partition("=")[2]
    assert json.loads(shlex.split(written)[0] if form == "shell" else written) == batch


def test_the_digest_is_over_the_compose_file_as_well(step: Step, cvm: Cvm) -> None:
    done = prepare(step)
    line = json.dumps(
        {**content(step), "version": 3}, ensure_ascii=False, sort_keys=True, separators=(",", ":")
    )
    assert done.outputs["prepared-digest"] == "3:" + hashlib.sha256(line.encode()).hexdigest()
    alone = prepare(step, compose_file=None)
    del (rest := content(step))["docker_compose_file"]
    line = json.dumps({**rest, "version": 2}, sort_keys=True, separators=(",", ":"))
    assert alone.outputs["prepared-digest"] == "2:" + hashlib.sha256(line.encode()).hexdigest()


def test_the_file_is_not_written_through_a_link_out_of_the_workspace(
    step: Step, cvm: Cvm, tmp_path: Any
) -> None:
    (step.workspace / FILE).symlink_to(tmp_path / "elsewhere")
    step.write("docker-compose.yml", AFTER)
    done = step(env=ENV, compose_file="docker-compose.yml", prepared_file=FILE, prepare_only="true")
    assert done.code == 2
    assert "is outside the workspace" in done.annotations("error")[0].data
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(("path", "said"), [("pipe", "is not a regular"), ("no/folder", "cannot be written")])
def test_a_file_that_cannot_be_written_is_an_error(step: Step, cvm: Cvm, path: str, said: str) -> None:
    os.mkfifo(step.workspace / "pipe")
    reader = os.open(step.workspace / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    done = step(env=ENV, prepared_file=path, prepare_only="true")
    os.close(reader)
    assert done.code == 2
    assert said in done.annotations("error")[0].data


# -- the second half -------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["transaction", "rpc"])
def test_what_was_prepared_is_sent_days_later_and_committed(
    step: Step, cvm: Cvm, chain: PaperChain, cloud: Cloud, clock: ManualClock, by: str
) -> None:
    prepared = prepare(step)
    cvm.pending.clear()  # the service has forgotten it meanwhile
    clock.advance(13 * 86_400)
    chain.approved.add(prepared.outputs["compose-hash"])
    chain.transactions[TRANSACTION] = prepared.outputs["compose-hash"]
    (step.workspace / "docker-compose.yml").unlink()  # another machine
    cloud.reset_requests()
    way = {} if by == "transaction" else {"transaction_hash": None, "rpc_url": chain.url}
    done = commit(step, prepared, **way)
    assert done.code == 0, done.log
    asked, committed = updates(cloud)
    assert asked.json == {
        "docker_compose_file": AFTER,
        "encrypted_env": prepared.outputs["encrypted-env"],
        "allowed_envs": ["OLD", "TOKEN"],
    }
    assert committed.body == b""
    expected = TRANSACTION if by == "transaction" else "already-registered"
    assert committed.headers["x-transaction-hash"] == expected
    assert cvm.environment == {"OLD": "2", "TOKEN": SECRET}
    assert cvm.compose_hash == prepared.outputs["compose-hash"] == done.outputs["compose-hash"]


@pytest.mark.parametrize("kind", ["secrets alone", "compose file alone"])
def test_the_same_file_for_either_alone(step: Step, cvm: Cvm, chain: PaperChain, kind: str) -> None:
    if kind == "secrets alone":
        prepared = prepare(step, compose_file=None)
        assert content(step)["docker_compose_file"] is None
    else:
        step.write("kept.yml", BEFORE + "    init: true\n")
        prepared = prepare(step, env=None, keep_secrets="true", compose_file="kept.yml")
        assert content(step)["encrypted_env"] == ""
    chain.approved.add(prepared.outputs["compose-hash"])
    done = commit(step, prepared, transaction_hash=None, rpc_url=chain.url)
    assert done.code == 0, done.log
    assert cvm.compose_hash == prepared.outputs["compose-hash"]
    assert cvm.environment == ({"OLD": "2", "TOKEN": SECRET} if kind == "secrets alone" else {"OLD": "1"})


@pytest.mark.parametrize(
    "fields",
    [
        {"docker_compose_file": AFTER + "    privileged: true\n"},
        {"env_keys": ["OLD", "TOKEN", "MORE"]},
        {"compose_hash": "0b" * 32},
        {"encrypted_env": "ab" * 70},
        {"cvm_id": "cvm_other"},
        {"app_id": "0b" * 20},
        {"chain_id": 1},
        {"public_key": "0b" * 32},
    ],
)
@pytest.mark.parametrize("digest", ["given", "none"])
def test_a_file_that_was_changed_is_refused(
    step: Step, cvm: Cvm, cloud: Cloud, fields: dict[str, Any], digest: str
) -> None:
    if digest == "none" and "encrypted_env" in fields:
        return  # that is what the digest is for
    prepared = prepare(step)
    rewrite(step, **fields)
    before = len(updates(cloud))
    done = commit(step, prepared, **({} if digest == "given" else {"prepared_digest": "none"}))
    assert done.code == 3, done.log
    assert len(updates(cloud)) == before
    assert cvm.operations == []


def test_an_app_that_has_changed_since_takes_nothing_that_was_prepared(
    step: Step, cvm: Cvm, cloud: Cloud, clock: ManualClock
) -> None:
    prepared = prepare(step)
    cvm.begin_operation("update", changes={"public_logs": False})
    cvm.finish()
    done = commit(step, prepared)
    assert done.code == 3
    assert "the app has changed since" in done.annotations("error")[0].data
    assert len(cvm.operations) == 1


def test_without_the_approval_nothing_is_sent(step: Step, cvm: Cvm, chain: PaperChain, cloud: Cloud) -> None:
    prepared = prepare(step)
    done = commit(step, prepared, transaction_hash=None, rpc_url=chain.url)
    assert done.code == 7
    assert len(updates(cloud)) == 1
    missing = commit(step, prepared, transaction_hash=None)
    assert missing.code == 2
    assert "transaction-hash" in missing.annotations("error")[0].data


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"prepared_digest": None}, "prepared-digest is missing"),
        ({"env_keys": "[]"}, "both env-keys and prepared-file are set"),
        ({"compose_hash": "0b" * 32}, "both compose-hash and prepared-file are set"),
        ({"env": ENV}, "both prepared-file and a source"),
        ({"compose_file": "docker-compose.yml"}, "both compose-file and a prepared ciphertext"),
    ],
)
def test_the_file_stands_in_place_of_other_inputs(
    step: Step, cvm: Cvm, inputs: dict[str, Any], said: str
) -> None:
    done = commit(step, prepare(step), **inputs)
    assert done.code == 2
    assert said in done.annotations("error")[0].data


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: "{", "prepare-only did not write it"),
        (lambda text: "[]", "prepare-only did not write it"),
        (lambda text: "\xff", "prepare-only did not write it"),
        (lambda text: text.replace('"version": 1', '"version": 2'), "another release wrote it"),
        (lambda text: text.replace('"chain_id"', '"chain"'), "a field is missing"),
        (lambda text: text.replace("8453", "true"), "a field has an invalid value"),
        (lambda text: text.replace("8453", '"8453"'), "a field has an invalid value"),
        (lambda text: text.replace('"cvm_id": "', '"cvm_id": " '), "a field has an invalid value"),
        (lambda text: text.replace('"app_id": "', '"app_id": "0'), "a field has an invalid value"),
        (lambda text: text.replace('"OLD"', "1"), "a field has an invalid value"),
        (lambda text: text.replace('"OLD"', '"O LD"'), "a field has an invalid value"),
        (lambda text: text.replace("services:", r"\ud800:"), "a field has an invalid value"),
        (lambda text: json.dumps({**json.loads(text), "env_keys": {}}), "a field has an invalid value"),
        (
            lambda text: json.dumps({**json.loads(text), "encrypted_env": "", "docker_compose_file": None}),
            "a field has an invalid value",
        ),
    ],
)
def test_an_invalid_prepared_file_is_refused(step: Step, cvm: Cvm, change: Any, said: str) -> None:
    prepared = prepare(step)
    text = change((step.workspace / FILE).read_text())
    step.write(FILE, text.encode("latin-1"))
    done = commit(step, prepared)
    assert done.code == 2
    assert said in done.annotations("error")[0].data
