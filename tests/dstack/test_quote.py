"""Quotes, collateral and a KMS's bootstrap record: how they are read, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from phala_secrets.dstack import collateral, quote
from phala_secrets.dstack.collateral import Collateral, crl, issuer_chain, signed_object, stored_collateral
from phala_secrets.dstack.kms_record import bound, is_kms_record, parse_ca, parse_kms_record
from phala_secrets.dstack.quote import parse_quote
from phala_secrets.errors import EvidenceError, InputError

CA = (
    "3059301306072a8648ce3d020106082a8648ce3d030107034200048844eb42ccdf8c52fd4f174f362fcb9bbd19c45fd48f1ede"
    "c2d8f1ca23536ec1a74021b4cee610c074f8294d431b2b7fee2c39e5333fdaf0a4522d43fb159d9f"
)
ROOT = "0334c76e0c3f52ec64cbf9bbf5c910c272330166fd656c0a86bb330963e46910e1"
REPORT_DATA = "8e695b1d3d63775ce4c6162fcabb0666b045e2f35323f8ce8f07f26e3bbf6211" + "00" * 32
"""Of the quote that Phala's Cloud KMS had made at its bootstrap."""


def report(attributes: bytes = bytes.fromhex("0000001000000000")) -> bytes:
    """Return a TD report whose registers are told apart by their bytes."""
    registers = b"".join(bytes([number]) * 48 for number in range(0xA0, 0xA4))
    return bytes(120) + attributes + bytes(8) + b"\xaa" * 48 + bytes(144) + registers + b"\xdd" * 64


def raw_quote(version: int = 4, tee: int = 0x81, body: bytes | None = None) -> bytes:
    header = version.to_bytes(2, "little") + b"\x02\x00" + tee.to_bytes(4, "little") + bytes(40)
    return header + (report() if body is None else body)


def test_a_quote_is_read_by_intels_layout() -> None:
    read = parse_quote(raw_quote())
    assert read.mrtd == b"\xaa" * 48
    assert [register[0] for register in read.rtmrs] == [0xA0, 0xA1, 0xA2, 0xA3]
    assert read.report_data == b"\xdd" * 64
    assert not read.debug
    assert parse_quote("0x" + raw_quote().hex()) == read
    typed = b"\x02\x00" + (584).to_bytes(4, "little") + report()
    assert parse_quote(raw_quote(5, body=typed)).rtmrs == read.rtmrs


def test_os_measurements_are_a_digest_of_mrtd_rtmr1_and_rtmr2() -> None:
    import hashlib

    expected = hashlib.sha256(b"\xaa" * 48 + b"\xa1" * 48 + b"\xa2" * 48).hexdigest()
    assert parse_quote(raw_quote()).os_measurements == expected


@pytest.mark.parametrize("byte", [0x01, 0x02, 0x80])
def test_a_debug_vm_is_recognised_by_its_attributes(byte: int) -> None:
    assert parse_quote(raw_quote(body=report(bytes([byte]) + bytes(7)))).debug


