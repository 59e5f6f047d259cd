"""The chain as data: what is asked, believed and signed. A real one is asked in ``chain/``."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import traceback
from typing import Any

import pytest
import rlp
from btclib_secp256k1 import keys
from eth_abi.abi import encode
from eth_account import Account
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from hexbytes import HexBytes
from hypothesis import given, settings
from hypothesis import strategies as st
from sha3 import keccak_256

from phala_secrets import flow
from phala_secrets.chain import abi, calldata, networks, owner, register, rpc
from phala_secrets.chain.transaction import DEFAULT_MAX_COST, MAX_COST, MAX_GAS, eth
from phala_secrets.errors import (
    AnswerError,
    ApiError,
    ApprovalRequiredError,
    InputError,
    PhalaSecretsError,
    TransportError,
)

pytestmark = pytest.mark.usefixtures("clock")

APP, HASH, DEVICE = "1f" * 20, "ab" * 32, "cd" * 32
KEY = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
OWNER = "0x2c7536e3605d9c16a7a3d7b1898e529396a65c23"
ROOT = keys.pubkey_from_prvkey(bytes(31) + b"\x07", compressed=True)
BYTES = ["bytes"] * 4


def word(value: int) -> str:
    return f"0x{value:064x}"


def answered(request: rpc.Rpc[Any], result: Any) -> Any:
    return request.read({"jsonrpc": "2.0", "id": 1, "result": result})


# -- what is asked ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "signature", "arguments"),
    [
        (rpc.kms_root(APP), "kmsInfo()", ""),
        (rpc.registered_app(APP, "0x" + "ee" * 20), "registeredApps(address)", "00" * 12 + "ee" * 20),
        (rpc.owner(APP), "owner()", ""),
        (rpc.compose_hash_allowed(APP, HASH), "allowedComposeHashes(bytes32)", HASH),
        (rpc.device_allowed(APP, "0x" + DEVICE.upper()), "allowedDeviceIds(bytes32)", DEVICE),
        (rpc.any_device_allowed(APP), "allowAnyDevice()", ""),
    ],
)
def test_views_are_calls_by_the_functions_own_selector(
    request_: rpc.Rpc[Any], signature: str, arguments: str
) -> None:
    selector = keccak_256(signature.encode()).hexdigest()[:8]
    call = {"to": "0x" + APP, "data": "0x" + selector + arguments}
    assert request_.payload(7) == {
        "jsonrpc": "2.0",
        "id": 7,
        "method": "eth_call",
        "params": [call, "latest"],
    }


def test_calldata_and_event_are_by_their_own_names() -> None:
    def selector(signature: str) -> str:
        return f"0x{keccak_256(signature.encode()).hexdigest()}"

    assert calldata.add_compose_hash("0x" + HASH) == selector("addComposeHash(bytes32)")[:10] + HASH
    assert calldata.add_device(DEVICE) == selector("addDevice(bytes32)")[:10] + DEVICE
    assert selector("ComposeHashAdded(bytes32)") == rpc.COMPOSE_HASH_ADDED


@pytest.mark.parametrize("bad", ["", "0x", "ab" * 31, "ab" * 33, "zz" * 32, HASH + "\n0", "０" * 64])
def test_what_is_not_32_bytes_of_hex_is_never_sent(bad: str) -> None:
    for make in (calldata.add_device, calldata.add_compose_hash):
        with pytest.raises(InputError):
            make(bad)


def test_the_well_known_contracts_carry_their_own_checksum() -> None:
    assert set(networks.WELL_KNOWN_KMS) == set(networks.CHAIN_NAMES) == set(networks.EXPLORERS) == {1, 8453}
    for contract in networks.WELL_KNOWN_KMS.values():
        assert abi.checksum_address(contract.lower()) == contract


def test_explorers_are_linked_where_one_is_known() -> None:
    assert networks.address_link(8453, APP) == f"https://basescan.org/address/0x{APP}"
    assert networks.transaction_link(1, "0x" + HASH) == f"https://etherscan.io/tx/0x{HASH}"
    assert networks.transaction_link(31337, HASH) is None
    assert networks.chain_name(8453) == "Base (chain 8453)"
    assert networks.chain_name(31337) == "chain 31337"


# -- what is believed ---------------------------------------------------------------------------


@given(st.tuples(*[st.binary(max_size=100)] * 4))
def test_byte_strings_are_read_as_the_reference_encoder_writes_them(values: tuple[bytes, ...]) -> None:
    assert abi.decode_byte_strings("0x" + encode(BYTES, values).hex(), 4) == values


@given(st.tuples(*[st.binary(max_size=40)] * 4), st.data())
def test_only_the_one_encoding_of_byte_strings_is_read(
    values: tuple[bytes, ...], data: st.DataObject
) -> None:
    """Flip a bit, cut, or append: it is refused, or is how a compiler writes some other content."""
    raw = encode(BYTES, values)
    change = data.draw(st.sampled_from(["flip", "cut", "append"]))
    if change == "cut":
        changed = raw[: data.draw(st.integers(0, len(raw) - 1))]
    elif change == "append":
        changed = raw + data.draw(st.binary(min_size=1, max_size=64))
    else:
        at = data.draw(st.integers(0, len(raw) * 8 - 1))
        changed = (int.from_bytes(raw) ^ 1 << at).to_bytes(len(raw))
    try:
        read = abi.decode_byte_strings("0x" + changed.hex(), 4)
    except AnswerError:
        return
    assert encode(BYTES, read) == changed


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner)))
def test_no_garbage_is_a_root_an_owner_or_an_approval(garbage: Any) -> None:
    for request in (rpc.kms_root(APP), rpc.owner(APP), rpc.compose_hash_allowed(APP, HASH), rpc.chain_id()):
        with pytest.raises(AnswerError):
            answered(request, garbage)


@pytest.mark.parametrize(
    ("request_", "result", "says"),
    [
        (rpc.kms_root(APP), "0x", "no contract"),
        (rpc.kms_root(APP), "0x" + "00" * 128, "invalid offsets"),
        (
            rpc.kms_root(APP),
            "0x" + encode(BYTES, [b"\x02" * 33, b"", b"", b""]).hex()[:-2],
            "invalid lengths",
        ),
        (rpc.kms_root(APP), "0x" + encode(BYTES, [b"", b"", b"", b""]).hex(), "not a secp256k1 public key"),
        (rpc.kms_root(APP), "0x" + encode(BYTES, [b"\x05" * 33, b"", b"", b""]).hex(), "not a secp256k1"),
        (rpc.kms_root(APP), "0x" + encode(BYTES, [ROOT, b"", b"", b""]).hex() + "00", "trailing data"),
        (rpc.kms_root(APP), "0x" + "00" * (1 << 20) + "00", "over 1048576 bytes"),
        (rpc.owner(APP), "0x01" + "00" * 31, "longer than 20 bytes"),
        (rpc.owner(APP), "0x" + "00" * 64, "64 bytes, not 32"),
        (rpc.registered_app(APP, APP), word(2), "neither 0 nor 1"),
        (rpc.registered_app(APP, APP), word(1)[:-1], "not hex data"),
        (rpc.chain_id(), "0x" + "f" * 65, "not a hex number"),
        (rpc.nonce(APP, "latest"), "0x1" + "0" * 16, "not a hex number"),
        (rpc.base_fee(), "0x1", "not a block"),
        (rpc.estimate_gas(APP, APP, "0x"), "0x5207", "below that of any"),
        (rpc.send_raw("0x", "0x" + HASH), "0x" + DEVICE, "hash of another transaction"),
        (rpc.transaction_known("0x" + HASH), {"hash": "0x" + DEVICE}, "another transaction"),
        (rpc.transaction_known("0x" + HASH), {"hash": "0xab"}, "not a 32-byte hash"),
        (rpc.transaction_known("0x" + HASH), [], "no hash"),
    ],
)
def test_each_lie_has_its_own_message(request_: rpc.Rpc[Any], result: Any, says: str) -> None:
    with pytest.raises(AnswerError, match=says) as caught:
        answered(request_, result)
    assert request_.method in str(caught.value)


def test_a_root_is_read_in_either_spelling() -> None:
    for compressed in (True, False):
        root = keys.pubkey_from_prvkey(bytes(31) + b"\x07", compressed=compressed)
        assert answered(rpc.kms_root(APP), "0x" + encode(BYTES, [root, b"x", b"", b""]).hex()) == ROOT.hex()


def receipt(**changes: Any) -> dict[str, Any]:
    log = {"address": "0x" + APP, "topics": [rpc.COMPOSE_HASH_ADDED], "data": "0x" + HASH}
    whole = {"transactionHash": "0x" + HASH, "status": "0x1", "blockNumber": "0x10", "logs": [log]}
    return whole | changes


@pytest.mark.parametrize("indexed", [True, False])
def test_an_event_names_its_subject_indexed_or_not(indexed: bool) -> None:
    topics = [rpc.COMPOSE_HASH_ADDED, "0x" + DEVICE] if indexed else [rpc.COMPOSE_HASH_ADDED]
    log = {"address": "0x" + APP, "topics": topics, "data": "0x" if indexed else "0x" + DEVICE}
    read = answered(rpc.receipt("0x" + HASH), receipt(logs=[log]))
    assert read.logs[0].names(rpc.COMPOSE_HASH_ADDED, DEVICE)
    assert not read.logs[0].names(rpc.COMPOSE_HASH_ADDED, HASH)
    assert (read.succeeded, read.block_number) == (True, 16)


@pytest.mark.parametrize(
    "bad",
    [
        receipt(transactionHash="0x" + DEVICE),
        receipt(status="0x2"),
        receipt(status=1),
        receipt(logs=None),
        receipt(logs=[{}]),
        receipt(logs=[{"address": "0x", "topics": [], "data": "0x"}]),
        receipt(logs=[{"address": "0x" + APP, "topics": ["0x" + HASH] * 5, "data": "0x"}]),
        receipt(logs=[{}] * 1001),
        {},
        "0x",
    ],
)
def test_a_receipt_is_whole_or_none(bad: Any) -> None:
    assert answered(rpc.receipt("0x" + HASH), None) is None
    with pytest.raises(AnswerError):
        answered(rpc.receipt("0x" + HASH), bad)


@given(st.text() | st.none() | st.integers() | st.lists(st.text()))
def test_what_an_rpc_says_is_one_short_printable_line(said: Any) -> None:
    for error in ({"code": -32000, "message": said}, said):
        body = {"jsonrpc": "2.0", "id": 1, "error": error, "result": "0x1"}
        if error is None:
            continue
        with pytest.raises(AnswerError) as caught:
            rpc.chain_id().read(body)
        assert str(caught.value).replace("…", ".").isascii()
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 180


@pytest.mark.parametrize("body", [None, [], "0x1", {}, {"id": 2, "result": "0x1"}, {"id": 1}])
def test_a_response_to_another_request_is_refused(body: Any) -> None:
    with pytest.raises(AnswerError, match="eth_chainId"):
        rpc.chain_id().read(body)


# -- approving elsewhere ------------------------------------------------------------------------


def safe_call(method: str, argument: str, selector: str, value: str) -> dict[str, Any]:
    return {
        "to": abi.checksum_address(APP),
        "value": "0",
        "data": "0x" + selector + value,
        "contractMethod": {
            "inputs": [{"internalType": "bytes32", "name": argument, "type": "bytes32"}],
            "name": method,
            "payable": False,
        },
        "contractInputsValues": {argument: "0x" + value},
    }


def test_the_safe_batch_is_what_the_transaction_builder_imports() -> None:
    text = calldata.safe_transaction(8453, APP, compose_hash=HASH, devices=[DEVICE])
    batch = json.loads(text)
    assert text.isascii()
    assert batch == {
        "version": "1.0",
        "chainId": "8453",
        "createdAt": 0,
        "meta": {
            "name": "Approve an update of a Phala Cloud app",
            "description": "Written by phala-secrets for app 0x1f1f1F1f1F1f1f1F1F1F1f1F1f1F1f1F1F1F1F1F",
            # Computed apart, in JavaScript, as the builder computes it.
            "checksum": "0xb8a607724d0460bc523ed9f8690df5948a26b96554d2a1bd5fe6c71e99bb1236",
        },
        "transactions": [
            safe_call("addDevice", "deviceId", "2a819728", DEVICE),
            safe_call("addComposeHash", "composeHash", "dfc77223", HASH),
        ],
    }
    assert calldata.safe_checksum(batch) == batch["meta"]["checksum"]
    assert calldata.safe_checksum(batch | {"chainId": "1"}) != batch["meta"]["checksum"]


def test_a_safe_batch_holds_no_more_than_is_asked_for() -> None:
    def methods(**asked: Any) -> list[str]:
        batch = json.loads(calldata.safe_transaction(1, APP, **asked))
        return [each["contractMethod"]["name"] for each in batch["transactions"]]

    assert methods(compose_hash=HASH) == ["addComposeHash"]
    assert methods(devices=[DEVICE]) == ["addDevice"]
    with pytest.raises(InputError, match="no compose hash"):
        methods()


PREPARED: dict[str, Any] = {
    "app_id": APP,
    "cvm_id": "cvm_x1",
    "chain_id": 8453,
    "device_ids": [DEVICE],
    "public_key": "ee" * 32,
    "env_keys": ["DATABASE_URL", "API_KEY"],
    "compose_hash": HASH,
    "encrypted_env": "0011ff",
}


def test_the_digest_is_one_that_jq_and_sha256sum_can_make() -> None:
    line = (
        f'{{"app_id":"{APP}","chain_id":8453,"compose_hash":"{HASH}","cvm_id":"cvm_x1","device_ids":["{DEVICE}"],'
        f'"encrypted_env":"0011ff","env_keys":["DATABASE_URL","API_KEY"],'
        f'"public_key":"{"ee" * 32}","version":2}}'
    )
    assert calldata.prepared_digest(**PREPARED) == "2:" + hashlib.sha256(line.encode()).hexdigest()


def test_spelling_does_not_change_the_digest_and_everything_else_does() -> None:
    digest = calldata.prepared_digest(**PREPARED)
    for name in ("app_id", "public_key", "compose_hash", "encrypted_env"):
        assert calldata.prepared_digest(**PREPARED | {name: "0x" + PREPARED[name].upper()}) == digest
    assert calldata.prepared_digest(**PREPARED | {"device_ids": ["0x" + DEVICE.upper()]}) == digest
    changes: dict[str, list[Any]] = {
        "app_id": ["2f" * 20],
        "cvm_id": ["cvm_x2", "cvm_x1 ", 'cvm_x1","version":1'],
        "chain_id": [1],
        "device_ids": [[HASH], [], [DEVICE, HASH]],
        "public_key": ["ef" * 32],
        "env_keys": [["API_KEY", "DATABASE_URL"], ["DATABASE_URL,API_KEY"], ["DATABASE_URL"], []],
        "compose_hash": [DEVICE],
        "encrypted_env": ["0011fe", "0011ff00", ""],
    }
    assert set(changes) == set(PREPARED)
    others = [
        calldata.prepared_digest(**PREPARED | {name: each}) for name, them in changes.items() for each in them
    ]
    assert len({digest, *others}) == 1 + len(others)


def test_a_ciphertext_that_is_not_hex_has_no_digest() -> None:
    with pytest.raises(InputError, match="encrypted-env is not hex"):
        calldata.prepared_digest(**PREPARED | {"encrypted_env": "0x0"})


# -- the key ------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [KEY, "0x" + KEY, KEY.upper() + "\n"])
def test_a_key_signs_and_does_not_show_itself(text: str) -> None:
    sender = owner.Sender(text)
    assert sender.address == OWNER
    shown = f"{sender!r} {sender} {[getattr(sender, name) for name in sender.__slots__]}"
    assert OWNER in shown
    assert KEY not in shown.lower()
    assert str(int(KEY, 16)) not in shown
    assert not hasattr(sender, "__dict__")


@pytest.mark.parametrize(
    "bad", ["", "0x", KEY[:-1], KEY + "0", "g" * 64, "00" * 32, "f" * 64, f"{KEY} {KEY}", f"'{KEY}'"]
)
def test_a_malformed_key_is_refused_without_being_quoted(bad: str) -> None:
    with pytest.raises(InputError) as caught:
        owner.Sender(bad)
    told = "".join(traceback.format_exception_only(caught.value)) + caught.value.hint
    assert "invalid private-key" in told
    assert len(bad) < 4 or bad[:16] not in told
    assert caught.value.__context__ is None


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_reading_a_chain_does_not_import_what_signing_takes() -> None:
    out = run("import sys, phala_secrets.chain.register; print(*sys.modules)").split()
    assert not {"eth_account", "eth_abi", "httpx", "yaml", "cryptography"} & set(out)


def test_without_eth_account_signing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "eth_account", None)
    with pytest.raises(InputError) as caught:
        owner.Sender(KEY)
    assert "'phala-secrets[chain] @ git+https://github.com/phala-secrets/" in caught.value.hint


# -- the flow, driven by hand -------------------------------------------------------------------


def snake(method: str) -> str:
    """``get_balance`` for ``eth_getBalance``."""
    return re.sub("([A-Z])", r"_\1", method.removeprefix("eth_")).lower()


class Ledger:
    """A chain in a few lines, which answers in JSON; ``lies`` answer in its place, by method."""

    def __init__(self, **lies: Any) -> None:
        self.lies = lies
        self.raws: list[str] = []
        self.waiting: list[str] = []
        self.mined: list[str] = []
        self.allowed: set[str] = set()
        self.clock = flow.clock
        self.began = self.clock.monotonic()
        self.mines = True
        self.mines_at: float | None = None
        self.forgets = False
        self.owner = OWNER
        self.receipts: dict[str, Any] = {}

    @property
    def now(self) -> float:
        """Seconds since it began."""
        return self.clock.monotonic() - self.began

    def answer(self, method: str, params: tuple[Any, ...]) -> Any:
        if method in self.lies:
            lie = self.lies[method]
            return lie() if callable(lie) else lie
        return getattr(self, snake(method))(*params)

    def chain_id(self) -> str:
        return "0x2105"

    def call(self, call: dict[str, str], _: str) -> str:
        selector, argument = call["data"][2:10], call["data"][10:]
        return word(int(self.owner, 16) if selector == "8da5cb5b" else argument in self.allowed)

    def get_code(self, *_: str) -> str:
        return "0x"

    def get_balance(self, *_: str) -> str:
        return hex(10**18)

    def get_transaction_count(self, _: str, block: str) -> str:
        return hex(len(self.mined) + (len(self.waiting) if block == "pending" else 0))

    def get_block_by_number(self, *_: Any) -> dict[str, str]:
        return {"baseFeePerGas": hex(10**7)}

    def max_priority_fee_per_gas(self) -> str:
        return hex(10**6)

    def gas_price(self) -> str:
        return hex(10**7)

    def estimate_gas(self, _: Any) -> str:
        return hex(48_000)

    def send_raw_transaction(self, raw: str) -> str:
        hash_ = f"0x{keccak_256(bytes.fromhex(raw[2:])).hexdigest()}"
        if raw not in self.raws:
            self.waiting.append(hash_)
        self.raws.append(raw)
        if self.mines:
            self.mine()
        return hash_

    def mine(self) -> None:
        self.mined += self.waiting
        self.waiting.clear()
        if not self.forgets:
            self.allowed |= {signed(raw)["data"].hex()[8:] for raw in self.raws}

    def get_transaction_receipt(self, hash_: str) -> Any:
        return receipt(transactionHash=hash_, **self.receipts) if hash_ in self.mined else None

    def get_transaction_by_hash(self, hash_: str) -> Any:
        return {"hash": hash_} if hash_ in self.mined + self.waiting else None

    def run(self, asked: flow.Flow[Any]) -> Any:
        return flow.drive(asked, self.take)

    def take(self, step: Any) -> Any:
        if not isinstance(step, flow.Pause):
            return answered(step, self.answer(step.method, step.params))
        self.clock.sleep(step.seconds)
        if self.mines_at is not None and self.now >= self.mines_at:
            self.mine()
        return None

    def register(self, **options: Any) -> register.Registered:
        asked = {"chain_id": 8453, "app": APP, "compose_hash": HASH, "patience": 30, **options}
        registered = self.run(register.register(owner.Sender(KEY), **asked))
        assert isinstance(registered, register.Registered)
        return registered


def signed(raw: str) -> dict[str, Any]:
    """The fields of a signed transaction; a legacy one's price as its most."""
    if raw.startswith("0x02"):
        return dict(TypedTransaction.from_bytes(HexBytes(raw)).as_dict())
    nonce, price, gas, to, value, data, v, *_ = rlp.decode(bytes.fromhex(raw[2:]))
    number = int.from_bytes
    return {
        "chainId": (number(v) - 35) // 2,
        "nonce": number(nonce),
        "maxFeePerGas": number(price),
        "gas": number(gas),
        "to": to,
        "value": number(value),
        "data": data,
    }


