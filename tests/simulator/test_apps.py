"""What was deployed when, what a contract allows, and all CVMs of a workspace."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import jsonschema
import pytest

from phala_secrets.simulator.cvm import Cvm
from tests.simulator.conftest import Api
from tests.simulator.test_answers import OPENAPI, VERSIONS

if TYPE_CHECKING:
    from phala_secrets.simulator.cloud import Cloud
    from tests.support.clock import ManualClock
    from tests.support.faulty import FaultySimulator

BASE = "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C"


@pytest.fixture
def cvm(cloud: Cloud) -> Cvm:
    return cloud.add_cvm("my-app", environment={"A": "1"})


def test_revisions_come_newest_first_of_all_replicas(
    api: Api, cloud: Cloud, cvm: Cvm, clock: ManualClock
) -> None:
    clock.advance(1)
    replica = cloud.add_cvm("replica", app_id=cvm.app_id, environment={"A": "1"})
    api.update("my-app", {"B": "2"})
    sealed = cvm.sealed
    found = api.get(f"/apps/{cvm.app_id}/revisions").json()
    listed = [(one["operation_type"], one["vm_uuid"]) for one in found["revisions"]]
    assert sorted(listed[:2]) == sorted([("update", cvm.vm_uuid), ("deploy", replica.vm_uuid)])
    assert listed[2] == ("deploy", cvm.vm_uuid)
    assert (found["total"], found["page"], found["page_size"], found["total_pages"]) == (3, 1, 50, 1)
    page = api.get(f"/apps/0x{cvm.app_id}/revisions", params={"page": 2, "page_size": 2}).json()
    assert [one["revision_id"] for one in page["revisions"]] == [found["revisions"][2]["revision_id"]]
    assert page["total_pages"] == 2

    revision_id = next(one for one in found["revisions"] if one["operation_type"] == "update")["revision_id"]
    detail = api.get(f"/apps/{cvm.app_id}/revisions/{revision_id}").json()
    assert detail["encrypted_env"] == sealed
    assert detail["compose_file"]["allowed_envs"] == ["B"]
    assert detail["compose_hash"] == cvm.compose_hash
    raw = {"raw_compose_file": "true"}
    detail = api.get(f"/apps/{cvm.app_id}/revisions/{revision_id}", params=raw).json()
    assert detail["compose_file"] == cvm.measured


def test_a_revision_says_that_it_was_accepted_and_not_that_it_runs(api: Api, cvm: Cvm) -> None:
    api.patch("/cvms/my-app/envs", json={"encrypted_env": "00" * 61, "env_keys": ["A"]})
    assert cvm.wait().status == "exited"
    newest = api.get(f"/apps/{cvm.app_id}/revisions").json()["revisions"]
    ids = [one["revision_id"] for one in newest]
    assert len(ids) == 2
    encrypted = {api.get(f"/apps/{cvm.app_id}/revisions/{one}").json()["encrypted_env"] for one in ids}
    assert "00" * 61 in encrypted


@pytest.mark.parametrize("path", ["/apps/{other}/revisions", "/apps/{app}/revisions/none"])
def test_what_there_is_not(api: Api, cvm: Cvm, path: str) -> None:
    assert api.get(path.format(other="00" * 20, app=cvm.app_id)).status_code == 404


def test_the_contract_is_asked_what_it_allows(api: Api, cloud: Cloud) -> None:
    cvm = cloud.add_cvm("on-chain", kms=cloud.add_kms("base", 8453, BASE), environment={"A": "1"})
    path, body = f"/apps/{cvm.app_id}/is-allowed", {"compose_hash": "0x" + "AB" * 32}
    content = OPENAPI["paths"]["/apps/{app_id}/is-allowed"]["post"]
    schema = content["responses"]["200"]["content"]["application/json"]["schema"]

    def ask(**more: object) -> tuple[bool, bool, bool | None, bool]:
        answer = api.post(path, json={**body, **more}).json()
        jsonschema.validate(answer, {**schema, "components": OPENAPI["components"]})
        assert answer["compose_hash"] == "ab" * 32
        names = ("compose_hash_allowed", "allow_any_device", "device_id_allowed", "is_allowed")
        hash_allowed, any_device, device_allowed, allowed = (answer[name] for name in names)
        return hash_allowed, any_device, device_allowed, allowed

    assert ask() == (False, True, None, False)
    cloud.approved_hashes.add("ab" * 32)
    assert ask() == (True, True, None, True)
    cloud.approved_devices = {cvm.device_id}
    assert ask() == (True, False, True, True)
    assert ask(device_id="0x" + "11" * 32) == (True, False, False, False)
    for malformed in (b"{", b"[]", b"{}", json.dumps({"compose_hash": 1}).encode()):
        assert api.post(path, content=malformed).status_code == 422


def test_an_app_without_a_contract_has_nobody_to_ask(api: Api, cvm: Cvm) -> None:
    assert api.post(f"/apps/{cvm.app_id}/is-allowed", json={"compose_hash": "00" * 32}).status_code == 400


@pytest.mark.parametrize("version", VERSIONS)
def test_all_cvms_of_the_workspace_come_in_pages(
    simulator: FaultySimulator, cloud: Cloud, version: str
) -> None:
    for number in range(3):
        cloud.add_cvm(f"app-{number}")
    name = (
        "HostedCvm" if version == VERSIONS[0] else "teehouse__api__routes__cvms__v20260121__schemas__CVMInfo"
    )
    with Api(simulator, version) as api:
        pages = [api.get("/cvms/paginated", params={"page": page, "page_size": 2}).json() for page in (1, 2)]
    for item in (item for page in pages for item in page["items"]):
        jsonschema.validate(
            item, {"$ref": f"#/components/schemas/{name}", "components": OPENAPI["components"]}
        )
    assert [[item["name"] for item in page["items"]] for page in pages] == [["app-0", "app-1"], ["app-2"]]
    assert {(page["total"], page["pages"], page["page_size"]) for page in pages} == {(3, 2, 2)}
