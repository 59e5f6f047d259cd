"""The few parts of the contract ABI that a run needs, strict to the last byte.

Encodes static ``bytes32`` and ``address`` arguments, and decodes ``bool``, ``address`` and
tuples of ``bytes`` (Solidity's "Contract ABI Specification", strict encoding mode). The data comes
from an RPC that may lie, so any encoding that a compiler would not write raises ``AnswerError``.
Returned hex is lower case. It has no ``0x`` unless the docstring says so.
"""

from __future__ import annotations

import re

from sha3 import keccak_256

from phala_secrets.dstack.ids import parse_app_id
from phala_secrets.errors import AnswerError

WORD = 32
MAX_DATA_BYTES = 1 << 20
"""More than any response needs: a KMS's attestation quote and event log have tens of kilobytes."""

_NO_CONTRACT = "check the address, and that the RPC is for the right chain"


def address(text: str, what: str = "address") -> str:
    """Return 20 bytes of hex with ``0x``, in lower case. Raise InputError that names ``what``."""
    return "0x" + parse_app_id(text, what)


def checksum_address(text: str) -> str:
    """Return an address with the EIP-55 checksum, from 40 hex digits with or without ``0x``."""
    digits = parse_app_id(text, "address")
    nibbles = keccak_256(digits.encode()).hexdigest()
    return "0x" + "".join(
        digit.upper() if nibble > "7" else digit for digit, nibble in zip(digits, nibbles, strict=False)
    )


def call(selector: str, *arguments: str) -> str:
    """Return calldata with ``0x``. ``arguments`` are addresses or ``bytes32`` in hex, without ``0x``."""
    return "0x" + selector + "".join(argument.rjust(2 * WORD, "0") for argument in arguments)


def data(result: object, *, limit: int = MAX_DATA_BYTES) -> bytes:
    """Return the bytes of an RPC's hex ``DATA``: ``0x`` and an even number of hex digits."""
    if not isinstance(result, str) or not result.startswith("0x"):
        raise AnswerError("the RPC's response is not hex data")
    if len(result) > 2 + 2 * limit:
        raise AnswerError(f"the RPC's response has over {limit} bytes")
    if not re.fullmatch(r"0x(?:[0-9a-fA-F]{2})*", result):
        raise AnswerError("the RPC's response is not hex data")
    return bytes.fromhex(result[2:])


def quantity(result: object, *, bits: int = 256) -> int:
    """Return the integer of an RPC's hex ``QUANTITY``."""
    if not isinstance(result, str) or not re.fullmatch(rf"0x[0-9a-fA-F]{{1,{bits // 4}}}", result):
        raise AnswerError("the RPC's response is not a hex number")
    return int(result, 16)


def hash32(result: object) -> str:
    """Return a 32-byte hash from an RPC, in lower case with ``0x``."""
    raw = data(result, limit=WORD)
    if len(raw) != WORD:
        raise AnswerError("the RPC's response is not a 32-byte hash")
    return "0x" + raw.hex()


def decode_bool(result: object) -> bool:
    """Return a ``bool``: one word that is 0 or 1."""
    value = int.from_bytes(_word(result))
    if value > 1:
        raise AnswerError("the contract returned a bool that is neither 0 nor 1")
    return value == 1


def decode_address(result: object) -> str:
    """Return an ``address``, in lower case with ``0x``."""
    word = _word(result)
    if any(word[:12]):
        raise AnswerError("the contract returned an address longer than 20 bytes")
    return "0x" + word[12:].hex()


def decode_byte_strings(result: object, count: int) -> tuple[bytes, ...]:
    """Return a tuple of ``count`` values of type ``bytes``.

    Accept the compiler's own layout only: the tails follow the head in order, without gaps or
    overlaps, zero-padded, and nothing follows. So no offset is ever followed on trust.
    """
    raw = _returned(result)
    cursor = count * WORD
    values = []
    for index in range(count):
        if int.from_bytes(raw[index * WORD : (index + 1) * WORD]) != cursor:
            raise AnswerError("the contract returned byte strings with invalid offsets")
        start = cursor + WORD
        length = int.from_bytes(raw[cursor:start])
        cursor = start + -(-length // WORD) * WORD
        if start > len(raw) or cursor > len(raw) or any(raw[start + length : cursor]):
            raise AnswerError("the contract returned byte strings with invalid lengths")
        values.append(raw[start : start + length])
    if cursor != len(raw):
        raise AnswerError("the contract returned trailing data")
    return tuple(values)


def _word(result: object) -> bytes:
    raw = _returned(result)
    if len(raw) != WORD:
        raise AnswerError(f"the contract returned {len(raw)} bytes, not {WORD}")
    return raw


def _returned(result: object) -> bytes:
    raw = data(result)
    if not raw:
        raise AnswerError("no contract at this address supports the call", hint=_NO_CONTRACT)
    return raw
