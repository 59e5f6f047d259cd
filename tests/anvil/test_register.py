"""Approving as the owner, on a real chain, with an RPC that is honest, or is not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from phala_secrets.chain.owner import Sender
from phala_secrets.chain.register import ALREADY_REGISTERED, Registered, Sent, register
from phala_secrets.errors import (
    AnswerError,
    ApprovalRequiredError,
    InputError,
    PhalaSecretsError,
    TransportError,
)
from phala_secrets.flow import Pause
from tests.anvil.anvil import ETHER, Chain
from tests.anvil.driver import Driver
from tests.anvil.meddler import DroppedError, Forward, Meddle, Meddler, result

pytestmark = pytest.mark.usefixtures("clock")

HASH, DEVICE = "ab" * 32, "cd" * 32
GWEI = 10**9


class Owner:
    """An app, its owner's wallet, and a driver to register with."""

    def __init__(self, chain: Chain, *, wei: int = ETHER, contract: str = "App") -> None:
        self.chain = chain
        self.account = chain.wallet(wei)
        self.app = chain.deploy(contract, self.account.address)
        self.driver = Driver(chain.url)

    def registers(self, driver: Driver | None = None, **options: Any) -> Registered:
        self.driver = driver or self.driver
        sender = Sender(self.account.key.hex())
        asked = {"chain_id": 8453, "app": self.app, "compose_hash": HASH, **options}
        return self.driver.run(register(sender, **asked))

    def fails(self, kind: type[PhalaSecretsError], driver: Driver | None = None, **options: Any) -> str:
        with pytest.raises(kind) as caught:
            self.registers(driver, **options)
        assert type(caught.value) is kind
        assert caught.value.hint or kind is AnswerError
        assert self.account.key.hex() not in f"{caught.value} {caught.value.hint}"
        return str(caught.value)

    @property
    def sent(self) -> int:
        return self.chain.sent_by(self.account.address)

    def approved(self) -> bool:
        return bool(self.chain.call(self.app, "allowedComposeHashes(bytes32)", bytes.fromhex(HASH)))

    def device_allowed(self) -> bool:
        return bool(self.chain.call(self.app, "allowedDeviceIds(bytes32)", bytes.fromhex(DEVICE)))


@pytest.fixture
def owner(chain: Chain) -> Owner:
    return Owner(chain)


def only(method: str, meddle: Meddle) -> Meddle:
    """Meddles with one method, and passes the others on."""
    return lambda name, params, forward: meddle(name, params, forward) if name == method else forward()


def times(count: int, meddle: Meddle) -> Meddle:
    """Meddles so many times, and then no more."""
    left = [count]

    def first(name: str, params: list[Any], forward: Forward) -> Any:
        left[0] -= 1
        return meddle(name, params, forward) if left[0] >= 0 else forward()

    return first


def drop(name: str, params: list[Any], forward: Forward) -> Any:
    raise DroppedError


def drop_the_answer(name: str, params: list[Any], forward: Forward) -> Any:
    forward()
    raise DroppedError


def always(value: Any) -> Meddle:
    return lambda name, params, forward: result(value)


def refuse(message: str) -> Meddle:
    return lambda name, params, forward: {
        "jsonrpc": "2.0",
        "id": 1,
        "error": {"code": -32000, "message": message},
    }


# -- an honest RPC ------------------------------------------------------------------------------


def test_a_new_hash_is_approved_with_one_transaction(owner: Owner) -> None:
    registered = owner.registers()
    assert owner.approved()
    assert owner.sent == 1
    assert registered.sent == (Sent("addComposeHash", registered.transaction_hash),)
    transaction = owner.chain.rpc("eth_getTransactionByHash", registered.transaction_hash)
    assert int(transaction["value"], 16) == 0
    assert int(transaction["chainId"], 16) == 8453
    assert transaction["type"] == "0x2"
    assert owner.driver.hashes == [registered.transaction_hash]
    assert registered.transaction_hash in owner.driver.pauses[0].message


def test_what_is_approved_already_is_not_sent_again(owner: Owner) -> None:
    first = owner.registers()
    assert first.transaction_hash != ALREADY_REGISTERED
    assert owner.registers() == Registered(ALREADY_REGISTERED, ())
    assert owner.sent == 1


