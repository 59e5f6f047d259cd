"""The guest gets what a real one would: dstack's limits and writing, systemd's reading, bash's habits."""

from __future__ import annotations

import itertools
import json
import os
import subprocess

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from phala_secrets.simulator.guest import _LAUNCHER, BootFailedError, _write, boot, seal
from tests.support import systemd

KEY = X25519PrivateKey.from_private_bytes(bytes(range(32)))
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,5}", fullmatch=True)
VALUES = st.text(
    st.sampled_from(list("\\\\\"'\n\r\t `$#=;ab")) | st.characters(exclude_categories=["Cs"]), max_size=20
)


def given_to(environment: dict[str, str], allowed: list[str] | None = None) -> dict[str, str]:
    names = list(environment) if allowed is None else allowed
    return boot(seal(environment, KEY.public_key()), KEY, names)


def sealed(content: object) -> bytes:
    """An envelope around any content."""
    sender = X25519PrivateKey.generate()
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    ciphertext = AESGCM(sender.exchange(KEY.public_key())).encrypt(bytes(12), text, None)
    return sender.public_key().public_bytes_raw() + bytes(12) + ciphertext


def pairs(*entries: tuple[str, str]) -> bytes:
    return sealed({"env": [{"key": key, "value": value} for key, value in entries]})


@settings(max_examples=1000, deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_systemd_reads_the_same_from_the_file_that_is_written(environment: dict[str, str]) -> None:
    expected = systemd.environment(_write(environment).encode())
    try:
        arrived: dict[str, str] | None = given_to(environment)
    except BootFailedError:
        arrived = None
    if expected is None or arrived is None:
        assert arrived is expected
        return
    ours = [name for name in _LAUNCHER if name in expected]
    kept = [name for name in expected if name not in ours and not name.startswith("BASH")]
    assert {name: arrived[name] for name in kept} == {name: expected[name] for name in kept}


def test_plain_values_arrive_as_they_are() -> None:
    environment = {
        "URL": "postgres://user:p4$$w0rd@host/db?a=b",
        "QUOTES": 'it\'s "quoted" `here`',
        "SPACES": "  kept  ",
        "EMPTY": "",
        "UNICODE": "ключ 🔑",
        "HASH": "#1",
        "PATTERN": r"\d+\.C:\dir",
    }
    assert given_to(environment) == environment


@pytest.mark.parametrize(
    ("environment", "arrived"),
    [
        ({"PEM": "-----BEGIN\nEND-----\n"}, {"PEM": "-----BEGIN\\nEND-----\\n"}),
        ({"A": "ends in \\", "B": "1"}, {"A": 'ends in "\nB=1\n'}),
        ({"A": "ends\\", "B": "1"}, {"A": 'ends"\nB=1\n'}),
        ({"A": 'a\\"b'}, {"A": 'a\\b"'}),
        ({"A": "C:\\\\dir"}, {"A": "C:\\dir"}),
        ({"A": "one\rB=2", "C": "3"}, {"A": "one", "B": "2", "C": "3"}),
    ],
)
def test_what_does_not_arrive_as_it_was_sent(environment: dict[str, str], arrived: dict[str, str]) -> None:
    assert given_to(environment) == arrived


def test_names_that_are_not_allowed_are_dropped_and_the_last_of_a_repeated_one_counts() -> None:
    content = pairs(("A", "1"), ("not a name", "x" * 200_000), ("B", "2"), ("A", "3"))
    assert boot(content, KEY, ["A", "C"]) == {"A": "3"}


def test_within_the_limits() -> None:
    environment = {f"N{number}": "" for number in range(1022)} | {"N" * 255: "", "BIG": "é" * 65_533 + "x"}
    assert given_to(environment) == environment
    whole = {f"N{number}": "x" * 131_060 for number in range(8)}
    assert given_to(whole) == whole


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({f"N{number}": "" for number in range(1025)}, "too many"),
        ({"N" * 256: ""}, "invalid environment variable name"),
        ({"1N": ""}, "invalid environment variable name"),
        ({"N\n": ""}, "invalid environment variable name"),
        ({"Ñ": ""}, "invalid environment variable name"),
        ({"BIG": "é" * 65_536 + "x"}, "value of BIG too long"),
        ({f"N{number}": "x" * 131_070 for number in range(8)} | {"M": "x"}, "environment too large"),
        ({"NUL": "a\0b"}, "a NUL"),
        ({"NONCHARACTER": "\ufdd0"}, "not valid UTF-8"),
    ],
)
def test_beyond_the_limits_it_does_not_boot(environment: dict[str, str], reason: str) -> None:
    with pytest.raises(BootFailedError, match=reason):
        given_to(environment)


def test_linux_starts_no_launcher_with_a_longer_assignment() -> None:
    longest = "x" * (131_071 - len("BIG="))
    subprocess.run(["true"], env={"PATH": os.environ["PATH"], "BIG": longest}, check=True)
    assert given_to({"BIG": longest}) == {"BIG": longest}
    with pytest.raises(OSError, match="Argument list too long"):
        subprocess.run(["true"], env={"PATH": os.environ["PATH"], "BIG": longest + "x"}, check=True)
    with pytest.raises(BootFailedError, match="BIG: argument list too long"):
        given_to({"BIG": longest + "x"})


def test_the_total_counts_every_occurrence_of_an_allowed_name_alone() -> None:
    big = ("BIG", "x" * 131_060)
    boot(pairs(*[big] * 8, *[("OTHER", big[1])] * 8), KEY, ["BIG"])
    with pytest.raises(BootFailedError, match="environment too large"):
        boot(pairs(*[big] * 8, ("BIG", "x" * 100)), KEY, ["BIG"])


@pytest.mark.parametrize(
    ("envelope", "reason"),
    [
        (seal({}, X25519PrivateKey.generate().public_key()), "not sealed for this app"),
        (bytes(61), "malformed"),  # a low-order sender
        (os.urandom(32) + bytes(40), "not sealed for this app"),
        (sealed(b"\xff"), "malformed"),
        (sealed(b"[" * 100_000), "malformed"),
        (sealed([]), 'no list "env"'),
        (sealed({"env": {}}), 'no list "env"'),
        (sealed({"env": [{"key": "A"}]}), "without key and value"),
        (sealed({"env": [{"key": "A", "value": 1}]}), "without key and value"),
        (pairs(("A", "\ud800")), "lone surrogate"),
    ],
    ids=itertools.count(),
)
def test_what_cannot_be_opened(envelope: bytes, reason: str) -> None:
    with pytest.raises(BootFailedError, match=reason):
        boot(envelope, KEY, ["A"])


@pytest.mark.parametrize("name", ["ACTION", "IFS", "PWD", "SHLVL", "BASHOPTS", "PPID", "_"])
def test_bash_does_not_hand_on_what_the_launcher_keeps_to_itself(name: str) -> None:
    script = ["bash", "-c", "ACTION=start; env -0"]
    ran = subprocess.run(
        script, env={"PATH": os.environ["PATH"], name: "mine"}, capture_output=True, text=True
    )
    assert f"{name}=mine" not in ran.stdout.split("\0")
    assert given_to({name: "mine", "APP": "1"}).get(name) != "mine"
    assert given_to({name: "mine", "APP": "1"})["APP"] == "1"


def test_an_envelope_is_sealed_afresh_each_time() -> None:
    public_key = X25519PublicKey.from_public_bytes(KEY.public_key().public_bytes_raw())
    assert seal({"A": "1"}, public_key) != seal({"A": "1"}, public_key)
