"""JSON-RPC requests to an EVM chain, each with its reader.

Each function returns a frozen request. A transport sends it::

    rpc = chain_id()
    body = post(url, json=rpc.payload())
    chain = rpc.read(body)          # an int, or AnswerError

An RPC is untrusted: a reader returns a well-formed value or raises ``AnswerError``. Messages quote
the RPC's own text short and printable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from phala_secrets.chain import abi
from phala_secrets.dstack.ids import parse_app_id, parse_hash
from phala_secrets.dstack.key_proof import parse_signer
from phala_secrets.dstack.kms_record import parse_ca
from phala_secrets.errors import AnswerError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

COMPOSE_HASH_ADDED = "0xfecb34306dd9d8b785b54d65489d06afc8822a0893ddacedff40c50a4942d0af"
"""The topic of ``ComposeHashAdded(bytes32)``."""

MAX_LOGS = 1000
MAX_TOPICS = 4
MIN_GAS = 21_000


@dataclass(frozen=True, slots=True)
class Rpc(Generic[T]):
    """One JSON-RPC call. ``parse`` reads its ``result`` and raises AnswerError if it is malformed."""

    method: str
    params: tuple[Any, ...]
    parse: Callable[[Any], T]

    def payload(self, request_id: int = 1) -> dict[str, Any]:
        """Return the JSON body to POST (JSON-RPC 2.0)."""
        return {"jsonrpc": "2.0", "id": request_id, "method": self.method, "params": list(self.params)}

    def read(self, body: Any, request_id: int = 1) -> T:
        """Return the parsed result of a response's JSON body.

        Raise AnswerError for an error object, a response to another request, or a malformed result.
        """
        if not isinstance(body, dict):
            raise AnswerError(f"the RPC's response to {self.method} is not JSON-RPC")
        if (error := body.get("error")) is not None:
            reason = error.get("message") if isinstance(error, dict) else error
            raise AnswerError(f"the RPC refused {self.method}: {quoted(reason)}")
        if body.get("id") != request_id or "result" not in body:
            raise AnswerError(f"the RPC's response to {self.method} is not JSON-RPC")
        try:
            return self.parse(body["result"])
        except AnswerError as bad:
            raise AnswerError(f"{bad} ({self.method})", hint=bad.hint) from None


@dataclass(frozen=True, slots=True)
class Log:
    """One event: the contract (``0x``, lower case), its topics (``0x``, 32 bytes each) and its data."""

    address: str
    topics: tuple[str, ...]
    data: bytes

    def names(self, topic: str, subject: str) -> bool:
        """Return whether this is the event ``topic`` about ``subject`` (``bytes32``, 64 hex digits)."""
        return "".join(self.topics).replace("0x", "") + self.data.hex() == topic[2:] + subject


@dataclass(frozen=True, slots=True)
class Receipt:
    """The outcome of a mined transaction."""

    transaction_hash: str
    succeeded: bool
    block_number: int
    logs: tuple[Log, ...]


def quoted(said: object, limit: int = 120) -> str:
    """Return untrusted text for one line of a message: printable ASCII, short, in double quotes."""
    if not isinstance(said, str):
        return "no reason given"
    text = re.sub(r"[^\x20-\x7e]+", " ", said[: 4 * limit]).replace('"', "'").strip()
    return f'"{text[:limit]}…"' if len(text) > limit else f'"{text}"'


def chain_id() -> Rpc[int]:
    """Request the id of the RPC's chain (EIP-155)."""
    return Rpc("eth_chainId", (), abi.quantity)


def kms_root(contract: str) -> Rpc[str]:
    """Request the KMS root's public key from ``kmsInfo()``: compressed SEC1 hex without ``0x``."""
    return _view(contract, "09177063", parse=_parse_kms_root)


def kms_ca(contract: str) -> Rpc[str]:
    """Request the KMS's CA key from ``kmsInfo()``: SPKI hex."""
    return _view(contract, "09177063", parse=_parse_kms_ca)


def registered_app(contract: str, app_id: str) -> Rpc[bool]:
    """Ask whether the KMS contract knows the app: ``registeredApps(address)``."""
    return _view(contract, "a6c4cce9", parse_app_id(app_id), parse=abi.decode_bool)


