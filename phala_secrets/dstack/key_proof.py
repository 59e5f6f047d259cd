"""The proof that an app's key comes from a KMS root: the root's signature over the key.

The KMS root (secp256k1) signs the Keccak-256 of ::

    "dstack-env-encrypt-pubkey" ‖ ":" ‖ app id (20) ‖ [timestamp (8, big-endian)] ‖ public key (32)

``signature_v1`` covers the form with the timestamp, the legacy ``signature`` the one without (dstack,
``kms/src/crypto.rs``).
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

from btclib_secp256k1 import keys, recovery
from sha3 import keccak_256

from phala_secrets.errors import InputError, ProofError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pydantic_core import CoreSchema

MAX_AGE = 300
"""Maximum age of a v1 signature in seconds, as in dstack's SDKs."""

MAX_AHEAD = 60
"""Seconds that the KMS's clock may be ahead of the local one, as in dstack's SDKs."""

_PREFIX = b"dstack-env-encrypt-pubkey:"
_HEX = re.compile(r"(?:0[xX])?((?:[0-9a-fA-F]{2})*)")

# RFC 7748: u-coordinates are integers modulo this prime.
_X25519_PRIME = 2**255 - 19

# The u-coordinates of the points of order 1, 2, 4 and 8, on the curve and on its twist.
# With any of them the shared secret is zero (RFC 7748, section 6.1).
_LOW_ORDER = frozenset(
    {
        0,
        1,
        _X25519_PRIME - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    }
)

# SEC 2: the order of secp256k1's group.
_SECP256K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

_YEAR_10000 = 253402300800

_DO_NOT_ENCRYPT = "do not encrypt to this key: no dstack KMS sends one like it"


