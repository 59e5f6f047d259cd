"""Stories of a compose file that is deployed with the secrets: one operation, one restart, one approval."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.containers import Container
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.wire import Answer, Request
from tests.support.deploys import (
    AFTER,
    BEFORE,
    DIGEST,
    ENV,
    OWNERS_KEY,
    SECRET,
    add_on_chain,
    chain_of,
    deploy,
)
from tests.support.faults import Fault, Kind
from tests.support.faulty import FaultySimulator
from tests.support.paper_chain import PaperChain
from tests.support.step import Done, Step


@pytest.fixture
def cvm(cloud: Cloud) -> Cvm:
    """A CVM whose compose file hands one variable on."""
    return cloud.add_cvm("my-app", docker_compose_file=BEFORE, environment={"OLD": "1"})


@pytest.fixture
def owned(cloud: Cloud) -> Cvm:
    """The same on an Onchain KMS."""
    return add_on_chain(cloud)


@pytest.fixture
def chain(owned: Cvm, cloud: Cloud) -> Iterator[PaperChain]:
    """A chain that knows the app and its owner, and that the service looks approvals up on."""
    with chain_of(owned, cloud) as chain:
        yield chain


def updates(cloud: Cloud) -> list[Request]:
    return [request for request in cloud.requests if request.method == "PATCH"]


def tells_nothing_secret(done: Done) -> bool:
    everything = done.shown + done.output_file + done.summary
    return SECRET not in everything and OWNERS_KEY not in everything and "ct_" not in everything


# -- one operation ---------------------------------------------------------------------------------


def test_compose_file_and_secrets_arrive_with_one_restart(step: Step, cvm: Cvm, cloud: Cloud) -> None:
    before, expected = cvm.compose_hash, cvm.hash_with(["OLD", "TOKEN"], docker_compose_file=AFTER)
    done = deploy(step)
    assert done.code == 0, done.log
    (update,) = updates(cloud)
    assert update.path == f"/cvms/{cvm.id}"
    assert set(update.json) == {"docker_compose_file", "encrypted_env", "allowed_envs"}
    assert len(cvm.operations) == 1
    assert cvm.app_compose["docker_compose_file"] == AFTER
    assert cvm.environment == {"OLD": "2", "TOKEN": SECRET}
    outputs = done.outputs
    assert (outputs["status"], outputs["allowed-envs-changed"]) == ("running", "true")
    assert (outputs["previous-compose-hash"], outputs["compose-hash"]) == (before, expected)
    assert cvm.compose_hash == expected
    assert tells_nothing_secret(done)


@pytest.mark.parametrize("text", [AFTER.replace("\n", "\r\n"), "# é\n" + AFTER.rstrip("\n"), "\n\n" + AFTER])
def test_the_file_goes_out_byte_for_byte(step: Step, cvm: Cvm, text: str) -> None:
    step.write("docker-compose.yml", text.encode())
    done = step(env=ENV, compose_file="docker-compose.yml")
    assert done.code == 0, done.log
    assert cvm.app_compose["docker_compose_file"] == text
    assert done.outputs["compose-hash"] == cvm.compose_hash


def test_keep_secrets_leaves_environment_and_names_as_they_are(step: Step, cvm: Cvm, cloud: Cloud) -> None:
    sealed = cvm.sealed
    done = deploy(step, BEFORE + "    init: true\n", env=None, keep_secrets="true")
    assert done.code == 0, done.log
    (update,) = updates(cloud)
    assert set(update.json) == {"docker_compose_file"}
    assert cvm.environment == {"OLD": "1"}
    assert (cvm.sealed, cvm.allowed_envs) == (sealed, ["OLD"])
    assert json.loads(done.outputs["env-keys"]) == ["OLD"]
    assert done.outputs["compose-hash"] == cvm.compose_hash


def test_without_a_compose_file_nothing_but_the_environment_is_sent(
    step: Step, cvm: Cvm, cloud: Cloud
) -> None:
    step.write("phala.toml", f'name = "{cvm.name}"\ncompose_file = "docker-compose.yml"\n')
    step.write("docker-compose.yml", AFTER)
    done = step(cvm=None, env="OLD=2")
    assert done.code == 0, done.log
    assert updates(cloud)[0].path == f"/cvms/{cvm.id}/envs"
    (notice,) = [one for one in done.annotations("notice") if "docker-compose.yml" in one.data]
    assert "compose-file: docker-compose.yml" in notice.data


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"env": None}, "no source specified"),
        ({"keep_secrets": "true"}, "keep-secrets is true, but a source is set"),
        ({"compose_file": None, "env": None, "keep_secrets": "true"}, "keep-secrets is true without"),
        ({"compose_file": None, "require_digest": "true"}, "require-digest is true without"),
        ({"compose_file": "nowhere.yml"}, "does not exist"),
        ({"compose_file": "latin.yml"}, "not UTF-8"),
        ({"mode": "encrypt"}, "encrypt deploys nothing"),
        (
            {"env": None, "encrypted_env": "ab" * 70, "env_keys": "[]"},
            "both compose-file and a prepared ciphertext",
        ),
    ],
)
def test_inputs_that_do_not_go_together_send_nothing(
    step: Step, cvm: Cvm, cloud: Cloud, inputs: dict[str, Any], said: str
) -> None:
    step.write("latin.yml", b"# \xe9\n")
    done = deploy(step, **inputs)
    assert done.code == 2
    assert said in done.annotations("error")[0].data
    assert updates(cloud) == []


def test_verify_deploys_nothing(step: Step, cvm: Cvm, cloud: Cloud) -> None:
    done = deploy(step, mode="verify", env=None)
    assert done.code == 0, done.log
    assert updates(cloud) == []


# -- checked before anything is sent ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code", "line", "said"),
    [
        (AFTER.replace("${TOKEN}", SECRET), 2, 6, "the value of TOKEN is in the compose file"),
        (AFTER + "      MORE: ${MISSING}\n", 4, 7, "refers to MISSING, which is missing"),
        (AFTER + "    volumes: ['./conf:/conf']\n", 2, 7, "of the checkout"),
        (AFTER + "    build: .\n", 2, 7, "from the checkout"),
        ("services: [\n", 2, 2, "it is not valid YAML"),
        (AFTER + "#" * 200 * 1024, 2, None, "Phala Cloud accepts 204800"),
    ],
)
def test_what_is_wrong_with_the_file_is_named_by_its_line(
    step: Step, cvm: Cvm, cloud: Cloud, text: str, code: int, line: int | None, said: str
) -> None:
    done = deploy(step, text, guest_check="warn")
    assert done.code == code, done.log
    error = done.annotations("error")[-1]
    assert said in error.data
    assert error.properties["file"] == "docker-compose.yml"
    assert error.properties.get("line") == (str(line) if line else None)
    assert updates(cloud) == []
    assert tells_nothing_secret(done)


def test_the_login_of_a_url_may_not_stand_there_by_itself(step: Step, cvm: Cvm, cloud: Cloud) -> None:
    url = "postgres://app:hunter22@db/app"
    done = deploy(step, AFTER + "      PASSWORD: hunter22\n", env=f"OLD=2\nTOKEN={url}")
    assert done.code == 2, done.log
    error = done.annotations("error")[0]
    assert "the value of TOKEN is in the compose file" in error.data
    assert error.properties["line"] == "7"
    assert updates(cloud) == []


@pytest.mark.parametrize("key", ["the API key", "the private key"])
def test_a_key_of_the_run_may_not_stand_there(step: Step, cvm: Cvm, cloud: Cloud, key: str) -> None:
    value = cloud.api_key if key == "the API key" else OWNERS_KEY
    done = deploy(
        step, AFTER + f"      KEY: '{value}'\n", private_key=OWNERS_KEY, rpc_url="http://127.0.0.1:9"
    )
    assert done.code == 2, done.log
    error = done.annotations("error")[-1]
    assert f"the compose file is public, but contains {key}" in error.data
    assert error.properties["line"] == "7"
    assert value not in done.shown
    assert updates(cloud) == []


def test_of_many_errors_the_first_are_shown_and_all_are_counted(step: Step, cvm: Cvm) -> None:
    done = deploy(step, AFTER + "    volumes:\n" + "      - ./a:/b\n" * 100)
    assert done.code == 2
    assert "(and 99 more)" in done.log
    assert done.log.count("of the checkout, which") < 30


def test_a_setting_that_is_not_masked_may_stand_in_the_file(step: Step, cvm: Cvm) -> None:
    text = AFTER + "    hostname: my-host\n"
    assert deploy(step, text, env=f"{ENV}\nHOST=my-host").code == 2
    done = deploy(step, text, env=f"{ENV}\nHOST=my-host", no_mask="HOST")
    assert done.code == 0, done.log


@pytest.mark.parametrize(("require", "code"), [("false", 0), ("true", 2)])
def test_an_image_by_tag_is_a_warning_or_refused(step: Step, cvm: Cvm, require: str, code: int) -> None:
    done = deploy(step, AFTER.replace(f"@{DIGEST}", ":1.29"), require_digest=require)
    assert done.code == code, done.log
    (said,) = [one for one in done.annotations("error" if code else "warning") if "nginx:1.29" in one.data]
    assert "nginx:1.29@sha256:" in said.data


def test_an_app_that_is_a_bash_script_takes_no_compose_file(step: Step, cloud: Cloud) -> None:
    script = {"runner": "bash", "bash_script": "echo"}
    cloud.add_cvm("my-app", environment={"OLD": "1"}, app_compose=script)
    done = deploy(step)
    assert done.code == 2
    assert "runs a bash script" in done.annotations("error")[0].data


# -- the plan --------------------------------------------------------------------------------------


def test_a_plan_is_a_diff(step: Step, cvm: Cvm, cloud: Cloud) -> None:
    expected = cvm.hash_with(["OLD", "TOKEN"], docker_compose_file=AFTER)
    done = deploy(step, mode="plan")
    assert done.code == 0, done.log
    assert updates(cloud) == []
    assert "+      TOKEN: ${TOKEN}" in done.log
    assert "```diff\n@@ -3,4 +3,5 @@\n" in done.summary
    assert "\n+      TOKEN: ${TOKEN}\n" in done.summary
    shown = [f"{one[:8]}…{one[-4:]}" for one in (cvm.compose_hash, expected)]
    assert " → ".join(shown) in done.summary
    assert (done.outputs["status"], done.outputs["compose-hash"]) == ("planned", expected)
    assert deploy(step).outputs["compose-hash"] == expected


@pytest.mark.parametrize("kept", [False, True], ids=["both", "keep-secrets"])
def test_a_plan_says_what_the_update_does(step: Step, owned: Cvm, chain: PaperChain, kept: bool) -> None:
    given: dict[str, Any] = {"rpc_url": chain.url, "private_key": OWNERS_KEY}
    if kept:
        given |= {"env": None, "keep_secrets": "true"}
    text = BEFORE + "    init: true\n" if kept else AFTER
    planned = deploy(step, text, mode="plan", **given)
    assert (planned.code, chain.transactions, owned.operations) == (0, {}, []), planned.log
    done = deploy(step, text, **given)
    assert done.code == 0, done.log
    said = ("env-keys", "keys-added", "keys-removed", "compose-hash", "previous-compose-hash")
    assert [planned.outputs[name] for name in said] == [done.outputs[name] for name in said]
    assert done.outputs["compose-hash"] == owned.compose_hash


def test_the_diff_of_a_file_ends_no_block_and_shows_no_secret(step: Step, cloud: Cloud) -> None:
    before = BEFORE + f"# ````\n# {SECRET}\n# ::warning::forged\n"
    cloud.add_cvm("my-app", docker_compose_file=before, environment={"OLD": "1"})
    done = deploy(step, mode="plan")
    assert done.code == 0, done.log
    assert "`````diff" in done.summary
    assert not any(one.data == "forged" for one in done.annotations("warning"))
    assert tells_nothing_secret(done)


def test_the_same_file_has_no_diff_and_takes_no_approval(step: Step, owned: Cvm, cloud: Cloud) -> None:
    done = deploy(step, BEFORE, mode="plan", env="OLD=2")
    assert done.code == 0, done.log
    assert "compose file and names stay the same" in done.summary
    assert done.outputs["compose-hash"] == owned.compose_hash
    assert deploy(step, BEFORE, env="OLD=2").code == 0
    assert owned.environment == {"OLD": "2"}


# -- when it fails ---------------------------------------------------------------------------------


def test_a_failed_run_names_what_ran_before_as_the_way_back(step: Step, cvm: Cvm) -> None:
    before, revision = cvm.compose_hash, cvm.revisions[-1].revision_id
    cvm.boot_fails("docker compose: no such image")
    done = deploy(step)
    assert done.code == 8
    (error,) = done.annotations("error")
    assert f"to roll back, deploy what ran before: compose hash {before}, revision {revision}" in error.data
    assert len(cvm.operations) == 1
    assert done.outputs["previous-compose-hash"] == before


def test_without_a_hash_or_a_revision_of_before_the_way_back_is_shorter(
    step: Step, cvm: Cvm, cloud: Cloud
) -> None:
    def hide(request: Request, answer: Answer) -> Answer:
        if request.path.endswith("/revisions"):
            return replace(answer, body={"revisions": []})
        if request.method == "GET" and request.path == "/cvms/my-app" and hidden:
            return replace(answer, body={**answer.body, "compose_hash": None})
        return answer

    cloud.tamper, hidden = hide, False
    cvm.boot_fails("no such image")
    (error,) = deploy(step).annotations("error")
    assert error.data.endswith(f"what ran before: compose hash {cvm.revisions[0].compose_hash}")
    hidden = True
    cvm.boot_fails("no such image")
    (error,) = deploy(step).annotations("error")
    assert "to roll back" not in error.data


def test_a_rolling_update_stops_at_the_first_cvm_that_fails(step: Step, cvm: Cvm, cloud: Cloud) -> None:
    second = cloud.add_cvm("second", app_id=cvm.app_id, docker_compose_file=BEFORE, environment={"OLD": "1"})
    cvm.boot_fails("docker compose: no such image")
    done = deploy(step, cvm=None, app=cvm.app_id)
    assert done.code == 8
    assert f"revision {cvm.revisions[0].revision_id}" in done.log
    assert second.operations == []
    assert second.app_compose["docker_compose_file"] == BEFORE


def test_a_fleet_gets_the_file_one_after_the_other(step: Step, cvm: Cvm, cloud: Cloud) -> None:
    second = cloud.add_cvm("second", app_id=cvm.app_id, docker_compose_file=BEFORE, environment={"OLD": "1"})
    done = deploy(step, cvm=None, app=cvm.app_id)
    assert done.code == 0, done.log
    assert {one.app_compose["docker_compose_file"] for one in (cvm, second)} == {AFTER}
    assert [one.environment for one in (cvm, second)] == [{"OLD": "2", "TOKEN": SECRET}] * 2


def test_a_lost_response_is_looked_up_and_nothing_is_deployed_twice(
    step: Step, cvm: Cvm, simulator: FaultySimulator
) -> None:
    simulator.faults.add(Fault("reset_after", method="PATCH"))
    done = deploy(step)
    assert done.code == 0, done.log
    assert len(cvm.operations) == 1
    assert cvm.environment == {"OLD": "2", "TOKEN": SECRET}


@pytest.mark.parametrize("fault", ["reset_after", "reset_before"])
def test_a_lost_response_without_a_ciphertext_is_known_by_the_compose_hash(
    step: Step, cvm: Cvm, simulator: FaultySimulator, fault: Kind
) -> None:
    simulator.faults.add(Fault(fault, method="PATCH"))
    done = deploy(step, BEFORE + "    init: true\n", env=None, keep_secrets="true")
    assert (done.code, len(cvm.operations)) == ((0, 1) if fault == "reset_after" else (6, 0)), done.log


def test_containers_that_do_not_come_up_stop_a_rolling_update(step: Step, cvm: Cvm, cloud: Cloud) -> None:
    second = cloud.add_cvm("second", app_id=cvm.app_id, docker_compose_file=BEFORE, environment={"OLD": "1"})
    cvm.looks.extend([[Container("dstack-web-1", "restarting", 1)]] * 200)
    done = deploy(step, cvm=None, app=cvm.app_id, wait_for="containers", wait_timeout="60")
    assert done.code == 8, done.log
    assert "to roll back" in done.log
    assert second.operations == []


# -- an Onchain KMS --------------------------------------------------------------------------------


def test_the_owner_approves_file_and_names_at_once(
    step: Step, owned: Cvm, chain: PaperChain, cloud: Cloud
) -> None:
    expected = owned.hash_with(["OLD", "TOKEN"], docker_compose_file=AFTER)
    done = deploy(step, rpc_url=chain.url, private_key=OWNERS_KEY)
    assert done.code == 0, done.log
    asked, committed = updates(cloud)
    assert "x-prepare-only" not in asked.headers
    assert (committed.body, committed.headers["x-compose-hash"]) == (b"", expected)
    assert committed.headers["x-transaction-hash"] == done.outputs["transaction-hash"]
    assert chain.approved.history[-1] == expected
    assert len(chain.transactions) == len(owned.operations) == 1
    assert owned.environment == {"OLD": "2", "TOKEN": SECRET}
    assert tells_nothing_secret(done)


@pytest.mark.parametrize("at_once", ["1", "2"])
def test_replicas_take_one_approval_of_file_and_names(
    step: Step, owned: Cvm, chain: PaperChain, cloud: Cloud, at_once: str
) -> None:
    replica = cloud.add_cvm(
        "replica", app_id=owned.app_id, kms=owned.kms, docker_compose_file=BEFORE, environment={"OLD": "1"}
    )
    replica.app_compose = {**replica.app_compose, "name": "my-app"}
    chain.any_device = True
    more = {"rpc_url": chain.url, "private_key": OWNERS_KEY, "max_parallel": at_once}
    done = deploy(step, cvm=None, app=owned.app_id, **more)
    assert done.code == 0, done.log
    assert len(chain.transactions) == 1
    assert [one.environment for one in (owned, replica)] == [{"OLD": "2", "TOKEN": SECRET}] * 2
    assert owned.compose_hash == replica.compose_hash == done.outputs["compose-hash"]


def test_a_commit_whose_response_is_lost_is_looked_up(
    step: Step, owned: Cvm, chain: PaperChain, simulator: FaultySimulator
) -> None:
    simulator.faults.add(Fault("reset_after", method="PATCH", skip=1))
    done = deploy(step, rpc_url=chain.url, private_key=OWNERS_KEY)
    assert done.code == 0, done.log
    assert len(chain.transactions) == len(owned.operations) == 1
    assert owned.environment == {"OLD": "2", "TOKEN": SECRET}


def test_a_busy_cvm_is_waited_for(step: Step, cvm: Cvm) -> None:
    cvm.begin_operation("restart", 2.0)
    done = deploy(step)
    assert done.code == 0, done.log
    assert [one.operation_type for one in cvm.operations] == ["restart", "update_cvm"]


def test_the_hash_is_of_the_measured_bytes_where_the_object_does_not_hash(
    step: Step, owned: Cvm, chain: PaperChain, cloud: Cloud
) -> None:
    def show_a_default(request: Request, answer: Answer) -> Answer:
        if request.path.endswith("/compose_file"):
            return replace(answer, body={**answer.body, "a_default_of_the_api": "x"})
        return answer

    cloud.tamper = show_a_default
    expected = owned.hash_with(["OLD", "TOKEN"], docker_compose_file=AFTER)
    done = deploy(step, rpc_url=chain.url, private_key=OWNERS_KEY)
    assert done.code == 0, done.log
    assert chain.approved.history[-1] == expected == owned.compose_hash
    cloud.attestation_compose_file = False
    done = deploy(step, AFTER + "    init: true\n", rpc_url=chain.url, private_key=OWNERS_KEY)
    assert (done.code, len(chain.transactions)) == (3, 1), done.log


def test_commit_tokens_are_neither_used_nor_kept(
    step: Step, owned: Cvm, chain: PaperChain, cloud: Cloud
) -> None:
    assert cloud.commit_tokens_unasked
    prepared = {"prepare_only": "true", "prepared_file": "prepared.json"}
    ways: list[dict[str, Any]] = [{}, prepared, {"rpc_url": chain.url, "private_key": OWNERS_KEY}]
    for more in ways:
        done = deploy(step, environ={"RUNNER_DEBUG": "1"}, verbose="true", **more)
        assert tells_nothing_secret(done)
    assert "ct_" not in (step.workspace / "prepared.json").read_text()
    assert owned.environment == {"OLD": "2", "TOKEN": SECRET}
    assert not [request for request in cloud.requests if "commit-update" in request.path]


def test_an_approval_of_before_is_not_sent_again(
    step: Step, owned: Cvm, chain: PaperChain, cloud: Cloud
) -> None:
    chain.approved.add(owned.hash_with(["OLD", "TOKEN"], docker_compose_file=AFTER))
    done = deploy(step, rpc_url=chain.url)
    assert done.code == 0, done.log
    assert updates(cloud)[-1].headers["x-transaction-hash"] == "already-registered"
    assert chain.transactions == {}


def test_without_a_way_to_approve_nothing_is_changed(step: Step, owned: Cvm, cloud: Cloud) -> None:
    done = deploy(step)
    assert done.code == 7
    assert done.outputs["compose-hash"] == owned.hash_with(["OLD", "TOKEN"], docker_compose_file=AFTER)
    assert owned.operations == []
    assert tells_nothing_secret(done)


def test_a_hash_of_another_compose_file_is_not_approved(
    step: Step, owned: Cvm, chain: PaperChain, cloud: Cloud
) -> None:
    """The API asks for the approval of a file that it changed on the way."""
    evil = owned.hash_with(["OLD", "TOKEN"], docker_compose_file=AFTER + "    privileged: true\n")

    def swap(request: Request, answer: Answer) -> Answer:
        if answer.status != 465:
            return answer
        rows = [
            {**row, "value": evil} if row["field"] == "compose_hash" else row
            for row in answer.body["details"]
        ]
        return replace(answer, body={**answer.body, "details": rows})

    cloud.tamper = swap
    done = deploy(step, rpc_url=chain.url, private_key=OWNERS_KEY)
    assert done.code == 3
    assert chain.transactions == {}
    assert owned.operations == []


def test_names_in_another_order_are_another_hash_of_the_same_file(step: Step, cvm: Cvm, cloud: Cloud) -> None:
    cloud.allowed_envs_order = "sorted"
    done = deploy(step, env=f"{ENV}\nA_SETTING=1")
    assert done.code == 0, done.log
    assert "another order (sorted)" in done.log
    assert done.outputs["compose-hash"] == cvm.compose_hash


def test_a_file_that_the_api_changed_where_no_approval_is_needed_is_an_error(
    step: Step, cvm: Cvm, cloud: Cloud
) -> None:
    def change(request: Request, answer: Answer) -> Answer:
        if request.method == "PATCH":
            evil = cvm.app_compose["docker_compose_file"] + "    privileged: true\n"
            cvm.app_compose = {**cvm.app_compose, "docker_compose_file": evil}
        return answer

    cloud.tamper = change
    done = deploy(step)
    assert done.code == 6
    assert "has a different compose file" in done.annotations("error")[0].data
    assert done.outputs["status"] == "failed"


def test_an_app_compose_with_a_long_script_is_hashed_as_it_is_measured(
    step: Step, owned: Cvm, cloud: Cloud, chain: PaperChain
) -> None:
    """The API's object has a default that the document lacks, so the exact text counts: ten kilobytes."""
    owned.app_compose["pre_launch_script"] = "#!/bin/bash\n" + "# a line of Phala's own script\n" * 300
    chain.hold(owned)

    def add_a_default(request: Request, answer: Answer) -> Answer:
        if request.path.endswith("/compose_file") and request.method == "GET":
            return replace(answer, body={**answer.body, "a default": []})
        return answer

    cloud.tamper = add_a_default
    done = deploy(step, rpc_url=chain.url, private_key=OWNERS_KEY)
    assert done.code == 0, done.log
    assert owned.environment == {"OLD": "2", "TOKEN": SECRET}


