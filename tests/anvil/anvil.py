"""A real chain on loopback: anvil, with contracts of our own on it.

    with Chain(8453) as chain:
        owner = chain.wallet()
        app = chain.deploy("App", owner.address)
        chain.place_kms(root_public_key, apps=[app])
        chain.url                                   # http://127.0.0.1:PORT

The tests' own second opinion: encodes with ``eth-abi``, and shares no code with the product.
"""

from __future__ import annotations

import functools
import json
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
from eth_abi.abi import decode, encode
from eth_account import Account
from eth_utils.address import to_checksum_address
from sha3 import keccak_256

if TYPE_CHECKING:
    from eth_account.signers.local import LocalAccount

FOLDER = Path(__file__).parent
WELL_KNOWN_KMS = {
    1: "0xd343a3f5593b93D8056aB5D60c433622d7D65a80",
    8453: "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C",
}
ETHER = 10**18


@functools.cache
def contracts() -> dict[str, Any]:
    """What ``contracts/*.sol`` compile to, once a session."""
    compiled = subprocess.run(["node", "compile.cjs"], cwd=FOLDER, capture_output=True, text=True)
    if compiled.returncode:
        raise RuntimeError(f"the contracts do not compile; is `make test-chain` what ran? {compiled.stderr}")
    by_name: dict[str, Any] = json.loads(compiled.stdout)
    return by_name


def _binary() -> Path:
    found = sorted((FOLDER / "node_modules/@foundry-rs").glob("anvil-*/bin/anvil"))
    if not found:
        raise RuntimeError("anvil is not installed: run `make test-chain`")
    return found[0]


class Chain:
    """A fresh chain. Blocks are mined with each transaction, unless ``automine`` is turned off."""

    def __init__(self, chain_id: int = 8453, *options: str) -> None:
        self.chain_id = chain_id
        command = [str(_binary()), "--port", "0", "--chain-id", str(chain_id), "--accounts", "2", *options]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._process.stdout
        said = []
        for line in self._process.stdout:
            said.append(line)
            if line.startswith("Listening on "):
                break
        else:
            raise RuntimeError(f"anvil did not start: {''.join(said)}")
        self._reader = threading.Thread(target=self._process.stdout.read, daemon=True)
        self._reader.start()
        self.url = f"http://{line.split()[-1]}"
        self._http = httpx.Client(timeout=30, trust_env=False)
        self._automines = True
        self.funder = to_checksum_address(self.rpc("eth_accounts")[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()
        self._process.terminate()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout
        self._process.stdout.close()

    def rpc(self, method: str, *params: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = self._http.post(self.url, json=body).json()
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def wallet(self, wei: int = ETHER) -> LocalAccount:
        """A new key with a balance."""
        account: LocalAccount = Account.create()
        self.rpc("anvil_setBalance", account.address, hex(wei))
        return account

    def deploy(self, name: str, *arguments: Any) -> str:
        """The address of a new contract."""
        compiled = contracts()[name]
        types: list[Any] = next(
            (entry["inputs"] for entry in compiled["abi"] if entry["type"] == "constructor"), []
        )
        data = compiled["creation"] + encode([each["type"] for each in types], arguments).hex()
        return str(self._transact({"data": "0x" + data})["contractAddress"])

    def send(self, to: str, signature: str, *arguments: Any, gas_price: int = 3 * 10**9) -> None:
        """Sends a call from an account that owns nothing. ``gas_price`` is in wei."""
        self._transact({"to": to, "data": call_of(signature, *arguments), "gasPrice": hex(gas_price)})

    def call(self, to: str, signature: str, *arguments: Any, returns: str = "bool") -> Any:
        data = call_of(signature, *arguments)
        answer = self.rpc("eth_call", {"to": to, "data": data}, "latest")
        return decode([returns], bytes.fromhex(answer[2:]))[0]

    def place_kms(self, root: str, *, apps: list[str], address: str | None = None) -> str:
        """Puts a KMS contract with that root (SEC1 hex) at an address, else at the well-known one."""
        address = address or WELL_KNOWN_KMS[self.chain_id]
        self.rpc("anvil_setCode", address, "0x" + contracts()["Kms"]["runtime"])
        info = (bytes.fromhex(root), b"certificate", b"quote" * 1000, b"")
        self.send(address, "setKmsInfo((bytes,bytes,bytes,bytes))", info)
        for app in apps:
            self.send(address, "registerApp(address)", app)
        return address

    def automine(self, on: bool) -> None:
        self.rpc("evm_setAutomine", on)
        self._automines = on

    def mine(self) -> None:
        self.rpc("evm_mine")

    def balance(self, address: str) -> int:
        return int(self.rpc("eth_getBalance", address, "latest"), 16)

    def sent_by(self, address: str) -> int:
        """How many transactions of that address are mined."""
        return int(self.rpc("eth_getTransactionCount", address, "latest"), 16)

    def _transact(self, transaction: dict[str, Any]) -> Any:
        """The receipt, unless blocks are mined by hand."""
        request = {"from": self.funder, "gas": hex(5_000_000), "gasPrice": hex(3 * 10**9), **transaction}
        hash_ = self.rpc("eth_sendTransaction", request)
        receipt = None
        while self._automines and not receipt:  # anvil answers a moment before it has mined
            receipt = self.rpc("eth_getTransactionReceipt", hash_)
        assert not receipt or receipt["status"] == "0x1", f"the transaction failed: {transaction}"
        return receipt


def call_of(signature: str, *arguments: Any) -> str:
    """``0x`` hex of a call, e.g. ``call_of("addDevice(bytes32)", bytes(32))``."""
    inner = signature[signature.index("(") + 1 : -1]
    types = [inner] if inner.startswith("(") else [each for each in inner.split(",") if each]
    return f"0x{keccak_256(signature.encode()).hexdigest()[:8]}{encode(types, arguments).hex()}"
