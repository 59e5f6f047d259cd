"""A CVM that is busy, stopped, or in error for want of its secrets."""

from __future__ import annotations

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


@pytest.fixture
def cvm(cloud: Cloud) -> Cvm:
    cloud.stale_seconds = 2.0
    return cloud.add_cvm("my-app", environment={"A": "1"})


def shown(api: Api) -> tuple[str, bool]:
    found = api.get("/cvms/my-app").json()
    return found["status"], found["in_progress"]


def test_another_operation_is_a_409(api: Api, cvm: Cvm, clock: ManualClock) -> None:
    cvm.begin_operation("update_compose", 60, by="alice", changes={"allowed_envs": ["A", "B"]})
    for refused in (api.update("my-app", {"A": "2"}), api.post("/cvms/my-app/start")):
        assert refused.status_code == 409
        assert "error_code" not in refused.json()
    listed = api.get("/cvms/my-app/operations").json()["items"][0]
    assert (listed["operation_type"], listed["triggered_by_username"]) == ("update_compose", "alice")
    assert (listed["status"], listed["compose_hash"]) == ("in_progress", cvm.compose_hash)
    assert api.get("/cvms/my-app/operation-status").json()["operation"]["type"] == "update_compose"
    clock.advance(60)
    assert api.update("my-app", {"A": "2"}).status_code == 202
    types = [one["operation_type"] for one in api.get("/cvms/my-app/operations").json()["items"]]
    assert types == ["update_envs", "update_compose"]
    only = api.get("/cvms/my-app/operations", params={"operation_types": "update_compose"}).json()
    assert only["total"] == 1
    assert cvm.app_compose["allowed_envs"] == ["A"]


def test_two_operations_at_once_there_are_none(cvm: Cvm) -> None:
    cvm.begin_operation("restart", 60)
    with pytest.raises(RuntimeError):
        cvm.begin_operation("restart", 60)


def test_progress_says_what_is_under_way(api: Api, cvm: Cvm, clock: ManualClock) -> None:
    operation = cvm.begin_operation("stop", 60, effect="stop")
    clock.advance(2)
    found = api.get("/cvms/my-app").json()
    assert (found["status"], found["in_progress"]) == ("stopping", True)
    assert found["progress"]["target"] == "stopped"
    assert found["progress"]["correlation_id"] == operation.correlation_id
    assert "boot_error" not in api.get("/cvms/my-app/state").json()
    clock.advance(58)
    assert shown(api) == ("stopped", False)
    assert cvm.environment is None


def test_what_does_nothing_to_the_guest_leaves_it_running(api: Api, cvm: Cvm, clock: ManualClock) -> None:
    clock.advance(100)
    cvm.begin_operation("resize", 10, effect="none")
    clock.advance(10)
    assert cvm.uptime == 110
    assert cvm.environment == {"A": "1"}


@pytest.mark.parametrize("lags", [True, False])
def test_an_old_running_shows_with_or_without_progress(
    api: Api, cloud: Cloud, cvm: Cvm, clock: ManualClock, lags: bool
) -> None:
    cloud.progress_lags = lags
    api.update("my-app", {"A": "2"})
    assert shown(api) == ("running", not lags)
    clock.advance(2)
    assert shown(api) == ("restarting", True)


@pytest.mark.parametrize("starts", [True, False])
def test_an_update_starts_a_stopped_cvm_or_leaves_it(
    api: Api, cloud: Cloud, cvm: Cvm, clock: ManualClock, starts: bool
) -> None:
    cloud.update_starts_stopped = starts
    cvm.stop()
    assert shown(api) == ("stopped", False)
    assert cvm.environment is None
    assert api.update("my-app", {"A": "2"}).status_code == 202
    clock.advance(3)
    assert shown(api)[0] == ("restarting" if starts else "stopped")
    clock.advance(3)
    operation = api.get("/cvms/my-app/operations").json()["items"][0]
    assert (operation["status"], operation["error_message"]) == ("completed", None)
    assert operation["target_state"] == ("running" if starts else "stopped")
    assert shown(api) == ("running" if starts else "stopped", False)
    assert cvm.environment == ({"A": "2"} if starts else None)