def unavailable() -> Any:
    raise TransportError("no response in time")


def busy() -> Any:
    raise ApiError("too many requests", status_code=429)


def test_what_is_signed_is_the_call_at_a_bounded_price() -> None:
    ledger = Ledger()
    registered = ledger.register(devices=[DEVICE], allow_device=[DEVICE])
    assert [each.call for each in registered.sent] == ["addDevice", "addComposeHash"]
    for nonce, (raw, data) in enumerate(
        zip(
            ledger.raws,
            [calldata.add_device(DEVICE), calldata.add_compose_hash(HASH)],
            strict=True,
        )
    ):
        assert Account.recover_transaction(raw).lower() == OWNER
        fields = signed(raw)
        assert (fields["chainId"], fields["nonce"], fields["value"]) == (8453, nonce, 0)
        assert (fields["to"].hex(), "0x" + fields["data"].hex()) == (APP, data)
        assert (fields["gas"], fields["maxFeePerGas"]) == (60_000, 2 * 10**7 + 10**6)


def test_an_existing_approval_is_not_sent_again_and_needs_no_key() -> None:
    ledger = Ledger()
    ask: dict[str, Any] = {"chain_id": 8453, "app": APP, "compose_hash": HASH, "devices": [DEVICE]}
    assert ledger.run(register.approvals(**ask)) == register.Approvals(False, (DEVICE,))
    ledger.allowed = {HASH, DEVICE}
    assert ledger.run(register.approvals(**ask)) == register.Approvals(True)
    assert ledger.register(devices=[DEVICE]) == register.Registered(register.ALREADY_REGISTERED, ())
    assert ledger.raws == []


