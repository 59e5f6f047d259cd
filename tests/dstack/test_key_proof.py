"""Who signed an app's key: recorded signatures, what has to be refused and why, and no bit to spare."""

from __future__ import annotations

import copy
import json
import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest
from btclib_secp256k1 import keys, recovery
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import BaseModel
from sha3 import keccak_256

from phala_secrets.dstack.key_proof import (
    EnvEncryptPublicKey,
    Proof,
    parse_public_key,
    parse_signer,
    parse_signers,
    prove,
    verify_env_encrypt_public_key,
)
from phala_secrets.errors import InputError, ProofError

VECTORS = Path(__file__).parents[1] / "vectors"
SIGNATURES = json.loads((VECTORS / "signatures.json").read_text())
REJECTED_SIGNATURES = json.loads((VECTORS / "rejected_signatures.json").read_text())
REJECTED_PUBLIC_KEYS = json.loads((VECTORS / "rejected_public_keys.json").read_text())

DSTACK, LEGACY, V1 = SIGNATURES[:3]
OTHER_ROOT = SIGNATURES[3]
NOW = V1["timestamp"]
KEY, APP = V1["public_key"], V1["app_id"]
SIGNATURE = {"signature": None, "signature_v1": V1["signature"], "timestamp": NOW}

assert (LEGACY["app_id"], LEGACY["signer"]) == (APP, V1["signer"])


def story(row: dict[str, Any]) -> str:
    return str(row["comment"])


def sign(root: bytes, public_key: bytes, app_id: bytes, timestamp: int | None = None) -> bytes:
    moment = b"" if timestamp is None else timestamp.to_bytes(8, "big")
    digest = keccak_256(b"dstack-env-encrypt-pubkey" + b":" + app_id + moment + public_key).digest()
    compact, recovery_id = recovery.sign(digest, root)
    return compact + bytes([recovery_id])


# Recorded signatures


@pytest.mark.parametrize("row", SIGNATURES, ids=story)
def test_a_recorded_signature_gives_its_signer(row: dict[str, Any]) -> None:
    v1 = row["timestamp"] is not None
    assert prove(
        row["public_key"],
        row["app_id"],
        signature=None if v1 else row["signature"],
        signature_v1=row["signature"] if v1 else None,
        timestamp=row["timestamp"],
        now=row["timestamp"],
    ) == Proof(
        public_key=bytes.fromhex(row["public_key"]),
        app_id=bytes.fromhex(row["app_id"]),
        signer=row["signer"],
        version="v1" if v1 else "legacy",
        timestamp=row["timestamp"],
    )


@pytest.mark.parametrize("row", SIGNATURES, ids=story)
def test_recovery_ids_27_to_30_are_another_spelling_of_0_to_3(row: dict[str, Any]) -> None:
    raw = bytes.fromhex(row["signature"])
    ethereum = (raw[:64] + bytes([raw[64] + 27])).hex()
    v1 = {"signature_v1": ethereum, "timestamp": row["timestamp"], "now": row["timestamp"]}
    proof = {"signature": ethereum} if row["timestamp"] is None else {"signature": None, **v1}
    assert prove(row["public_key"], row["app_id"], **proof).signer == row["signer"]


@pytest.mark.parametrize(
    "spelled",
    [str.upper, lambda text: "0x" + text, lambda text: "0X" + text.upper(), bytes.fromhex],
    ids=["upper case", "0x", "0X and upper case", "bytes"],
)
def test_the_spelling_of_hex_does_not_matter(spelled: Any) -> None:
    proof = prove(spelled(LEGACY["public_key"]), spelled(APP), signature=spelled(LEGACY["signature"]))
    assert proof.signer == LEGACY["signer"]


def test_an_app_id_may_be_spelled_as_the_api_does() -> None:
    assert prove(KEY, f"app_{APP}", **SIGNATURE, now=NOW).app_id == bytes.fromhex(APP)


# What is refused, each for its own reason


