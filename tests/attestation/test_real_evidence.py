"""Real evidence: quotes of Intel's hardware, and logs that dstack wrote. ``make test-attestation``.

It is not in this repository, so it is read from the folder that ``ATTESTATION`` names, and a file that
is missing there is a failure.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from phala_secrets import Attestation, verify_attestation
from phala_secrets.cloud import known
from phala_secrets.dstack.collateral import stored_collateral
from phala_secrets.dstack.compose_hash import measured
from phala_secrets.dstack.event_log import Claims, parse_event_log, replay
from phala_secrets.dstack.kms_record import bound, parse_kms_record
from phala_secrets.dstack.quote import parse_quote, platform_of, verify_quote
from phala_secrets.errors import EvidenceError

VALID = 1751500000
"""Unix seconds at which the sample's collateral was valid."""


def text(name: str) -> str:
    return (Path(os.environ["ATTESTATION"]) / name).read_text()


def sample() -> bytes:
    return (Path(os.environ["ATTESTATION"]) / "tdx_quote.bin").read_bytes()


def collateral() -> Any:
    return json.loads(text("tdx_quote_collateral.json"))


def links(found: Attestation) -> dict[str, tuple[bool | None, str]]:
    return {link.name: (link.ok, link.what) for link in found.links}


def test_intels_own_root_vouches_for_a_real_quote_at_its_time() -> None:
    quote = parse_quote(sample())
    verdict = verify_quote(quote, stored_collateral(collateral()), VALID)
    assert verdict == ("UpToDate", ())
    assert platform_of(quote) == ("B0C06F000000", "platform")
    assert not quote.debug


def test_its_collateral_has_expired_today() -> None:
    with pytest.raises(EvidenceError, match="expired"):
        verify_quote(parse_quote(sample()), stored_collateral(collateral()), int(time.time()))


@pytest.mark.parametrize("position", [0x40, 0xB8, 0x178, 0x238, 650, 800, 1000, 1300])
def test_each_flipped_bit_of_a_real_quote_is_noticed(position: int) -> None:
    spoiled = bytearray(sample())
    spoiled[position] ^= 1
    with pytest.raises(EvidenceError):
        verify_quote(parse_quote(bytes(spoiled)), stored_collateral(collateral()), VALID)


def test_a_quote_with_no_log_is_verified_and_not_attested() -> None:
    found = verify_attestation({"quote": sample().hex(), "event_log": []}, collateral=collateral(), now=VALID)
    assert not found.attested
    assert links(found)["quote"] == (True, "signed by Intel TDX hardware")
    assert links(found)["event log"][0] is False


LOGS = ["dstack-app-report.json", "quote-report.json", "tdx-lite-getquote.json", "central-kms-root.json"]


@pytest.mark.parametrize("name", LOGS)
def test_a_real_log_replays_to_the_quotes_rtmr3(name: str) -> None:
    content = json.loads(text(name))
    events = parse_event_log(content["event_log"])
    assert replay(events) == parse_quote(content["quote"]).rtmrs[3]
    assert len(Claims(events).one("compose-hash")) == 32
    changed = [event._replace(payload=event.payload + b"\0", digest=b"") for event in events]
    assert replay(changed) != parse_quote(content["quote"]).rtmrs[3]


def test_a_real_apps_event_behind_system_ready_claims_nothing() -> None:
    events = parse_event_log(json.loads(text("quote-report.json"))["event_log"])
    assert events[-1].name == "LIUM_MINER_HOTKEY"
    assert Claims(events).optional("LIUM_MINER_HOTKEY") is None


def test_a_real_compose_hash_is_that_of_the_app_compose() -> None:
    claims = Claims(parse_event_log(json.loads(text("dstack-app-report.json"))["event_log"]))
    assert claims.one("compose-hash").hex() == measured(text("dstack-app-compose.json")).compose_hash


def test_the_published_root_is_bound_by_its_record() -> None:
    record = parse_kms_record(json.loads(text("central-kms-root.json")))
    assert (record.root, record.ca) == (known.published.root, known.published.ca)
    assert parse_quote(record.quote).report_data == bound(record.ca, record.root)