def test_an_approval_that_exists_is_enough_for_any_key(owner: Owner, chain: Chain) -> None:
    owner.registers()
    owner.account = chain.wallet(0)
    assert owner.registers() == Registered(ALREADY_REGISTERED, ())


def test_a_device_is_added_only_if_it_is_named(owner: Owner) -> None:
    message = owner.fails(ApprovalRequiredError, devices=[DEVICE], allow_device=["ef" * 32])
    assert DEVICE in message
    assert owner.sent == 0
    registered = owner.registers(devices=[DEVICE], allow_device=["ef" * 32, "0x" + DEVICE.upper()])
    assert [each.call for each in registered.sent] == ["addDevice", "addComposeHash"]
    assert registered.transaction_hash == registered.sent[1].transaction_hash
    assert owner.device_allowed()
    assert owner.approved()
    assert owner.sent == 2


def test_a_device_that_is_allowed_needs_no_naming(owner: Owner, chain: Chain) -> None:
    chain.send(owner.app, "setAllowAnyDevice(bool)", True)
    registered = owner.registers(devices=[DEVICE])
    assert [each.call for each in registered.sent] == ["addComposeHash"]
    assert not owner.device_allowed()


def test_where_only_the_device_is_missing_the_hash_counts_as_there(owner: Owner) -> None:
    owner.registers()
    registered = owner.registers(devices=[DEVICE], allow_device=[DEVICE])
    assert registered.transaction_hash == ALREADY_REGISTERED
    assert [each.call for each in registered.sent] == ["addDevice"]


def test_an_rpc_of_another_chain_is_refused(owner: Owner) -> None:
    message = owner.fails(InputError, chain_id=1)
    assert "Base (chain 8453)" in message
    assert "Ethereum (chain 1)" in message
    assert owner.sent == 0


def test_a_key_that_does_not_own_the_app_is_refused(owner: Owner, chain: Chain) -> None:
    real = owner.account.address.lower()
    owner.account = chain.wallet()
    message = owner.fails(InputError)
    assert real in message
    assert owner.account.address.lower() in message
    assert owner.sent == 0


def test_an_owner_that_is_a_contract_is_sent_to_prepare_only(owner: Owner, chain: Chain) -> None:
    safe = chain.deploy("Safe", owner.account.address)
    owner.app = chain.deploy("App", safe)
    message = owner.fails(ApprovalRequiredError)
    assert safe in message
    assert "contract" in message
    assert owner.sent == 0


def test_a_balance_too_small_for_all_of_it_stops_before_the_first(chain: Chain) -> None:
    chain.rpc("anvil_setNextBlockBaseFeePerGas", hex(GWEI))
    owner = Owner(chain, wei=300_000 * GWEI)  # enough for one of the two, not for both
    message = owner.fails(ApprovalRequiredError, devices=[DEVICE], allow_device=[DEVICE])
    assert "0.0003 ETH" in message
    assert owner.sent == 0
    chain.send(owner.app, "setAllowAnyDevice(bool)", True)
    owner.registers(devices=[DEVICE])
    assert owner.sent == 1


def test_no_contract_at_the_app_id_is_said_so(owner: Owner) -> None:
    owner.app = "0x" + "22" * 20
    assert "no contract" in owner.fails(AnswerError)


def test_a_chain_without_base_fees_gets_a_legacy_transaction() -> None:
    with Chain(8453, "--hardfork", "berlin") as old:
        owner = Owner(old)
        registered = owner.registers()
        assert old.rpc("eth_getTransactionByHash", registered.transaction_hash)["type"] == "0x0"
        assert owner.approved()


# -- a slow chain -------------------------------------------------------------------------------


def mined_after(chain: Chain, polls: int) -> Callable[[Pause], None]:
    left = [polls]

    def on_pause(step: Pause) -> None:
        if step.seconds:
            left[0] -= 1
            if left[0] == 0:
                chain.mine()

    return on_pause


def test_confirmation_is_waited_for_with_progress(owner: Owner, chain: Chain) -> None:
    chain.automine(False)
    driver = Driver(chain.url, on_pause=mined_after(chain, 4))
    registered = owner.registers(driver)
    assert owner.approved()
    assert owner.sent == 1
    waits = [each for each in driver.pauses if each.seconds]
    assert len(waits) == 4
    assert all(each.transaction == registered.transaction_hash for each in waits)


