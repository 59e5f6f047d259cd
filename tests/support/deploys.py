"""What stories of a deploy share: a compose file before and after, a CVM on an Onchain KMS, and its chain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from eth_account import Account

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from tests.support.paper_chain import BASE_KMS, PaperChain
from tests.support.step import Done, Step

DIGEST = "sha256:" + "ab" * 32
BEFORE = f"services:\n  web:\n    image: nginx@{DIGEST}\n    environment:\n      OLD: ${{OLD}}\n"
AFTER = BEFORE + "      TOKEN: ${TOKEN}\n"
SECRET = "a-value-nobody-may-see"
ENV = f"OLD=2\nTOKEN={SECRET}"
OWNERS_KEY = "c0ffee" * 10 + "c0de"
TRANSACTION = "0x" + "7a" * 32


def add_on_chain(cloud: Cloud) -> Cvm:
    """Add my-app on an Onchain KMS, with a compose file that hands one variable on."""
    kms = cloud.add_kms("base-1", 8453, BASE_KMS)
    return cloud.add_cvm("my-app", kms=kms, docker_compose_file=BEFORE, environment={"OLD": "1"})


@contextmanager
def chain_of(cvm: Cvm, cloud: Cloud) -> Iterator[PaperChain]:
    """Run a chain that knows the app and its owner, and that the service looks approvals up on."""
    with PaperChain() as chain:
        cloud.rpc_urls[8453] = chain.url
        chain.hold(cvm)
        chain.owner = str(Account.from_key(OWNERS_KEY).address).lower()
        yield chain


def deploy(step: Step, text: str = AFTER, **inputs: Any) -> Done:
    """Run a step that deploys a compose file with the secrets."""
    step.write("docker-compose.yml", text)
    given: dict[str, Any] = {"env": ENV, "compose_file": "docker-compose.yml", **inputs}
    return step(**given)
