"""Stories of the whole command against a real chain: new names, their approval, and the guest that has them.

The simulator checks each transaction on that chain too, before it takes the update.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.wire import Answer, Request
from tests.anvil.anvil import ETHER, WELL_KNOWN_KMS, Chain
from tests.anvil.meddler import DroppedError, Forward, Meddle, Meddler, result
from tests.support.command import ENTRYPOINT
from tests.support.step import Done, Step, read_outputs

SECRET = "a-value-nobody-may-see"
NAMES = ["OLD", "NEW"]
GWEI = 10**9


@dataclass(slots=True)
class App:
    """An app with its contract and its owner's key, its CVM, and the step that updates it."""

    chain: Chain
    cvm: Cvm
    step: Step
    owner: Any
    contract: str
    rpc_url: str

    @property
    def key(self) -> str:
        return "0x" + str(self.owner.key.hex()).removeprefix("0x")

    def update(self, **inputs: Any) -> Done:
        """A step that brings a new name, and has the owner's key; nobody may ever see that."""
        given = {"env": f"OLD=2\nNEW={SECRET}", "rpc_url": self.rpc_url, "private_key": self.key, **inputs}
        done = self.step(**given)
        assert {self.key, self.key[2:]} <= {*done.masks} or given["private_key"] != self.key
        everything = done.shown + done.output_file + done.summary
        assert SECRET not in everything
        assert self.key[2:] not in everything
        return done

    @property
    def new_hash(self) -> str:
        return self.cvm.hash_with(NAMES)

    @property
    def sent(self) -> int:
        return self.chain.sent_by(self.owner.address)

    def allows(self, compose_hash: str) -> bool:
        return bool(
            self.chain.call(self.contract, "allowedComposeHashes(bytes32)", bytes.fromhex(compose_hash))
        )

    def approve(self, compose_hash: str) -> None:
        self.chain.send(self.contract, "approveBehindTheBack(bytes32)", bytes.fromhex(compose_hash))


@pytest.fixture
def make(chain: Chain, cloud: Cloud, step: Step) -> Callable[..., App]:
    """Makes the app: its present app-compose is approved, and it runs on any device."""

    def make(owned_by: str | None = None, wei: int = ETHER) -> App:
        owner = chain.wallet(wei)
        contract = chain.deploy("App", owned_by or owner.address)
        kms = cloud.add_kms("base-1", 8453, WELL_KNOWN_KMS[8453])
        cvm = cloud.add_cvm("my-app", app_id=contract[2:].lower(), kms=kms, environment={"OLD": "1"})
        cloud.rpc_urls[8453] = chain.url
        chain.place_kms(kms.root_public_key, apps=[contract])
        chain.send(contract, "setAllowAnyDevice(bool)", True)
        app = App(chain, cvm, step, owner, contract, chain.url)
        app.approve(cvm.compose_hash)
        return app

    return make


@pytest.fixture
def app(make: Callable[..., App]) -> App:
    return make()


def problem(done: Done) -> str:
    (error,) = done.annotations("error")
    return error.data


def only(method: str, meddle: Meddle) -> Meddle:
    return lambda name, params, forward: meddle(name, params, forward) if name == method else forward()


def times(count: int, meddle: Meddle) -> Meddle:
    """Meddles so many times, and then no more."""
    left = iter(range(count))
    return lambda name, params, forward: (
        meddle(name, params, forward) if next(left, None) is not None else forward()
    )


# -- signing here --------------------------------------------------------------------------------


def test_new_names_are_approved_and_delivered(app: App) -> None:
    done = app.update(app_id=app.contract, require_trust="chain")
    assert done.code == 0, done.log
    assert app.cvm.environment == {"OLD": "2", "NEW": SECRET}
    assert app.allows(app.new_hash)
    assert app.sent == 1
    outputs = done.outputs
    assert outputs["status"] == "running"
    assert outputs["trust"] == "chain"
    assert outputs["compose-hash"] == app.new_hash
    transaction = app.chain.rpc("eth_getTransactionByHash", outputs["transaction-hash"])
    assert transaction["input"] == f"0xdfc77223{app.new_hash}"
    assert int(transaction["value"], 16) == 0
    assert f"basescan.org/tx/{outputs['transaction-hash']}" in done.log
    assert "Sending addComposeHash" in done.log


