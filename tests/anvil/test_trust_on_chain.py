"""Stories of a key that is proven by a real KMS contract, and of everything that is no proof."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.kms import Kms
from tests.anvil.anvil import WELL_KNOWN_KMS, Chain
from tests.anvil.meddler import DroppedError, Meddle, Meddler, result
from tests.support.step import Done, Step

ELSEWHERE = "0x" + "e1" * 20


@pytest.fixture
def kms(cloud: Cloud) -> Kms:
    return cloud.add_kms("base-1", 8453, WELL_KNOWN_KMS[8453])


@pytest.fixture
def cvm(cloud: Cloud, chain: Chain, kms: Kms) -> Cvm:
    """A CVM called my-app, whose app has a contract."""
    app = chain.deploy("App", chain.funder)
    return cloud.add_cvm("my-app", app_id=app[2:].lower(), kms=kms, environment={"OLD": "1"})


@pytest.fixture
def app(cvm: Cvm) -> str:
    return f"0x{cvm.app_id}"


@pytest.fixture
def update(step: Step, cvm: Cvm, cloud: Cloud) -> Callable[..., Done]:
    """A step that would change a value; where it does not end well, nothing may have been sent."""

    def update(**options: Any) -> Done:
        cloud.reset_requests()
        done = step(**{"env": "OLD=2", **options})
        sent = [request for request in cloud.requests if request.method == "PATCH"]
        assert bool(sent) == (done.code == 0), done.log
        return done

    return update


def refused(done: Done, *parts: str, code: int = 3) -> bool:
    (error,) = done.annotations("error")
    return done.code == code and all(part in error.data for part in parts)


def test_the_root_is_read_from_the_contract(
    update: Callable[..., Done], step: Step, chain: Chain, kms: Kms, app: str
) -> None:
    chain.place_kms(kms.root_public_key, apps=[app])
    for inputs in ({"rpc_url": chain.url}, {"environ": {"ETH_RPC_URL": chain.url}}):
        done = update(require_trust="chain", **inputs)
        assert done.code == 0, done.log
        assert done.outputs["trust"] == "chain"
        assert done.outputs["kms-signer"] == kms.root_public_key
    assert step(mode="verify", rpc_url=chain.url).outputs["trust"] == "chain"


@pytest.fixture
def liar(cloud: Cloud, kms: Kms) -> Kms:
    """An attacker's KMS: what the API answers is signed by its root, and it publishes that root."""
    liar = Kms("base-1", b"attacker", chain_id=8453, contract_address=kms.contract_address)
    liar.id, liar.nodes = kms.id, kms.nodes
    cloud.kmses[cloud.kmses.index(kms)] = liar
    return liar


def test_an_attackers_root_that_the_api_vouches_for_is_caught(
    update: Callable[..., Done], cvm: Cvm, chain: Chain, kms: Kms, app: str, liar: Kms
) -> None:
    cvm.kms = liar
    chain.place_kms(kms.root_public_key, apps=[app])
    done = update(rpc_url=chain.url)
    assert refused(done, liar.root_public_key, kms.root_public_key, "do not send secrets")


def test_an_app_that_the_contract_does_not_know_is_refused(
    update: Callable[..., Done], chain: Chain, kms: Kms, app: str
) -> None:
    chain.place_kms(kms.root_public_key, apps=[])
    assert refused(update(rpc_url=chain.url), "does not know the app", app[2:])


def test_the_contract_is_the_well_known_one_whatever_the_api_says(
    update: Callable[..., Done], cvm: Cvm, chain: Chain, kms: Kms, app: str, liar: Kms
) -> None:
    cvm.kms = liar
    chain.place_kms(kms.root_public_key, apps=[app])
    liar.contract_address = chain.place_kms(liar.root_public_key, apps=[app], address=ELSEWHERE)
    assert refused(update(rpc_url=chain.url), WELL_KNOWN_KMS[8453], kms.root_public_key)


def test_a_contract_that_is_given_is_that_one_and_no_other(
    update: Callable[..., Done], chain: Chain, kms: Kms, app: str
) -> None:
    chain.place_kms(kms.root_public_key, apps=[app])
    done = update(rpc_url=chain.url, kms_contract=ELSEWHERE)
    assert refused(done, "no contract at this address", code=6)
    chain.place_kms(kms.root_public_key, apps=[], address=ELSEWHERE)
    assert refused(update(rpc_url=chain.url, kms_contract=ELSEWHERE), "does not know the app", ELSEWHERE)
    chain.send(ELSEWHERE, "registerApp(address)", app)
    assert update(rpc_url=chain.url, kms_contract=ELSEWHERE).outputs["trust"] == "chain"


