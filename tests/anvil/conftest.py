from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.anvil.anvil import Chain


@pytest.fixture
def chain() -> Iterator[Chain]:
    """A chain with Base's id, fresh for each test."""
    with Chain(8453) as chain:
        yield chain
