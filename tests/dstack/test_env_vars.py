"""encrypt_env_vars, as Phala documents it and as its users call it."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from phala_secrets.dstack.env_vars import encrypt_env_vars
from phala_secrets.dstack.key_proof import EnvEncryptPublicKey
from phala_secrets.errors import DeliveryError, InputError, PhalaSecretsError, ProofError

VECTORS = Path(__file__).parents[1] / "vectors"
REJECTED_PUBLIC_KEYS = json.loads((VECTORS / "rejected_public_keys.json").read_text())["rows"]

PRIVATE = X25519PrivateKey.from_private_bytes(b"\x01" * 32)
KEY = PRIVATE.public_key().public_bytes_raw().hex()

CANARY = "canary-5ec2e7"


def opened(ciphertext: str) -> list[tuple[str, str]]:
    raw = bytes.fromhex(ciphertext)
    secret = PRIVATE.exchange(X25519PublicKey.from_public_bytes(raw[:32]))
    plaintext = json.loads(AESGCM(secret).decrypt(raw[32:44], raw[44:], None))
    return [(item["key"], item["value"]) for item in plaintext["env"]]


class EnvVar(NamedTuple):
    """As PyPI dstack-sdk has it."""

    key: str
    value: str


WANTED = [("DATABASE_URL", "postgres://…"), ("API_SECRET", "s3cr3t")]


@pytest.mark.parametrize(
    "env_vars",
    [
        [{"key": name, "value": value} for name, value in WANTED],
        WANTED,
        [list(pair) for pair in WANTED],
        [EnvVar(*pair) for pair in WANTED],
        [SimpleNamespace(key=name, value=value) for name, value in WANTED],
        dict(WANTED),
        iter(WANTED),
        dict(WANTED).items(),
    ],
    ids=["mappings", "pairs", "lists", "named tuples", "objects", "a dict", "an iterator", "items of a dict"],
)
def test_every_usual_shape_of_variables_is_taken(env_vars: Any) -> None:
    assert opened(encrypt_env_vars(env_vars=env_vars, public_key=KEY)) == WANTED


@pytest.mark.parametrize("key", [KEY, "0x" + KEY, KEY.upper(), EnvEncryptPublicKey(KEY, app_id="00" * 20)])
def test_every_usual_spelling_of_the_key_is_taken(key: str) -> None:
    assert opened(encrypt_env_vars(WANTED, key)) == WANTED


def test_a_dict_names_its_variables_even_if_they_are_called_key_and_value() -> None:
    assert opened(encrypt_env_vars({"key": "a", "value": "b"}, KEY)) == [("key", "a"), ("value", "b")]


def test_of_a_repeated_name_the_last_value_counts_as_in_the_guest() -> None:
    assert opened(encrypt_env_vars([("A", "1"), ("B", "2"), ("A", "3")], KEY)) == [("A", "3"), ("B", "2")]


def test_nothing_at_all_is_an_environment_too() -> None:
    assert opened(encrypt_env_vars({}, KEY)) == []


def test_values_go_out_as_they_came_in() -> None:
    values = {"EMPTY": "", "SPACES": "  a ", "PEM": "-----BEGIN\nKEY-----\n", "DOLLAR": "$HOME ${X}é"}
    assert dict(opened(encrypt_env_vars(values, KEY))) == values


@pytest.mark.parametrize(
    ("env_vars", "error", "failure"),
    [
        ([("FINE", CANARY), ("1BAD", CANARY)], DeliveryError, r"env_vars \(item 2\)"),
        ({"WITH-DASH": CANARY}, DeliveryError, r"env_vars \(item 1\)"),
        ({"": CANARY}, DeliveryError, "invalid for the guest"),
        ({"A" * 256: CANARY}, DeliveryError, "256 bytes"),
        ({"A": CANARY + "a" * 131072}, DeliveryError, "131085 bytes"),
        ({f"A{i}": CANARY for i in range(1025)}, DeliveryError, "1025 variables"),
        ({f"A{i}": CANARY + "a" * 100_000 for i in range(3)}, DeliveryError, "guest's limit is 262144"),
        ({"TOKEN": f"{CANARY}\0"}, DeliveryError, "the value of TOKEN contains a NUL"),
        ({"TOKEN": f"{CANARY}\ud800"}, InputError, "the value of TOKEN is not Unicode"),
        ([{"name": "TOKEN", "value": CANARY}], InputError, "item 1 of env_vars is not a name and a value"),
        ([("TOKEN", CANARY, CANARY)], InputError, "item 1 of env_vars is not a name and a value"),
        ([CANARY], InputError, "item 1 of env_vars is not a name and a value"),
        (CANARY, InputError, "item 1 of env_vars is not a name and a value"),
        ([("FINE", CANARY), (CANARY.encode(), CANARY)], InputError, "item 2 of env_vars is not a name"),
        ([{"key": "TOKEN"}], InputError, "item 1 of env_vars has a value of type NoneType, not str"),
        (
            {"FINE": CANARY, "PORT": 8080},
            InputError,
            "item 2 of env_vars has a value of type int, not str",
        ),
        ({"TOKEN": CANARY.encode()}, InputError, "of type bytes, not str"),
    ],
    ids=range(17),
)
def test_variables_that_the_guest_refuses_are_refused_without_a_value(
    env_vars: Any, error: type[PhalaSecretsError], failure: str
) -> None:
    with pytest.raises(error, match=failure) as refused:
        encrypt_env_vars(env_vars, KEY)
    told = "".join(traceback.format_exception(refused.value))
    assert CANARY not in told + repr(refused.value) + refused.value.hint + repr(refused.value.findings)


@pytest.mark.parametrize("row", REJECTED_PUBLIC_KEYS, ids=lambda row: row["comment"])
def test_a_bad_key_is_refused_for_what_is_wrong_with_it(row: dict[str, str]) -> None:
    with pytest.raises(ProofError, match=row["failure"]):
        encrypt_env_vars(WANTED, row["public_key"])
