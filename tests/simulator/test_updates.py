"""An update replaces the whole environment and restarts the CVM; an app on chain takes an approval first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import pytest
from sha3 import keccak_256

from phala_secrets.simulator.identity import Device
from phala_secrets.simulator.loopback import Loopback

if TYPE_CHECKING:
    from phala_secrets.simulator.cloud import Cloud
    from phala_secrets.simulator.cvm import Cvm
    from phala_secrets.simulator.server import Simulator
    from tests.simulator.conftest import Api

BASE = "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C"
TRANSACTION = "0x" + "ab" * 32


@pytest.fixture
def cvm(cloud: Cloud) -> Cvm:
    return cloud.add_cvm("my-app", environment={"OLD": "1", "KEPT": "1"})


@pytest.fixture
def on_chain(cloud: Cloud) -> Cvm:
    cloud.add_kms("kms-base-prod", 8453, BASE)
    return cloud.add_cvm("chain-app", kms="kms-base-prod", environment={"OLD": "1", "KEPT": "1"})


def test_the_whole_set_is_replaced_and_the_names_with_it(api: Api, cvm: Cvm) -> None:
    before = cvm.compose_hash
    answer = api.update("my-app", {"NEW": "a b", "KEPT": "2"})
    assert answer.status_code == 202
    assert answer.json()["status"] == "in_progress"
    assert answer.json()["allowed_envs_changed"] is True
    assert cvm.wait().environment == {"NEW": "a b", "KEPT": "2"}
    assert cvm.allowed_envs == ["NEW", "KEPT"]
    assert cvm.compose_hash != before


def test_values_alone_change_neither_names_nor_hash(api: Api, cvm: Cvm) -> None:
    before = cvm.compose_hash
    answer = api.update("my-app", {"OLD": "2", "KEPT": "2"})
    assert answer.json()["allowed_envs_changed"] is False
    assert cvm.allowed_envs == ["OLD", "KEPT"]
    assert cvm.compose_hash == before
    assert cvm.wait().environment == {"KEPT": "2", "OLD": "2"}


@pytest.mark.parametrize(
    ("order", "names"), [("sent", ["KEPT", "OLD"]), ("kept", ["OLD", "KEPT"]), ("sorted", ["KEPT", "OLD"])]
)
def test_the_same_names_in_another_order_are_another_hash(
    api: Api, cloud: Cloud, cvm: Cvm, order: Any, names: list[str]
) -> None:
    before = cvm.compose_hash
    cloud.allowed_envs_order = order
    answer = api.update("my-app", {"KEPT": "2", "OLD": "2"})
    assert cvm.allowed_envs == names
    changed = names != ["OLD", "KEPT"]
    assert (cvm.compose_hash != before) is answer.json()["allowed_envs_changed"] is changed


def test_without_names_those_of_before_are_let_through(api: Api, cvm: Cvm) -> None:
    api.update("my-app", {"KEPT": "2", "NEW": "2"}, env_keys=None)
    assert cvm.wait().environment == {"KEPT": "2"}


def test_the_old_status_shows_first_then_it_restarts_then_it_runs(api: Api, cvm: Cvm, cloud: Cloud) -> None:
    cloud.restart_seconds, cloud.stale_seconds = 60.0, 30.0
    correlation_id = api.update("my-app", {"A": "1"}).json()["correlation_id"]
    assert api.get("/cvms/my-app/state").json()["status"] == "running"
    cloud.stale_seconds = 0.0
    assert api.get("/cvms/my-app/state").json()["status"] == "restarting"
    shown = api.get("/cvms/my-app").json()
    assert shown["in_progress"]
    assert shown["progress"]["correlation_id"] == correlation_id
    operation = api.get("/cvms/my-app/operations").json()["items"][0]
    assert (operation["status"], operation["completed_at"]) == ("in_progress", None)
    cvm.finish()
    assert api.get("/cvms/my-app/state").json()["status"] == "running"
    operation = api.get("/cvms/my-app/operations").json()["items"][0]
    assert (operation["correlation_id"], operation["status"]) == (correlation_id, "completed")
    api.update("my-app", {"A": "2"})
    with pytest.raises(TimeoutError):
        cvm.wait(timeout=0.01)


def test_a_second_update_meets_a_conflict(api: Api, cvm: Cvm, cloud: Cloud) -> None:
    cvm.restart_seconds = 60.0
    api.update("my-app", {"A": "1"})
    refused = api.update("my-app", {"A": "2"})
    assert refused.status_code == 409
    assert "error_code" not in refused.json()


def test_a_boot_that_fails_says_why(api: Api, cvm: Cvm) -> None:
    cvm.boot_fails("docker login failed")
    api.update("my-app", {"A": "1"})
    assert cvm.wait().environment is None
    state = api.get("/cvms/my-app/state").json()
    assert (state["status"], state["boot_error"]) == ("exited", "docker login failed")
    operation = api.get("/cvms/my-app/operations").json()["items"][0]
    assert (operation["status"], operation["error_message"]) == ("failed", "docker login failed")
    api.update("my-app", {"A": "1"})
    assert cvm.wait().environment == {"A": "1"}
    assert "boot_error" not in api.get("/cvms/my-app/state").json()


def test_a_value_that_the_guest_refuses_fails_the_boot(api: Api, cvm: Cvm) -> None:
    api.update("my-app", {"A": "x" * 131_073})
    assert cvm.wait().boot_error == "value of A too long: 131073 bytes, at most 131072"
    api.patch("/cvms/my-app/envs", json={"encrypted_env": "00" * 61})
    assert cvm.wait().environment is None


@pytest.mark.parametrize(
    ("body", "culprit"),
    [
        (b"{", ["body"]),
        (b"[]", ["body"]),
        (b"{}", ["body", "encrypted_env"]),
        (b'{"encrypted_env": 1}', ["body", "encrypted_env"]),
        (b'{"encrypted_env": null}', ["body", "encrypted_env"]),
        (b'{"encrypted_env": "' + b"0" * 123 + b'"}', ["body", "encrypted_env"]),
        (b'{"encrypted_env": "' + b"zz" * 61 + b'"}', ["body", "encrypted_env"]),
        (b'{"encrypted_env": "' + b"00 " * 61 + b'"}', ["body", "encrypted_env"]),
        (b'{"encrypted_env": "' + b"00" * 60 + b'"}', ["body", "encrypted_env"]),
        (b'{"encrypted_env": "' + b"00" * 61 + b'", "env_keys": "A"}', ["body", "env_keys"]),
        (b'{"encrypted_env": "' + b"00" * 61 + b'", "compose_hash": 1}', ["body", "compose_hash"]),
    ],
)
def test_a_malformed_body_changes_nothing(api: Api, cvm: Cvm, body: bytes, culprit: list[str]) -> None:
    refused = api.patch("/cvms/my-app/envs", content=body)
    assert refused.status_code == 422
    assert refused.json()["detail"][0]["loc"] == culprit
    assert not cvm.operations


def test_a_body_beyond_measure_is_not_read(api: Api, cvm: Cvm, cloud: Cloud) -> None:
    cloud.max_body = 1000
    assert api.update("my-app", {"A": "x" * 1000}).status_code == 413
    assert api.patch("/cvms/my-app/envs", content=iter([b"{}"])).status_code == 413
    assert not cvm.operations


def test_new_names_of_an_app_on_chain_take_an_approval(api: Api, cloud: Cloud, on_chain: Cvm) -> None:
    environment = {"NEW": "1", "KEPT": "2"}
    refused = api.update("chain-app", environment)
    assert refused.status_code == 465
    assert refused.json()["error_code"] == "ERR-01-005"
    asked = {detail["field"]: detail["value"] for detail in refused.json()["details"]}
    assert asked["app_id"] == on_chain.app_id
    assert asked["device_id"] == on_chain.device_id
    assert asked["kms_info"]["slug"] == "kms-base-prod-1"
    assert asked["compose_hash"] == on_chain.hash_with(["NEW", "KEPT"])
    assert not on_chain.operations

    approval = {"compose_hash": asked["compose_hash"], "transaction_hash": TRANSACTION}
    assert api.update("chain-app", environment, **approval).json()["error_code"] == "ERR-01-007"
    cloud.approved_transactions.add(TRANSACTION)
    assert api.update("chain-app", environment, **approval).status_code == 202
    assert on_chain.wait().environment == environment
    assert on_chain.compose_hash == asked["compose_hash"]


@pytest.mark.parametrize("taken", [True, False])
def test_an_approval_from_before_needs_no_transaction(
    api: Api, cloud: Cloud, on_chain: Cvm, taken: bool
) -> None:
    cloud.already_registered = taken
    asked = api.update("chain-app", {"NEW": "1"}).json()["details"][0]["value"]
    approval = {"compose_hash": f"0x{asked}", "transaction_hash": "already-registered"}
    assert api.update("chain-app", {"NEW": "1"}, **approval).status_code == (468 if taken else 467)
    cloud.approved_hashes.add(asked)
    assert api.update("chain-app", {"NEW": "1"}, **approval).status_code == (202 if taken else 467)


def test_the_same_names_go_straight_through_and_in_another_order_do_not(api: Api, on_chain: Cvm) -> None:
    assert api.update("chain-app", {"KEPT": "2", "OLD": "2"}).status_code == 465
    assert api.update("chain-app", {"OLD": "2", "KEPT": "2"}).status_code == 202


def test_a_newer_preparation_takes_the_place_of_an_older_one(api: Api, cloud: Cloud, on_chain: Cvm) -> None:
    cloud.approved_transactions.add(TRANSACTION)
    older, newer = (
        api.update("chain-app", {name: "1"}).json()["details"][0]["value"] for name in ("OLDER", "NEWER")
    )
    refused = api.update("chain-app", {"OLDER": "1"}, compose_hash=older, transaction_hash=TRANSACTION)
    assert (refused.status_code, refused.json()["error_code"]) == (466, "ERR-01-006")
    done = api.update("chain-app", {"NEWER": "1"}, compose_hash=newer, transaction_hash=TRANSACTION)
    assert done.status_code == 202


@pytest.mark.parametrize(("every", "status"), [(True, 468), (False, 202)])
def test_an_approval_is_of_every_enabled_device_or_of_one(
    api: Api, cloud: Cloud, on_chain: Cvm, every: bool, status: int
) -> None:
    on_chain.devices += [Device("11" * 32, 2), Device("22" * 32, 3, enabled=False)]
    shown = api.get("/cvms/chain-app").json()["node_info"]
    assert shown["device_id"] == on_chain.device_id
    assert [one["enabled"] for one in shown["device_ids"]] == [True, True, False]
    assert shown["device_ids"][1] == {"device_id": "11" * 32, "algorithm_version": 2, "enabled": True}
    cloud.every_device_checked, cloud.approved_devices = every, {on_chain.device_id}
    cloud.approved_transactions.add(TRANSACTION)
    asked = api.update("chain-app", {"NEW": "1"}).json()["details"][0]["value"]
    approval = {"compose_hash": asked, "transaction_hash": TRANSACTION}
    assert api.update("chain-app", {"NEW": "1"}, **approval).status_code == status
    if status == 468:
        cloud.approved_devices.add("11" * 32)
        assert api.update("chain-app", {"NEW": "1"}, **approval).status_code == 202


@pytest.mark.parametrize("names", [["NEW"], ["NEW", "MORE"]])
def test_a_hash_that_is_unknown_expired_or_of_other_names(
    api: Api, cloud: Cloud, on_chain: Cvm, names: list[str]
) -> None:
    asked = api.update("chain-app", {"NEW": "1"}).json()["details"][0]["value"]
    if names == ["NEW"]:
        cloud.clock_offset = 15 * 86_400.0
    environment = dict.fromkeys(names, "1")
    for compose_hash in (asked, "00" * 32):
        approval = {"compose_hash": compose_hash, "transaction_hash": "already-registered"}
        refused = api.update("chain-app", environment, **approval)
        assert (refused.status_code, refused.json()["error_code"]) == (466, "ERR-01-006")


def test_the_older_form_of_a_precondition(api: Api, cloud: Cloud, on_chain: Cvm) -> None:
    cloud.flat_preconditions = True
    refused = api.update("chain-app", {"NEW": "1"})
    assert refused.status_code == 465
    assert refused.json()["compose_hash"] == on_chain.hash_with(["NEW"])
    assert "details" not in refused.json()


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("sent", ["Z", "KEPT", "A"]),
        ("kept", ["KEPT", "Z", "A"]),
        ("sorted", ["A", "KEPT", "Z"]),
    ],
)
@pytest.mark.parametrize("form", ["compact", "pretty"])
def test_the_hash_depends_on_order_and_form(
    api: Api, cloud: Cloud, on_chain: Cvm, order: Any, names: list[str], form: Any
) -> None:
    cloud.allowed_envs_order, cloud.compose_form = order, form
    asked = api.update("chain-app", {"Z": "1", "KEPT": "1", "A": "1"}).json()["details"][0]["value"]
    assert asked == on_chain.hash_with(names)
    cloud.compose_normalised = True
    assert asked != on_chain.hash_with(names)


class Chain:
    """As much of a chain as is asked about: an app contract's approvals, and one receipt."""

    def __init__(self) -> None:
        self.allowed: set[str] = set()
        self.any_device = False
        self.receipt: dict[str, Any] | None = None

    def rpc(self, method: str, params: list[Any]) -> Any:
        if method == "eth_getTransactionReceipt":
            return self.receipt if params[0] == TRANSACTION else None
        data = params[0]["data"]
        answer = self.any_device if data == "0x3440a16a" else data[10:] in self.allowed
        return f"0x{int(answer):064x}"

    def approve(self, app_id: str, compose_hash: str) -> None:
        topic = "0x" + keccak_256(b"ComposeHashAdded(bytes32)").hexdigest()
        log = {"address": f"0x{app_id}", "topics": [topic], "data": f"0x{compose_hash}"}
        self.receipt = {"status": "0x1", "logs": [log]}
        self.allowed.add(compose_hash)


