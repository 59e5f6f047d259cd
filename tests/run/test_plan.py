"""Stories of ``plan``: what an update would change, do and exit with, at a glance, and once."""

from __future__ import annotations

import json

import pytest

from phala_secrets.run.plan import compare
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.wire import Answer, Request
from tests.support.command import Command, Outcome
from tests.support.faults import Fault
from tests.support.faulty import FaultySimulator as Simulator
from tests.support.paper_chain import PaperChain

ON_CHAIN = "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C"
COMPOSE = """
services:
  app:
    image: app
    environment:
      - URL=${DATABASE_URL}
      - KEY=${KEY:?}
      - PORT=${PORT:-80}
"""


def plan(run: Command, *arguments: str, env: str = "OLD=2\n", cvm: str = "my-app") -> Outcome:
    run.write(".env", env)
    return run("plan", "--cvm", cvm, "--env-file", ".env", *arguments)


def diff(done: Outcome) -> list[str]:
    return [line.strip() for line in done.lines if line.startswith(("  + ", "  ~ ", "  - "))]


def test_each_name_says_what_the_compose_file_makes_of_it(run: Command, cloud: Cloud) -> None:
    cloud.add_cvm("my-app", environment={"KEY": "1", "GONE": "1"}, docker_compose_file=COMPOSE)
    done = plan(run, env="KEY=2\nDATABASE_URL=3\nPORT=4\nIDLE=5\n")
    assert done.code == 4
    assert [tuple(line.split("  ", 1)) for line in diff(done)] == [
        ("+ DATABASE_URL", f"{'':11}used by the compose file"),
        ("+ PORT", f"{'':19}used by the compose file, which has a default"),
        ("+ IDLE", f"{'':19}not used by the compose file"),
        ("~ KEY (sent anew)", f"{'':8}the app does not start without it"),
        ("- GONE (would be dropped)", "not used by the compose file"),
    ]
    assert "  4 variables: 3 to add, 1 sent anew; 1 would be dropped" in done.lines
    assert "Once that is fixed, it would restart the CVM, even if no value is new." in done.lines


def test_scripts_and_the_guests_own_files_are_uses_too(run: Command, cloud: Cloud) -> None:
    compose = "services:\n  app:\n    image: app\n    volumes: [/dstack/.host-shared/.decrypted-env:/env]\n"
    cloud.add_cvm("all", environment={"A": "1"}, docker_compose_file=compose)
    cvm = cloud.add_cvm("script", environment={"A": "1"})
    cvm.app_compose = {**cvm.app_compose, "pre_launch_script": 'echo "$A"'}
    unreadable = cloud.add_cvm("unreadable", environment={"A": "1"}, docker_compose_file="a: [")
    assert diff(plan(run, cvm="all", env="A=2\n")) == ["~ A (sent anew)  passed on with all others"]
    assert diff(plan(run, cvm="script", env="A=2\n")) == ["~ A (sent anew)  used by a script"]
    assert diff(plan(run, cvm=unreadable.name, env="A=2\n")) == ["~ A (sent anew)"]


def test_nothing_of_it_is_said_twice_or_in_long_lines(run: Command, cvm: Cvm) -> None:
    done = plan(run, env="OLD=2\nNEW=3\n")
    assert done.code == 0
    assert "keep" not in done.stderr
    assert max(map(len, done.lines)) < 160
    for once in ("Plan for my-app", "exit code 0", "It would restart the CVM", "~ OLD", "+ NEW"):
        assert done.stderr.count(once) == 1, once


def test_ids_and_hashes_are_short_unless_full_asks_for_them(run: Command, cvm: Cvm) -> None:
    short = plan(run, env="OLD=2\nNEW=3\n")
    facts = [line for line in short.lines if line.startswith("  ")]
    assert not [line for line in facts if cvm.compose_hash in line]
    assert f"{cvm.compose_hash[:8]}…{cvm.compose_hash[-4:]} → " in short.stderr
    full = plan(run, "--full", env="OLD=2\nNEW=3\n")
    assert f"  compose hash       {cvm.compose_hash} → " in full.stderr
    assert f"  app                {cvm.app_id}" in full.lines


def test_quiet_leaves_the_diff_alone(run: Command, cvm: Cvm) -> None:
    done = plan(run, "--quiet", env="OLD=2\nNEW=3\n")
    assert [line.split("  ")[1] for line in done.lines] == [
        "+ NEW",
        "~ OLD (sent anew)",
        "2 variables: 1 to add, 1 sent anew",
    ]


@pytest.mark.parametrize("compose_hash", ["", "ab" * 32])
def test_a_plan_knows_its_order(compose_hash: str) -> None:
    assert compare(["A", "B"], ["B", "A"], compose_hash).reordered
    assert not compare(["A"], ["A", "B"], compose_hash).reordered


def test_replicas_with_the_same_plan_share_a_diff_and_others_are_named(run: Command, cloud: Cloud) -> None:
    first = cloud.add_cvm("web-1", environment={"OLD": "1"})
    cloud.add_cvm("web-2", app_id=first.app_id, environment={"OLD": "1"})
    cloud.add_cvm("web-3", app_id=first.app_id, environment={"OLD": "1", "OTHER": "1"})
    run.write(".env", "OLD=2\n")
    done = run("plan", "--app", first.app_id, "--env-file", ".env", "--max-parallel", "2", "--allow-removal")
    assert done.code == 0, done.printed
    assert "Plan for web-1 and 2 more of its app: update would go through (exit code 0)" in done.lines
    assert "It would restart the CVMs, 2 at a time, even if no value is new." in done.lines
    assert [line for line in done.lines if line.startswith("  web-")] == ["  web-1, web-2:", "  web-3:"]
    one_by_one = run("plan", "--app", first.app_id, "--env-file", ".env", "--allow-removal")
    assert "It would restart the CVMs, one after another, even if no value is new." in one_by_one.lines