class EnvEncryptPublicKey(str):
    """An app's X25519 public key (hex) with the KMS's signatures, which are NOT VERIFIED yet.

    It is a hex string: it prints, compares, hashes and serialises as one and works wherever a hex key
    does. ``verify_env_encrypt_public_key`` verifies the signatures.

    ``app_id`` is the app that the key was requested for. ``signature`` is the legacy signature and
    ``signature_v1`` the one over ``timestamp`` (Unix seconds). Both are hex, or None if the response had
    none.
    """

    __slots__ = ("app_id", "signature", "signature_v1", "timestamp")

    app_id: str | None
    signature: str | None
    signature_v1: str | None
    timestamp: int | None

    def __new__(
        cls,
        public_key: str,
        *,
        app_id: str | None = None,
        signature: str | None = None,
        signature_v1: str | None = None,
        timestamp: int | None = None,
    ) -> Self:
        key = super().__new__(cls, public_key)
        key.app_id = app_id
        key.signature = signature
        key.signature_v1 = signature_v1
        key.timestamp = timestamp
        return key

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:
        """Return what copies and pickles need: the key and its proof."""
        return (str(self),), {name: getattr(self, name) for name in self.__slots__}

    def __getstate__(self) -> None:
        """Return no further state."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        """Return the schema of a string that keeps the proof of a key."""
        from pydantic_core import core_schema

        def keep(value: Any, as_text: Callable[[Any], str]) -> EnvEncryptPublicKey:
            return value if isinstance(value, cls) else cls(as_text(value))

        return core_schema.no_info_wrap_validator_function(keep, core_schema.str_schema())


class Proof(NamedTuple):
    """A key, its app and the signer of both. The signer may be untrusted.

    ``public_key`` is 32 bytes (X25519), ``app_id`` 20 bytes, ``signer`` compressed SEC1 hex
    (66 digits, no ``0x``), ``timestamp`` in Unix seconds (v1 only).
    """

    public_key: bytes
    app_id: bytes
    signer: str
    version: Literal["v1", "legacy"]
    timestamp: int | None


def prove(
    public_key: str | bytes,
    app_id: str | bytes,
    *,
    signature: str | bytes | None,
    signature_v1: str | bytes | None = None,
    timestamp: int | None = None,
    now: float | None = None,
) -> Proof:
    """Return the signer of this key for this app. It is NOT necessarily trusted.

    Any 65 well-formed bytes recover to *some* signer, so the caller must compare ``signer`` with one
    that it trusts.

    Keys, ids and signatures are bytes, or hex in either case with or without ``0x``. ``app_id`` may begin
    with ``app_``. A signature is r ‖ s ‖ recovery id. The id is 0–3, or 27–30 as some libraries write it.
    ``now`` is the local clock in Unix seconds.

    If ``signature_v1`` or ``timestamp`` is present, v1 alone decides: both are required, at most
    ``MAX_AGE`` old and ``MAX_AHEAD`` ahead. A failed v1 never falls back to the legacy signature, which
    does not expire.

    A high s is accepted. The KMS makes none, since k256 normalises them. But (r, n − s) with the other
    recovery id has the same signer, so it gains an attacker nothing. The verifiers in dstack's SDKs
    accept it too.

    Raise ProofError.
    """
    key = parse_public_key(public_key)
    app = _parse_app_id(app_id)
    if signature_v1 is None and timestamp is None:
        signer = _recover(_PREFIX + app + key, signature, "signature")
        return Proof(key, app, signer, "legacy", None)
    moment = _fresh(timestamp, time.time() if now is None else now)
    signer = _recover(_PREFIX + app + moment.to_bytes(8, "big") + key, signature_v1, "signature_v1")
    return Proof(key, app, signer, "v1", moment)


def verify_env_encrypt_public_key(
    public_key: str | bytes,
    signature: str | bytes | None = None,
    app_id: str | bytes | None = None,
    timestamp: int | None = None,
    *,
    signature_v1: str | bytes | None = None,
    trusted_signers: str | Iterable[str] | None = None,
    now: float | None = None,
) -> str:
    """Return the signer of an app's key. Without ``trusted_signers``, COMPARE IT with one that you trust.

    The KMS root (secp256k1) signs the Keccak-256 of a prefix, the app id and the key (dstack,
    ``kms/src/crypto.rs``). Any well-formed signature recovers to *some* signer.

    Args:
        public_key: an ``app_env_encrypt_pubkey``, which carries its proof, or a bare X25519 key (32
            bytes, or hex) with the proof in the other arguments. These replace what the key carries.
        signature: 65 bytes, or hex. With ``timestamp`` and without ``signature_v1`` it is the v1
            signature, as in dstack's SDKs. Otherwise it is the legacy one.
        app_id: the app, 20 bytes, or hex with or without ``0x`` or ``app_``.
        timestamp: when the v1 signature was made, in Unix seconds. At most 300 old and 60 ahead.
        signature_v1: the v1 signature, 65 bytes, or hex.
        trusted_signers: one or more secp256k1 public keys: SEC1 hex of 33 or 65 bytes, with or without
            ``0x``. In one string, separate them with commas or white space.
        now: the local clock in Unix seconds.

    Returns:
        The signer: compressed SEC1 hex, 66 digits without ``0x``.

    Raises:
        ProofError: the key is malformed, its proof is missing or invalid, the key is for another app
            than ``app_id``, or its signer is not in ``trusted_signers``.
        InputError: ``trusted_signers`` is empty or malformed.
    """
    trusted = None if trusted_signers is None else parse_signers(trusted_signers)
    if timestamp is not None and signature_v1 is None:
        signature, signature_v1 = None, signature
    if isinstance(public_key, EnvEncryptPublicKey):
        app_id = _same_app(public_key.app_id, app_id)
        if signature is None and signature_v1 is None and timestamp is None:
            signature, signature_v1 = public_key.signature, public_key.signature_v1
            timestamp = public_key.timestamp
    if app_id is None:
        raise ProofError(
            "the key does not name its app, so there is nothing to verify",
            hint="pass app_env_encrypt_pubkey from the client, or app_id and the signature",
        )
    proof = prove(
        public_key, app_id, signature=signature, signature_v1=signature_v1, timestamp=timestamp, now=now
    )
    if trusted is not None and proof.signer not in trusted:
        raise ProofError(
            f"the key is signed by {proof.signer}, which is not a trusted signer",
            hint="do not encrypt to this key unless you know that the KMS root has changed",
        )
    return proof.signer


def parse_public_key(text: str | bytes) -> bytes:
    """Return the 32 bytes of an X25519 public key, from hex with or without ``0x`` or from bytes.

    Refuse a u-coordinate that is not reduced or has the unused high bit set. X25519 treats these as
    other spellings of a key (RFC 7748, section 5), but no KMS writes them. Refuse points of low order
    too: anyone knows their shared secret.

    Raise ProofError.
    """
    raw = _hex_bytes(text)
    if raw is None:
        raise ProofError("the app's public key is not hex", hint=_DO_NOT_ENCRYPT)
    if len(raw) != 32:
        raise ProofError(f"the app's public key has {len(raw)} bytes, not 32", hint=_DO_NOT_ENCRYPT)
    u = int.from_bytes(raw, "little")
    if u >= _X25519_PRIME:
        raise ProofError("the app's public key is not in canonical form", hint=_DO_NOT_ENCRYPT)
    if u in _LOW_ORDER:
        raise ProofError(
            "the app's public key is a point of low order: anyone could read what is encrypted to it",
            hint=_DO_NOT_ENCRYPT,
        )
    return raw


def parse_signer(text: str) -> str:
    """Return a secp256k1 public key as compressed SEC1 hex: 66 digits, no ``0x``.

    ``text`` is 33 or 65 bytes of SEC1 in hex of either case, with or without ``0x``. The error quotes
    nothing: the text may be a private key that was pasted by mistake.

    Raise InputError.
    """
    raw = _hex_bytes(text.strip())
    if raw is None:
        raise _bad_signer("is not hex")
    if len(raw) not in (33, 65):
        raise _bad_signer(f"has {len(raw)} bytes, not 33 or 65")
    if raw[0] not in ((2, 3) if len(raw) == 33 else (4,)):
        raise _bad_signer(f"begins with {raw[0]:02x}: 33 bytes begin with 02 or 03, and 65 with 04")
    if not keys.pubkey_verify(raw):
        raise _bad_signer("is not a point of the curve")
    return keys.reserialize(raw).hex()


def _bad_signer(what: str) -> InputError:
    return InputError(
        f"the signer {what}", hint="use the KMS root's secp256k1 public key: 33 or 65 bytes of SEC1 in hex"
    )


def parse_signers(signers: str | Iterable[str]) -> frozenset[str]:
    """Return one or more secp256k1 public keys in the form of ``parse_signer``.

    Commas or white space separate them in one string. Raise InputError if there are none: an empty
    pin must not count as no pin.
    """
    listed = signers.replace(",", " ").split() if isinstance(signers, str) else signers
    parsed = frozenset(parse_signer(signer) for signer in listed)
    if not parsed:
        raise InputError(
            "trusted_signers is empty, so no signer is trusted",
            hint="pass at least one KMS root, or leave it out and compare the signer yourself",
        )
    return parsed


def _parse_app_id(text: str | bytes) -> bytes:
    raw = _hex_bytes(text.removeprefix("app_") if isinstance(text, str) else text)
    if raw is None or len(raw) != 20:
        raise ProofError("the app id is not 20 bytes of hex", hint="use 40 hex digits")
    return raw


def _same_app(carried: str | None, asked: str | bytes | None) -> str | bytes | None:
    """Return the app of a key. Raise ProofError if the caller names another one than the key."""
    if carried is not None and asked is not None and _parse_app_id(carried) != _parse_app_id(asked):
        raise ProofError(
            "the key is for another app than app_id",
            hint="fetch the key of the app that you encrypt for",
        )
    return carried if asked is None else asked


def _fresh(timestamp: int | None, now: float) -> int:
    """Return the timestamp of a v1 signature if it is recent by the local clock."""
    if timestamp is None:
        raise ProofError("the key has a signature_v1 but no timestamp", hint=_DO_NOT_ENCRYPT)
    if type(timestamp) is not int:
        raise ProofError("the timestamp of the key's signature is not an integer", hint=_DO_NOT_ENCRYPT)
    if not 0 <= timestamp < _YEAR_10000:
        raise ProofError(
            "the timestamp of the key's signature is not a time in Unix seconds", hint=_DO_NOT_ENCRYPT
        )
    age = int(now) - timestamp
    if -MAX_AHEAD <= age <= MAX_AGE:
        return timestamp
    raise ProofError(
        f"the key's signature is from {_utc(timestamp)}, but the local clock says {_utc(now)}: "
        + (f"more than {MAX_AGE} s old" if age > 0 else f"more than {MAX_AHEAD} s ahead"),
        hint="set the clock of this machine; if it is right, do not trust this old response",
    )


def _utc(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))


def _recover(message: bytes, signature: str | bytes | None, name: str) -> str:
    """Return the signer of a message as compressed SEC1 hex. ``name`` is the field of the signature."""
    if not signature:
        raise ProofError(f"the key has no {name}", hint=_DO_NOT_ENCRYPT)
    raw = _hex_bytes(signature)
    if raw is None:
        raise ProofError(f"the {name} is not hex", hint=_DO_NOT_ENCRYPT)
    if len(raw) != 65:
        raise ProofError(f"the {name} has {len(raw)} bytes, not 65", hint=_DO_NOT_ENCRYPT)
    for part, scalar in (("r", raw[:32]), ("s", raw[32:64])):
        if not any(scalar):
            raise ProofError(f"the {name} has {part} = 0", hint=_DO_NOT_ENCRYPT)
        if int.from_bytes(scalar, "big") >= _SECP256K1_ORDER:
            raise ProofError(f"the {name} has {part} at or above the curve's order", hint=_DO_NOT_ENCRYPT)
    recovery_id = raw[64] - 27 if raw[64] >= 27 else raw[64]
    if recovery_id > 3:
        raise ProofError(
            f"the {name} has the recovery id {raw[64]}, not one of 0–3 or 27–30", hint=_DO_NOT_ENCRYPT
        )
    try:
        return recovery.recover(keccak_256(message).digest(), raw[:64], recovery_id).hex()
    except ValueError:
        raise ProofError(f"the {name} matches no public key", hint=_DO_NOT_ENCRYPT) from None


def _hex_bytes(text: object) -> bytes | None:
    """Return the bytes of hex (with or without ``0x``) or of bytes, or None for anything else."""
    if isinstance(text, bytes):
        return text
    # bytes.fromhex alone would skip white space.
    match = _HEX.fullmatch(text) if isinstance(text, str) else None
    return None if match is None else bytes.fromhex(match[1])
