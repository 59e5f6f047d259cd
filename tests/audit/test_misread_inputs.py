"""Finding 8: an app's own secret is no input of ours, and an input that we do not know is an error."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .support import (
    OWNERS_KEY,
    Cloud,
    Command,
    Cvm,
    Simulator,
    Step,
    World,
    on_chain,
    updates,
)

PIN = "02" + "11" * 32
NOWHERE = "http://127.0.0.1:9"
"""A proxy that takes no connection: whoever goes to the real Phala Cloud stops there."""


@pytest.fixture
def world(simulator: Simulator) -> Iterator[World]:
    with on_chain(simulator, signing=True) as world:
        yield world


# -- names of inputs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "nearest"),
    [
        ("INPUT_TRUSTED-SIGNER", PIN, "trusted-signers"),
        ("INPUT_TRUSTED_SIGNER", PIN, "trusted-signers"),
        ("INPUT_REQUIRE-TRUSTS", "pinned", "require-trust"),
        ("INPUT_APPID", "1f" * 20, "app-id"),
    ],
)
def test_a_mistyped_input_on_github_is_an_error(
    step: Step, cvm: Cvm, cloud: Cloud, variable: str, value: str, nearest: str
) -> None:
    """Exit 0 with trust ``api``: the pin counts as none."""
    done = step(env="OLD=2", environ={variable: value}, wait="false")
    assert done.code == 2, done.log
    (error,) = done.annotations("error")
    assert nearest in error.data
    assert not updates(cloud)


# -- a variable that is handed to the guest --------------------------------------------------------


@pytest.mark.parametrize("secrets", ["OLD,PRIVATE_KEY", "OLD,WALLET=PRIVATE_KEY"])
def test_a_secret_called_private_key_signs_nothing(step: Step, world: World, secrets: str) -> None:
    """The run signs with the app's own secret; ``rpc-url`` was given for the proof."""
    done = step(
        secrets=secrets,
        environ={"OLD": "2", "PRIVATE_KEY": OWNERS_KEY},
        rpc_url=world.chain.url,
        wait="false",
    )
    assert world.chain.transactions == {}
    assert done.code == 7, done.log  # names changed, and no key was given


def test_a_secret_called_private_key_signs_nothing_for_the_command(run: Command, world: World) -> None:
    """The same by the command's flags."""
    outcome = run(
        *("update", "--cvm", "my-app", "--secrets", "OLD,PRIVATE_KEY", "--rpc-url", world.chain.url),
        environ={"OLD": "2", "PRIVATE_KEY": OWNERS_KEY},
    )
    assert world.chain.transactions == {}
    assert outcome.code == 7, outcome.printed


def test_a_secret_called_private_key_may_be_a_pem(step: Step, cvm: Cvm) -> None:
    """Exit 2: the app's PEM is refused as a private key of ours."""
    pem = "-----BEGIN EC PRIVATE KEY-----"
    done = step(secrets="OLD,PRIVATE_KEY", environ={"OLD": "2", "PRIVATE_KEY": pem})
    assert done.code == 0, done.log
    assert cvm.wait().environment == {"OLD": "2", "PRIVATE_KEY": pem}


def test_a_secret_called_eth_rpc_url_is_not_asked(step: Step, world: World) -> None:
    """The run sends its questions to the URL that was to be delivered."""
    done = step(secrets="OLD,ETH_RPC_URL", environ={"OLD": "2", "ETH_RPC_URL": world.chain.url}, wait="false")
    assert world.chain.asked == []
    assert done.code == 7, done.log


def test_a_secret_called_phala_cloud_api_key_is_no_login(step: Step, cvm: Cvm, cloud: Cloud) -> None:
    """The run logs in with the key that was to be delivered."""
    done = step(
        secrets="OLD,PHALA_CLOUD_API_KEY",
        api_key=None,
        environ={"OLD": "2", "PHALA_CLOUD_API_KEY": cloud.api_key},
        wait="false",
    )
    assert done.code == 2, done.log
    assert "api-key" in done.log
    assert not cloud.requests


def test_a_secret_called_phala_cloud_api_prefix_is_not_asked(
    step: Step, simulator: Simulator, cvm: Cvm, cloud: Cloud
) -> None:
    """The run goes to the URL that was to be delivered, with the API key."""
    done = step(
        secrets="OLD,PHALA_CLOUD_API_PREFIX",
        api_url=None,
        environ={"OLD": "2", "PHALA_CLOUD_API_PREFIX": simulator.url, "HTTPS_PROXY": NOWHERE},
        timeout="1",
    )
    assert not cloud.requests
    assert done.code == 6, done.log
