"""We and the others understand each other: ciphertexts, signatures, hashes, and the API as simulated."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from phala_secrets import create_client, encrypt_env_vars, get_compose_hash, verify_env_encrypt_public_key
from phala_secrets.dstack.compose_hash import FORMS, find_form, serialise
from phala_secrets.dstack.key_proof import prove
from phala_secrets.errors import ProofError
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.kms import Kms
from phala_secrets.simulator.server import Simulator
from tests.interop.others import OfficialCommand, independent, npm, pypi
from tests.support.command import Command

APP_ID = "0123456789abcdef0123456789abcdef01234567"
BASE = "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C"
VALUES = {
    "PLAIN": "value",
    "EMPTY": "",
    "DOLLAR": "p4$$w0rd${HOME}`id`",
    "QUOTES": 'it\'s "quoted"',
    "SPACES": "  a  b\t",
    "UNICODE": "käse 🧀 \u2028",
    "LONG": "x" * 100_000,
}


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator(Cloud(restart_seconds=0.05)) as running:
        yield running


@pytest.fixture
def cvm(simulator: Simulator) -> Cvm:
    return simulator.cloud.add_cvm("my-app", app_id=APP_ID, environment={"OLD": "1"})


@pytest.fixture
def phala(simulator: Simulator, tmp_path: Path) -> OfficialCommand:
    return OfficialCommand(simulator, tmp_path)


def items(values: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": name, "value": value} for name, value in values.items()]


# Ciphertexts


def test_what_we_seal_an_independent_implementation_opens() -> None:
    private = X25519PrivateKey.generate()
    sealed = encrypt_env_vars(VALUES, private.public_key().public_bytes_raw().hex())
    assert independent(["open", sealed, private.private_bytes_raw().hex()]) == [{"env": items(VALUES)}]


def test_what_the_sdks_seal_the_simulator_s_guest_opens(simulator: Simulator, cvm: Cvm) -> None:
    key = cvm.kms.app_public_key(APP_ID)
    sealed = npm(["encrypt", items(VALUES), key], ["cloudEncrypt", items(VALUES), f"0x{key}"])
    sealed += pypi(["encrypt", items(VALUES), key])
    with create_client(simulator.cloud.api_key, simulator.url) as client:
        for ciphertext in sealed:
            cvm.update(bytes.fromhex(ciphertext), ["NOTHING"])
            assert cvm.wait().environment == {}
            client.update_cvm_envs("my-app", encrypted_env=ciphertext, env_keys=list(VALUES))
            assert cvm.wait().environment == VALUES


def test_what_we_seal_the_official_command_delivers(
    simulator: Simulator, cvm: Cvm, phala: OfficialCommand
) -> None:
    with create_client(simulator.cloud.api_key, simulator.url) as client:
        key = client.get_app_env_encrypt_pub_key(kms="phala", app_id=APP_ID).app_env_encrypt_pubkey
    phala("envs", "update", "my-app", "--encrypted-env", encrypt_env_vars({"OLD": "a b $c"}, key))
    assert cvm.wait().environment == {"OLD": "a b $c"}


# Signatures


@pytest.fixture
def kms(cvm: Cvm) -> Kms:
    return cvm.kms


def test_what_the_simulator_signs_the_sdks_verify(kms: Kms) -> None:
    key, now = kms.app_public_key(APP_ID), int(time.time())
    legacy, v1 = kms.sign(APP_ID, key), kms.sign(APP_ID, key, now)
    root = kms.root_public_key
    for ask in (npm, pypi):
        proven = ask(["verify", key, v1, APP_ID, now], ["verifyLegacy", key, legacy, f"0x{APP_ID}"])
        assert [signer.removeprefix("0x") for signer in proven] == [root, root]
        old, early, *mistaken = ask(
            ["verify", key, v1, APP_ID, now - 301],
            ["verify", key, v1, APP_ID, now + 120],
            ["verify", key, v1, APP_ID, now - 1],
            ["verifyLegacy", key, v1, APP_ID],
        )
        assert (old, early) == (None, None)
        assert root not in {(signer or "").removeprefix("0x") for signer in mistaken}


def test_what_the_sdks_verify_so_do_we_and_nothing_else(kms: Kms) -> None:
    """Every kind of signature, whole and damaged: their signer is ours, and their refusal is our error."""
    key, now = kms.app_public_key(APP_ID), int(time.time())
    good = bytes.fromhex(kms.sign(APP_ID, key, now))
    chance = random.Random(7)
    signatures = [good, good[:64], good + b"\0", good[:64] + b"\x05", b"\0" * 65, b"\xff" * 65]
    for _ in range(60):
        place = chance.randrange(65)
        signatures.append(good[:place] + bytes([good[place] ^ 1 << chance.randrange(8)]) + good[place + 1 :])
    questions = [["verify", key, signature.hex(), APP_ID, now] for signature in signatures]
    for signature, *theirs in zip(signatures, npm(*questions), pypi(*questions), strict=True):
        try:
            ours = prove(key, APP_ID, signature=None, signature_v1=signature, timestamp=now).signer
        except ProofError:
            ours = None
        if signature[-1] in range(27, 31):
            continue  # a recovery id as other libraries write it, which theirs may not take
        assert [answer and answer.removeprefix("0x") for answer in theirs] == [ours, ours], signature.hex()


def test_what_noble_signs_we_verify() -> None:
    root, key, now = "11" * 32, "09" + "00" * 31, int(time.time())
    signer, legacy, v1 = independent(
        ["root", root], ["sign", root, APP_ID, key, None], ["sign", root, APP_ID, key, now]
    )
    assert verify_env_encrypt_public_key(key, signature=legacy, app_id=APP_ID) == signer
    assert verify_env_encrypt_public_key(key, signature=v1, app_id=APP_ID, timestamp=now) == signer
    assert verify_env_encrypt_public_key(key, v1, APP_ID, now, trusted_signers=[signer]) == signer


# Compose hashes


def app_composes(count: int) -> list[dict[str, Any]]:
    """App-composes of all sorts, the same each time; without nulls, on which their two SDKs disagree."""
    chance = random.Random(42)
    texts = [
        "",
        "a",
        '": ',
        "\\",
        "é",
        "🧀",
        "\u2028",
        "\u007f",
        "</script>",
        "\t\r\n\b\f\x01",
        "10",
        "2",
        "a" * 500,
    ]

    def value(depth: int) -> Any:
        kinds = [chance.choice(texts), chance.randrange(-(2**53), 2**53), True, False]
        if depth:
            kinds.append([value(depth - 1) for _ in range(chance.randrange(4))])
            kinds.append({chance.choice(texts): value(depth - 1) for _ in range(chance.randrange(4))})
        return chance.choice(kinds)

    return [
        {
            "runner": chance.choice(["docker-compose", "bash"]),
            "docker_compose_file": chance.choice(texts),
            "bash_script": chance.choice(texts),
            "pre_launch_script": chance.choice(["", "#!/bin/sh\n"]),
            "allowed_envs": chance.sample(["B", "A", "a", "_"], chance.randrange(5)),
            "features": ["kms", "tproxy-net"],
            "more": value(3),
        }
        for _ in range(count)
    ]


def test_compose_hashes_are_those_of_npm_and_pypi() -> None:
    composes = app_composes(300)
    questions: list[list[Any]] = [
        ["hash", compose, normalize] for compose in composes for normalize in (False, True)
    ]
    ours = [get_compose_hash(compose, normalize) for _, compose, normalize in questions]
    assert npm(*questions) == ours
    integer_like = {"10", "2"}  # JavaScript puts such keys first, and PyPI's SDK does not
    plain = [index for index, (_, compose, _) in enumerate(questions) if not integer_like & keys_of(compose)]
    assert len(plain) > 100
    assert pypi(*(questions[index] for index in plain)) == [ours[index] for index in plain]


def keys_of(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value).union(*map(keys_of, value.values()))
    return set().union(*map(keys_of, value)) if isinstance(value, list) else set()


def test_the_hash_of_a_fetched_app_compose_is_one_that_we_find(simulator: Simulator, cvm: Cvm) -> None:
    (theirs,) = npm(["fetchedHash", simulator.url, simulator.cloud.api_key, "my-app"])
    form = find_form(cvm.app_compose, theirs)
    assert form in FORMS
    assert form.style == "pretty"
    assert b'":' in serialise(cvm.app_compose, form)


# The official command against the simulator


def test_the_official_command_updates_a_cvm(cvm: Cvm, phala: OfficialCommand, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("OLD=2\nNEW='a b'\n")
    phala("envs", "update", "my-app", "-e", ".env")
    assert cvm.wait().environment == {"OLD": "2", "NEW": "a b"}


def test_what_the_official_command_encrypts_we_deliver(
    simulator: Simulator, cvm: Cvm, phala: OfficialCommand
) -> None:
    sealed = phala("envs", "encrypt", "my-app", "--no-newline", "-e", "OLD=3")
    with create_client(simulator.cloud.api_key, simulator.url) as client:
        client.update_cvm_envs("my-app", encrypted_env=sealed, env_keys=["OLD"])
    assert cvm.wait().environment == {"OLD": "3"}


def test_the_official_command_lists_kmses(simulator: Simulator, phala: OfficialCommand) -> None:
    kms = simulator.cloud.add_kms("kms-base", 8453, BASE)
    (listed,) = json.loads(phala("kms", "list", "--json"))["items"]
    assert (listed["slug"], listed["kms_contract_address"]) == ("kms-base-1", BASE)
    (contract,) = json.loads(phala("kms", "base", "--json"))["contracts"]
    assert contract["k256_pubkey"] == kms.root_public_key


# A compose file and secrets in one step: each sees what the other deployed

COMPOSE = f"""\
# käse: the file stays as it is written
services:
  web:
    image: "nginx@sha256:{"ab" * 32}"
    environment: {{ OLD: "${{OLD}}",   NEW: "${{NEW}}" }}