@pytest.mark.parametrize(
    ("lies", "options", "kind", "says"),
    [
        (
            {"eth_chainId": "0x1"},
            {},
            InputError,
            r"rpc-url is for Ethereum \(chain 1\), but the app is on Base",
        ),
        ({}, {"devices": [DEVICE]}, ApprovalRequiredError, "allow-device does not name it"),
        (
            {"eth_getBalance": "0x1"},
            {},
            ApprovalRequiredError,
            "has 0.000000001 ETH, and .* may cost 0.00000126",
        ),
        ({"eth_estimateGas": hex(10**6)}, {}, ApprovalRequiredError, "1250000 gas"),
        ({"eth_maxPriorityFeePerGas": hex(10**11)}, {}, ApprovalRequiredError, "0.0060006 ETH"),
    ],
)
def test_each_refusal_comes_before_the_signature(
    lies: dict[str, Any], options: dict[str, Any], kind: type[PhalaSecretsError], says: str
) -> None:
    ledger = Ledger(**lies)
    with pytest.raises(kind, match=says) as caught:
        ledger.register(**options)
    assert caught.value.hint
    assert ledger.raws == []


@pytest.mark.parametrize(("code", "kind"), [("0x", InputError), ("0x6080", ApprovalRequiredError)])
def test_the_key_of_another_owner_is_refused_and_a_contract_is_recognised(
    code: str, kind: type[PhalaSecretsError]
) -> None:
    ledger = Ledger(eth_getCode=code)
    ledger.owner = "0x" + "99" * 20
    with pytest.raises(kind, match=ledger.owner) as caught:
        ledger.register()
    assert "prepare-only" in caught.value.hint
    assert ledger.raws == []


