"""Stories of the published root of the Cloud KMS: what it vouches for, and who has to have it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from phala_secrets import ProofError, create_async_client, create_client
from phala_secrets.cloud import known
from phala_secrets.cloud.requests import DEFAULT_URL
from phala_secrets.dstack.key_proof import parse_signer
from phala_secrets.dstack.kms_record import parse_ca
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from tests.support.command import Command
from tests.support.faulty import FaultySimulator as Simulator
from tests.support.step import Step

Publish = Callable[..., None]
ANOTHER = "0217610d74cbd39b6143842c6d8bc310d79da1d82cc9d17f8876376221eda0c38f"
CONTRACT = "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C"


@pytest.fixture
def publish(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Publish a root, of the simulator's API unless another is given: the seam of ``cloud.known``."""

    def publish(root: str, api_url: str | None = None) -> None:
        published = known.Published(root, known.published.ca, api_url or simulator.url)
        monkeypatch.setattr(known, "published", published)

    return publish


def root_of(cloud: Cloud) -> str:
    return cloud.find_kms("phala").root_public_key


def test_what_is_published_is_well_formed() -> None:
    assert parse_signer(known.published.root) == known.published.root
    assert parse_ca(known.published.ca) == known.published.ca
    assert known.expected_root(DEFAULT_URL) == known.published.root


@pytest.mark.parametrize(
    "url", ["https://CLOUD-api.phala.com:443/api/v1", "https://cloud-api.phala.com./api/v2"]
)
def test_another_spelling_of_the_default_api_is_the_default_api(url: str) -> None:
    assert known.expected_root(url) == known.published.root


def test_any_other_api_has_no_known_root(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    done = run("verify", "--cvm", "my-app", "--json")
    assert done.code == 0, done.printed
    assert done.json["trust"] == "api"
    assert "root of the Cloud KMS" not in done.printed


def test_a_key_that_the_known_root_signed_is_known(
    run: Command, cloud: Cloud, cvm: Cvm, publish: Publish
) -> None:
    publish(root_of(cloud))
    done = run("verify", "--cvm", "my-app", "--json")
    assert done.code == 0, done.printed
    assert done.json["trust"] == "known"
    assert "kind of KMS (Cloud KMS) are the API's word" in done.printed
    assert "--require-trust known" in done.printed


@pytest.mark.parametrize("mode", ["verify", "update", "plan", "encrypt"])
def test_another_root_of_the_cloud_kms_is_refused(
    run: Command, cloud: Cloud, cvm: Cvm, publish: Publish, mode: str
) -> None:
    publish(ANOTHER)
    source = () if mode == "verify" else ("--secrets", "OLD")
    done = run(mode, "--cvm", "my-app", *source, environ={"OLD": "a new value"})
    assert done.code == 3, done.printed
    assert ANOTHER in done.errors[0]
    assert [request.path for request in cloud.requests if request.method != "GET"] == []


def test_require_trust_api_goes_on_with_a_warning_everywhere(
    step: Step, run: Command, cloud: Cloud, cvm: Cvm, publish: Publish
) -> None:
    publish(ANOTHER)
    done = run("verify", "--cvm", "my-app", "--require-trust", "api", "--json")
    assert done.code == 0, done.printed
    assert done.json["trust"] == "api"
    assert done.json["warning"].startswith("unknown root of the Cloud KMS")
    assert [line for line in done.lines if line.startswith("warning: unknown root of the Cloud KMS")]
    assert any(line.startswith("Key proven") and "unknown root" in line for line in done.lines)


def test_require_trust_known_takes_no_word_of_the_api(
    run: Command, cloud: Cloud, cvm: Cvm, publish: Publish
) -> None:
    """An API that calls the app an on-chain one talks its way out of the rule, but not of this."""
    cloud.add_kms("base", 8453, CONTRACT)
    cloud.add_cvm("elsewhere", kms="base", environment={"OLD": "1"})
    publish(root_of(cloud))
    assert run("verify", "--cvm", "elsewhere").code == 0
    done = run("verify", "--cvm", "elsewhere", "--require-trust", "known")
    assert done.code == 3
    assert "require-trust is known, but the proof rests on api" in done.errors[0]
    assert run("verify", "--cvm", "my-app", "--require-trust", "known").code == 0


def test_phala_cloud_pins_the_known_root_by_name(
    run: Command, cloud: Cloud, cvm: Cvm, publish: Publish
) -> None:
    publish(root_of(cloud), DEFAULT_URL)
    done = run("verify", "--cvm", "my-app", "--trusted-signers", "phala-cloud", "--json")
    assert done.code == 0, done.printed
    assert done.json["trust"] == "pinned"
    publish(ANOTHER, DEFAULT_URL)
    refused = run("verify", "--cvm", "my-app", "--trusted-signers", "phala-cloud")
    assert refused.code == 3
    assert "not in trusted-signers" in refused.errors[0]


def test_a_pin_of_another_root_is_the_users_own_word(
    run: Command, cloud: Cloud, cvm: Cvm, publish: Publish
) -> None:
    publish(ANOTHER)
    done = run("verify", "--cvm", "my-app", "--trusted-signers", root_of(cloud), "--json")
    assert done.code == 0, done.printed
    assert done.json["trust"] == "pinned"


def test_the_library_refuses_another_root_of_the_cloud_kms(
    simulator: Simulator, cloud: Cloud, cvm: Cvm, publish: Publish
) -> None:
    publish(ANOTHER)
    with create_client(cloud.api_key, simulator.url) as client, pytest.raises(ProofError, match=ANOTHER):
        client.update_cvm_envs("my-app", envs={"OLD": "2"})
    publish(root_of(cloud))
    with create_client(cloud.api_key, simulator.url) as client:
        assert client.update_cvm_envs("my-app", envs={"OLD": "2"}).status == "in_progress"


def test_the_async_library_refuses_it_as_well(
    simulator: Simulator, cloud: Cloud, cvm: Cvm, publish: Publish
) -> None:
    import asyncio

    async def update() -> None:
        async with create_async_client(cloud.api_key, simulator.url) as client:
            await client.update_cvm_envs("my-app", envs={"OLD": "2"})

    publish(ANOTHER)
    with pytest.raises(ProofError, match=ANOTHER):
        asyncio.run(update())