@pytest.mark.parametrize("row", REJECTED_SIGNATURES["rows"], ids=story)
def test_a_bad_signature_is_refused_for_what_is_wrong_with_it(row: dict[str, Any]) -> None:
    key, app = REJECTED_SIGNATURES["public_key"], REJECTED_SIGNATURES["app_id"]
    with pytest.raises(ProofError) as legacy:
        prove(key, app, signature=row["signature"])
    assert row["failure"] in str(legacy.value)
    assert legacy.value.exit_code == 3
    assert legacy.value.hint
    # A signature that is malformed is so as a v1 signature too, whatever the legacy one says.
    if "no public key" not in row["failure"]:
        with pytest.raises(ProofError) as v1:
            prove(
                KEY, APP, signature=LEGACY["signature"], signature_v1=row["signature"], timestamp=NOW, now=NOW
            )
        assert row["failure"].replace("signature", "signature_v1") in str(v1.value)


@pytest.mark.parametrize("row", REJECTED_PUBLIC_KEYS["rows"], ids=story)
def test_a_bad_public_key_is_refused_for_what_is_wrong_with_it(row: dict[str, Any]) -> None:
    for refuse in (
        lambda: parse_public_key(row["public_key"]),
        lambda: prove(row["public_key"], APP, signature=LEGACY["signature"]),
    ):
        with pytest.raises(ProofError) as error:
            refuse()
        assert row["failure"] in str(error.value)
        assert error.value.hint


def test_the_root_signing_a_point_of_low_order_does_not_make_it_a_key() -> None:
    zero = bytes(32)
    with pytest.raises(ProofError, match="low order"):
        prove(zero, bytes(20), signature=sign(b"\x11" * 32, zero, bytes(20)))


@pytest.mark.parametrize("app_id", ["", "0x", APP[:-2], APP + "00", "g" * 40, " " + APP, "app_0x", None, 7])
def test_a_bad_app_id_is_refused(app_id: Any) -> None:
    with pytest.raises(ProofError, match="the app id is not 20 bytes of hex"):
        prove(KEY, app_id, **SIGNATURE, now=NOW)


# v1 decides alone


def test_v1_is_what_counts_even_beside_a_legacy_signature_of_somebody_else() -> None:
    proof = prove(KEY, APP, **{**SIGNATURE, "signature": OTHER_ROOT["signature"]}, now=NOW)
    assert (proof.signer, proof.version) == (V1["signer"], "v1")


@pytest.mark.parametrize(
    ("v1", "failure"),
    [
        ({"signature_v1": V1["signature"]}, "has a signature_v1 but no timestamp"),
        ({"signature_v1": ""}, "has a signature_v1 but no timestamp"),
        ({"timestamp": NOW}, "has no signature_v1"),
        ({"timestamp": NOW, "signature_v1": ""}, "has no signature_v1"),
        ({"timestamp": 0}, "from 1970-01-01 00:00:00 UTC"),
        ({"timestamp": NOW, "signature_v1": V1["signature"][:-2]}, "signature_v1 has 64 bytes"),
        ({"timestamp": NOW - 301, "signature_v1": V1["signature"]}, "more than 300 s old"),
        ({"timestamp": NOW + 61, "signature_v1": V1["signature"]}, "more than 60 s ahead"),
    ],
)
def test_a_v1_that_fails_never_falls_back_to_a_good_legacy_signature(
    v1: dict[str, Any], failure: str
) -> None:
    row = {"public_key": LEGACY["public_key"], "app_id": APP, "signature": LEGACY["signature"]}
    assert prove(**row).signer == LEGACY["signer"]
    with pytest.raises(ProofError, match=failure):
        prove(**row, **v1, now=NOW)


def test_a_v1_signature_lives_from_a_minute_before_to_five_minutes_after_it_is_made() -> None:
    for now in (NOW - 60, NOW, NOW + 300, NOW + 300.9):
        assert prove(KEY, APP, **SIGNATURE, now=now).timestamp == NOW
    for now in (NOW - 60.1, NOW - 61, NOW + 301, NOW + 10**9):
        with pytest.raises(ProofError, match="but the local clock says"):
            prove(KEY, APP, **SIGNATURE, now=now)