def test_an_earlier_pending_transaction_is_waited_for() -> None:
    ledger = Ledger()
    ledger.mines = False
    with pytest.raises(ApprovalRequiredError, match="not confirmed after 30 s"):
        ledger.register()
    with pytest.raises(ApprovalRequiredError, match="1 earlier transaction"):
        ledger.register()
    ledger.mines_at = ledger.now + 6
    assert ledger.register() == register.Registered(register.ALREADY_REGISTERED, ())
    assert len(ledger.raws) == 1


def test_a_nonce_counts_as_replaced_after_three_looks() -> None:
    ledger = Ledger(eth_sendRawTransaction=unavailable)
    nonces = iter(["0x0", "0x0", "0x0"])  # latest and pending while waiting, pending to sign
    ledger.lies["eth_getTransactionCount"] = lambda: next(nonces, "0x1")
    with pytest.raises(ApprovalRequiredError, match="another transaction took nonce 0"):
        ledger.register()
    assert ledger.now == 6


def test_a_lost_transaction_does_not_matter_once_the_hash_is_approved() -> None:
    ledger = Ledger()

    def take() -> None:
        ledger.allowed.add(HASH)
        busy()

    ledger.lies = {"eth_sendRawTransaction": take}
    assert ledger.register() == register.Registered(register.ALREADY_REGISTERED, ())


