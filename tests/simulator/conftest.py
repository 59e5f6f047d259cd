from __future__ import annotations

from collections.abc import Iterator, Mapping

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.guest import seal
from phala_secrets.simulator.server import Simulator
from tests.support.clock import ManualClock
from tests.support.faulty import FaultySimulator


class Api(httpx.Client):
    """A client of the simulator; `update` does what any client does, with no proof and no questions."""

    def __init__(self, simulator: Simulator, version: str = "2026-06-23") -> None:
        headers = {"X-API-Key": simulator.cloud.api_key, "X-Phala-Version": version}
        # Plain http: to load the certificates of the world would take longer than most tests.
        super().__init__(base_url=simulator.url, headers=headers, timeout=10, verify=False)

    def seal(self, cvm: str, environment: Mapping[str, str]) -> str:
        found = self.get(f"/cvms/{cvm}", headers={"X-Phala-Version": "2026-01-21"}).json()
        key = bytes.fromhex(found["kms_info"]["encrypted_env_pubkey"])
        return seal(environment, X25519PublicKey.from_public_bytes(key)).hex()

    def update(self, cvm: str, environment: Mapping[str, str], **more: object) -> httpx.Response:
        body = {"encrypted_env": self.seal(cvm, environment), "env_keys": list(environment), **more}
        return self.patch(f"/cvms/{cvm}/envs", json=body)


@pytest.fixture
def simulator(clock: ManualClock) -> Iterator[FaultySimulator]:
    with FaultySimulator(Cloud(restart_seconds=6.0, clock=clock)) as running:
        yield running


@pytest.fixture
def cloud(simulator: FaultySimulator) -> Cloud:
    return simulator.cloud


@pytest.fixture
def api(simulator: FaultySimulator) -> Iterator[Api]:
    with Api(simulator) as client:
        yield client
