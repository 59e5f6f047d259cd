"""The data for an approval made elsewhere: calldata, a file for a Safe, and a digest over it all."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

from sha3 import keccak_256

from phala_secrets.chain import abi
from phala_secrets.dstack.ids import parse_app_id, parse_hash
from phala_secrets.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

_ADD_COMPOSE_HASH = "dfc77223"
_ADD_DEVICE = "2a819728"


def add_compose_hash(compose_hash: str) -> str:
    """Return the calldata (``0x`` hex) of ``addComposeHash(bytes32)``, which the owner sends to the app."""
    return abi.call(_ADD_COMPOSE_HASH, parse_hash(compose_hash, "compose hash"))


def add_device(device: str) -> str:
    """Return the calldata (``0x`` hex) of ``addDevice(bytes32)``, which the owner sends to the app."""
    return abi.call(_ADD_DEVICE, parse_hash(device, "device id"))


def safe_transaction(
    chain_id: int, app: str, *, compose_hash: str | None = None, devices: Sequence[str] = ()
) -> str:
    """Return a batch for Safe's Transaction Builder (JSON, ASCII), ready to import.

    Add the devices first and then the compose hash: the order in which the service asks for the
    approvals. The same arguments give the same bytes, so an approver can make the file again and
    compare. The builder executes ``data`` and warns of a wrong checksum. The other fields of a
    transaction are for its readers.

    Raise InputError if there is nothing to approve or an id is malformed.
    """
    to = abi.checksum_address(app)
    transactions = []
    for device in devices:
        values = {"deviceId": "0x" + parse_hash(device, "device id")}
        transactions.append(_safe_call(to, "addDevice", values, add_device(device)))
    if compose_hash is not None:
        values = {"composeHash": "0x" + parse_hash(compose_hash, "compose hash")}
        transactions.append(_safe_call(to, "addComposeHash", values, add_compose_hash(compose_hash)))
    if not transactions:
        raise InputError("no compose hash and no device to approve")
    meta = {
        "name": "Approve an update of a Phala Cloud app",
        "description": f"Written by phala-secrets for app {to}",
    }
    batch = {
        "version": "1.0",
        "chainId": str(chain_id),
        "createdAt": 0,
        "meta": meta,
        "transactions": transactions,
    }
    return json.dumps({**batch, "meta": {**meta, "checksum": safe_checksum(batch)}}, separators=(",", ":"))


def safe_checksum(batch: dict[str, Any]) -> str:
    """Return the checksum that Safe's Transaction Builder computes over a batch without its name.

    ``tx-builder/src/lib/checksum.ts`` of safe-global/safe-react-apps defines it.
    """
    unnamed = {**batch, "meta": {**batch["meta"], "name": None}}
    unnamed["meta"].pop("checksum", None)
    digest: str = keccak_256(_safe_serialisation(unnamed).encode()).hexdigest()
    return "0x" + digest


def prepared_digest(
    *,
    app_id: str,
    cvm_id: str,
    chain_id: int,
    device_ids: Sequence[str],
    public_key: str,
    env_keys: Sequence[str],
    compose_hash: str,
    encrypted_env: str,
    docker_compose_file: str | None = None,
) -> str:
    """Return the digest over everything that an approval covers. A change of any part changes it.

    It is ``2:`` and the SHA-256 (hex) of one line of JSON: UTF-8, keys sorted, no spaces, as
    ``jq -cSj .`` writes it. The object has exactly these arguments and ``"version": 2``. Hex is
    lower case without ``0x``: ``app_id`` (20 bytes), ``device_ids`` (32 each, sorted), ``public_key``
    (32, the app's X25519 key), ``compose_hash`` (32), ``encrypted_env``. ``env_keys`` keep their
    order, since the compose hash depends on it. ``cvm_id`` is the service's own ``cvm_…``.

    A compose file that is deployed with the secrets adds its text as ``docker_compose_file``. The
    version is then 3 (``3:``, ``"version": 3``). ``encrypted_env`` is then empty if the environment
    stays as it is.

    Raise InputError for malformed hex.
    """
    try:
        ciphertext = bytes.fromhex(encrypted_env.removeprefix("0x")).hex()
    except ValueError:
        raise InputError("encrypted-env is not hex") from None
    deployed = {} if docker_compose_file is None else {"docker_compose_file": docker_compose_file}
    version = 3 if deployed else 2
    prepared = {
        "version": version,
        "app_id": parse_app_id(app_id),
        "cvm_id": cvm_id,
        "chain_id": chain_id,
        "device_ids": sorted(parse_hash(device, "device id") for device in device_ids),
        "public_key": parse_hash(public_key, "public key"),
        "env_keys": list(env_keys),
        "compose_hash": parse_hash(compose_hash, "compose hash"),
        "encrypted_env": ciphertext,
        **deployed,
    }
    line = json.dumps(prepared, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return f"{version}:{hashlib.sha256(line.encode()).hexdigest()}"


def parse_digest(text: str) -> str:
    """Return a ``prepared-digest`` in lower case.

    Raise InputError for anything else and for a digest of an earlier release.
    """
    digest = text.strip().lower()
    if re.fullmatch(r"[23]:[0-9a-f]{64}", digest):
        return digest
    if re.fullmatch(r"(?:0x)?[0-9a-f]{64}", digest):
        raise InputError("prepared-digest comes from an earlier release", hint="prepare the update again")
    raise InputError(
        f"invalid prepared-digest {text[:80]!a}",
        hint="use the output prepared-digest: 2: or 3: and 64 hex digits",
    )


def _safe_call(to: str, method: str, values: dict[str, str], calldata: str) -> dict[str, Any]:
    inputs = [{"internalType": "bytes32", "name": name, "type": "bytes32"} for name in values]
    return {
        "to": to,
        "value": "0",
        "data": calldata,
        "contractMethod": {"inputs": inputs, "name": method, "payable": False},
        "contractInputsValues": values,
    }


def _safe_serialisation(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ",".join(map(_safe_serialisation, value)) + "]"
    if isinstance(value, dict):
        keys = sorted(value)
        names = json.dumps(keys, separators=(",", ":"))
        return "{" + names + "".join(_safe_serialisation(value[key]) + "," for key in keys) + "}"
    return json.dumps(value)