def test_a_reverted_transaction_is_reported_with_its_hash() -> None:
    ledger = Ledger()
    ledger.receipts = {"status": "0x0"}
    ledger.forgets = True
    with pytest.raises(ApprovalRequiredError, match="was reverted") as caught:
        ledger.register()
    assert ledger.mined[0] in str(caught.value)


@pytest.mark.parametrize(
    "logs",
    [
        [],
        [{"address": "0x" + "99" * 20, "topics": [rpc.COMPOSE_HASH_ADDED], "data": "0x" + HASH}],
        [{"address": "0x" + APP, "topics": [rpc.COMPOSE_HASH_ADDED], "data": "0x" + DEVICE}],
        [{"address": "0x" + APP, "topics": ["0x" + DEVICE], "data": "0x" + HASH}],
    ],
    ids=["no event", "another contract's", "of another hash", "another event"],
)
def test_a_receipt_without_the_event_is_not_believed(logs: list[Any]) -> None:
    ledger = Ledger()
    ledger.receipts = {"logs": logs}
    with pytest.raises(AnswerError, match="emitted no event for it") as caught:
        ledger.register()
    assert ledger.mined[0] in str(caught.value)


def test_an_approval_that_never_shows_is_not_believed() -> None:
    ledger = Ledger()
    ledger.forgets = True
    with pytest.raises(AnswerError, match="the contract does not show it"):
        ledger.register()
    assert ledger.now == 30


