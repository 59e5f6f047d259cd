"""The sealed environment, which only the guest can open (dstack, ``docs/encrypted-env-spec.md``).

``{"env": [{"key", "value"}, …]}`` as UTF-8 JSON, under AES-256-GCM with no associated data,
keyed with the raw X25519 shared secret of a fresh key pair and the app's key.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from phala_secrets.errors import InputError, ProofError

if TYPE_CHECKING:
    from collections.abc import Iterable

_NONCE_BYTES = 12
_AROUND_BYTES = 32 + _NONCE_BYTES + 16
"""Bytes of an envelope besides its plaintext: the sender's public key, the nonce and the tag."""
_NOT_UNICODE = "decode it as UTF-8 where you read it: it contains half of a surrogate pair"
_DO_NOT_ENCRYPT = "do not encrypt to this key: no dstack KMS sends one like it"


def seal(variables: Iterable[tuple[str, str]], public_key: bytes) -> bytes:
    """Encrypt names and values in this order to an app's X25519 public key (32 bytes).

    Return the sender's public key (32 bytes) ‖ nonce (12) ‖ ciphertext and tag (n + 16). The key pair
    and the nonce are new each time.

    Raises:
        InputError: a text is not Unicode (a lone surrogate). The message names the variable.
        ProofError: the key has another length, or makes the shared secret zero (RFC 7748, section 6.1).
    """
    # Imported here: a run that only verifies a key does not need it.
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    plaintext = _plaintext(variables)
    if len(public_key) != 32:
        raise ProofError(f"the app's public key has {len(public_key)} bytes, not 32", hint=_DO_NOT_ENCRYPT)
    ephemeral = X25519PrivateKey.generate()
    try:
        secret = ephemeral.exchange(X25519PublicKey.from_public_bytes(public_key))
    except ValueError:
        raise ProofError(
            "the app's public key is a point of low order: anyone could read what is encrypted to it",
            hint=_DO_NOT_ENCRYPT,
        ) from None
    nonce = os.urandom(_NONCE_BYTES)
    ciphertext = AESGCM(secret).encrypt(nonce, plaintext, None)
    return ephemeral.public_key().public_bytes_raw() + nonce + ciphertext


def sealed_size(variables: Iterable[tuple[str, str]]) -> int:
    """Return the size in bytes of what ``seal`` would return for these variables."""
    return _AROUND_BYTES + len(_written(variables).encode("utf-8", "surrogatepass"))


def entry_size(name: str, value: str) -> int:
    """Return the bytes that one variable adds to it, escapes included."""
    return sealed_size([(name, value)]) - sealed_size([])


def parse_sealed(text: str, what: str) -> str:
    """Return a ciphertext as lower-case hex, from hex with or without ``0x``. InputError names ``what``."""
    digits = text.removeprefix("0x").lower()
    try:
        size = len(bytes.fromhex(digits)) if digits.isalnum() else 0
    except ValueError:
        size = 0
    if size < _AROUND_BYTES:
        raise InputError(
            f"{what} is not a ciphertext in hex", hint="pass the ciphertext unchanged from the encryption"
        )
    return digits


def _plaintext(variables: Iterable[tuple[str, str]]) -> bytes:
    listed = list(variables)
    for position, (name, value) in enumerate(listed, 1):
        # Check first: an encoding error would contain the whole text.
        if not _is_text(name):
            raise InputError(f"the name of variable {position} is not Unicode text", hint=_NOT_UNICODE)
        if not _is_text(value):
            raise InputError(f"the value of {name} is not Unicode text", hint=_NOT_UNICODE)
    return _written(listed).encode()


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _written(variables: Iterable[tuple[str, str]]) -> str:
    env = [{"key": name, "value": value} for name, value in variables]
    return json.dumps({"env": env}, ensure_ascii=False, separators=(",", ":"))
