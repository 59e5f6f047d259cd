"""Whether a compose hash was approved: asked of the chain, by JSON-RPC."""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from sha3 import keccak_256

from phala_secrets.simulator.wire import RefusalError

ALREADY_REGISTERED = "already-registered"
"""Stands for a transaction where the hash was approved before."""

_APPROVED = "0x" + keccak_256(b"ComposeHashAdded(bytes32)").hexdigest()
_ALLOWED_COMPOSE_HASHES = "0x2f6622e5"
_ALLOWED_DEVICE_IDS = "0xbf8b211b"
_ALLOW_ANY_DEVICE = "0x3440a16a"


def verify(rpc_url: str, app_id: str, compose_hash: str, device_id: str, transaction_hash: str) -> None:
    """Raise a 467 unless the transaction approved the hash, a 468 unless hash and device are allowed now.

    ``rpc_url`` is http; ``app_id`` is the app's contract, 40 hex digits; hash and device are 32 bytes as hex.
    """
    app = f"0x{app_id}"
    try:
        if transaction_hash != ALREADY_REGISTERED:
            _verify_receipt(rpc_url, app, compose_hash, transaction_hash)
        if not _is_true(rpc_url, app, _ALLOWED_COMPOSE_HASHES + compose_hash):
            raise refused(468, f"Compose hash {compose_hash} is not allowed on chain")
        any_device = _is_true(rpc_url, app, _ALLOW_ANY_DEVICE)
        if not any_device and not _is_true(rpc_url, app, _ALLOWED_DEVICE_IDS + device_id):
            raise refused(468, f"Device {device_id} is not allowed on chain")
    except (OSError, HTTPException, ValueError) as error:
        raise refused(467, f"The transaction could not be verified: {type(error).__name__}") from error


def refused(status: int, message: str) -> RefusalError:
    """466, 467 or 468 with its code."""
    return RefusalError(status, message, {466: "ERR-01-006", 467: "ERR-01-007", 468: "ERR-01-008"}[status])


def _verify_receipt(rpc_url: str, app: str, compose_hash: str, transaction_hash: str) -> None:
    receipt = _call(rpc_url, "eth_getTransactionReceipt", [transaction_hash])
    if not isinstance(receipt, dict):
        raise refused(467, "The transaction was not found")
    if receipt.get("status") != "0x1":
        raise refused(467, "The transaction failed")
    for log in receipt.get("logs", []):
        topics = log["topics"]
        about = (*topics[1:], log["data"])
        if log["address"].lower() == app and topics[0] == _APPROVED and f"0x{compose_hash}" in about:
            return
    raise refused(467, f"The transaction does not add {compose_hash} to {app}")


def _is_true(rpc_url: str, contract: str, data: str) -> bool:
    answer = _call(rpc_url, "eth_call", [{"to": contract, "data": data}, "latest"])
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