def test_an_http_status_of_the_rpc_counts_as_a_lost_response() -> None:
    turns = iter([busy, unavailable])

    def poor() -> Any:
        return next(turns, lambda: ledger.get_transaction_receipt(ledger.mined[0]))()

    ledger = Ledger(eth_getTransactionReceipt=poor)
    (sent,) = ledger.register().sent
    assert ledger.mined == [sent.transaction_hash]
    assert len(ledger.raws) == 1


def test_an_rpc_that_does_not_take_it_is_tried_three_times() -> None:
    ledger = Ledger(eth_sendRawTransaction=busy)
    with pytest.raises(TransportError, match="was not accepted: too many requests"):
        ledger.register()
    assert ledger.now == 6


def test_the_balance_has_to_cover_what_is_offered_to_the_wei() -> None:
    needed = 60_000 * (2 * 10**7 + 10**6)
    with pytest.raises(ApprovalRequiredError, match="may cost"):
        Ledger(eth_getBalance=hex(needed - 1)).register()
    assert Ledger(eth_getBalance=hex(needed)).register().sent


def test_a_late_failure_is_reported_with_the_hash_and_the_explorer() -> None:
    ledger = Ledger(eth_getTransactionReceipt=unavailable)
    ledger.mines = False
    with pytest.raises(TransportError, match="no response in time") as caught:
        ledger.register()
    hash_ = ledger.waiting[0]
    assert hash_ in str(caught.value)
    assert f"https://basescan.org/tx/{hash_}" in caught.value.hint
    assert ledger.now == 30


