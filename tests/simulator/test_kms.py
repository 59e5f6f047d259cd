"""Keys and signatures are real: they recover to the root, and can be made wrong in every way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from btclib_secp256k1 import recovery
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from sha3 import keccak_256

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.composefile import compose_hash, new_names
from phala_secrets.simulator.kms import Kms

if TYPE_CHECKING:
    from tests.simulator.conftest import Api

APP = "12" * 20
VECTORS = Path(__file__).parents[1] / "vectors"


def signer(app_id: str, public_key: str, signature: str, timestamp: int | None = None) -> str:
    moment = b"" if timestamp is None else timestamp.to_bytes(8, "big")
    message = b"dstack-env-encrypt-pubkey:" + bytes.fromhex(app_id) + moment + bytes.fromhex(public_key)
    raw = bytes.fromhex(signature)
    return recovery.recover(keccak_256(message).digest(), raw[:64], raw[64] % 27).hex()


def test_the_published_signature_is_over_the_message_that_is_signed_here() -> None:
    public_key = "e33a1832c6562067ff8f844a61e51ad051f1180b66ec2551fb0251735f3ee90a"
    signature = (
        "8542c49081fbf4e03f62034f13fbf70630bdf256a53032e38465a27c36fd6bed"
        "7a5e7111652004aef37f7fd92fbfc1285212c4ae6a6154203a48f5e16cad2cef00"
    )
    root = "0217610d74cbd39b6143842c6d8bc310d79da1d82cc9d17f8876376221eda0c38f"
    assert signer("00" * 20, public_key, signature) == root


def test_a_key_comes_with_the_root_s_signature(api: Api, cloud: Cloud) -> None:
    kms = cloud.kmses[0]
    answer = api.get(f"/kms/phala/pubkey/0x{APP.upper()}").json()
    assert set(answer) == {"public_key", "signature"}
    assert answer["public_key"] == kms.app_key(APP).public_key().public_bytes_raw().hex()
    assert signer(APP, answer["public_key"], answer["signature"]) == kms.root_public_key


def test_and_with_a_time_where_that_is_enabled(api: Api, cloud: Cloud) -> None:
    kms = cloud.kmses[0]
    cloud.v1_signatures = True
    cloud.clock_offset = -1000.0
    answer = api.get(f"/kms/{kms.nodes[0].id}/pubkey/{APP}").json()
    key, timestamp = answer["public_key"], answer["timestamp"]
    assert abs(timestamp - cloud.now().timestamp()) < 60
    assert signer(APP, key, answer["signature_v1"], timestamp) == kms.root_public_key
    assert signer(APP, key, answer["signature"]) == kms.root_public_key


@pytest.mark.parametrize("base", [0, 27])
def test_recovery_ids_as_either_kind_of_library_writes_them(base: int) -> None:
    kms = Kms("phala", b"seed")
    kms.recovery_base = base
    ids = {bytes.fromhex(kms.sign(f"{app:040x}", "00" * 32))[64] for app in range(16)}
    assert ids == {base, base + 1}


def test_each_app_has_its_key_and_each_kms_its_root(api: Api, cloud: Cloud) -> None:
    base = cloud.add_kms("kms-base-prod", 8453, "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C")
    keys = {kms.app_public_key(app) for kms in cloud.kmses for app in (APP, "34" * 20)}
    assert len(keys) == 4
    answer = api.get(f"/kms/kms-base-prod-1/pubkey/{APP}").json()
    assert signer(APP, answer["public_key"], answer["signature"]) == base.root_public_key


def test_an_attacker_can_swap_the_key_the_signature_or_all_of_the_answer(api: Api, cloud: Cloud) -> None:
    kms, attacker = cloud.kmses[0], Kms("phala", b"attacker")
    kms.app_keys[APP] = X25519PrivateKey.from_private_bytes(bytes(range(32)))
    answer = api.get(f"/kms/phala/pubkey/{APP}").json()
    assert signer(APP, answer["public_key"], answer["signature"]) == kms.root_public_key

    def swap_key(genuine: dict[str, Any]) -> dict[str, Any]:
        return {**genuine, "public_key": attacker.app_public_key(APP)}

    kms.tamper = swap_key
    answer = api.get(f"/kms/phala/pubkey/{APP}").json()
    assert signer(APP, answer["public_key"], answer["signature"]) != kms.root_public_key
    kms.tamper = lambda _genuine: attacker.answer(APP, None)
    answer = api.get(f"/kms/phala/pubkey/{APP}").json()
    assert signer(APP, answer["public_key"], answer["signature"]) == attacker.root_public_key


def test_a_kms_that_is_down(api: Api, cloud: Cloud) -> None:
    cloud.kmses[0].online = False
    assert api.get(f"/kms/phala/pubkey/{APP}").status_code == 500


@pytest.fixture
def base(cloud: Cloud) -> Kms:
    """A contract with two nodes."""
    return cloud.add_kms("kms-base-prod", 8453, "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C", nodes=2)


def test_a_key_comes_from_a_node_and_not_from_a_contract_nor_a_type(api: Api, base: Kms) -> None:
    keys = set()
    for node in base.nodes:
        for name in (node.id, node.slug):
            answer = api.get(f"/kms/{name}/pubkey/{APP}").json()
            assert signer(APP, answer["public_key"], answer["signature"]) == base.root_public_key
            keys.add(answer["public_key"])
    assert len(keys) == 1
    for name in (base.id, base.slug, base.kms_type):
        refused = api.get(f"/kms/{name}/pubkey/{APP}")
        assert (refused.status_code, refused.json()["error_code"]) == (404, "ERR-02-011")


def test_or_from_a_contract_as_well_where_the_service_is_like_that(api: Api, cloud: Cloud, base: Kms) -> None:
    cloud.contract_serves_keys = True
    base.nodes[0].state = "down"
    for name in (base.id, base.slug, base.nodes[1].slug):
        assert api.get(f"/kms/{name}/pubkey/{APP}").status_code == 200
    assert api.get(f"/kms/{base.nodes[0].slug}/pubkey/{APP}").status_code == 500


def test_one_node_may_be_down_while_the_other_answers(api: Api, base: Kms) -> None:
    first, second = (f"/kms/{node.slug}/pubkey/{APP}" for node in base.nodes)
    base.nodes[0].state = "down"
    assert (api.get(first).status_code, api.get(second).status_code) == (500, 200)
    base.nodes[0].state = "reset"
    with pytest.raises(httpx.TransportError):
        api.get(first)
    assert api.get(second).status_code == 200


def test_a_node_may_not_know_the_app(api: Api, base: Kms) -> None:
    base.nodes[0].unknown_apps.add(APP)
    first, second = (f"/kms/{node.slug}/pubkey" for node in base.nodes)
    assert (api.get(f"{first}/{APP}").status_code, api.get(f"{second}/{APP}").status_code) == (404, 200)
    assert api.get(f"{first}/{'34' * 20}").status_code == 200


def test_a_contract_lists_its_nodes_and_a_node_has_none(api: Api, base: Kms) -> None:
    for name in (base.id, base.slug):
        listed = api.get(f"/kms/{name}/nodes").json()
        assert [item["slug"] for item in listed["items"]] == ["kms-base-prod-1", "kms-base-prod-2"]
        assert listed["total"] == 2
    assert api.get("/kms/kms-base-prod-1/nodes").status_code == 404
    assert [item["slug"] for item in api.get("/kms/phala/nodes").json()["items"]] == ["phala"]


@pytest.mark.parametrize("version", ["2025-10-28", "2026-01-21", "2026-05-22", None])
def test_a_kms_is_a_node_until_the_version_of_contracts(api: Api, base: Kms, version: str | None) -> None:
    assert api.get("/kms/kms-base-prod").json()["k256_pubkey"] == base.root_public_key
    assert api.get("/kms/kms-base-prod-1").status_code == 404
    del api.headers["X-Phala-Version"]
    if version:
        api.headers["X-Phala-Version"] = version
    ids = [item["id"] for item in api.get("/kms").json()["items"]]
    assert all(one.startswith("kms_") for one in ids)
    assert api.get("/kms/kms-base-prod-1").json()["id"] == ids[1]
    assert api.get("/kms/kms-base-prod").status_code == 404


def test_compose_hashes_are_those_of_the_official_packages() -> None:
    rows = json.loads((VECTORS / "compose_hashes.json").read_text())["rows"]
    composes = [(json.loads(row["app_compose"]), row) for row in rows]
    whole = [(compose, row) for compose, row in composes if "runner" in compose and "name" in compose]
    assert len(whole) >= 3
    for compose, row in whole:
        for form in ("compact", "pretty"):
            assert compose_hash(compose, form, normalised=False) == row[form]
            assert compose_hash(compose, form, normalised=True) == row[f"{form}_normalised"]


def test_the_orders_in_which_new_names_may_be_written() -> None:
    old, sent = ["C", "A"], ["B", "A", "C", "B"]
    assert new_names(old, sent, "sent") == ["B", "A", "C"]
    assert new_names(old, sent, "kept") == ["C", "A", "B"]
    assert new_names(old, sent, "sorted") == ["A", "B", "C"]