def test_a_wrong_clock_is_reported_with_both_times() -> None:
    with pytest.raises(ProofError) as error:
        prove(KEY, APP, **SIGNATURE, now=NOW - 3600)
    assert "2026-08-01 00:00:00 UTC" in str(error.value)
    assert "2026-07-31 23:00:00 UTC" in str(error.value)
    assert "set the clock" in error.value.hint


def test_without_now_it_is_the_clock_of_the_machine_that_counts() -> None:
    with pytest.raises(ProofError, match="1970-01-01 00:00:01 UTC"):
        prove(KEY, APP, signature=None, signature_v1=V1["signature"], timestamp=1)


@pytest.mark.parametrize("timestamp", ["1785542400", 1785542400.0, True, b"1"])
def test_a_timestamp_that_is_not_an_integer_is_refused(timestamp: Any) -> None:
    with pytest.raises(ProofError, match="is not an integer"):
        prove(KEY, APP, **{**SIGNATURE, "timestamp": timestamp}, now=NOW)


@pytest.mark.parametrize(
    "timestamp",
    [-1, -(2**63), 253402300800, NOW * 1000, 2**64, 2**20000],
    ids=lambda timestamp: f"{timestamp.bit_length()} bits",
)
def test_a_timestamp_that_is_no_time_in_seconds_is_refused(timestamp: int) -> None:
    with pytest.raises(ProofError, match="is not a time in Unix seconds"):
        prove(KEY, APP, **{**SIGNATURE, "timestamp": timestamp}, now=NOW)


# No bit to spare

roots = st.integers(1, 2**128).map(lambda secret: secret.to_bytes(32, "big"))
apps = st.binary(min_size=20, max_size=20)
moments = st.integers(0, 253402300799)


@st.composite
def public_keys(draw: st.DrawFn) -> bytes:
    u = draw(st.integers(2, 2**255 - 21))
    raw = u.to_bytes(32, "little")
    try:
        return parse_public_key(raw)
    except ProofError:
        assume(False)
        raise


@given(roots, public_keys(), apps, moments)
def test_what_a_root_signs_proves_that_root(root: bytes, key: bytes, app: bytes, moment: int) -> None:
    signer = keys.pubkey_from_prvkey(root).hex()
    assert prove(key, app, signature=sign(root, key, app)).signer == signer
    v1 = sign(root, key, app, moment)
    assert prove(key, app, signature=None, signature_v1=v1, timestamp=moment, now=moment).signer == signer


@given(roots, public_keys(), apps, moments, st.data())
def test_no_single_bit_can_be_changed(
    root: bytes, key: bytes, app: bytes, moment: int, data: st.DataObject
) -> None:
    v1 = data.draw(st.booleans(), "v1")
    parts = {"key": key, "app": app, "signature": sign(root, key, app, moment if v1 else None)}
    if v1:
        parts["moment"] = moment.to_bytes(8, "big")
    part = data.draw(st.sampled_from(sorted(parts)), "part")
    bit = data.draw(st.integers(0, len(parts[part]) * 8 - 1), "bit")
    changed = int.from_bytes(parts[part], "big") ^ 1 << bit
    parts[part] = changed.to_bytes(len(parts[part]), "big")

    proof: dict[str, Any] = {"signature": parts["signature"]}
    if v1:
        moment = int.from_bytes(parts["moment"], "big")
        proof = {"signature": None, "signature_v1": parts["signature"], "timestamp": moment, "now": moment}
    try:
        signer = prove(parts["key"], parts["app"], **proof).signer
    except ProofError:
        return
    assert signer != keys.pubkey_from_prvkey(root).hex()


@given(st.text() | st.binary(), st.text() | st.binary(), st.text() | st.binary(), st.none() | st.integers())
def test_whatever_comes_in_nothing_but_a_proof_error_comes_out(
    key: Any, app: Any, signature: Any, timestamp: int | None
) -> None:
    for public_key, app_id in ((key, app), (KEY, app), (KEY, APP)):
        with pytest.raises(ProofError):
            prove(
                public_key, app_id, signature=signature, signature_v1=signature, timestamp=timestamp, now=NOW
            )


