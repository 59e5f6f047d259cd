"""The generations of guests, and which one a CVM has."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phala_secrets.dstack.env_file import EVERY_ESCAPE, NO_BACKSLASH
from phala_secrets.dstack.generations import (
    CERTAIN,
    GENERATIONS,
    STRICTEST,
    generation_of,
    unknown_generation,
)


@pytest.mark.parametrize(
    ("version", "row"),
    [
        *(
            (version, "0.5")
            for version in ("0.5.3", "0.5.8", "0.5.11", "v0.5.9", "0.5", "0.5.8-dev", "0.5-rc1")
        ),
        *((version, "0.6") for version in ("0.6.0", "0.6.0-alpha.2", "0.6.12")),
    ],
)
def test_the_os_version_chooses_the_generation(version: str, row: str) -> None:
    assert generation_of(version).version == row
    assert unknown_generation(version) is None


@pytest.mark.parametrize(
    "version", ["99.0.0", "99.0", "0.50.1", "0.4.2", "10.5.8", "0.65", "nightly", "a\n::b"]
)
def test_an_unknown_version_takes_the_strictest_rules_and_is_told(version: str) -> None:
    assert generation_of(version) is STRICTEST
    finding = unknown_generation(version)
    assert finding is not None
    assert finding.severity == "notice"
    assert (f" {version} " in finding.message) == (version.isprintable())
    assert finding.hint


@pytest.mark.parametrize("version", [None, ""])
def test_a_version_that_is_not_known_yet_takes_the_strictest_rules(version: str | None) -> None:
    assert generation_of(version) is STRICTEST
    assert unknown_generation(version) is None


@given(st.text())
def test_any_version_has_a_generation(version: str) -> None:
    assert generation_of(version) in (*GENERATIONS, STRICTEST)
    unknown_generation(version)


@given(
    st.sampled_from(sorted(STRICTEST.acting | STRICTEST.overwritten))
    | st.from_regex(re.compile("(BASH)?[A-Z_]+"))
)
def test_the_strictest_refuses_each_name_that_a_generation_does(name: str) -> None:
    refused = {row.version: row.acts(name) or row.overwrites(name) for row in GENERATIONS}
    assert (STRICTEST.acts(name) or STRICTEST.overwrites(name)) == any(refused.values())
    if CERTAIN.acts(name) or CERTAIN.overwrites(name):
        assert all(refused.values())


def test_the_rows_stand_in_order_with_every_handover_in_the_strictest() -> None:
    versions = [tuple(map(int, row.version.split("."))) for row in GENERATIONS]
    assert versions == sorted(set(versions))
    assert {handover for row in GENERATIONS for handover in row.handovers} == set(STRICTEST.handovers)
    assert CERTAIN.by_any
    assert set(CERTAIN.handovers) == {handover for row in GENERATIONS for handover in row.handovers}
    assert {handover.writer for handover in STRICTEST.handovers} == {NO_BACKSLASH, EVERY_ESCAPE}
    assert all(handover.systemd >= 254 for handover in STRICTEST.handovers)