def os_image_allowed(contract: str, image_hash: str) -> Rpc[bool]:
    """Ask whether the KMS contract allows the OS image: ``allowedOsImages(bytes32)``."""
    return _view(contract, "9a4e1d18", parse_hash(image_hash, "OS image"), parse=abi.decode_bool)


def owner(app: str) -> Rpc[str]:
    """Request the app's owner, in lower case with ``0x``: ``owner()``."""
    return _view(app, "8da5cb5b", parse=abi.decode_address)


def compose_hash_allowed(app: str, compose_hash: str) -> Rpc[bool]:
    """Ask whether the app may run that app-compose: ``allowedComposeHashes(bytes32)``."""
    return _view(app, "2f6622e5", parse_hash(compose_hash, "compose hash"), parse=abi.decode_bool)


def device_allowed(app: str, device: str) -> Rpc[bool]:
    """Ask whether the app may run on that device: ``allowedDeviceIds(bytes32)``."""
    return _view(app, "bf8b211b", parse_hash(device, "device id"), parse=abi.decode_bool)


def any_device_allowed(app: str) -> Rpc[bool]:
    """Ask whether the app may run on every device: ``allowAnyDevice()``."""
    return _view(app, "3440a16a", parse=abi.decode_bool)


def code(address: str) -> Rpc[bytes]:
    """Request the code at an address: empty for a plain wallet."""
    return Rpc("eth_getCode", (abi.address(address), "latest"), abi.data)


def balance(address: str) -> Rpc[int]:
    """Request the balance in wei."""
    return Rpc("eth_getBalance", (abi.address(address), "latest"), abi.quantity)


def nonce(address: str, block: Literal["pending", "latest"]) -> Rpc[int]:
    """Request how many transactions the address has sent. ``pending`` counts those that are not mined yet."""
    return Rpc("eth_getTransactionCount", (abi.address(address), block), partial(abi.quantity, bits=64))


def block_number() -> Rpc[int]:
    """Request the number of the latest block."""
    return Rpc("eth_blockNumber", (), partial(abi.quantity, bits=64))


def compose_hashes_added(app: str, first: int, last: int) -> Rpc[tuple[str, ...]]:
    """Request the compose hashes (64 hex digits) that ``app`` registered from block ``first`` to ``last``.

    Oldest first, from its events ``ComposeHashAdded(bytes32)``. An RPC may refuse a long range.
    """
    contract = abi.address(app, "app")
    wanted = {
        "address": contract,
        "topics": [COMPOSE_HASH_ADDED],
        "fromBlock": hex(first),
        "toBlock": hex(last),
    }
    return Rpc("eth_getLogs", (wanted,), partial(_parse_added, contract))


def base_fee() -> Rpc[int | None]:
    """Request the latest block's base fee in wei per gas: None on a chain without EIP-1559."""
    return Rpc("eth_getBlockByNumber", ("latest", False), _parse_base_fee)


def priority_fee() -> Rpc[int]:
    """Request the priority fee that the RPC suggests, in wei per gas."""
    return Rpc("eth_maxPriorityFeePerGas", (), abi.quantity)


def gas_price() -> Rpc[int]:
    """Request the legacy gas price that the RPC suggests, in wei per gas."""
    return Rpc("eth_gasPrice", (), abi.quantity)


def estimate_gas(sender: str, to: str, calldata: str) -> Rpc[int]:
    """Request the gas that the call would take. A call that would revert is an AnswerError."""
    transaction = {"from": abi.address(sender), "to": abi.address(to), "data": calldata, "value": "0x0"}

    def parse(result: Any) -> int:
        gas = abi.quantity(result)
        if gas < MIN_GAS:
            raise AnswerError("the RPC's gas estimate is below that of any transaction")
        return gas

    return Rpc("eth_estimateGas", (transaction,), parse)