# Signers, as users spell them

COMPRESSED = V1["signer"]
UNCOMPRESSED = keys.reserialize(bytes.fromhex(COMPRESSED), compressed=False).hex()


@pytest.mark.parametrize("text", [COMPRESSED, UNCOMPRESSED])
@pytest.mark.parametrize("spelled", ["{}", "0x{}", "  {}\n"])
def test_a_signer_in_any_usual_spelling_is_the_same_signer(text: str, spelled: str) -> None:
    assert parse_signer(spelled.format(text)) == COMPRESSED
    assert parse_signer(spelled.format(text.upper())) == COMPRESSED


@pytest.mark.parametrize(
    ("text", "failure"),
    [
        ("", "has 0 bytes, not 33 or 65"),
        ("0x", "has 0 bytes"),
        ("0xTYPO", "is not hex"),
        (COMPRESSED[:-1], "is not hex"),
        (COMPRESSED + " " + COMPRESSED, "is not hex"),
        (COMPRESSED[2:], "has 32 bytes"),
        (UNCOMPRESSED[2:], "has 64 bytes"),
        ("d8da6bf26964af9d7eed9e03e53415d37aa96045", "has 20 bytes"),
        ("06" + UNCOMPRESSED[2:], "begins with 06"),
        ("07" + UNCOMPRESSED[2:], "begins with 07"),
        ("02" + UNCOMPRESSED[2:], "begins with 02"),
        ("04" + COMPRESSED[2:], "begins with 04"),
        ("00" + COMPRESSED[2:], "begins with 00"),
        ("02" + "ff" * 32, "is not a point of the curve"),
        ("02" + "5".zfill(64), "is not a point of the curve"),
        (UNCOMPRESSED[:-2] + "00", "is not a point of the curve"),
        ("04" + "00" * 64, "is not a point of the curve"),
    ],
)
def test_a_malformed_signer_is_an_input_error_that_says_what_is_wrong(text: str, failure: str) -> None:
    with pytest.raises(InputError, match=failure) as error:
        parse_signer(text)
    assert error.value.exit_code == 2
    assert "KMS root" in error.value.hint


def test_a_private_key_pasted_for_a_signer_is_not_shown() -> None:
    secret = "c0ffee" + "5ec2e7" * 9 + "c0ffee01"
    for text in (secret, "0x" + secret, secret + "!"):
        with pytest.raises(InputError) as error:
            verify_env_encrypt_public_key(KEY, LEGACY["signature"], APP, trusted_signers=text)
        shown = "".join(traceback.format_exception(error.value)) + repr(error.value) + error.value.hint
        assert "c0ffee" not in shown


# The key that carries its proof

CARRIES_V1 = EnvEncryptPublicKey(
    KEY, app_id=APP, signature=OTHER_ROOT["signature"], signature_v1=V1["signature"], timestamp=NOW
)
CARRIES_LEGACY = EnvEncryptPublicKey(LEGACY["public_key"], app_id=APP, signature=LEGACY["signature"])


def test_a_key_that_carries_its_proof_is_all_that_verification_needs() -> None:
    assert verify_env_encrypt_public_key(CARRIES_LEGACY) == V1["signer"]
    assert verify_env_encrypt_public_key(CARRIES_V1, now=NOW) == V1["signer"]


def test_a_key_that_carries_its_proof_is_its_hex() -> None:
    assert CARRIES_V1 == KEY
    assert f"{CARRIES_V1}" == str(CARRIES_V1) == KEY
    assert type(str(CARRIES_V1)) is str
    assert json.dumps({"key": CARRIES_V1}) == json.dumps({"key": KEY})
    assert {KEY: "found"}[CARRIES_V1] == "found"


