"""Answers are of the shapes that Phala Cloud publishes, and refusals are those it gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.server import Simulator
from phala_secrets.simulator.wire import Answer, Request
from phala_secrets.simulator.world import RateLimit
from tests.simulator.conftest import Api
from tests.support.clock import ManualClock

OPENAPI = json.loads((Path(__file__).parents[1] / "data/phala-cloud-openapi.json").read_text())
VERSIONS = ["2025-10-28", "2026-01-21", "2026-05-22", "2026-06-23"]
BASE = "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C"


@pytest.fixture
def cvm(cloud: Cloud, clock: ManualClock) -> Cvm:
    """An app on the central KMS, in the midst of its second update, beside one whose KMS is a contract."""
    cloud.add_kms("kms-base-prod", 8453, BASE, nodes=2)
    cloud.add_cvm("on-chain", kms="kms-base-prod").deployer_type = "safe"
    cvm = cloud.add_cvm("my-app", environment={"OLD": "1"})
    cvm.boot_fails("out of memory")
    cvm.update(bytes(61), ["OLD"])
    clock.advance(1)
    cvm.finish()
    clock.advance(1)
    cloud.stale_seconds = 0
    cloud.restart_seconds = 60
    cvm.update(bytes(61), ["OLD"])
    return cvm


INVALID = None
DOCUMENTED = {
    "/kms": "/kms",
    "/kms?is_onchain=true&page=1&page_size=1": "/kms",
    "/kms/phala": "/kms/{kms_id}",
    "/kms/kms-base-prod-1": "/kms/{kms_id}",
    "/kms/phala/info": "/kms/{kms_id}/info",
    "/kms/kms-base-prod-2/info": "/kms/{kms_id}/info",
    "/kms/on-chain/base": "/kms/on-chain/{chain}",
    "/kms/on-chain/phala": "/kms/on-chain/{chain}",
    "/cvms/my-app": "/cvms/{cvm_id}",
    "/cvms/on-chain": "/cvms/{cvm_id}",
    "/cvms/my-app/operations": "/cvms/{cvm_id}/operations",
    "/cvms/my-app/attestation": "/cvms/{cvm_id}/attestation",
    "/cvms/on-chain/attestation": "/cvms/{cvm_id}/attestation",
    "/apps/{app}/cvms": "/apps/{app_id}/cvms",
    "/apps/{app}/revisions": "/apps/{app_id}/revisions",
    "/apps/{app}/revisions/{revision}": "/apps/{app_id}/revisions/{revision_id}",
    "/apps/{app}/revisions/{revision}?raw_compose_file=true": "/apps/{app_id}/revisions/{revision_id}",
    "/apps/{app}/kms-info": "/apps/{app_id}/kms-info",
    "/apps/{on_chain}/kms-info": "/apps/{app_id}/kms-info",
    "/cvms/my-app/operations?limit=0": INVALID,
    "/apps/{app}/revisions?page_size=1001": INVALID,
    "/cvms/my-app/state?target=running&interval=1": INVALID,
    "/kms/phala/next_app_id?counts=21": INVALID,
}
CASES = [
    (version, path, documented)
    for version in VERSIONS
    for path, documented in DOCUMENTED.items()
    if version < "2026-06-23" or documented not in ("/kms", "/kms/{kms_id}")  # of these the older shape alone
]


@pytest.mark.parametrize(("version", "path", "documented"), CASES)
def test_an_answer_is_as_the_published_schema_has_it(
    simulator: Simulator, cvm: Cvm, version: str, path: str, documented: str | None
) -> None:
    with Api(simulator, version) as api:
        on_chain = simulator.cloud.find_cvm("on-chain").app_id
        revision = cvm.revisions[-1].revision_id
        answer = api.get(path.format(app=cvm.app_id, on_chain=on_chain, revision=revision))
    if documented is INVALID:
        assert answer.status_code == 422
        schema: dict[str, Any] = {"$ref": "#/components/schemas/HTTPValidationError"}
    else:
        assert answer.status_code == 200
        operation = OPENAPI["paths"][documented]["get"]
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(answer.json(), {**schema, "components": OPENAPI["components"]})
    assert answer.headers["X-Request-ID"]
    assert answer.headers["Date"]


def test_the_body_of_an_update_is_what_is_published(api: Api, cvm: Cvm, cloud: Cloud) -> None:
    cvm.finish()
    api.update("my-app", {"NEW": "1"}, compose_hash="00", transaction_hash="0x00")
    content = OPENAPI["paths"]["/cvms/{cvm_id}/envs"]["patch"]["requestBody"]["content"]["application/json"]
    jsonschema.validate(cloud.requests[-1].json, {**content["schema"], "components": OPENAPI["components"]})


def test_the_two_generations_tell_a_cvm_apart(simulator: Simulator, cvm: Cvm) -> None:
    with Api(simulator, "2025-10-28") as old, Api(simulator, "2026-01-21") as new:
        assert isinstance(old.get("/cvms/my-app").json()["id"], int)
        assert new.get("/cvms/my-app").json()["id"] == cvm.id
        assert "hosted" in old.get(f"/apps/{cvm.app_id}/cvms").json()[0]
        del old.headers["X-Phala-Version"]
        assert isinstance(old.get("/cvms/my-app").json()["id"], int)


def test_kmses_are_nodes_first_and_contracts_later(simulator: Simulator, cvm: Cvm, cloud: Cloud) -> None:
    central, base = cloud.kmses
    with Api(simulator, "2026-05-22") as old, Api(simulator, "2026-06-23") as new:
        nodes = old.get("/kms", params={"is_onchain": True}).json()["items"]
        assert [node["slug"] for node in nodes] == ["kms-base-prod-1", "kms-base-prod-2"]
        assert {node["kms_contract_address"] for node in nodes} == {BASE}
        contracts = new.get("/kms").json()["items"]
        assert [contract["contract_address"] for contract in contracts] == ["phala", BASE]
        assert contracts[1]["k256_pubkey"] == base.root_public_key
        assert contracts[0]["k256_pubkey"] == central.root_public_key != base.root_public_key
        assert new.get("/kms/kms-base-prod").json() == contracts[1]
        listed = new.get("/kms/kms-base-prod/nodes").json()
        assert [node["id"] for node in listed["items"]] == [node["id"] for node in nodes]
        page = old.get("/kms", params={"page": 2, "page_size": 2}).json()
        assert (page["total"], page["pages"], len(page["items"])) == (3, 2, 1)


def test_a_cvm_goes_by_many_names(api: Api, cvm: Cvm) -> None:
    names = [cvm.id, cvm.name, cvm.vm_uuid, cvm.vm_uuid.replace("-", "").upper()]
    names += [f"app_{cvm.app_id}", f"instance_{cvm.instance_id}"]
    assert {api.get(f"/cvms/{name}").json()["id"] for name in names} == {cvm.id}
    assert api.get("/cvms/none").json()["error_code"] == "ERR-03-001"
    assert api.get(f"/cvms/{cvm.app_id}").status_code == 404


def test_a_replica_makes_names_ambiguous(api: Api, cloud: Cloud, cvm: Cvm) -> None:
    replica = cloud.add_cvm("my-app", app_id=cvm.app_id)
    refused = api.get("/cvms/my-app")
    assert refused.status_code == 409
    assert refused.json()["error_code"] == "ERR-03-002"
    assert [detail["value"] for detail in refused.json()["details"]] == [cvm.id, replica.id]
    assert [row["id"] for row in api.get(f"/apps/{cvm.app_id}/cvms").json()] == [cvm.id, replica.id]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/kms/base/pubkey/" + "00" * 20, 404),  # a kms_type is not a slug
        ("/kms/phala/pubkey/" + "00" * 19, 400),
        ("/kms/phala/pubkey/zz" + "00" * 19, 400),
        ("/kms/on-chain/moon", 400),
        ("/kms?page_size=101", 422),
        ("/kms?is_onchain=perhaps", 422),
        ("/apps/" + "00" * 20 + "/cvms", 404),
        ("/apps/my-app/cvms", 422),
        ("/cvms/my-app/operations?start_time=yesterday", 422),
        ("/cvms/my-app/envs", 405),
        ("/nothing", 404),
        ("/cvms/a%2Fb", 404),
    ],
)
def test_what_is_refused(api: Api, cvm: Cvm, path: str, status: int) -> None:
    assert api.get(path).status_code == status


def test_a_key_is_needed_and_the_right_one(api: Api, cvm: Cvm) -> None:
    assert api.get("/kms", headers={"X-API-Key": "phak_other"}).json() == {"detail": "Invalid API key"}
    assert api.get("/kms", headers={b"X-API-Key": "phäk".encode()}).status_code == 401
    del api.headers["X-API-Key"]
    assert api.get("/kms").status_code == 401
    assert api.get("/kms", headers={"X-API-Key": "x", "X-Phala-Version": "1999-01-01"}).status_code == 401


def test_an_unknown_version_is_refused(api: Api) -> None:
    assert api.get("/kms", headers={"X-Phala-Version": "1999-01-01"}).status_code == 400


def test_app_ids_are_reserved_once(api: Api) -> None:
    first = api.get("/kms/phala/next_app_id", params={"counts": 3}).json()["app_ids"]
    second = api.get("/kms/phala/next_app_id").json()["app_ids"]
    assert [one["nonce"] for one in first + second] == [0, 1, 2, 3]
    assert len({one["app_id"] for one in first + second}) == 4


def test_operations_come_newest_first_and_in_pages(api: Api, cvm: Cvm) -> None:
    ids = [operation.correlation_id for operation in cvm.operations]
    page = api.get("/cvms/my-app/operations", params={"limit": 1}).json()
    assert page["total"] == 2
    assert page["items"][0]["correlation_id"] == ids[1]
    page = api.get("/cvms/my-app/operations", params={"limit": 1, "cursor": page["next_cursor"]}).json()
    assert page["items"][0]["correlation_id"] == ids[0]
    assert page["items"][0]["error_message"] == "out of memory"
    assert page["next_cursor"] is None
    since = page["items"][0]["completed_at"]
    later = api.get("/cvms/my-app/operations", params={"start_time": since}).json()
    assert [one["correlation_id"] for one in later["items"]] == [ids[1]]
    status = api.get("/cvms/my-app/operation-status").json()
    assert status["operation"]["correlation_id"] == ids[1]


def test_too_many_requests(api: Api, cloud: Cloud) -> None:
    cloud.rate_limit = RateLimit(per_second=0.1, burst=2)
    assert [api.get("/kms").status_code for _ in range(3)] == [200, 200, 429]
    assert 1 <= int(api.get("/kms").headers["Retry-After"]) <= 10
    cloud.rate_limit = RateLimit(per_second=0.1, burst=0, retry_after=False)
    assert "Retry-After" not in api.get("/kms").headers


def test_any_answer_can_be_tampered_with(api: Api, cloud: Cloud, cvm: Cvm) -> None:
    def lie(request: Request, answer: Answer) -> Answer:
        if request.path.endswith("/compose_file"):
            answer.body = {**answer.body, "docker_compose_file": "services: {spy: {image: spy}}"}
        return answer

    cloud.tamper = lie
    assert "spy" in api.get("/cvms/my-app/compose_file").text
    assert "spy" not in cvm.app_compose["docker_compose_file"]


def test_its_clock_can_be_off(api: Api, cloud: Cloud) -> None:
    cloud.clock_offset = 3600.0 * 24 * 365
    assert api.get("/kms").headers["Date"].split()[3] == str(cloud.now().year)


def test_requests_are_recorded_without_showing_the_key(api: Api, cloud: Cloud, cvm: Cvm) -> None:
    answer = api.get("/cvms/my-app/state", params={"a": ["1", "2"]})
    api.get("/kms")
    recorded, other = cloud.requests
    assert (recorded.method, recorded.path, recorded.status) == ("GET", "/cvms/my-app/state", 200)
    assert recorded.query == {"a": ["1", "2"]}
    assert recorded.request_id == answer.headers["X-Request-ID"]
    assert recorded.headers["x-api-key"] == cloud.api_key
    assert cloud.api_key not in repr(recorded)
    assert recorded.connection == other.connection
    assert recorded.started <= recorded.ended <= other.started
    cloud.reset_requests()
    assert not cloud.requests


def test_a_seed_makes_the_same_cloud_again() -> None:
    one, two, other = (Cloud(seed=seed) for seed in (b"1", b"1", b"2"))
    assert one.kmses[0].root_public_key == two.kmses[0].root_public_key != other.kmses[0].root_public_key
    assert one.add_cvm().identity == two.add_cvm().identity