def send_raw(raw: str, transaction_hash: str) -> Rpc[str]:
    """Broadcast a signed transaction (``0x`` hex). Any hash but ``transaction_hash`` is an AnswerError."""

    def parse(result: Any) -> str:
        if abi.hash32(result) != transaction_hash:
            raise AnswerError("the RPC returned the hash of another transaction")
        return transaction_hash

    return Rpc("eth_sendRawTransaction", (raw,), parse)


def receipt(transaction_hash: str) -> Rpc[Receipt | None]:
    """Request the receipt of a transaction: None until it is mined."""

    def parse(result: Any) -> Receipt | None:
        return None if result is None else _parse_receipt(result, transaction_hash)

    return Rpc("eth_getTransactionReceipt", (transaction_hash,), parse)


def transaction_known(transaction_hash: str) -> Rpc[bool]:
    """Ask whether the RPC has the transaction, mined or pending."""

    def parse(result: Any) -> bool:
        if result is None:
            return False
        if abi.hash32(_field(result, "hash")) != transaction_hash:
            raise AnswerError("the RPC returned another transaction than requested")
        return True

    return Rpc("eth_getTransactionByHash", (transaction_hash,), parse)


def _view(contract: str, selector: str, *arguments: str, parse: Callable[[Any], T]) -> Rpc[T]:
    call = {"to": abi.address(contract, "contract"), "data": abi.call(selector, *arguments)}
    return Rpc("eth_call", (call, "latest"), parse)


def _parse_kms_root(result: Any) -> str:
    public_key, *_ = abi.decode_byte_strings(result, 4)
    try:
        return parse_signer(public_key.hex())
    except InputError:
        raise AnswerError("the KMS contract's k256Pubkey is not a secp256k1 public key") from None


def _parse_kms_ca(result: Any) -> str:
    _, ca, *_ = abi.decode_byte_strings(result, 4)
    try:
        return parse_ca(ca.hex())
    except InputError:
        raise AnswerError("the KMS contract's caPubkey is not a P-256 key") from None


def _parse_base_fee(result: Any) -> int | None:
    if not isinstance(result, dict):
        raise AnswerError("the RPC's response is not a block")
    fee = result.get("baseFeePerGas")
    return None if fee is None else abi.quantity(fee)


def _parse_receipt(result: Any, transaction_hash: str) -> Receipt:
    if abi.hash32(_field(result, "transactionHash")) != transaction_hash:
        raise AnswerError("the RPC returned the receipt of another transaction")
    status = abi.quantity(_field(result, "status"))
    if status > 1:
        raise AnswerError("the RPC returned a receipt with an unknown status")
    logs = _field(result, "logs")
    if not isinstance(logs, list) or len(logs) > MAX_LOGS:
        raise AnswerError("the RPC returned a receipt with invalid logs")
    return Receipt(
        transaction_hash=transaction_hash,
        succeeded=status == 1,
        block_number=abi.quantity(_field(result, "blockNumber")),
        logs=tuple(_parse_log(log) for log in logs),
    )


def _parse_added(contract: str, result: Any) -> tuple[str, ...]:
    if not isinstance(result, list) or len(result) > MAX_LOGS:
        raise AnswerError("the RPC returned invalid logs or too many")
    found = []
    for row in result:
        log = _parse_log(row)
        subject = "".join(log.topics[1:]).replace("0x", "") + log.data.hex()
        if log.address != contract or log.topics[:1] != (COMPOSE_HASH_ADDED,) or len(subject) != 64:
            raise AnswerError("the RPC returned other logs than requested")
        place = abi.quantity(_field(row, "blockNumber")), abi.quantity(_field(row, "logIndex"))
        found.append((place, subject))
    return tuple(subject for _, subject in sorted(found))


def _parse_log(log: Any) -> Log:
    address, topics = abi.data(_field(log, "address")), _field(log, "topics")
    if len(address) != 20 or not isinstance(topics, list) or len(topics) > MAX_TOPICS:
        raise AnswerError("the RPC returned a receipt with invalid logs")
    return Log("0x" + address.hex(), tuple(map(abi.hash32, topics)), abi.data(_field(log, "data")))


def _field(result: Any, name: str) -> Any:
    if not isinstance(result, dict) or name not in result:
        raise AnswerError(f"the RPC's response has no {name}")
    return result[name]