def test_what_is_approved_is_not_sent_again(app: App) -> None:
    assert app.update().code == 0
    assert app.update(env="OLD=3", allow_removal="true").outputs["transaction-hash"] == "already-registered"
    done = app.update(private_key=None)
    assert done.code == 0, done.log
    assert done.outputs["transaction-hash"] == "already-registered"
    assert app.cvm.environment == {"OLD": "2", "NEW": SECRET}
    assert app.sent == 1


def test_the_same_names_ask_the_contract_for_nothing(app: App) -> None:
    done = app.update(env="OLD=3")
    assert done.code == 0, done.log
    assert app.sent == 0
    assert "transaction-hash" not in done.outputs


def test_a_device_is_added_only_where_it_is_named(app: App) -> None:
    app.chain.send(app.contract, "setAllowAnyDevice(bool)", False)
    done = app.update(allow_device="ef" * 32)
    assert done.code == 7
    assert app.cvm.device_id in problem(done)
    assert "allow-device" in problem(done)
    assert app.sent == 0
    done = app.update(allow_device=f"0x{app.cvm.device_id}")
    assert done.code == 0, done.log
    assert app.sent == 2
    assert app.chain.call(app.contract, "allowedDeviceIds(bytes32)", bytes.fromhex(app.cvm.device_id))
    transaction = app.chain.rpc("eth_getTransactionByHash", done.outputs["transaction-hash"])
    assert transaction["input"].startswith("0xdfc77223")


def test_replicas_at_once_take_one_transaction(app: App, cloud: Cloud) -> None:
    for number in (2, 3):
        replica = cloud.add_cvm(
            f"my-app-{number}", app_id=app.cvm.app_id, kms=app.cvm.kms, environment={"OLD": "1"}
        )
        replica.app_compose |= {"name": "my-app"}
    done = app.update(cvm=None, app=app.contract, max_parallel="3")
    assert done.code == 0, done.log
    assert app.sent == 1
    assert [cvm.environment for cvm in cloud.cvms] == [{"OLD": "2", "NEW": SECRET}] * 3


def test_a_key_of_somebody_else_is_refused(app: App) -> None:
    real, app.owner = app.owner.address.lower(), app.chain.wallet()
    done = app.update()
    assert done.code == 2
    assert real in problem(done)
    assert app.sent == 0
    assert done.outputs["compose-hash"] == app.new_hash
    assert done.outputs["status"] == "failed"


def test_an_owner_that_cannot_pay_is_told_how_much_it_takes(make: Callable[..., App]) -> None:
    app = make(wei=1000)
    done = app.update()
    assert done.code == 7
    assert "0.000000001 ETH" in problem(done)
    assert app.sent == 0


def test_an_api_that_asks_for_another_compose_file_gets_no_signature(app: App, cloud: Cloud) -> None:
    evil = "66" * 32

    def ask_for_evil(request: Request, answer: Answer) -> Answer:
        return replace(answer, body=json.loads(json.dumps(answer.body).replace(app.new_hash, evil)))

    cloud.tamper = ask_for_evil
    done = app.update()
    assert done.code == 3
    assert evil in problem(done)
    assert app.new_hash in problem(done)
    assert app.sent == 0
    assert not app.allows(evil)
    assert "calldata" not in done.outputs

    # Whoever knows what it is of can still say so.
    assert app.update(compose_hash=evil).code == 5  # the simulator itself has never heard of it
    assert app.allows(evil)


def test_a_compose_file_that_the_api_made_up_whole_gets_no_signature(app: App) -> None:
    app.cvm.app_compose |= {"docker_compose_file": "services: {evil: {image: evil}}\n"}
    done = app.update()
    assert done.code == 3
    assert "is not approved on chain" in problem(done)
    assert app.sent == 0


# -- a chain that is slow, an RPC that is bad ----------------------------------------------------


