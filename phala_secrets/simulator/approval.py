"""Approvals of compose hashes: from the chain by JSON-RPC, or from the cloud's own settings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from sha3 import keccak_256

from phala_secrets.simulator.wire import RefusalError

if TYPE_CHECKING:
    from phala_secrets.simulator.cvm import Cvm
    from phala_secrets.simulator.world import World

ALREADY_REGISTERED = "already-registered"
"""Stands for a transaction where the hash was approved before."""

_APPROVED = "0x" + keccak_256(b"ComposeHashAdded(bytes32)").hexdigest()
_ALLOWED_COMPOSE_HASHES = "0x2f6622e5"
_ALLOWED_DEVICE_IDS = "0xbf8b211b"
_ALLOW_ANY_DEVICE = "0x3440a16a"


class Registry(Protocol):
    """The approvals of an app's contract. Hashes and device ids are 32 bytes in hex."""

    def allows_hash(self, compose_hash: str) -> bool: ...

    def allows_any_device(self) -> bool: ...

    def allows_device(self, device_id: str) -> bool: ...

    def verify_transaction(self, compose_hash: str, transaction_hash: str) -> None:
        """Raise a 467 unless the transaction approved the hash."""
        ...


def ask(world: World, cvm: Cvm) -> Registry:
    """Return the registry of the CVM's app: on its chain if there is an RPC, otherwise on paper."""
    rpc_url = world.rpc_urls.get(cvm.kms.chain_id)
    return _Paper(world) if rpc_url is None else _Contract(rpc_url, f"0x{cvm.app_id}")


def verify(world: World, cvm: Cvm, compose_hash: str, transaction_hash: str) -> None:
    """Raise a 467 unless the transaction approved the hash, a 468 unless hash and device are allowed."""
    registry = ask(world, cvm)
    try:
        if transaction_hash != ALREADY_REGISTERED:
            registry.verify_transaction(compose_hash, transaction_hash)
        elif not world.already_registered:
            raise refused(467, "The transaction could not be verified")
        if not registry.allows_hash(compose_hash):
            raise refused(468, f"Compose hash {compose_hash} is not allowed on chain")
        if not registry.allows_any_device():
            enabled = [device.device_id for device in cvm.devices if device.enabled]
            _verify_devices(registry, enabled, every=world.every_device_checked)
    except (OSError, HTTPException, ValueError) as error:
        raise refused(467, f"The transaction could not be verified: {type(error).__name__}") from error


def refused(status: int, message: str) -> RefusalError:
    """Return a 466, 467 or 468 with its code."""
    return RefusalError(status, message, {466: "ERR-01-006", 467: "ERR-01-007", 468: "ERR-01-008"}[status])


def _verify_devices(registry: Registry, devices: Sequence[str], *, every: bool) -> None:
    missing = [device for device in devices if not registry.allows_device(device)]
    if missing and (every or len(missing) == len(devices)):
        raise refused(468, f"Device {missing[0]} is not allowed on chain")


class _Paper:
    """Approvals from the cloud's settings."""

    def __init__(self, world: World) -> None:
        self._world = world

    def allows_hash(self, compose_hash: str) -> bool:
        return compose_hash in self._world.approved_hashes

    def allows_any_device(self) -> bool:
        return self._world.approved_devices is None

    def allows_device(self, device_id: str) -> bool:
        return device_id in (self._world.approved_devices or ())

    def verify_transaction(self, compose_hash: str, transaction_hash: str) -> None:
        """Approve any hash that comes with a good transaction. Raise a 467 for another transaction."""
        if transaction_hash not in self._world.approved_transactions:
            raise refused(467, "The transaction could not be verified")
        self._world.approved_hashes.add(compose_hash)


class _Contract:
    """The app's contract, over http."""

    def __init__(self, rpc_url: str, address: str) -> None:
        self._rpc_url = rpc_url
        self._address = address

    def allows_hash(self, compose_hash: str) -> bool:
        return self._is_true(_ALLOWED_COMPOSE_HASHES + compose_hash)

    def allows_any_device(self) -> bool:
        return self._is_true(_ALLOW_ANY_DEVICE)

    def allows_device(self, device_id: str) -> bool:
        return self._is_true(_ALLOWED_DEVICE_IDS + device_id)

    def verify_transaction(self, compose_hash: str, transaction_hash: str) -> None:
        receipt = _call(self._rpc_url, "eth_getTransactionReceipt", [transaction_hash])
        if not isinstance(receipt, dict):
            raise refused(467, "The transaction was not found")
        if receipt.get("status") != "0x1":
            raise refused(467, "The transaction failed")
        for log in receipt.get("logs", []):
            topics = log["topics"]
            about = (*topics[1:], log["data"])
            ours = log["address"].lower() == self._address and topics[0] == _APPROVED
            if ours and f"0x{compose_hash}" in about:
                return
        raise refused(467, f"The transaction does not add {compose_hash} to {self._address}")

    def _is_true(self, data: str) -> bool:
        answer = _call(self._rpc_url, "eth_call", [{"to": self._address, "data": data}, "latest"])
        return isinstance(answer, str) and int(answer, 16) == 1


def _call(rpc_url: str, method: str, params: list[Any]) -> Any:
    url = urlsplit(rpc_url)
    connection = HTTPConnection(url.hostname or "", url.port, timeout=10)
    try:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        connection.request("POST", url.path or "/", body, {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    if not isinstance(answer, dict) or "result" not in answer:
        raise ValueError("no result")
    return answer["result"]