def test_a_value_that_the_lines_of_a_diff_show_together_is_not_shown(step: Step, cloud: Cloud) -> None:
    """YAML folds lines. The CVM has it in the clear today, and the log is no place to repeat that."""
    folded = '      X: "a-value-\\\n        nobody-\\\n        may-see"\n'
    cloud.add_cvm("my-app", docker_compose_file=BEFORE + folded, environment={"OLD": "1"})
    done = deploy(step, mode="plan")
    assert done.code == 0, done.log
    assert "nobody-" not in done.shown + done.summary
    assert "not shown: it may contain a secret" in done.summary


def test_a_file_that_is_shown_and_is_not_what_is_measured_is_refused(
    step: Step, cvm: Cvm, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API deploys another file, and shows ours. The compose hash of the CVM tells."""
    change = cvm.change
    another = {"docker_compose_file": AFTER.replace("nginx", "of-somebody")}
    monkeypatch.setattr(cvm, "change", lambda changes, *more: change({**changes, **another}, *more))

    def show_ours(request: Request, answer: Answer) -> Answer:
        shown = request.path.endswith("/compose_file") and cvm.operations
        return Answer({**answer.body, "docker_compose_file": AFTER}) if shown else answer

    cloud.tamper = show_ours
    done = deploy(step)
    assert done.code == 6, done.log
    assert "has a different compose file" in done.annotations("error")[-1].data
    assert done.outputs["status"] == "failed"
