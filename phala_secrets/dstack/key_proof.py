"""The proof that an app's key comes from a KMS root: the root's signature over the key.

The KMS root (secp256k1) signs the Keccak-256 of ::

    "dstack-env-encrypt-pubkey" ‖ ":" ‖ app id (20) ‖ [timestamp (8, big-endian)] ‖ public key (32)

``signature_v1`` is over the form with the timestamp, the legacy ``signature`` over the
one without (dstack, ``kms/src/crypto.rs``).
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
"""Seconds that a v1 signature is accepted after it was made, as in dstack's SDKs."""

MAX_AHEAD = 60
"""Seconds that the clock of the KMS may be ahead of ours, as in dstack's SDKs."""

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

_DO_NOT_ENCRYPT = "do not encrypt to this key: it is not what a KMS of dstack's answers"


class EnvEncryptPublicKey(str):
    """An app's X25519 public key (hex) together with what the KMS signed it with.

    It is the hex string that it prints as: it compares, hashes and serialises as one, and
    goes wherever a hex key goes. What it carries is not verified yet:
    ``verify_env_encrypt_public_key`` does that.

    ``app_id`` is the app that the key was asked for, ``signature`` the legacy signature and
    ``signature_v1`` the one over ``timestamp`` (Unix seconds): hex, and ``None`` where the
    answer had none.
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
        """What copies and pickles are made from: the key and its proof."""
        return (str(self),), {name: getattr(self, name) for name in self.__slots__}

    def __getstate__(self) -> None:
        """Nothing beyond that."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> CoreSchema:
        """A string to pydantic, except that a key which carries its proof keeps it."""
        from pydantic_core import core_schema

        def keep(value: Any, as_text: Callable[[Any], str]) -> EnvEncryptPublicKey:
            return value if isinstance(value, cls) else cls(as_text(value))

        return core_schema.no_info_wrap_validator_function(keep, core_schema.str_schema())


class Proof(NamedTuple):
    """A key, the app it is for, and who signed that. Whether to trust the signer is another question.

    ``public_key`` is 32 bytes (X25519), ``app_id`` 20 bytes, ``signer`` compressed SEC1 hex
    (66 digits, no ``0x``), ``timestamp`` in Unix seconds, with v1 only.
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
    """Return who signed this key for this app, which is NOT to say that the signer is trusted.

    Any 65 well-formed bytes recover to *some* signer, so the caller has to compare ``signer``
    with one that it trusts.

    Keys, ids and signatures are bytes, or hex of either case with or without ``0x``; ``app_id``
    may begin with ``app_`` as well. A signature is r ‖ s ‖ recovery id, the id 0–3, or 27–30
    as some libraries write it. ``now`` is our clock in Unix seconds.

    Where ``signature_v1`` or ``timestamp`` is there, v1 decides alone: both have to be there,
    at most ``MAX_AGE`` old and ``MAX_AHEAD`` ahead. A v1 that fails never falls back to the
    legacy signature, which does not expire.

    A high s is accepted. The KMS makes none (k256 normalises them away), but (r, n − s) with
    the other recovery id has the very same signer, so nobody gains by it, and the verifiers in
    dstack's SDKs take it too.

    Raises ``ProofError``.
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
    """Return who signed the key; without ``trusted_signers``, COMPARE IT with a signer that you trust.

    ``public_key`` is an ``app_env_encrypt_pubkey``, which carries its proof, or a bare key with
    the proof in the other arguments, as hex or bytes; these replace what the key carries. With
    ``timestamp`` and no ``signature_v1``, ``signature`` is the v1 signature, as in dstack's
    SDKs; without either it is the legacy one.

    ``trusted_signers`` are secp256k1 public keys, one or several: SEC1 hex of 33 or 65 bytes,
    with or without ``0x``; in one string they stand apart by commas or white space. ``now`` is
    our clock in Unix seconds.

    The signer comes back as compressed SEC1 hex, 66 digits without ``0x``. ``prove`` has the
    rules.

    Raises ``ProofError`` if the key is malformed, its proof is missing or does not hold, it was
    given out for another app than ``app_id``, or its signer is not among ``trusted_signers``;
    ``InputError`` if one of these is malformed, or there is none in them.
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
            "the key does not say which app it is for, so there is nothing to verify",
            hint="pass app_env_encrypt_pubkey as the client returned it, or app_id and the signature",
        )
    proof = prove(
        public_key, app_id, signature=signature, signature_v1=signature_v1, timestamp=timestamp, now=now
    )
    if trusted is not None and proof.signer not in trusted:
        raise ProofError(
            f"the key is signed by {proof.signer}, which is not a trusted signer",
            hint="do not encrypt to this key, unless the KMS root is known to have changed",
        )
    return proof.signer


def parse_public_key(text: str | bytes) -> bytes:
    """Return the 32 bytes of an X25519 public key, given as hex with or without ``0x``, or as bytes.

    Refused are a u-coordinate that is not reduced or has the unused high bit set (X25519 takes
    these for another spelling of a key, RFC 7748, section 5; no KMS writes them), and points of
    low order, whose shared secret anybody knows.

    Raises ``ProofError``.
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
            "the app's public key is a point of low order: anybody could read what is encrypted to it",
            hint=_DO_NOT_ENCRYPT,
        )
    return raw


