"""A chain on paper: JSON-RPC on loopback that answers what a test has it say, and takes all that is sent.

A KMS contract and the apps' contracts, as far as they are asked; written from the contracts' ABI alone.
A real chain, with its own mind about fees and nonces, is in ``tests/anvil``.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import rlp
from sha3 import keccak_256

from phala_secrets.simulator.cvm import Cvm

BASE_KMS = "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C"


COMPOSE_HASH_ADDED = "0xfecb34306dd9d8b785b54d65489d06afc8822a0893ddacedff40c50a4942d0af"


class InOrder(set[str]):
    """A set that remembers in which order it was filled, as the events of a contract do."""

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


class PaperChain:
    """``approved`` and ``devices`` are of every app on it. ``meddle`` has the last word on each answer."""

    def __init__(self, chain_id: int = 8453, kms: str = BASE_KMS) -> None:
        self.chain_id = chain_id
        self.kms = kms.lower()
        self.root = ""
        """The KMS root's public key, SEC1 hex."""
        self.ca = b"ca"
        """The CA key of the KMS, SPKI in DER."""
        self.images: set[str] = set()
        """The OS images that the KMS allows."""
        self.apps: set[str] = set()
        self._approved = InOrder()
        self.devices: set[str] = set()
        self.any_device = False
        self.owner = "0x" + "00" * 20
        self.transactions: dict[str, str] = {}
        """Receipts: the compose hash that a transaction (0x) added to the one app."""
        self.meddle: Callable[[str, Any], Any] = lambda method, answer: answer
        self.asked: list[str] = []
        chain = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                chain.asked.append(request["method"])
                answer = {"jsonrpc": "2.0", "id": request["id"], **chain._answer(request)}
                answer = chain.meddle(request["method"], answer)
                data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def approved(self) -> InOrder:
        """The compose hashes that the owner registered, each an event in a block of its own."""
        return self._approved

    @approved.setter
    def approved(self, hashes: Iterable[str]) -> None:
        self._approved = hashes if isinstance(hashes, InOrder) else InOrder(hashes)

    def hold(self, cvm: Cvm) -> None:
        """Have a CVM's KMS and its app on it: the present app-compose approved, the device allowed."""
        self.root = cvm.kms.root_public_key
        self.apps = {cvm.app_id}
        self.approved = InOrder([cvm.compose_hash])
        self.devices = {cvm.device_id}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        method, params = request["method"], request["params"]
        if method == "eth_chainId":
            return {"result": hex(self.chain_id)}
        if method == "eth_call":
            return {"result": self._view(params[0]["to"].lower(), params[0]["data"][2:])}
        if method == "eth_getTransactionReceipt":
            return {"result": self._receipt(params[0])}
        if method == "eth_sendRawTransaction":
            return {"result": self._take(bytes.fromhex(params[0][2:]))}
        if method == "eth_blockNumber":
            return {"result": hex(len(self.approved.history))}
        if method == "eth_getLogs":
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

    def _take(self, raw: bytes) -> str:
        """A transaction of type 2 (EIP-1559), mined at once."""
        data = rlp.decode(raw[1:])[7].hex()
        transaction = f"0x{keccak_256(raw).hexdigest()}"
        changed = {"dfc77223": self.approved, "2a819728": self.devices}[data[:8]]
        changed.add(data[8:])
        self.transactions[transaction] = data[8:]
        return transaction

    def _view(self, to: str, data: str) -> str:
        selector, word = data[:8], data[8:]
        known: dict[str, Callable[[], str]]
        if to == self.kms:
            known = {"09177063": self._kms_info, "a6c4cce9": lambda: _truth(word[24:] in self.apps)}
            known["9a4e1d18"] = lambda: _truth(word in self.images)
        elif to[2:] in self.apps:
            known = {
                "2f6622e5": lambda: _truth(word in self.approved),
                "bf8b211b": lambda: _truth(word in self.devices),
                "3440a16a": lambda: _truth(self.any_device),
                "8da5cb5b": lambda: "0x" + self.owner[2:].rjust(64, "0"),
            }
        else:
            return "0x"
        return known[selector]()

    def _kms_info(self) -> str:
        strings = [bytes.fromhex(self.root), self.ca, b"quote", b""]
        head, tail = b"", b""
        for string in strings:
            head += (32 * len(strings) + len(tail)).to_bytes(32, "big")
            tail += len(string).to_bytes(32, "big") + string + bytes(-len(string) % 32)
        return "0x" + (head + tail).hex()

    def _logs(self, wanted: dict[str, Any]) -> list[dict[str, Any]]:
        (app,) = self.apps
        assert wanted["address"] == f"0x{app}"
        assert wanted["topics"] == [COMPOSE_HASH_ADDED]
        first, last = int(wanted["fromBlock"], 16), int(wanted["toBlock"], 16)
        return [
            {
                "address": f"0x{app}",
                "topics": [COMPOSE_HASH_ADDED],
                "data": f"0x{compose_hash}",
                "blockNumber": hex(block),
                "logIndex": "0x0",
            }
            for block, compose_hash in enumerate(self.approved.history, 1)
            if first <= block <= last
        ]

    def _receipt(self, transaction: str) -> dict[str, Any] | None:
        if transaction not in self.transactions:
            return None
        (app,) = self.apps
        log = {
            "address": f"0x{app}",
            "topics": [COMPOSE_HASH_ADDED],
            "data": "0x" + self.transactions[transaction],
        }
        return {
            "transactionHash": transaction,
            "status": "0x1",
            "blockNumber": "0x1",
            "logs": [log],
        }


def _truth(value: bool) -> str:
    return "0x" + int(value).to_bytes(32, "big").hex()