@pytest.mark.parametrize(
    "copied",
    [copy.copy, copy.deepcopy, *(lambda key, p=p: pickle.loads(pickle.dumps(key, p)) for p in range(2, 6))],
)
def test_copies_and_pickles_keep_the_proof(copied: Any) -> None:
    key = copied(CARRIES_V1)
    assert type(key) is EnvEncryptPublicKey
    assert key == KEY
    assert verify_env_encrypt_public_key(key, now=NOW) == V1["signer"]
    assert key.signature == OTHER_ROOT["signature"]


def test_it_is_a_field_that_pydantic_reads_and_writes_as_a_string() -> None:
    class Answer(BaseModel):
        key: EnvEncryptPublicKey

    carried = Answer(key=CARRIES_LEGACY)
    assert verify_env_encrypt_public_key(carried.key) == V1["signer"]
    assert verify_env_encrypt_public_key(carried.model_dump()["key"]) == V1["signer"]
    assert carried.model_dump_json() == json.dumps({"key": LEGACY["public_key"]}, separators=(",", ":"))
    assert Answer.model_json_schema()["properties"]["key"] == {"title": "Key", "type": "string"}

    bare = Answer.model_validate_json(carried.model_dump_json())
    assert type(bare.key) is EnvEncryptPublicKey
    with pytest.raises(ProofError, match="does not name its app"):
        verify_env_encrypt_public_key(bare.key)
    with pytest.raises(ValueError, match="valid string"):
        Answer(key=7)  # type: ignore[arg-type]


# verify_env_encrypt_public_key


def test_a_bare_key_needs_its_proof() -> None:
    with pytest.raises(ProofError, match="nothing to verify"):
        verify_env_encrypt_public_key(KEY)
    with pytest.raises(ProofError, match="nothing to verify"):
        verify_env_encrypt_public_key(KEY, LEGACY["signature"])
    with pytest.raises(ProofError, match="has no signature"):
        verify_env_encrypt_public_key(KEY, app_id=APP)
    key, signature = LEGACY["public_key"], LEGACY["signature"]
    assert verify_env_encrypt_public_key(key, signature, APP) == V1["signer"]
    assert verify_env_encrypt_public_key(key, signature=signature, app_id="0x" + APP) == V1["signer"]


def test_with_a_timestamp_the_signature_is_the_v1_one_as_in_dstacks_sdks() -> None:
    v1 = V1["signature"]
    assert verify_env_encrypt_public_key(KEY, v1, APP, NOW, now=NOW) == V1["signer"]
    assert (
        verify_env_encrypt_public_key(
            bytes.fromhex(KEY), bytes.fromhex(v1), f"0x{APP}", NOW, trusted_signers=COMPRESSED, now=NOW
        )
        == V1["signer"]
    )


def test_with_both_signatures_the_v1_one_decides() -> None:
    assert (
        verify_env_encrypt_public_key(
            KEY, OTHER_ROOT["signature"], APP, NOW, signature_v1=V1["signature"], now=NOW
        )
        == V1["signer"]
    )


@pytest.mark.parametrize(
    "trusted",
    [
        COMPRESSED,
        "0x" + UNCOMPRESSED.upper(),
        [UNCOMPRESSED],
        (OTHER_ROOT["signer"], COMPRESSED),
        f"0x{OTHER_ROOT['signer']}\n0x{COMPRESSED}\n",
        f"{OTHER_ROOT['signer']}, {COMPRESSED}",
        {COMPRESSED},
    ],
)
def test_a_trusted_signer_passes_in_any_spelling(trusted: Any) -> None:
    assert verify_env_encrypt_public_key(CARRIES_V1, trusted_signers=trusted, now=NOW) == COMPRESSED


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ((KEY, V1["signature"]), "app_id"),
        ((CARRIES_V1, None, "00" * 20), "the app that you encrypt for"),
        ((CARRIES_V1,), "do not encrypt"),
    ],
)
def test_a_proof_that_does_not_do_comes_with_what_to_do(arguments: tuple[Any, ...], hint: str) -> None:
    with pytest.raises(ProofError) as refusal:
        verify_env_encrypt_public_key(*arguments, trusted_signers=OTHER_ROOT["signer"], now=NOW)
    assert hint in refusal.value.hint


