"""The table: each row says all that the parser and the documents need."""

from __future__ import annotations

import pytest

from phala_secrets.errors import InputError
from phala_secrets.inputs import outputs, table
from phala_secrets.inputs.given import Given, read
from phala_secrets.inputs.table import INPUTS, OUTPUTS, WORDS, Input

NUMBERS = [entry for entry in INPUTS.values() if entry.kind in ("number", "duration")]
each_input = pytest.mark.parametrize("entry", INPUTS.values(), ids=INPUTS)


def test_a_name_has_one_row() -> None:
    assert len(table._INPUTS) == len(INPUTS)
    assert len(outputs._OUTPUTS) == len(OUTPUTS)


@each_input
def test_a_row_is_complete(entry: Input) -> None:
    assert entry.heading
    assert entry.words
    assert set(entry.words) <= set(WORDS)
    if entry.flag and entry.kind != "bool":
        assert entry.metavar or entry.choices
    assert (entry.kind in ("choice", "switch")) == bool(entry.choices)
    assert (entry.kind in ("number", "duration")) == bool(entry.high)


@each_input
def test_a_default_is_valid(entry: Input) -> None:
    readers = {"choice": Given.choice, "switch": Given.choice, "bool": Given.flag}
    reader = readers.get(entry.kind, Given.number if entry in NUMBERS else Given.text)
    reader(read({}, {}), entry.name)


@pytest.mark.parametrize("entry", NUMBERS, ids=lambda entry: entry.name)
def test_a_number_is_in_the_range_of_its_row(entry: Input) -> None:
    for value in (entry.low, entry.high):
        assert read({entry.name: str(value)}, {}).number(entry.name) == value
    for value in (entry.low - 1, entry.high + 1):
        with pytest.raises(InputError, match=f"invalid {entry.name} '{value}'"):
            read({entry.name: str(value)}, {}).number(entry.name)