@pytest.fixture
def chain(cloud: Cloud) -> Iterator[Chain]:
    chain = Chain()

    class Rpc(BaseHTTPRequestHandler):
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps(
                {"jsonrpc": "2.0", "id": 1, "result": chain.rpc(call["method"], call["params"])}
            )
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_request(self, code: object = "-", size: object = "-") -> None:
            pass

    server = Loopback(0, Rpc)
    server.start()
    cloud.rpc_urls[8453] = f"http://127.0.0.1:{server.server_port}"
    yield chain
    server.stop()


def test_the_chain_decides_where_there_is_one(api: Api, cloud: Cloud, on_chain: Cvm, chain: Chain) -> None:
    asked = api.update("chain-app", {"NEW": "1"}).json()["details"][0]["value"]

    def commit(transaction_hash: str = TRANSACTION) -> tuple[int, str]:
        approval = {"compose_hash": asked, "transaction_hash": transaction_hash}
        answer = api.update("chain-app", {"NEW": "1"}, **approval)
        return answer.status_code, answer.json()["message"]

    assert commit("already-registered") == (468, f"Compose hash {asked} is not allowed on chain")
    assert commit() == (467, "The transaction was not found")
    chain.approve(on_chain.app_id, asked)
    genuine, chain.receipt = chain.receipt, {"status": "0x0", "logs": []}
    assert commit() == (467, "The transaction failed")
    chain.receipt = {"status": "0x1", "logs": []}
    assert commit() == (467, f"The transaction does not add {asked} to 0x{on_chain.app_id}")
    chain.receipt = genuine
    assert commit() == (468, f"Device {on_chain.device_id} is not allowed on chain")
    chain.allowed.add(on_chain.device_id)
    body = {"compose_hash": f"0x{asked}", "device_id": on_chain.device_id}
    assert api.post(f"/apps/{on_chain.app_id}/is-allowed", json=body).json()["is_allowed"] is True
    assert commit()[0] == 202
    assert on_chain.wait().environment == {"NEW": "1"}


def test_any_device_will_do_where_the_app_says_so(api: Api, on_chain: Cvm, chain: Chain) -> None:
    asked = api.update("chain-app", {"NEW": "1"}).json()["details"][0]["value"]
    chain.allowed.add(asked)
    chain.any_device = True
    done = api.update("chain-app", {"NEW": "1"}, compose_hash=asked, transaction_hash="already-registered")
    assert done.status_code == 202


def test_a_chain_that_cannot_be_reached_approves_nothing(
    api: Api, cloud: Cloud, on_chain: Cvm, simulator: Simulator
) -> None:
    asked = api.update("chain-app", {"NEW": "1"}).json()["details"][0]["value"]
    for url in ("http://127.0.0.1:1", simulator.origin):
        cloud.rpc_urls[8453] = url
        refused = api.update("chain-app", {"NEW": "1"}, compose_hash=asked, transaction_hash=TRANSACTION)
        assert refused.status_code == 467