@pytest.mark.parametrize(
    "wrong",
    [
        {"app_id": "zz"},
        {"timestamp": None},
        {"timestamp": "1"},
        {"timestamp": -1},
        {"timestamp": NOW - 301},
        {"signature_v1": "00"},
    ],
    ids=str,
)
def test_every_refusal_of_a_proof_says_what_to_do(wrong: dict[str, Any]) -> None:
    with pytest.raises(ProofError) as refusal:
        prove(**{"public_key": KEY, "app_id": APP, "now": NOW, **SIGNATURE, **wrong})
    assert refusal.value.hint


def test_an_empty_pin_comes_with_what_to_do() -> None:
    with pytest.raises(InputError, match="is empty") as refusal:
        parse_signers(" ,\n")
    assert "at least one" in refusal.value.hint


def test_trusted_signers_may_come_one_by_one() -> None:
    trusted = iter([OTHER_ROOT["signer"], COMPRESSED])
    assert verify_env_encrypt_public_key(CARRIES_V1, trusted_signers=trusted, now=NOW) == COMPRESSED


def test_a_genuine_signature_of_another_root_is_refused_by_name() -> None:
    with pytest.raises(ProofError, match=f"{COMPRESSED}, which is not a trusted signer"):
        verify_env_encrypt_public_key(CARRIES_V1, trusted_signers=[OTHER_ROOT["signer"]], now=NOW)


@pytest.mark.parametrize("empty", ["", " \n,", [], ()])
def test_an_empty_list_of_signers_trusts_nobody_rather_than_everybody(empty: Any) -> None:
    with pytest.raises(InputError, match="trusted_signers is empty"):
        verify_env_encrypt_public_key(CARRIES_V1, trusted_signers=empty, now=NOW)


def test_a_malformed_signer_is_not_ignored_beside_a_good_one() -> None:
    with pytest.raises(InputError, match="not hex"):
        verify_env_encrypt_public_key(CARRIES_V1, trusted_signers=[COMPRESSED, "typo"], now=NOW)


def test_a_key_of_another_app_is_refused() -> None:
    assert verify_env_encrypt_public_key(CARRIES_V1, app_id="app_" + APP.upper(), now=NOW) == V1["signer"]
    with pytest.raises(ProofError, match="for another app"):
        verify_env_encrypt_public_key(CARRIES_V1, app_id=OTHER_ROOT["app_id"], now=NOW)


def test_a_key_swapped_under_a_good_signature_has_no_trusted_signer() -> None:
    swapped = EnvEncryptPublicKey(
        LEGACY["public_key"], app_id=APP, signature_v1=V1["signature"], timestamp=NOW
    )
    with pytest.raises(ProofError, match="not a trusted signer"):
        verify_env_encrypt_public_key(swapped, trusted_signers=COMPRESSED, now=NOW)


def test_a_proof_given_by_hand_replaces_the_one_the_key_carries() -> None:
    carries_a_bad_one = EnvEncryptPublicKey(KEY, app_id=APP, signature="00" * 65)
    with pytest.raises(ProofError, match="r = 0"):
        verify_env_encrypt_public_key(carries_a_bad_one)
    assert (
        verify_env_encrypt_public_key(carries_a_bad_one, V1["signature"], timestamp=NOW, now=NOW)
        == COMPRESSED
    )
    without_an_app = EnvEncryptPublicKey(LEGACY["public_key"], signature=LEGACY["signature"])
    assert verify_env_encrypt_public_key(without_an_app, app_id=APP) == COMPRESSED
    # Half of one is not completed from the other.
    with pytest.raises(ProofError, match="has no signature_v1"):
        verify_env_encrypt_public_key(CARRIES_V1, timestamp=NOW, now=NOW)


def test_the_first_line_of_the_documentation_says_that_a_signer_is_not_yet_trusted() -> None:
    assert "COMPARE IT" in str(verify_env_encrypt_public_key.__doc__).splitlines()[0]
    assert "NOT" in str(prove.__doc__).splitlines()[0]
