"""What is sealed opens with the app's private key, for the guest alone, as it was given."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from phala_secrets.dstack.encryption import parse_sealed, seal
from phala_secrets.errors import InputError, ProofError

VECTORS = Path(__file__).parents[1] / "vectors"
RECORDED = json.loads((VECTORS / "envelopes.json").read_text())
REJECTED_PUBLIC_KEYS = json.loads((VECTORS / "rejected_public_keys.json").read_text())

PRIVATE = bytes.fromhex(RECORDED["private_key"])
PUBLIC = bytes.fromhex(RECORDED["public_key"])


def x25519(scalar: bytes, point: bytes) -> bytes:
    """The Montgomery ladder of RFC 7748, section 5, in plain integers."""
    p = 2**255 - 19
    k = int.from_bytes(scalar, "little") & ~7 & (2**254 - 1) | 2**254
    u = int.from_bytes(point, "little") & (2**255 - 1)
    x2, z2, x3, z3, swapped = 1, 0, u, 1, 0
    for position in reversed(range(255)):
        bit = k >> position & 1
        if swapped != bit:
            x2, x3, z2, z3 = x3, x2, z3, z2
        swapped = bit
        plus, minus = (x2 + z2) % p, (x2 - z2) % p
        across, along = (x3 - z3) * plus % p, (x3 + z3) * minus % p
        difference = (plus * plus - minus * minus) % p
        x3, z3 = (across + along) ** 2 % p, u * (across - along) ** 2 % p
        x2, z2 = plus * plus * minus * minus % p, difference * (plus * plus + 121665 * difference) % p
    if swapped:
        x2, z2 = x3, z3
    return (x2 * pow(z2, -1, p) % p).to_bytes(32, "little")


def opened(envelope: bytes, private_key: bytes = PRIVATE) -> Any:
    """What the guest reads: raw shared secret as the key, nonce in front, no associated data."""
    sender, nonce, ciphertext = envelope[:32], envelope[32:44], envelope[44:]
    return json.loads(AESGCM(x25519(private_key, sender)).decrypt(nonce, ciphertext, None).decode())


def env(variables: list[tuple[str, str]]) -> Any:
    return {"env": [{"key": name, "value": value} for name, value in variables]}


@given(st.binary(min_size=32, max_size=32))
def test_the_ladder_here_and_the_one_of_openssl_agree(private_key: bytes) -> None:
    public = X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()
    assert x25519(private_key, (9).to_bytes(32, "little")) == public


@pytest.mark.parametrize("row", RECORDED["envelopes"], ids=lambda row: row["made_by"])
def test_the_opener_here_opens_what_the_official_sdks_seal(row: dict[str, str]) -> None:
    assert opened(bytes.fromhex(row["ciphertext"])) == env(RECORDED["variables"])


def test_what_the_official_sdks_carry_is_carried_the_same() -> None:
    assert opened(seal(RECORDED["variables"], PUBLIC)) == env(RECORDED["variables"])


@given(st.lists(st.tuples(st.text(), st.text())), st.binary(min_size=32, max_size=32))
def test_every_text_arrives_as_it_was_given_and_in_order(
    variables: list[tuple[str, str]], key: bytes
) -> None:
    public = X25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()
    assert opened(seal(variables, public), key) == env(variables)


def test_the_plaintext_is_compact_utf8_json() -> None:
    envelope = seal([("A", "é\u2028")], PUBLIC)
    plaintext = '{"env":[{"key":"A","value":"é\u2028"}]}'.encode()
    assert len(envelope) == 32 + 12 + len(plaintext) + 16


def test_key_pair_and_nonce_are_new_each_time() -> None:
    envelopes = [seal([("A", "b")], PUBLIC) for _ in range(50)]
    assert len({envelope[:32] for envelope in envelopes}) == 50
    assert len({envelope[32:44] for envelope in envelopes}) == 50


def test_another_key_opens_nothing() -> None:
    with pytest.raises(InvalidTag):
        opened(seal([("A", "b")], PUBLIC), b"\x02" * 32)


SEALED = seal([("A", "b")], PUBLIC)


@given(st.integers(0, 8 * len(SEALED) - 1).filter(lambda bit: bit != 255))
def test_no_bit_on_the_wire_can_be_changed_unseen(bit: int) -> None:
    changed = bytearray(SEALED)
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(InvalidTag):
        opened(bytes(changed))


def test_the_one_bit_that_x25519_ignores_changes_nothing() -> None:
    changed = bytearray(SEALED)
    changed[31] ^= 0x80
    assert opened(bytes(changed)) == env([("A", "b")])


@pytest.mark.parametrize("row", REJECTED_PUBLIC_KEYS["rows"][:7], ids=lambda row: row["comment"])
def test_nothing_is_sealed_under_a_secret_that_anybody_knows(row: dict[str, str]) -> None:
    with pytest.raises(ProofError, match="low order") as error:
        seal([("A", "b")], bytes.fromhex(row["public_key"]))
    assert error.value.exit_code == 3
    assert error.value.hint


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ProofError, match=f"{length} bytes, not 32") as error:
        seal([("A", "b")], b"\x09" * length)
    assert error.value.hint


CANARY = "canary-5ec2e7"


@pytest.mark.parametrize(
    ("variables", "failure"),
    [
        ([("FINE", CANARY), ("TOKEN", CANARY + "\ud800")], "the value of TOKEN is not Unicode text"),
        ([("TOKEN", "\udc80" + CANARY)], "the value of TOKEN is not Unicode text"),
        ([("FINE", CANARY), ("\ud83d", CANARY)], "the name of variable 2 is not Unicode text"),
        ([("TOKEN", "\ud83d\ude00" + CANARY)], "the value of TOKEN is not Unicode text"),
    ],
)
def test_a_lone_surrogate_is_refused_by_name_without_the_value(
    variables: list[tuple[str, str]], failure: str
) -> None:
    with pytest.raises(InputError, match=failure) as error:
        seal(variables, PUBLIC)
    assert error.value.__context__ is None
    assert error.value.hint
    told = "".join(traceback.format_exception(error.value)) + repr(error.value) + error.value.hint
    assert CANARY not in told


def test_no_value_appears_when_the_key_is_refused() -> None:
    for key in (b"", bytes(32)):
        with pytest.raises(ProofError) as error:
            seal([("TOKEN", CANARY)], key)
        told = "".join(traceback.format_exception(error.value)) + repr(error.value) + error.value.hint
        assert CANARY not in told


def test_what_was_sealed_before_is_taken_as_hex() -> None:
    assert parse_sealed("0x" + "aB" * 60, "encrypted-env") == "ab" * 60
    assert parse_sealed("cd" * 100, "encrypted-env") == "cd" * 100


@pytest.mark.parametrize(
    "text",
    ["", "ab" * 59, "ab" * 60 + "c", "xy" * 60, "ab " * 60, "0x0x" + "ab" * 60, "０" * 120, "ab" * 60 + "0x"],
    ids=["nothing", "too short", "odd", "no hex", "blanks", "0x twice", "other digits", "0x behind"],
)
def test_what_could_not_have_been_sealed_is_refused(text: str) -> None:
    with pytest.raises(InputError) as refusal:
        parse_sealed(text, "encrypted-env")
    assert str(refusal.value) == "encrypted-env is not a ciphertext in hex"
    assert refusal.value.hint == "pass the ciphertext unchanged from the encryption"