def test_a_chain_without_base_fee_takes_the_gas_price() -> None:
    ledger = Ledger(eth_getBlockByNumber={})
    ledger.mines = False
    with pytest.raises(ApprovalRequiredError):
        ledger.register()
    assert len(ledger.waiting) == 1
    assert not ledger.raws[0].startswith("0x02")
    assert Account.recover_transaction(ledger.raws[0]).lower() == OWNER


WORDS = [word(0), word(1), "0x" + "f" * 64]
GARBAGE = st.sampled_from([None, "", "0x", "0x0", hex(10**12), *WORDS, [], {}, 7, "no", busy, unavailable])
METHODS = [
    "eth_call",
    "eth_getCode",
    "eth_getBalance",
    "eth_getTransactionCount",
    "eth_getBlockByNumber",
    "eth_maxPriorityFeePerGas",
    "eth_gasPrice",
    "eth_estimateGas",
    "eth_sendRawTransaction",
    "eth_getTransactionReceipt",
    "eth_getTransactionByHash",
]


class Liar(Ledger):
    """Tells each method's lies in turn, and then the truth."""

    def answer(self, method: str, params: tuple[Any, ...]) -> Any:
        if told := self.lies.get(method):
            lie = told.pop(0)
            return lie() if callable(lie) else lie
        return getattr(self, snake(method))(*params)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(METHODS), st.lists(GARBAGE, min_size=1, max_size=4)))
def test_no_rpc_drains_a_key_or_gets_two_signatures(
    lies: dict[str, list[Any]],
) -> None:
    ledger = Liar(**{method: list(told) for method, told in lies.items()})
    try:
        registered = ledger.register(devices=[DEVICE], allow_device=[DEVICE])
    except PhalaSecretsError:
        pass
    else:
        assert {each.transaction_hash for each in registered.sent} <= set(ledger.mined)
    calls = [signed(raw)["data"] for raw in dict.fromkeys(ledger.raws)]
    assert len(calls) == len(set(calls)) <= 2
    for raw in ledger.raws:
        fields = signed(raw)
        assert fields["gas"] <= MAX_GAS
        assert fields["gas"] * fields["maxFeePerGas"] <= DEFAULT_MAX_COST
        assert (fields["chainId"], fields["value"], fields["to"].hex()) == (8453, 0, APP)


def test_the_caps_are_sums_one_can_lose() -> None:
    assert eth(MAX_COST[1]) == "0.01 ETH"
    assert eth(DEFAULT_MAX_COST) == "0.001 ETH"
    assert (eth(0), eth(1), eth(10**19)) == ("0 ETH", "0.000000001 ETH", "10 ETH")