def test_a_stuck_transaction_is_named_and_never_doubled(owner: Owner, chain: Chain) -> None:
    chain.automine(False)
    message = owner.fails(ApprovalRequiredError, patience=60)
    (stuck,) = owner.driver.hashes
    assert stuck in message
    assert "60 s" in message
    assert owner.driver.seconds == 60

    # The next run waits for it, and then finds the approval there.
    driver = Driver(chain.url, on_pause=mined_after(chain, 2))
    assert owner.registers(driver) == Registered(ALREADY_REGISTERED, ())
    assert driver.hashes == []
    assert owner.sent == 1


def test_nothing_is_signed_behind_a_transaction_that_never_moves(owner: Owner, chain: Chain) -> None:
    chain.automine(False)
    owner.fails(ApprovalRequiredError, patience=9)
    driver = Driver(chain.url)
    message = owner.fails(ApprovalRequiredError, driver, patience=9)
    assert "1 earlier transaction" in message
    assert "nonce 0" in message
    assert driver.hashes == []


def test_a_reverted_transaction_is_an_error_with_its_hash(owner: Owner, chain: Chain) -> None:
    chain.automine(False)

    def freeze_first(step: Pause) -> None:
        if step.seconds:
            chain.send(owner.app, "freeze()", gas_price=500 * GWEI)
            chain.mine()

    driver = Driver(chain.url, on_pause=freeze_first)
    message = owner.fails(ApprovalRequiredError, driver)
    assert "reverted" in message
    assert driver.hashes[0] in message
    assert owner.sent == 1


def replace(owner: Owner, *, with_approval: bool) -> Callable[[Pause], None]:
    """The owner's wallet sends something else under the same nonce, while ours waits."""
    chain = owner.chain
    done: list[bool] = []

    def on_pause(step: Pause) -> None:
        if not step.seconds or done:
            return
        done.append(True)
        chain.rpc("anvil_dropTransaction", step.transaction)
        signed = owner.account.sign_transaction(
            {
                "chainId": 8453,
                "nonce": 0,
                "to": chain.funder,
                "value": 1,
                "gas": 21_000,
                "maxFeePerGas": 100 * GWEI,
                "maxPriorityFeePerGas": 50 * GWEI,
            }
        )
        chain.rpc("eth_sendRawTransaction", "0x" + signed.raw_transaction.hex())
        if with_approval:
            chain.send(owner.app, "approveBehindTheBack(bytes32)", bytes.fromhex(HASH))
        chain.mine()

    return on_pause


def test_a_replaced_transaction_is_an_error_with_its_hash(owner: Owner, chain: Chain) -> None:
    chain.automine(False)
    driver = Driver(chain.url, on_pause=replace(owner, with_approval=False))
    message = owner.fails(ApprovalRequiredError, driver)
    assert "replaced" in message
    assert driver.hashes[0] in message
    assert len(driver.hashes) == 1
    assert not owner.approved()


def test_a_replaced_transaction_does_not_matter_once_the_hash_is_approved(owner: Owner, chain: Chain) -> None:
    chain.automine(False)
    driver = Driver(chain.url, on_pause=replace(owner, with_approval=True))
    assert owner.registers(driver) == Registered(ALREADY_REGISTERED, ())
    assert len(driver.hashes) == 1


def test_a_nonce_taken_between_signing_and_sending_is_not_signed_over(owner: Owner, chain: Chain) -> None:
    def take(step: Pause) -> None:
        if not step.seconds:
            spend: dict[str, Any] = {
                "chainId": 8453,
                "nonce": 0,
                "to": chain.funder,
                "value": 1,
                "gas": 21_000,
            }
            signed = owner.account.sign_transaction({**spend, "gasPrice": 10 * GWEI})
            chain.rpc("eth_sendRawTransaction", "0x" + signed.raw_transaction.hex())

    driver = Driver(chain.url, on_pause=take)
    message = owner.fails(ApprovalRequiredError, driver)
    assert "took nonce 0" in message
    assert driver.hashes[0] in message
    assert owner.sent == 1
    assert owner.registers(Driver(chain.url)).sent
    assert owner.sent == 2


# -- an RPC that fails --------------------------------------------------------------------------