def test_a_stuck_transaction_is_named_and_the_next_run_goes_on(app: App) -> None:
    app.chain.automine(False)
    done = app.update(wait_timeout="1")
    assert done.code == 7
    stuck = done.outputs["transaction-hash"]
    assert stuck in problem(done)
    assert "run again" in problem(done)
    assert "Waiting for one confirmation" in done.log
    app.chain.mine()
    app.chain.automine(True)
    done = app.update()
    assert done.code == 0, done.log
    assert done.outputs["transaction-hash"] == "already-registered"
    assert app.sent == 1


def test_an_answer_dropped_after_sending_is_not_sent_twice(app: App) -> None:
    def drop_the_answer(name: str, params: list[Any], forward: Forward) -> Any:
        forward()
        raise DroppedError

    with Meddler(app.chain.url, only("eth_sendRawTransaction", drop_the_answer)) as rpc:
        app.rpc_url = rpc.url
        done = app.update()
        assert rpc.seen.count("eth_sendRawTransaction") == 1
    assert done.code == 0, done.log
    assert app.sent == 1


def test_an_rpc_that_vanishes_after_the_signature_leaves_the_hash(app: App) -> None:
    gone = [False]

    def vanish(name: str, params: list[Any], forward: Forward) -> Any:
        gone[0] |= name == "eth_sendRawTransaction"
        if gone[0]:
            raise DroppedError
        return forward()

    with Meddler(app.chain.url, vanish) as rpc:
        app.rpc_url = rpc.url
        done = app.update(wait_timeout="1")
    assert done.code == 6
    assert done.outputs["transaction-hash"] in problem(done)
    assert app.sent == 0


def test_a_reverted_transaction_says_so(app: App) -> None:
    def freeze_first(name: str, params: list[Any], forward: Forward) -> Any:
        app.chain.send(app.contract, "freeze()")
        return forward()

    with Meddler(app.chain.url, only("eth_sendRawTransaction", freeze_first)) as rpc:
        app.rpc_url = rpc.url
        done = app.update()
    assert done.code == 7
    assert "reverted" in problem(done)
    assert done.outputs["transaction-hash"] in problem(done)
    assert app.cvm.environment == {"OLD": "1"}


def test_a_nonce_taken_in_between_says_so(app: App) -> None:
    def take(name: str, params: list[Any], forward: Forward) -> Any:
        if not app.sent:
            spend = {"chainId": 8453, "nonce": 0, "to": app.chain.funder, "value": 1, "gas": 21_000}
            signed = app.owner.sign_transaction({**spend, "gasPrice": 10 * GWEI})
            app.chain.rpc("eth_sendRawTransaction", "0x" + signed.raw_transaction.hex())
        return forward()

    with Meddler(app.chain.url, only("eth_sendRawTransaction", take)) as rpc:
        app.rpc_url = rpc.url
        done = app.update()
    assert done.code == 7
    assert "replaced" in problem(done)
    assert done.outputs["transaction-hash"] in problem(done)
    app.rpc_url = app.chain.url
    assert app.update().code == 0
    assert app.sent == 2


def test_a_transaction_replaced_from_a_wallet_says_so(app: App) -> None:
    def replace_it(name: str, params: list[Any], forward: Forward) -> Any:
        answer = forward()
        app.chain.rpc("anvil_dropTransaction", answer["result"])
        spend = {"chainId": 8453, "nonce": 0, "to": app.chain.funder, "value": 1, "gas": 21_000}
        signed = app.owner.sign_transaction({**spend, "gasPrice": 50 * GWEI})
        app.chain.rpc("eth_sendRawTransaction", "0x" + signed.raw_transaction.hex())
        app.chain.mine()
        return answer

    app.chain.automine(False)
    with Meddler(app.chain.url, only("eth_sendRawTransaction", times(1, replace_it))) as rpc:
        app.rpc_url = rpc.url
        done = app.update()
    assert done.code == 7
    assert "replaced" in problem(done)
    assert done.outputs["transaction-hash"] in problem(done)
    assert app.sent == 1
    assert not app.allows(app.new_hash)


