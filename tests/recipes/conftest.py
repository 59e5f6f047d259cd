"""A CI's machine with the real tools on its path, and the CVM of the examples."""

from __future__ import annotations

from pathlib import Path

import pytest

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from tests.support.ci import VALUES
from tests.support.ci import machine as machine
from tests.support.ci import secrets as secrets


@pytest.fixture
def cvm(cloud: Cloud) -> Cvm:
    """The CVM of the examples, with the variables that it had before."""
    return cloud.add_cvm("my-app", environment=dict.fromkeys(VALUES, "old"))


@pytest.fixture
def tools(machine: dict[str, str]) -> Path:
    """The folder of the machine's own commands, first on its path."""
    return Path(machine["PATH"].split(":")[0])