def test_an_answer_dropped_after_sending_is_not_sent_twice(owner: Owner, chain: Chain) -> None:
    with Meddler(chain.url, only("eth_sendRawTransaction", drop_the_answer)) as rpc:
        driver = Driver(rpc.url)
        registered = owner.registers(driver)
        assert rpc.seen.count("eth_sendRawTransaction") == 1
    assert driver.hashes == [registered.transaction_hash]
    assert owner.approved()
    assert owner.sent == 1


def test_a_request_dropped_on_the_way_is_the_same_bytes_again(owner: Owner, chain: Chain) -> None:
    raws: list[str] = []

    def note(name: str, params: list[Any], forward: Forward) -> Any:
        raws.extend(params)
        if len(raws) < 3:
            raise DroppedError
        return forward()

    with Meddler(chain.url, only("eth_sendRawTransaction", note)) as rpc:
        registered = owner.registers(Driver(rpc.url))
    assert len(raws) == 3
    assert len(set(raws)) == 1
    assert owner.driver.hashes == [registered.transaction_hash]
    assert owner.sent == 1


def test_an_rpc_that_is_late_is_asked_again(owner: Owner, chain: Chain) -> None:
    over = threading.Event()

    def late(name: str, params: list[Any], forward: Forward) -> Any:
        forward()
        over.wait(20)
        raise DroppedError

    with Meddler(chain.url, only("eth_getTransactionReceipt", times(2, late))) as rpc:
        registered = owner.registers(Driver(rpc.url, timeout=1))
        over.set()
    assert owner.driver.hashes == [registered.transaction_hash]
    assert owner.sent == 1


def test_an_rpc_that_vanishes_after_the_signature_leaves_the_hash(owner: Owner, chain: Chain) -> None:
    gone = [False]

    def vanish(name: str, params: list[Any], forward: Forward) -> Any:
        gone[0] |= name == "eth_sendRawTransaction"
        return drop(name, params, forward) if gone[0] else forward()

    with Meddler(chain.url, vanish) as rpc:
        driver = Driver(rpc.url)
        message = owner.fails(TransportError, driver, patience=30)
    assert driver.hashes[0] in message
    assert "30 s" in message
    assert owner.sent == 0


def test_an_rpc_that_fails_before_anything_is_signed_is_just_an_error(owner: Owner, chain: Chain) -> None:
    with Meddler(chain.url, only("eth_estimateGas", drop)) as rpc:
        driver = Driver(rpc.url)
        with pytest.raises(TransportError):
            owner.registers(driver)
    assert driver.hashes == []


def test_an_rpc_that_will_not_take_it_is_quoted(owner: Owner, chain: Chain) -> None:
    with Meddler(chain.url, only("eth_sendRawTransaction", refuse("only paying\ncustomers"))) as rpc:
        driver = Driver(rpc.url)
        message = owner.fails(TransportError, driver)
        assert rpc.seen.count("eth_sendRawTransaction") == 3
    assert '"only paying customers"' in message
    assert driver.hashes[0] in message
    assert owner.sent == 0


def test_an_approval_that_would_revert_is_not_sent(owner: Owner, chain: Chain) -> None:
    chain.send(owner.app, "freeze()")
    driver = Driver(chain.url)
    with pytest.raises(AnswerError, match="eth_estimateGas"):
        owner.registers(driver)
    assert driver.hashes == []


# -- an RPC that lies ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lie",
    [
        only("eth_maxPriorityFeePerGas", always(hex(1000 * GWEI))),
        only("eth_getBlockByNumber", always({"baseFeePerGas": hex(1000 * GWEI)})),
        only("eth_estimateGas", always(hex(20_000_000))),
        only("eth_maxPriorityFeePerGas", always("0x" + "f" * 64)),
    ],
    ids=["tip", "base fee", "gas", "overflow"],
)
def test_absurd_fees_are_refused_before_anything_is_signed(owner: Owner, chain: Chain, lie: Meddle) -> None:
    with Meddler(chain.url, lie) as rpc:
        driver = Driver(rpc.url)
        message = owner.fails(ApprovalRequiredError, driver)
    assert "the limits are" in message
    assert driver.hashes == []