REFUSED: dict[str, tuple[Any, str]] = {
    "none": (None, "no quote"),
    "empty": ("", "no quote"),
    "a list": ([1], "not hex"),
    "no hex": ("zz", "not hex"),
    "white space": (" " + raw_quote().hex(), "not hex"),
    "short": ("0400", "too short"),
    "cut": (raw_quote()[:-1], "too short"),
    "version 3": (raw_quote(3), "version 3"),
    "of SGX": (raw_quote(tee=0), "not a TDX quote"),
    "version 5 of an unknown type": (raw_quote(5), "unknown type"),
    "version 5, cut": (raw_quote(5, body=b"\x02\x00" + (584).to_bytes(4, "little")), "too short"),
    "large": (bytes(quote.MAX_QUOTE + 1), "over 64 KiB"),
    "large hex": ("00" * (quote.MAX_QUOTE + 2), "too long"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_a_malformed_quote_is_refused_for_what_is_wrong_with_it(case: tuple[Any, str]) -> None:
    given, reason = case
    with pytest.raises(EvidenceError, match=reason):
        parse_quote(given)


# -- collateral -------------------------------------------------------------------------------------


def test_a_signed_object_keeps_its_exact_text() -> None:
    inner = '{ "b":1,"a" :[ 1.50, "\\u0041" ] }'
    body = ' {"tcbInfo" : ' + inner + ' , "signature":"00ff"}\n'
    assert signed_object(body.encode(), "tcbInfo") == (inner, b"\x00\xff")
    turned = '{"signature":"00ff","tcbInfo":' + inner + "}"
    assert signed_object(turned.encode(), "tcbInfo") == (inner, b"\x00\xff")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[]", "not JSON"),
        (b"{}", "not JSON"),
        (b'{"tcbInfo":{},"tcbInfo":{},"signature":"00"}', "not JSON"),
        (b'{"tcbInfo":{},"signature":"00"} x', "not JSON"),
        (b'{"tcbInfo":{},"signature":"00"', "not JSON"),
        (b'{"tcbInfo":' + b"[" * 50_000, "not JSON"),
        (b'{"tcbInfo":[],"signature":"00"}', "no signed tcbInfo"),
        (b'{"tcbInfo":{}}', "no signed tcbInfo"),
        (b'{"tcbInfo":{},"signature":"0"}', "signature of tcbInfo is not hex"),
        (b" " * (collateral.MAX_TEXT + 1), "too large"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_malformed_signed_object_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(EvidenceError, match=reason):
        signed_object(body, "tcbInfo")


def test_an_issuer_chain_comes_in_a_header_under_either_name() -> None:
    headers = {"tcb-info-issuer-chain": "-----BEGIN%20CERTIFICATE-----%0AMIIB"}
    wanted = "-----BEGIN CERTIFICATE-----\nMIIB"
    assert issuer_chain(headers, "TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain") == wanted
    assert issuer_chain(
        {"sgx-" + next(iter(headers)): next(iter(headers.values()))}, "X", "SGX-TCB-Info-Issuer-Chain"
    )
    for nothing in ({}, {"x": "MIIB"}, {"x": "a" * (collateral.MAX_TEXT + 1)}):
        with pytest.raises(EvidenceError, match="PCCS"):
            issuer_chain(nothing, "X")


def test_a_revocation_list_is_der_or_hex() -> None:
    assert crl(b"\x30\x00", "list") == b"\x30\x00"
    assert crl(b"3000\n", "list") == b"\x30\x00"
    for nothing in (b"", b"<html>", bytes(collateral.MAX_TEXT + 1)):
        with pytest.raises(EvidenceError):
            crl(nothing, "list")


def test_collateral_is_stored_and_read_again() -> None:
    parts = Collateral("a", b"b", b"c", "d", "{}", b"e", "f", "{}", b"g")
    stored = json.loads(json.dumps(parts.as_json()))
    assert stored_collateral(stored) == parts
    for name in stored:
        for spoiled in ({**stored, name: None}, {**stored, name: ""}, None):
            with pytest.raises(EvidenceError):
                stored_collateral(spoiled)
    with pytest.raises(EvidenceError, match="pck_crl is not hex"):
        stored_collateral({**stored, "pck_crl": "zz"})


# -- a KMS's record ---------------------------------------------------------------------------------


def test_the_cloud_kms_bound_its_keys_in_dstacks_spelling() -> None:
    assert bound(CA, ROOT).hex() == REPORT_DATA


def test_a_record_is_read_under_the_names_of_the_publication_and_of_the_contract() -> None:
    published = {"ca_pubkey": CA, "k256_pubkey": ROOT, "quote": "00", "event_log": [1]}
    contract = {
        "caPubkey": "0x" + CA.upper(),
        "k256Pubkey": "0x" + ROOT,
        "quote": "00",
        "eventlog": "0x" + b"[1]".hex(),
    }
    assert parse_kms_record(published) == (CA, ROOT, "00", [1])
    assert parse_kms_record(contract) == (CA, ROOT, "00", "[1]")
    assert is_kms_record(published)
    assert is_kms_record(contract)
    assert not is_kms_record({"quote": "00"})
    assert not is_kms_record([])


@pytest.mark.parametrize(
    "change",
    [
        {"ca_pubkey": None},
        {"ca_pubkey": CA[:-2]},
        {"k256_pubkey": 3},
        {"k256_pubkey": "02"},
        {"caPubkey": CA},
    ],
    ids=str,
)
def test_a_malformed_record_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(EvidenceError, match="the record of the KMS"):
        parse_kms_record({"ca_pubkey": CA, "k256_pubkey": ROOT, "quote": "00", "event_log": []} | change)
    with pytest.raises(EvidenceError, match="not an object"):
        parse_kms_record([])


def test_a_ca_key_is_a_p256_key_and_an_error_quotes_nothing() -> None:
    assert parse_ca(" 0x" + CA) == CA
    with pytest.raises(InputError) as caught:
        parse_ca("hunter2")
    assert "hunter2" not in str(caught.value)