def test_secrets_that_are_kept_are_counted(run: Command, cvm: Cvm) -> None:
    run.write("compose.yml", "services:\n  app:\n    image: app\n    environment: [OLD]\n")
    done = run("plan", "--cvm", "my-app", "--compose-file", "compose.yml", "--keep-secrets")
    assert done.code == 0, done.printed
    assert "  1 variable: stays as it is" in done.lines
    assert diff(done)[-1].startswith("+"), "the diff of the compose file"


def test_a_plan_for_a_stopped_cvm(run: Command, cvm: Cvm) -> None:
    cvm.stop()
    assert "It may leave the CVM stopped." in plan(run).lines
    assert "It would start the CVM." in plan(run, "--start").lines


# -- approvals ------------------------------------------------------------------------------------


@pytest.fixture
def on_chain(cloud: Cloud) -> Cvm:
    cloud.add_kms("base", 8453, ON_CHAIN)
    return cloud.add_cvm("my-app", kms="base", environment={"OLD": "1"})


def needed(done: Outcome) -> object:
    return json.loads(done.stdout)["approval_needed"]


NEW = "OLD=2\nNEW=3\n"


@pytest.mark.usefixtures("cvm")
def test_the_cloud_kms_needs_no_approval(run: Command) -> None:
    assert needed(plan(run, "--json", env=NEW)) is False


def test_values_alone_need_no_approval(run: Command, cloud: Cloud, on_chain: Cvm) -> None:
    assert needed(plan(run, "--json")) is False
    assert not [request for request in cloud.requests if request.method == "POST"]


def test_a_new_compose_hash_ends_with_7_by_the_api_s_word(run: Command, cloud: Cloud, on_chain: Cvm) -> None:
    done = plan(run, "--json", env=NEW)
    assert (done.code, needed(done)) == (7, True)
    assert "update would be refused (exit code 7)" in done.stderr
    assert "on chain 8453 does not allow the new one yet" in done.errors[0]
    (asked,) = [request for request in cloud.requests if request.method == "POST"]
    assert asked.json == {"compose_hash": done.json["compose_hash"], "device_id": on_chain.device_id}


def test_with_prepare_only_a_plan_says_what_update_would_do_instead(run: Command, on_chain: Cvm) -> None:
    done = plan(run, "--json", "--prepare-only", env=NEW)
    assert (done.code, needed(done)) == (0, True)
    assert "Plan for my-app: update would prepare an approval (exit code 0)" in done.lines
    assert "It would change nothing yet. The update that follows restarts the CVM." in done.lines


def test_an_approval_that_is_there_already_is_not_needed(run: Command, cloud: Cloud, on_chain: Cvm) -> None:
    def allow(request: Request, answer: Answer) -> Answer:
        if request.path.endswith("/is-allowed"):
            return Answer({**answer.body, "is_allowed": True})
        return answer

    cloud.tamper = allow
    done = plan(run, "--json", env=NEW)
    assert (done.code, needed(done)) == (0, False)
    assert "  on-chain approval  already given according to the API" in done.lines


@pytest.mark.parametrize("word", [{"error": "the RPC is down", "is_allowed": False}, {"is_allowed": None}])
def test_approval_needed_is_empty_when_unknown(
    run: Command, cloud: Cloud, on_chain: Cvm, word: dict[str, object]
) -> None:
    def say(request: Request, answer: Answer) -> Answer:
        return Answer({**answer.body, **word}) if request.path.endswith("/is-allowed") else answer

    cloud.tamper = say
    done = plan(run, "--json", env=NEW)
    assert (done.code, needed(done)) == (0, "")
    assert "  on-chain approval  needed, unless already given; rpc-url checks it" in done.lines


def test_a_refusal_of_the_question_is_no_reason_to_refuse(
    run: Command, simulator: Simulator, on_chain: Cvm
) -> None:
    simulator.faults.add(Fault("status", "POST", status=403, body={"detail": "Forbidden"}))
    done = plan(run, "--json", env=NEW)
    assert (done.code, needed(done)) == (0, "")


def test_with_an_rpc_the_contract_is_asked_and_not_the_api(run: Command, cloud: Cloud, on_chain: Cvm) -> None:
    with PaperChain() as chain:
        chain.hold(on_chain)
        rpc = ("--rpc-url", chain.url)
        done = plan(run, "--json", *rpc, env=NEW)
        assert (done.code, needed(done)) == (7, True)
        key = {"PRIVATE_KEY": "0x" + "11" * 32}
        run.environ |= key
        approving = plan(run, "--json", *rpc, env=NEW)
        assert approving.code == 0, "update would approve it"
        assert "  on-chain approval  needed; private-key gives it" in approving.lines
        chain.approved.add(done.json["compose_hash"])
        chain.devices.add(on_chain.device_id)
        assert needed(plan(run, "--json", *rpc, env=NEW)) is False
    assert not [request for request in cloud.requests if request.method == "POST"]


def test_a_hash_that_cannot_be_told_is_asked_of_nobody(run: Command, cloud: Cloud, on_chain: Cvm) -> None:
    def lie(request: Request, answer: Answer) -> Answer:
        if request.path == "/cvms/my-app":
            return Answer({**answer.body, "compose_hash": "ab" * 32})
        return answer

    cloud.tamper = lie
    done = plan(run, "--json", env=NEW)
    assert (done.code, needed(done), done.json["compose_hash"]) == (0, "", "")
    assert not [request for request in cloud.requests if request.method == "POST"]