def parse_signer(text: str) -> str:
    """Return a secp256k1 public key as compressed SEC1 hex: 66 digits, no ``0x``.

    ``text`` is 33 or 65 bytes of SEC1 as hex of either case, with or without ``0x``. The error
    says what is wrong, and quotes nothing: it may be a private key pasted by mistake.

    Raises ``InputError``.
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
        f"the signer {what}", hint="give the KMS root's secp256k1 public key: 33 or 65 bytes of SEC1 as hex"
    )


def parse_signers(signers: str | Iterable[str]) -> frozenset[str]:
    """Return secp256k1 public keys, one or several, as ``parse_signer`` does.

    In one string they stand apart by commas or white space. None at all is an error: an empty
    pin must not count as no pin. Raises ``InputError``.
    """
    listed = signers.replace(",", " ").split() if isinstance(signers, str) else signers
    parsed = frozenset(parse_signer(signer) for signer in listed)
    if not parsed:
        raise InputError(
            "trusted_signers is empty, so no signer could be trusted",
            hint="name at least one KMS root, or leave it out and compare the signer yourself",
        )
    return parsed


def _parse_app_id(text: str | bytes) -> bytes:
    raw = _hex_bytes(text.removeprefix("app_") if isinstance(text, str) else text)
    if raw is None or len(raw) != 20:
        raise ProofError("the app id is not 20 bytes of hex", hint="an app id is 40 hex digits")
    return raw


def _same_app(carried: str | None, asked: str | bytes | None) -> str | bytes | None:
    """The app a key is for, which what it carries and what the caller says have to agree on."""
    if carried is not None and asked is not None and _parse_app_id(carried) != _parse_app_id(asked):
        raise ProofError(
            "the key was given out for another app than app_id",
            hint="fetch the key of the app that you encrypt for",
        )
    return carried if asked is None else asked


def _fresh(timestamp: int | None, now: float) -> int:
    """The time a v1 signature says it was made, if that is recent by our clock."""
    if timestamp is None:
        raise ProofError("the key has a signature_v1, but no timestamp", hint=_DO_NOT_ENCRYPT)
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
        f"the key's signature is from {_utc(timestamp)}, and by the clock here it is {_utc(now)}: "
        + (f"more than {MAX_AGE} s old" if age > 0 else f"more than {MAX_AHEAD} s ahead"),
        hint="set the clock of this machine; if it is right, the answer is not of now and not to be trusted",
    )


def _utc(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))


def _recover(message: bytes, signature: str | bytes | None, name: str) -> str:
    """The signer of a message, as compressed SEC1 hex; ``name`` is the field the signature is from."""
    if not signature:
        raise ProofError(f"the key comes without a {name}", hint=_DO_NOT_ENCRYPT)
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
        raise ProofError(f"no public key could have made the {name}", hint=_DO_NOT_ENCRYPT) from None


def _hex_bytes(text: object) -> bytes | None:
    """Bytes, given as such or as hex with or without ``0x``, else None."""
    if isinstance(text, bytes):
        return text
    # bytes.fromhex alone would skip white space.
    match = _HEX.fullmatch(text) if isinstance(text, str) else None
    return None if match is None else bytes.fromhex(match[1])