def test_an_rpc_that_answers_late_is_not_sent_to_twice(app: App) -> None:
    over = threading.Event()

    def late(name: str, params: list[Any], forward: Forward) -> Any:
        answer = forward()
        over.wait(10)
        return answer

    with Meddler(app.chain.url, only("eth_sendRawTransaction", late)) as rpc:
        app.rpc_url = rpc.url
        done = app.update(timeout="1")
        over.set()
        assert rpc.seen.count("eth_sendRawTransaction") == 1
    assert done.code == 0, done.log
    assert app.sent == 1


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        (only("eth_maxPriorityFeePerGas", lambda *_: result(hex(1000 * GWEI))), 7),
        (only("eth_estimateGas", lambda *_: result(hex(20_000_000))), 7),
        (only("eth_getBalance", lambda *_: result(None)), 6),
        (only("eth_getTransactionCount", lambda *_: result("many")), 6),
    ],
    ids=["fee", "gas", "balance", "nonce"],
)
def test_an_rpc_that_lies_about_the_price_gets_no_signature(app: App, lie: Meddle, code: int) -> None:
    with Meddler(app.chain.url, lie) as rpc:
        app.rpc_url = rpc.url
        done = app.update()
    assert done.code == code
    assert problem(done)
    assert app.sent == 0
    assert "transaction-hash" not in done.outputs


