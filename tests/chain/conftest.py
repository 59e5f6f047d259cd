from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .anvil import Chain


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """These tests take node and anvil, so they run only when asked for by folder: `make test-chain`."""
    here = Path(__file__).parent
    asked = (Path(config.invocation_params.dir, arg.split("::")[0]).resolve() for arg in config.args)
    return None if any(path.is_relative_to(here) for path in asked) else True


@pytest.fixture
def chain() -> Iterator[Chain]:
    """A chain with Base's id, fresh for each test."""
    with Chain(8453) as chain:
        yield chain
