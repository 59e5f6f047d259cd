"""What is read from real contracts, as Solidity's compiler has them answer."""

from __future__ import annotations

import json
import secrets

import pytest
from btclib_secp256k1 import keys

from phala_secrets.chain import calldata, networks, register, rpc
from phala_secrets.errors import AnswerError
from tests.anvil.anvil import WELL_KNOWN_KMS, Chain, call_of
from tests.anvil.driver import Driver
from tests.anvil.meddler import Meddler, result

HASH, OTHER = "ab" * 32, "cd" * 32


def test_the_kms_root_is_read_from_the_well_known_contract(chain: Chain) -> None:
    secret = secrets.token_bytes(32)
    compressed, uncompressed = (keys.pubkey_from_prvkey(secret, compressed=short) for short in (True, False))
    app, stranger = chain.deploy("App", chain.funder), chain.deploy("App", chain.funder)
    driver = Driver(chain.url)
    assert driver.ask(rpc.chain_id()) == 8453
    for root in (compressed, uncompressed):
        kms = chain.place_kms(root.hex(), apps=[app])
        assert kms == WELL_KNOWN_KMS[8453] == networks.WELL_KNOWN_KMS[8453]
        assert driver.ask(rpc.kms_root(kms)) == compressed.hex()
        assert driver.ask(rpc.registered_app(kms, app)) is True
        assert driver.ask(rpc.registered_app(kms, stranger.removeprefix("0x").upper())) is False


def test_the_os_images_that_a_kms_allows_are_read(chain: Chain) -> None:
    kms = chain.place_kms("", apps=[])
    chain.send(kms, "addOsImage(bytes32)", bytes.fromhex(HASH))
    driver = Driver(chain.url)
    assert [driver.ask(rpc.os_image_allowed(kms, image)) for image in (HASH, OTHER)] == [True, False]


def test_a_kms_without_a_root_proves_nothing(chain: Chain) -> None:
    kms = chain.place_kms("", apps=[])
    with pytest.raises(AnswerError, match="k256Pubkey is not a secp256k1 public key"):
        Driver(chain.url).ask(rpc.kms_root(kms))


def test_an_address_without_a_contract_is_said_to_be_one(chain: Chain) -> None:
    with pytest.raises(AnswerError, match="no contract at this address"):
        Driver(chain.url).ask(rpc.kms_root("0x" + "11" * 20))


@pytest.mark.parametrize(
    "words", [b"\x01", bytes(32), bytes(128), b"\xff" * 256, bytes(31) + b"\x80" + bytes(300)]
)
def test_a_contract_that_answers_garbage_is_no_kms(chain: Chain, words: bytes) -> None:
    with pytest.raises(AnswerError):
        Driver(chain.url).ask(rpc.kms_root(chain.deploy("Parrot", words)))


def test_an_app_is_read_as_it_is(chain: Chain) -> None:
    owner = chain.wallet()
    app = chain.deploy("App", owner.address)
    driver = Driver(chain.url)

    def today() -> tuple[bool, bool, bool]:
        return (
            driver.ask(rpc.compose_hash_allowed(app, HASH)),
            driver.ask(rpc.device_allowed(app, OTHER)),
            driver.ask(rpc.any_device_allowed(app)),
        )

    assert driver.ask(rpc.owner(app)) == owner.address.lower()
    assert today() == (False, False, False)
    chain.send(app, "approveBehindTheBack(bytes32)", bytes.fromhex(HASH))
    chain.send(app, "setAllowAnyDevice(bool)", True)
    assert today() == (True, False, True)
    assert driver.ask(rpc.code(owner.address)) == b""
    assert len(driver.ask(rpc.code(app))) > 100


def test_anyone_may_ask_what_is_approved_without_a_key(chain: Chain) -> None:
    app = chain.deploy("App", chain.funder)
    driver = Driver(chain.url)

    def approvals(*devices: str) -> register.Approvals:
        return driver.run(register.approvals(chain_id=8453, app=app, compose_hash=HASH, devices=devices))

    assert approvals() == register.Approvals(compose_hash=False)
    assert approvals(OTHER) == register.Approvals(compose_hash=False, missing_devices=(OTHER,))
    chain.send(app, "approveBehindTheBack(bytes32)", bytes.fromhex(HASH))
    chain.send(app, "setAllowAnyDevice(bool)", True)
    assert approvals(OTHER) == register.Approvals(compose_hash=True)


def test_what_an_rpc_refuses_is_quoted_in_one_harmless_line(chain: Chain) -> None:
    evil = {"code": -1, "message": '"\n::error::forged\x1b[31m' + "x" * 5000}
    with (
        Meddler(chain.url, lambda *_: {"jsonrpc": "2.0", "id": 1, "error": evil}) as liar,
        pytest.raises(AnswerError) as caught,
    ):
        Driver(liar.url).ask(rpc.chain_id())
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "answer", [b"<html>", [], {}, {"id": 2, "result": "0x1"}, result(None), result("0x")]
)
def test_garbage_for_an_answer_is_never_a_chain(chain: Chain, answer: object) -> None:
    with Meddler(chain.url, lambda *_: answer) as liar, pytest.raises(AnswerError):
        Driver(liar.url).ask(rpc.chain_id())


def test_a_safe_can_execute_the_batch_that_it_is_given(chain: Chain) -> None:
    safe = chain.deploy("Safe", chain.funder)
    app = chain.deploy("App", safe)
    batch = json.loads(calldata.safe_transaction(8453, app, compose_hash=HASH, devices=[OTHER]))
    for transaction in batch["transactions"]:
        data = bytes.fromhex(transaction["data"][2:])
        values = [bytes.fromhex(each[2:]) for each in transaction["contractInputsValues"].values()]
        method = transaction["contractMethod"]
        signature = f"{method['name']}({','.join(each['type'] for each in method['inputs'])})"
        assert transaction["data"] == call_of(signature, *values)
        chain.send(safe, "execute(address,uint256,bytes)", transaction["to"], int(transaction["value"]), data)
    assert chain.call(app, "allowedComposeHashes(bytes32)", bytes.fromhex(HASH))
    assert chain.call(app, "allowedDeviceIds(bytes32)", bytes.fromhex(OTHER))
