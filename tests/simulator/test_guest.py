"""The guest gets what a real one would: dstack's limits and writing, systemd's reading, bash's habits."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from phala_secrets.simulator.failure import BootFailedError
from phala_secrets.simulator.generations import V0_5, V0_6, Generation
from phala_secrets.simulator.guest import MOST_SEALED, SEALED_OVERHEAD, _accept, _write, boot, seal, start
from tests.support import systemd

if TYPE_CHECKING:
    from phala_secrets.simulator.cloud import Cloud
    from tests.simulator.conftest import Api

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


@pytest.mark.parametrize("generation", [V0_5, V0_6], ids=["0.5", "0.6"])
@settings(max_examples=100, deadline=None)
@given(environment=st.dictionaries(NAMES, VALUES, max_size=6))
def test_systemd_reads_the_same_from_the_file_that_is_written(
    generation: Generation, environment: dict[str, str]
) -> None:
    expected = systemd.environment(_write(environment, generation).encode())
    try:
        sealed = seal(environment, KEY.public_key())
        arrived: dict[str, str] | None = boot(sealed, KEY, list(environment), generation=generation)
    except BootFailedError:
        arrived = None
    if expected is None or arrived is None:
        assert arrived is expected
        return
    ours = [name for name in generation.overwritten if name in expected]
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
    environment = {f"N{number}": "" for number in range(1022)} | {"N" * 255: "", "BIG": "x" * 131_067}
    assert given_to(environment) == environment


def test_no_more_is_copied_than_262144_bytes_of_envelope() -> None:
    plain = len(json.dumps({"env": [{"key": "A", "value": ""}, {"key": "B", "value": ""}]}))
    room = MOST_SEALED - SEALED_OVERHEAD - plain
    environment = {"A": "a" * 131_000, "B": "b" * (room - 131_000)}
    assert len(seal(environment, KEY.public_key())) == MOST_SEALED == 262_144
    assert given_to(environment) == environment
    with pytest.raises(BootFailedError, match="262145 bytes, at most 262144"):
        given_to({**environment, "B": environment["B"] + "b"})
    with pytest.raises(BootFailedError, match="at most 262144"):
        given_to({"A": "é" * 45_000})  # escapes count as they are written


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({f"N{number}": "" for number in range(1025)}, "too many"),
        ({"N" * 256: ""}, "invalid environment variable name"),
        ({"1N": ""}, "invalid environment variable name"),
        ({"N\n": ""}, "invalid environment variable name"),
        ({"Ñ": ""}, "invalid environment variable name"),
        ({"BIG": "x" * 131_073}, "value of BIG too long"),
        ({"NUL": "a\0b"}, "a NUL"),
        ({"NONCHARACTER": "\ufdd0"}, "not valid UTF-8"),
    ],
)
def test_beyond_the_limits_it_does_not_boot(environment: dict[str, str], reason: str) -> None:
    with pytest.raises(BootFailedError, match=reason):
        given_to(environment)


def test_the_total_counts_every_occurrence_of_an_allowed_name_alone() -> None:
    """More than the guest copies, so asked of the rule itself."""
    big = ("BIG", "x" * 131_060)
    _accept([*[big] * 8, *[("OTHER", big[1])] * 8], frozenset(["BIG"]))
    with pytest.raises(BootFailedError, match="environment too large"):
        _accept([*[big] * 8, ("BIG", "x" * 100)], frozenset(["BIG"]))


def test_linux_starts_no_launcher_with_a_longer_assignment() -> None:
    longest = "x" * (131_071 - len("BIG="))
    subprocess.run(["true"], env={"PATH": os.environ["PATH"], "BIG": longest}, check=True)
    assert given_to({"BIG": longest}) == {"BIG": longest}
    with pytest.raises(OSError, match="Argument list too long"):
        subprocess.run(["true"], env={"PATH": os.environ["PATH"], "BIG": longest + "x"}, check=True)
    with pytest.raises(BootFailedError, match="BIG: argument list too long"):
        given_to({"BIG": longest + "x"})


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


BASH = sorted(name for name in V0_5.overwritten if name in V0_6.overwritten and "_" not in name[1:])


@pytest.mark.parametrize("name", [*BASH, "BASHOPTS"])
def test_bash_does_not_hand_on_what_it_keeps_to_itself(name: str) -> None:
    ran = subprocess.run(
        ["bash", "-c", "env -0"], env={"PATH": os.environ["PATH"], name: "1"}, capture_output=True, text=True
    )
    handed_on = dict(line.split("=", 1) for line in ran.stdout.split("\0") if "=" in line)
    arrived = given_to({name: "mine", "APP": "1"})
    assert (name in handed_on) == (name in arrived or name == "BASHOPTS")
    assert arrived.get(name) != "mine"
    assert arrived["APP"] == "1"


@pytest.mark.parametrize(
    ("generation", "lost", "kept"),
    [(V0_5, ["RUNNER"], ["ACTION", "runner", "snapshotter"]), (V0_6, ["ACTION", "runner"], ["RUNNER"])],
    ids=["0.5", "0.6"],
)
def test_the_launcher_overwrites_names_by_its_generation(
    generation: Generation, lost: list[str], kept: list[str]
) -> None:
    environment = dict.fromkeys([*lost, *kept, "HOST_SHARED_DIR"], "mine")
    arrived = boot(seal(environment, KEY.public_key()), KEY, environment, generation=generation)
    assert {name for name, value in arrived.items() if value == "mine"} == set(kept)


def test_a_newer_writer_escapes_the_backslash_and_quotes_any_white_space() -> None:
    environment = {"A": "ends in \\", "B": 'a\\"b', "C": "C:\\\\dir", "D": "one\rB=2", "E": "two\nlines"}
    sealed = seal(environment, KEY.public_key())
    arrived = boot(sealed, KEY, environment, generation=V0_6)
    assert arrived == {**environment, "E": "two\\nlines"}


def test_a_file_beside_it_has_every_value_as_it_was_sent() -> None:
    environment = {"PEM": "-----BEGIN\nEND-----\n", "PATTERN": "\\", "KEY": "ключ"}
    started = start(seal(environment, KEY.public_key()), KEY, ["PEM", "KEY", "PATTERN", "OTHER"])
    assert json.loads(started.decrypted_json) == environment
    assert list(json.loads(started.decrypted_json)) == sorted(environment)
    assert started.environment != environment


@pytest.mark.parametrize(("sealed", "key"), [(b"", KEY), (bytes(61), None)], ids=["no ciphertext", "no key"])
def test_without_a_ciphertext_or_a_key_it_boots_empty_and_says_nothing(
    sealed: bytes, key: X25519PrivateKey | None
) -> None:
    started = start(sealed, key, ["A"])
    assert (started.environment, started.decrypted_json) == ({}, "{}")


def test_an_envelope_is_sealed_afresh_each_time() -> None:
    public_key = X25519PublicKey.from_public_bytes(KEY.public_key().public_bytes_raw())
    assert seal({"A": "1"}, public_key) != seal({"A": "1"}, public_key)


def test_the_generation_of_a_guest_is_that_of_its_os(api: Api, cloud: Cloud) -> None:
    arrived = {"0.5.3": "a\\b", "0.5.11": "a\\b", "0.6.0": "a\\\\b", "99.0.0": "a\\\\b"}
    for version, value in arrived.items():
        cvm = cloud.add_cvm(version, environment={"A": "a\\\\b"}, os_version=version)
        assert cvm.environment == {"A": value}
        assert api.get(f"/cvms/{version}").json()["os"]["version"] == version
        assert cvm.decrypted_json == '{"A": "a\\\\\\\\b"}'