def test_inflated_fees_under_the_cap_cost_no_more_than_the_cap(owner: Owner, chain: Chain) -> None:
    with Meddler(chain.url, only("eth_maxPriorityFeePerGas", always(hex(12 * GWEI)))) as rpc:
        owner.registers(Driver(rpc.url))
    assert ETHER - chain.balance(owner.account.address) < 10**15


def test_a_fee_that_is_high_but_real_is_offered_up_to_the_cap(owner: Owner, chain: Chain) -> None:
    chain.rpc("anvil_setNextBlockBaseFeePerGas", hex(13 * GWEI))
    chain.mine()
    (sent,) = owner.registers().sent
    transaction = chain.rpc("eth_getTransactionByHash", sent.transaction_hash)
    offered = int(transaction["maxFeePerGas"], 16)
    assert 13 * GWEI < offered < 26 * GWEI
    assert offered * int(transaction["gas"], 16) <= 10**15


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("eth_chainId", "8453"),
        ("eth_getTransactionCount", "0x1" + "0" * 16),
        ("eth_estimateGas", "0x0"),
        ("eth_getBalance", None),
        ("eth_getBlockByNumber", None),
        ("eth_getBlockByNumber", {"baseFeePerGas": -1}),
        ("eth_maxPriorityFeePerGas", []),
        ("eth_call", "0x" + "00" * 33),
        ("eth_call", "0x" + "02".rjust(64, "0")),
    ],
)
def test_garbage_before_the_signature_is_refused(
    owner: Owner, chain: Chain, method: str, answer: Any
) -> None:
    with Meddler(chain.url, only(method, always(answer))) as rpc:
        driver = Driver(rpc.url)
        with pytest.raises(AnswerError):
            owner.registers(driver)
    assert driver.hashes == []
    assert owner.sent == 0


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("eth_sendRawTransaction", "0x" + "11" * 32),
        ("eth_sendRawTransaction", None),
        ("eth_getTransactionReceipt", {"status": "0x1"}),
        ("eth_getTransactionReceipt", "mined, trust me"),
    ],
)
def test_garbage_after_the_signature_is_asked_again(
    owner: Owner, chain: Chain, method: str, answer: Any
) -> None:
    with Meddler(chain.url, only(method, times(2, always(answer)))) as rpc:
        registered = owner.registers(Driver(rpc.url))
    assert owner.driver.hashes == [registered.transaction_hash]
    assert owner.sent == 1


def test_a_receipt_of_another_transaction_confirms_nothing(owner: Owner, chain: Chain) -> None:
    receipt = chain.rpc("eth_getTransactionReceipt", Owner(chain).registers().transaction_hash)
    chain.automine(False)
    with Meddler(chain.url, only("eth_getTransactionReceipt", always(receipt))) as rpc:
        message = owner.fails(TransportError, Driver(rpc.url), patience=30)
    assert "receipt of another transaction" in message
    assert owner.driver.hashes[0] in message


def test_an_approval_that_shows_is_enough_where_its_receipt_does_not(owner: Owner, chain: Chain) -> None:
    with Meddler(chain.url, only("eth_getTransactionReceipt", always(None))) as rpc:
        assert owner.registers(Driver(rpc.url), patience=30) == Registered(ALREADY_REGISTERED, ())
    assert owner.sent == 1


def test_success_without_the_event_is_no_success(chain: Chain) -> None:
    owner = Owner(chain, contract="ForgetfulApp")
    message = owner.fails(AnswerError)
    assert "event" in message
    assert owner.driver.hashes[0] in message


def test_success_that_the_contract_does_not_show_is_waited_for_then_refused(
    owner: Owner, chain: Chain
) -> None:
    blind = [True]

    def behind(name: str, params: list[Any], forward: Forward) -> Any:
        return result("0x" + bytes(32).hex()) if blind[0] else forward()

    def selects(name: str, params: list[Any], forward: Forward) -> Any:
        hashes = name == "eth_call" and params[0]["data"].startswith("0x2f6622e5")
        return behind(name, params, forward) if hashes else forward()

    with Meddler(chain.url, selects) as rpc:
        message = owner.fails(AnswerError, Driver(rpc.url), patience=30)
        assert "does not show it" in message

        def catch_up(step: Pause) -> None:
            blind[0] = "show" not in step.message

        driver = Driver(rpc.url, on_pause=catch_up)
        registered = owner.registers(driver)
        assert registered.transaction_hash == driver.hashes[0]