"""


def deploy(run: Command, *arguments: str) -> dict[str, Any]:
    """What our command says of a run that is given the compose file and both variables."""
    run.write("docker-compose.yml", COMPOSE)
    run.write(".env", "OLD=2\nNEW='a b'\n")
    mode, *flags = arguments
    given = ("--cvm", "my-app", "--env-file", ".env", "--compose-file", "docker-compose.yml", "--json")
    done = run(mode, *given, *flags)
    assert done.code == 0, done.printed
    said: dict[str, Any] = done.json
    return said


def test_what_we_deploy_the_official_command_reads(run: Command, cvm: Cvm, phala: OfficialCommand) -> None:
    said = deploy(run, "update")
    assert cvm.wait().environment == {"OLD": "2", "NEW": "a b"}
    assert json.loads(phala("cvms", "get", "my-app", "--json"))["compose_hash"] == said["compose_hash"]
    compose = json.loads(phala("api", "/cvms/my-app/compose_file"))
    assert compose["docker_compose_file"] == COMPOSE
    assert compose["allowed_envs"] == said["env_keys"] == ["OLD", "NEW"]
    measured = json.loads(phala("cvms", "attestation", "my-app", "--json"))["compose_file"]
    assert hashlib.sha256(measured.encode()).hexdigest() == said["compose_hash"]


def test_what_the_official_command_deploys_we_find_unchanged(
    run: Command, cvm: Cvm, phala: OfficialCommand, tmp_path: Path
) -> None:
    (tmp_path / "docker-compose.yml").write_text(COMPOSE)
    (tmp_path / ".env").write_text("OLD=2\nNEW='a b'\n")
    phala("deploy", "--cvm-id", "my-app", "-c", "docker-compose.yml", "-e", ".env", "--wait")
    assert cvm.wait().environment == {"OLD": "2", "NEW": "a b"}
    planned = deploy(run, "plan")
    assert planned["compose_hash"] == planned["previous_compose_hash"] == cvm.compose_hash
    assert (planned["keys_added"], planned["keys_removed"]) == ([], [])


def test_what_we_deployed_the_official_command_deploys_again(
    run: Command, cvm: Cvm, phala: OfficialCommand, tmp_path: Path
) -> None:
    said = deploy(run, "update")
    cvm.wait()
    (tmp_path / "docker-compose.yml").write_text(COMPOSE)
    (tmp_path / ".env").write_text("OLD=3\nNEW=4\n")
    phala("deploy", "--cvm-id", "my-app", "-c", "docker-compose.yml", "-e", ".env", "--wait")
    assert cvm.wait().environment == {"OLD": "3", "NEW": "4"}
    assert cvm.compose_hash == said["compose_hash"]