def test_a_stopped_cvm_is_started_with_what_it_was_given_last(
    api: Api, cloud: Cloud, cvm: Cvm, clock: ManualClock
) -> None:
    cloud.update_starts_stopped = False
    cvm.stop()
    api.update("my-app", {"A": "2"})
    assert api.post("/cvms/my-app/start").status_code == 409
    clock.advance(6)
    assert api.post("/cvms/my-app/start").json()["status"] == "starting"
    clock.advance(2)
    assert shown(api) == ("starting", True)
    clock.advance(4)
    assert cvm.environment == {"A": "2"}
    assert api.get("/cvms/my-app/operations").json()["items"][0]["operation_type"] == "start"
    assert api.post("/cvms/my-app/start").json()["status"] == "running"
    assert len(cvm.operations) == 2
    assert api.post("/cvms/none/start").status_code == 404


@pytest.mark.parametrize("version", VERSIONS)
def test_the_record_of_a_start_has_a_number_or_a_string_for_an_id(
    simulator: FaultySimulator, cvm: Cvm, version: str
) -> None:
    cvm.stop()
    with Api(simulator, version) as api:
        record = api.post("/cvms/my-app/start").json()
    if version < "2026-05-22":
        schema = OPENAPI["paths"]["/cvms/{cvm_id}/start"]["post"]["responses"]["200"]
        schema = schema["content"]["application/json"]["schema"]
        jsonschema.validate(record, {**schema, "components": OPENAPI["components"]})
    else:
        assert record["id"] == cvm.id


def test_an_old_error_shows_for_a_while_after_the_update_that_repairs_it(
    api: Api, cvm: Cvm, clock: ManualClock
) -> None:
    cvm.required = ["A", "TOKEN"]
    api.update("my-app", {"A": "1"})
    cvm.wait()
    state = api.get("/cvms/my-app/state").json()
    assert (state["status"], "TOKEN" in state["boot_error"]) == ("error", True)
    assert api.get("/cvms/my-app/operations").json()["items"][0]["status"] == "failed"

    api.update("my-app", {"A": "1", "TOKEN": "2"})
    assert shown(api) == ("error", True)
    assert api.get("/cvms/my-app/state").json() == state
    clock.advance(2)
    assert shown(api) == ("restarting", True)
    assert "boot_error" not in api.get("/cvms/my-app/state").json()
    clock.advance(4)
    assert shown(api) == ("running", False)
    assert cvm.environment == {"A": "1", "TOKEN": "2"}


def test_a_cvm_may_be_in_error_from_the_start(api: Api, cvm: Cvm) -> None:
    cvm.fail("no space left")
    state = api.get("/cvms/my-app/state").json()
    assert (state["status"], state["boot_error"]) == ("error", "no space left")
    assert state["exited_at"]
    api.update("my-app", {"A": "2"})
    assert cvm.wait().status == "running"
    assert cvm.boot_error is None


def test_what_a_failed_boot_shows_can_be_set(api: Api, cloud: Cloud, cvm: Cvm) -> None:
    for status in ("exited", "error"):
        cloud.failed_status = status
        api.patch("/cvms/my-app/envs", json={"encrypted_env": "00" * 61})
        assert cvm.wait().status == status


def test_an_environment_beyond_the_guest_s_cap_is_accepted_and_does_not_boot(api: Api, cvm: Cvm) -> None:
    environment = {f"N{number}": "x" * 100_000 for number in range(3)}
    assert api.update("my-app", environment).status_code == 202
    assert "at most 262144" in str(cvm.wait().boot_error)


@pytest.mark.parametrize(("takes", "status"), [(True, 202), (False, 422)])
def test_an_empty_ciphertext_boots_empty_where_it_is_taken(
    api: Api, cloud: Cloud, cvm: Cvm, takes: bool, status: int
) -> None:
    cloud.takes_empty_env = takes
    refused = api.patch("/cvms/my-app/envs", json={"encrypted_env": None})
    assert refused.status_code == 422
    body = {"encrypted_env": "", "env_keys": []}
    assert api.patch("/cvms/my-app/envs", json=body).status_code == status
    assert cvm.wait().status == "running"
    assert cvm.environment == ({} if takes else {"A": "1"})


def test_a_cvm_without_a_ciphertext_runs_and_has_nothing(api: Api, cvm: Cvm) -> None:
    cvm.lose_environment()
    assert shown(api) == ("running", False)
    assert (cvm.environment, cvm.decrypted_json, cvm.sealed) == ({}, "{}", "")
