"""The few corners of the contract ABI that we need, strict to the last byte.

Encodes static ``bytes32`` and ``address`` arguments, and decodes ``bool``, ``address`` and
tuples of ``bytes`` (Solidity's "Contract ABI Specification", strict encoding mode). Whatever
is not the one encoding that a compiler would write is refused with ``AnswerError``: what we
decode comes from an RPC that may lie. Hex out of here is lower case, without ``0x`` unless said.
"""

from __future__ import annotations

import re

from sha3 import keccak_256

from phala_secrets.dstack.ids import parse_app_id
from phala_secrets.errors import AnswerError

WORD = 32
MAX_DATA_BYTES = 1 << 20
"""More than any answer we ask for: a KMS's attestation quote and event log are tens of kilobytes."""

_NO_CONTRACT = "check the address, and that the RPC is for the right chain"


def address(text: str, what: str = "address") -> str:
    """20 bytes of hex as ``0x`` and lower case. Raises ``InputError``, which names ``what``."""
    return "0x" + parse_app_id(text, what)


def checksum_address(text: str) -> str:
    """An address with the capitals of EIP-55, from 40 hex digits with or without ``0x``."""
    digits = parse_app_id(text, "address")
    nibbles = keccak_256(digits.encode()).hexdigest()
    return "0x" + "".join(
        digit.upper() if nibble > "7" else digit for digit, nibble in zip(digits, nibbles, strict=False)
    )


def call(selector: str, *arguments: str) -> str:
    """Calldata with ``0x``: a selector, then addresses or ``bytes32``, as hex without ``0x``."""
    return "0x" + selector + "".join(argument.rjust(2 * WORD, "0") for argument in arguments)


def data(answer: object, *, limit: int = MAX_DATA_BYTES) -> bytes:
    """The bytes of an RPC's hex ``DATA``: ``0x`` and an even number of hex digits."""
    if not isinstance(answer, str) or not answer.startswith("0x"):
        raise AnswerError("the RPC answered something that is not hex data")
    if len(answer) > 2 + 2 * limit:
        raise AnswerError(f"the RPC answered more than {limit} bytes")
    if not re.fullmatch(r"0x(?:[0-9a-fA-F]{2})*", answer):
        raise AnswerError("the RPC answered something that is not hex data")
    return bytes.fromhex(answer[2:])


def quantity(answer: object, *, bits: int = 256) -> int:
    """The integer of an RPC's hex ``QUANTITY``."""
    if not isinstance(answer, str) or not re.fullmatch(rf"0x[0-9a-fA-F]{{1,{bits // 4}}}", answer):
        raise AnswerError("the RPC answered something that is not a hex number")
    return int(answer, 16)


def hash32(answer: object) -> str:
    """A 32-byte hash from an RPC, as ``0x`` and lower case."""
    raw = data(answer, limit=WORD)
    if len(raw) != WORD:
        raise AnswerError("the RPC answered a hash that is not 32 bytes long")
    return "0x" + raw.hex()


def decode_bool(answer: object) -> bool:
    """A returned ``bool``: one word that is 0 or 1."""
    value = int.from_bytes(_word(answer))
    if value > 1:
        raise AnswerError("the contract answered a truth value that is neither 0 nor 1")
    return value == 1


def decode_address(answer: object) -> str:
    """A returned ``address``, as ``0x`` and lower case."""
    word = _word(answer)
    if any(word[:12]):
        raise AnswerError("the contract answered an address that is longer than 20 bytes")
    return "0x" + word[12:].hex()


def decode_byte_strings(answer: object, count: int) -> tuple[bytes, ...]:
    """A returned tuple of ``count`` values of type ``bytes``.

    Only the compiler's own layout is taken: the tails follow the head in order, without
    gaps or overlaps, zero-padded, and nothing comes after. So no offset is ever followed on trust.
    """
    raw = _returned(answer)
    cursor = count * WORD
    values = []
    for index in range(count):
        if int.from_bytes(raw[index * WORD : (index + 1) * WORD]) != cursor:
            raise AnswerError("the contract answered byte strings with bad offsets")
        start = cursor + WORD
        length = int.from_bytes(raw[cursor:start])
        cursor = start + -(-length // WORD) * WORD
        if start > len(raw) or cursor > len(raw) or any(raw[start + length : cursor]):
            raise AnswerError("the contract answered byte strings with bad lengths")
        values.append(raw[start : start + length])
    if cursor != len(raw):
        raise AnswerError("the contract answered more than it should")
    return tuple(values)


def _word(answer: object) -> bytes:
    raw = _returned(answer)
    if len(raw) != WORD:
        raise AnswerError(f"the contract answered {len(raw)} bytes where {WORD} were due")
    return raw


def _returned(answer: object) -> bytes:
    raw = data(answer)
    if not raw:
        raise AnswerError("there is no contract at this address that answers the call", hint=_NO_CONTRACT)
    return raw