def test_an_interrupt_while_a_transaction_waits_tells_its_hash(app: App) -> None:
    app.chain.automine(False)
    inputs = {"env": f"OLD=2\nNEW={SECRET}", "rpc_url": app.rpc_url, "private_key": app.key}
    log = ""
    with subprocess.Popen(
        [sys.executable, "-IB", str(ENTRYPOINT)],
        cwd=app.step.workspace,
        env=app.step.variables(inputs),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as command:
        assert command.stdout
        for line in command.stdout:
            log += line
            if "Waiting for one confirmation" in line:
                command.send_signal(signal.SIGTERM)
    assert command.returncode == 130, log
    transaction = read_outputs(app.step.output.read_text())["transaction-hash"]
    assert f"interrupted: transaction {transaction}" in log
    assert "before anything was sent" not in log
    assert app.key not in log.replace(f"::add-mask::{app.key}", "")


# -- approving elsewhere -------------------------------------------------------------------------


def test_preparing_signs_nothing_whoever_gives_a_key(app: App) -> None:
    done = app.update(prepare_only="true")
    assert done.code == 0, done.log
    assert done.outputs["status"] == "precondition_required"
    assert app.sent == 0
    assert not app.allows(app.new_hash)


def test_a_safe_approves_and_another_run_commits(make: Callable[..., App], chain: Chain) -> None:
    keeper = chain.funder
    safe = chain.deploy("Safe", keeper)
    app = make(owned_by=safe)
    chain.send(app.contract, "setAllowAnyDevice(bool)", False)

    done = app.update()
    assert done.code == 7
    assert "Safe" in problem(done)
    assert "prepare-only" in problem(done)

    prepared = app.update(prepare_only="true", private_key=None, allow_device=app.cvm.device_id)
    assert prepared.code == 0, prepared.log
    batch = json.loads(prepared.outputs["safe-transaction"])
    assert batch["chainId"] == "8453"
    assert [call["contractMethod"]["name"] for call in batch["transactions"]] == [
        "addDevice",
        "addComposeHash",
    ]

    names = ("encrypted-env", "env-keys", "compose-hash", "prepared-digest")
    given: dict[str, Any] = {name.replace("-", "_"): prepared.outputs[name] for name in names}
    given |= {"env": None, "private_key": None}
    early = app.update(**given)
    assert early.code == 7
    assert "not approved" in problem(early)

    for call in batch["transactions"]:
        arguments = (call["to"], int(call["value"]), bytes.fromhex(call["data"][2:]))
        chain.send(safe, "execute(address,uint256,bytes)", *arguments)
    block = chain.rpc("eth_getBlockByNumber", "latest", False)
    (transaction,) = block["transactions"]

    done = app.update(**given, transaction_hash=transaction)
    assert done.code == 0, done.log
    assert app.cvm.environment == {"OLD": "2", "NEW": SECRET}
    assert app.cvm.sealed == prepared.outputs["encrypted-env"]
    assert done.outputs["transaction-hash"] == transaction


@contextmanager
def another_user(app: App, path: Path) -> Iterator[None]:
    """As somebody else, who may read what the first half wrote, and no more; as root it is another uid."""
    temporary = Path(tempfile.gettempdir())
    for folder in (app.step.workspace, *app.step.workspace.parents):
        if temporary in folder.parents:
            folder.chmod(folder.stat().st_mode | 0o077)
    before = os.geteuid()
    if before == 0:
        os.seteuid(12345)
    else:
        path.chmod(0o444)
    try:
        assert not os.access(path, os.W_OK, effective_ids=True)
        yield
    finally:
        os.seteuid(before)


COMPOSE = f"services:\n  web:\n    image: nginx@sha256:{'ab' * 32}\n    environment:\n      NEW: ${{NEW}}\n"


def test_a_compose_file_and_secrets_are_approved_at_once(app: App) -> None:
    app.step.write("docker-compose.yml", COMPOSE)
    expected = app.cvm.hash_with(["OLD", "NEW"], docker_compose_file=COMPOSE)
    done = app.update(compose_file="docker-compose.yml")
    assert done.code == 0, done.log
    assert (app.sent, app.allows(expected)) == (1, True)
    assert app.cvm.compose_hash == expected
    assert app.cvm.environment == {"OLD": "2", "NEW": SECRET}


def test_a_compose_file_goes_through_both_halves_as_one_file(make: Callable[..., App], chain: Chain) -> None:
    safe = chain.deploy("Safe", chain.funder)
    app = make(owned_by=safe)
    app.step.write("docker-compose.yml", COMPOSE)
    prepared = app.update(
        compose_file="docker-compose.yml",
        prepare_only="true",
        prepared_file="prepared.json",
        private_key=None,
    )
    assert prepared.outputs["status"] == "precondition_required", prepared.log
    path = app.step.workspace / "prepared.json"
    assert path.stat().st_mode & 0o777 == 0o644
    given: dict[str, Any] = {
        "prepared_file": "prepared.json",
        "prepared_digest": prepared.outputs["prepared-digest"],
        "env": None,
        "private_key": None,
    }
    for changed in ({"docker_compose_file": COMPOSE + "# more\n"}, {"encrypted_env": "ab" * 70}):
        app.step.write("changed.json", json.dumps({**json.loads(path.read_text()), **changed}))
        assert app.update(**{**given, "prepared_file": "changed.json"}).code == 3
    assert app.update(**given).code == 7
    for call in json.loads(prepared.outputs["safe-transaction"])["transactions"]:
        arguments = (call["to"], int(call["value"]), bytes.fromhex(call["data"][2:]))
        chain.send(safe, "execute(address,uint256,bytes)", *arguments)
    with another_user(app, path):
        done = app.update(**given)
    assert done.code == 0, done.log
    assert app.cvm.compose_hash == prepared.outputs["compose-hash"]
    assert app.cvm.app_compose["docker_compose_file"] == COMPOSE
    assert app.cvm.environment == {"OLD": "2", "NEW": SECRET}


def test_a_transaction_that_approves_something_else_is_not_taken(app: App) -> None:
    prepared = app.update(prepare_only="true")
    names = ("encrypted-env", "env-keys", "compose-hash", "prepared-digest")
    given = {name.replace("-", "_"): prepared.outputs[name] for name in names}
    app.approve(app.new_hash)
    app.chain.send(app.contract, "setAllowAnyDevice(bool)", True)
    unrelated = app.chain.rpc("eth_getBlockByNumber", "latest", False)["transactions"][0]
    done = app.update(**given, env=None, transaction_hash=unrelated)
    assert done.code == 5
    assert "467" in problem(done)
    assert app.cvm.environment == {"OLD": "1"}
    # The contract allows it, so it can be had without naming a transaction.
    assert app.update(**given, env=None).code == 0
