"""A key management service: a root that signs, and a key for each app."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from btclib_secp256k1 import keys, recovery
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sha3 import keccak_256

if TYPE_CHECKING:
    from collections.abc import Callable

CENTRAL = "phala"
"""The slug of the Cloud KMS, also in place of its contract's address."""

NodeState = Literal["up", "down", "reset"]

_TYPES = {0: "phala", 1: "ethereum", 8453: "base"}


@dataclass(slots=True)
class KmsNode:
    """One machine of a KMS; all nodes of a contract share the root key.

    ``state`` is ``up``, ``down`` (asking it for a key gives 500) or ``reset`` (the connection breaks).
    """

    id: str
    slug: str
    url: str
    state: NodeState = "up"
    unknown_apps: set[str] = field(default_factory=set)
    """Ids of unknown apps: their keys give a 404."""


class Kms:
    """A KMS contract. A test may change its attributes.

    For the Cloud KMS ``chain_id`` is 0 and ``contract_address`` is `CENTRAL`. The root and the apps' keys
    follow from ``seed``, any secret.
    """

    def __init__(
        self, slug: str, seed: bytes, *, chain_id: int = 0, contract_address: str = CENTRAL, nodes: int = 1
    ) -> None:
        self.slug = slug
        self.label = slug
        self.chain_id = chain_id
        self.contract_address = contract_address
        self.version = "v0.5.8 (git:simulator)"
        self.online = True
        """Whether its nodes respond. If not, a request for a key gives a 500."""
        self.recovery_base = 0
        """Offset of the recovery id: some libraries write 27."""
        self.tamper: Callable[[dict[str, Any]], dict[str, Any]] = dict
        """Called with each key response before it is sent. Its result is sent instead."""
        self.app_keys: dict[str, X25519PrivateKey] = {}
        """The keys requested so far, by app id. A test may replace one."""
        self._seed = seed
        self._root = _derive(seed, b"root")
        self.id = "kc_" + _derive(seed, b"contract").hex()[:8]
        self.nodes = [
            KmsNode(
                "kms_" + _derive(seed, b"node%d" % number).hex()[:8],
                # The name of the Cloud KMS works for a node too.
                slug if number == 1 and slug == CENTRAL else f"{slug}-{number}",
                f"https://{slug}-{number}.kms.invalid:9201",
            )
            for number in range(1, nodes + 1)
        ]

    @property
    def kms_type(self) -> str:
        """``phala``, ``ethereum`` or ``base``, as a CVM shows it. It does not identify the KMS."""
        return _TYPES.get(self.chain_id, "base")

    @property
    def is_on_chain(self) -> bool:
        return self.chain_id != 0

    @property
    def root_public_key(self) -> str:
        """The root's public key: 33 bytes, compressed SEC1, as hex."""
        return keys.pubkey_from_prvkey(self._root).hex()

    @property
    def ca_public_key(self) -> str:
        """The CA's public key: P-256, SubjectPublicKeyInfo in DER, as hex."""
        from phala_secrets.simulator.authority import p256

        public = p256(self._seed, "KMS CA").public_key()
        return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex()

    def is_called(self, reference: str) -> bool:
        """Return whether the contract has this id or slug."""
        return reference in (self.id, self.slug)

    def node(self, reference: str) -> KmsNode | None:
        """Return the node with this id or slug."""
        return next((node for node in self.nodes if reference in (node.id, node.slug)), None)

    def app_key(self, app_id: str) -> X25519PrivateKey:
        """Return the private key of an app (40 hex digits)."""
        if app_id not in self.app_keys:
            secret = _derive(self._seed, b"app:" + bytes.fromhex(app_id))
            self.app_keys[app_id] = X25519PrivateKey.from_private_bytes(secret)
        return self.app_keys[app_id]

    def app_public_key(self, app_id: str) -> str:
        """Return the public key of an app: 32 bytes in hex."""
        return self.app_key(app_id).public_key().public_bytes_raw().hex()

    def sign(self, app_id: str, public_key: str, timestamp: int | None = None) -> str:
        """Return the root's signature over an app's key, 65 bytes in hex.

        With a ``timestamp`` (seconds since the epoch) it is ``signature_v1``, without one the legacy
        signature. ``public_key`` is hex.
        """
        moment = b"" if timestamp is None else timestamp.to_bytes(8, "big")
        message = b"dstack-env-encrypt-pubkey:" + bytes.fromhex(app_id) + moment + bytes.fromhex(public_key)
        signature, recovery_id = recovery.sign(keccak_256(message).digest(), self._root, verify=False)
        return (signature + bytes([recovery_id + self.recovery_base])).hex()

    def answer(self, app_id: str, timestamp: int | None) -> dict[str, Any]:
        """Return an app's key with its proof. Without ``timestamp``, include the legacy signature only."""
        public_key = self.app_public_key(app_id)
        answer: dict[str, Any] = {"public_key": public_key, "signature": self.sign(app_id, public_key)}
        if timestamp is not None:
            answer["timestamp"] = timestamp
            answer["signature_v1"] = self.sign(app_id, public_key, timestamp)
        return self.tamper(answer)


def _derive(seed: bytes, purpose: bytes) -> bytes:
    return hmac.digest(seed, purpose, hashlib.sha256)
