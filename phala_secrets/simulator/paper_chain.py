"""A chain on paper: JSON-RPC on loopback, a KMS contract, and a contract for each app.

It follows the contracts' ABI alone. It mines any transaction at once and does not check fees or nonces.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Self

from sha3 import keccak_256

from phala_secrets.simulator import rlp
from phala_secrets.simulator.loopback import Loopback
from phala_secrets.simulator.wire import object_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from phala_secrets.simulator.cvm import Cvm

BASE, BASE_KMS = 8453, "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C"
"""The chain id of Base, and the address of its KMS contract."""

COMPOSE_HASH_ADDED = "0xfecb34306dd9d8b785b54d65489d06afc8822a0893ddacedff40c50a4942d0af"
_ADD_COMPOSE_HASH, _ADD_DEVICE = "dfc77223", "2a819728"
_NOBODY = "0x" + "00" * 20
_MAX_BODY = 1024 * 1024


class InOrder(set[str]):
    """A set in insertion order, like the events of a contract."""

    def __init__(self, given: Iterable[str] = ()) -> None:
        super().__init__()
        self.history: list[str] = []
        for one in given:
            self.add(one)

    def add(self, one: str) -> None:
        super().add(one)
        self.history.append(one)

    def __ior__(self, others: Iterable[str]) -> Self:  # type: ignore[override, misc]
        for one in others:
            self.add(one)
        return self


@dataclass(slots=True)
class AppContract:
    """The contract of an app. Compose hashes and device ids are hex, ``owner`` is an address (``0x``)."""

    approved: InOrder = field(default_factory=InOrder)
    """The compose hashes that the owner registered, each an event in a block of its own."""
    devices: set[str] = field(default_factory=set)
    any_device: bool = False
    owner: str = _NOBODY

    def call(self, data: str) -> str:
        """Return the result of a view. ``data`` is selector and argument in hex."""
        selector, word = data[:8], data[8:]
        match selector:
            case "2f6622e5":
                return _truth(word in self.approved)
            case "bf8b211b":
                return _truth(word in self.devices)
            case "3440a16a":
                return _truth(self.any_device)
            case "8da5cb5b":
                return "0x" + self.owner[2:].lower().rjust(64, "0")
        return "0x"


class PaperChain:
    """A chain that runs within ``with``. ``port`` 0 is a free one. A test may change everything."""

    def __init__(self, chain_id: int = BASE, kms: str = BASE_KMS, port: int = 0) -> None:
        self.chain_id = chain_id
        self.kms = kms.lower()
        self.root = ""
        """The KMS root's public key, SEC1 hex."""
        self.ca = b"ca"
        """The CA key of the KMS, SPKI in DER."""
        self.images: set[str] = set()
        """The OS images that the KMS allows, by hash."""
        self.contracts: dict[str, AppContract] = {}
        """The apps, by id."""
        self.transactions: dict[str, str] = {}
        """Receipts: the compose hash that a transaction (``0x``) added."""
        self.trace: Callable[[str], None] = _nowhere
        """Called with the method of each request."""
        self._receivers: dict[str, str] = {}
        self._server = _listen(self, port)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def hold(self, cvm: Cvm) -> None:
        """Add a CVM's KMS and its app, with the present app-compose approved and the device allowed."""
        self.root, self.ca = cvm.kms.root_public_key, bytes.fromhex(cvm.kms.ca_public_key)
        contract = self.contracts.setdefault(cvm.app_id, AppContract())
        contract.approved.add(cvm.compose_hash)
        contract.devices.add(cvm.device_id)

    def respond(self, request: dict[str, Any]) -> Any:
        """Return the response to a JSON-RPC request."""
        try:
            result = self._result(request)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            result = {"error": {"code": -32602, "message": "invalid request"}}
        return {"jsonrpc": "2.0", "id": request.get("id"), **result}

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def _result(self, request: dict[str, Any]) -> dict[str, Any]:
        method, params = request["method"], request["params"]
        match method:
            case "eth_chainId":
                return {"result": hex(self.chain_id)}
            case "eth_call":
                return {"result": self._view(params[0]["to"].lower(), params[0]["data"][2:])}
            case "eth_getTransactionReceipt":
                return {"result": self._receipt(params[0])}
            case "eth_sendRawTransaction":  # of type 2 (EIP-1559)
                raw = bytes.fromhex(params[0][2:])
                fields = rlp.items(raw[1:])
                return {"result": self._take(raw, fields[5].hex(), fields[7].hex())}
            case "eth_sendTransaction":  # as a development node takes it, whose accounts are unlocked
                to, data = params[0]["to"][2:].lower(), params[0]["data"][2:]
                return {"result": self._take(f"{len(self.transactions)} {to}{data}".encode(), to, data)}
            case "eth_blockNumber":
                return {"result": hex(max((len(app.approved.history) for app in self._apps()), default=0))}
            case "eth_getLogs":
                return {"result": self._logs(params[0])}
        known = {
            "eth_getBalance": hex(10**18),
            "eth_getBlockByNumber": {"baseFeePerGas": hex(10**9)},
            "eth_maxPriorityFeePerGas": hex(10**6),
            "eth_estimateGas": hex(60_000),
            "eth_getTransactionCount": hex(len(self.transactions)),
        }
        if method in known:
            return {"result": known[method]}
        return {"error": {"code": -32601, "message": f"no {method} on paper"}}

    def _apps(self) -> list[AppContract]:
        return [*self.contracts.values()]

    def _take(self, raw: bytes, to: str, data: str) -> str:
        """Mine a transaction at once. Return its hash."""
        contract, selector, word = self.contracts[to], data[:8], data[8:]
        changed = {_ADD_COMPOSE_HASH: contract.approved, _ADD_DEVICE: contract.devices}[selector]
        changed.add(word)
        transaction = f"0x{keccak_256(raw).hexdigest()}"
        self.transactions[transaction] = word
        self._receivers[transaction] = to
        return transaction

    def _view(self, to: str, data: str) -> str:
        if to == self.kms and data[:8] == "09177063":
            return self._kms_info()
        if to == self.kms and data[:8] == "a6c4cce9":
            return _truth(data[32:] in self.contracts)
        if to == self.kms and data[:8] == "9a4e1d18":
            return _truth(data[8:] in self.images)
        contract = self.contracts.get(to[2:])
        return contract.call(data) if contract else "0x"

    def _kms_info(self) -> str:
        strings = [bytes.fromhex(self.root), self.ca, b"quote", b""]
        head, tail = b"", b""
        for string in strings:
            head += (32 * len(strings) + len(tail)).to_bytes(32, "big")
            tail += len(string).to_bytes(32, "big") + string + bytes(-len(string) % 32)
        return "0x" + (head + tail).hex()

    def _logs(self, wanted: dict[str, Any]) -> list[dict[str, Any]]:
        contract = self.contracts.get(wanted["address"][2:].lower())
        if contract is None or wanted["topics"] != [COMPOSE_HASH_ADDED]:
            return []
        first, last = int(wanted["fromBlock"], 16), int(wanted["toBlock"], 16)
        return [
            {**_event(wanted["address"], compose_hash), "blockNumber": hex(block), "logIndex": "0x0"}
            for block, compose_hash in enumerate(contract.approved.history, 1)
            if first <= block <= last
        ]

    def _receipt(self, transaction: str) -> dict[str, Any] | None:
        if transaction not in self.transactions:
            return None
        app = self._receivers.get(transaction) or next(iter(self.contracts))
        return {
            "transactionHash": transaction,
            "status": "0x1",
            "blockNumber": "0x1",
            "logs": [_event(f"0x{app}", self.transactions[transaction])],
        }


def _event(address: str, compose_hash: str) -> dict[str, Any]:
    return {"address": address, "topics": [COMPOSE_HASH_ADDED], "data": f"0x{compose_hash}"}


def _listen(chain: PaperChain, port: int) -> Loopback:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(min(int(self.headers["Content-Length"]), _MAX_BODY))
            request = object_of(body)
            answer = chain.respond(request)
            chain.trace(str(request.get("method")))
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    return Loopback(port, Handler)


def _truth(value: bool) -> str:
    return "0x" + int(value).to_bytes(32, "big").hex()


def _nowhere(_method: str) -> None:
    """Trace nothing."""