def test_a_chain_that_is_not_known_takes_the_contract(
    update: Callable[..., Done], cloud: Cloud, cvm: Cvm
) -> None:
    with Chain(31337) as chain:
        cvm.kms = cloud.add_kms("test-1", 31337, ELSEWHERE)
        app = f"0x{cvm.app_id}"
        chain.place_kms(cvm.kms.root_public_key, apps=[app], address=ELSEWHERE)
        assert refused(update(rpc_url=chain.url), "31337", "kms-contract")
        assert update(rpc_url=chain.url, kms_contract=ELSEWHERE).outputs["trust"] == "chain"


@pytest.mark.parametrize("way", ["rpc_url", "ETH_RPC_URL"])
def test_an_rpc_of_another_chain_is_told_as_that(update: Callable[..., Done], way: str) -> None:
    with Chain(1) as other:
        given: dict[str, Any] = {"rpc_url": other.url}
        if way == "ETH_RPC_URL":
            given = {"environ": {"ETH_RPC_URL": other.url}}
        done = update(**given)
        assert refused(done, "rpc-url is for chain 1", "on chain 8453"), done.log


def meddled(method: str, meddle: Meddle) -> Meddle:
    return lambda name, params, forward: meddle(name, params, forward) if name == method else forward()


def gone(name: str, params: list[Any], forward: Callable[[], Any]) -> Any:
    raise DroppedError


@pytest.mark.parametrize(
    ("meddle", "code"),
    [
        (meddled("eth_chainId", lambda *_: result("0x1")), 3),
        (meddled("eth_chainId", lambda *_: result("base")), 6),
        (meddled("eth_call", lambda *_: result("0x")), 6),
        (meddled("eth_call", lambda *_: result("0x" + "ff" * 320)), 6),
        (meddled("eth_call", lambda *_: result(None)), 6),
        (lambda *_: b"<html>please log in</html>", 6),
        (lambda *_: b"[]", 6),
        (lambda *_: {"jsonrpc": "2.0", "id": 1, "error": {"message": "no::error::such key"}}, 6),
    ],
    ids=["another chain", "no chain", "nothing", "garbage", "null", "html", "list", "refusal"],
)
def test_an_rpc_that_lies_or_fails_stops_the_run(
    update: Callable[..., Done], chain: Chain, kms: Kms, app: str, meddle: Meddle, code: int
) -> None:
    chain.place_kms(kms.root_public_key, apps=[app])
    with Meddler(chain.url, meddle) as rpc:
        done = update(rpc_url=f"{rpc.url}/v2/key-of-the-rpc", environ={"RUNNER_DEBUG": "1"})
        assert done.code == code, done.log
        assert len(done.annotations("error")) == 1
        assert "key-of-the-rpc" not in done.log + done.output_file + done.summary
        assert "trust" not in done.outputs


def test_an_rpc_that_is_not_there_stops_the_run(update: Callable[..., Done]) -> None:
    done = update(rpc_url="http://127.0.0.1:1/v2/key-of-the-rpc", environ={"RUNNER_DEBUG": "1"})
    assert refused(done, "could not be reached", code=6)
    assert "key-of-the-rpc" not in done.log


@pytest.mark.parametrize("words", [b"\x01" * 32, bytes(160)])
def test_a_contract_that_is_no_kms_stops_the_run(
    update: Callable[..., Done], chain: Chain, words: bytes
) -> None:
    parrot = chain.deploy("Parrot", words)
    assert update(rpc_url=chain.url, kms_contract=parrot).code == 6


def test_an_api_that_calls_the_app_central_does_not_talk_its_way_out(
    update: Callable[..., Done], cvm: Cvm, cloud: Cloud, chain: Chain, kms: Kms, app: str
) -> None:
    chain.place_kms(kms.root_public_key, apps=[app])
    cvm.kms = cloud.find_kms("phala")
    assert refused(update(rpc_url=chain.url), "no KMS contract for the app")
    # A variable that is there for other tools is no promise; what is left is said to be the API's word.
    done = update(environ={"ETH_RPC_URL": chain.url})
    assert done.code == 0, done.log
    assert done.outputs["trust"] == "api"
    assert refused(update(environ={"ETH_RPC_URL": chain.url}, require_trust="chain"), "require-trust")


def test_with_a_pin_and_an_rpc_both_have_to_hold(
    update: Callable[..., Done], chain: Chain, kms: Kms, app: str
) -> None:
    stranger = Kms("stranger", b"stranger").root_public_key
    chain.place_kms(kms.root_public_key, apps=[app])
    done = update(rpc_url=chain.url, trusted_signers=f"{stranger}\n0x{kms.root_public_key.upper()}")
    assert done.outputs["trust"] == "pinned"
    assert refused(update(rpc_url=chain.url, trusted_signers=stranger), "not in trusted-signers")
    chain.place_kms(stranger, apps=[app])
    done = update(rpc_url=chain.url, trusted_signers=kms.root_public_key)
    assert refused(done, "root in the KMS contract", stranger)
