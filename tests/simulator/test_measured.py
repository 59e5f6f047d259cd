"""The measured document is served exactly by one route, and as an object by another."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from phala_secrets.simulator.cvm import Cvm

if TYPE_CHECKING:
    from phala_secrets.simulator.cloud import Cloud
    from tests.simulator.conftest import Api


@pytest.fixture
def cvm(cloud: Cloud) -> Cvm:
    return cloud.add_cvm("my-app", environment={"B": "1", "A": "1"}, app_compose={"name": "é"})


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("form", ["compact", "pretty"])
@pytest.mark.parametrize("normalised", [False, True])
def test_the_attestation_has_the_exact_bytes(
    api: Api, cloud: Cloud, cvm: Cvm, form: Any, normalised: bool
) -> None:
    cloud.compose_form, cloud.compose_normalised = form, normalised
    found = api.get("/cvms/my-app/attestation").json()
    assert (found["is_online"], found["is_public"], found["error"]) == (True, True, None)
    assert found["name"] == "my-app"
    assert digest(found["compose_file"]) == cvm.compose_hash == api.get("/cvms/my-app").json()["compose_hash"]
    assert found["tcb_info"]["app_compose"] == found["compose_file"]


def test_the_service_leaves_nothing_out(api: Api, cvm: Cvm) -> None:
    compose = api.get("/cvms/my-app/compose_file").json()
    text = json.dumps(compose, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert compose["pre_launch_script"] == ""
    assert digest(text) == cvm.compose_hash


def test_an_object_may_have_defaults_that_the_document_lacks(api: Api, cloud: Cloud, cvm: Cvm) -> None:
    plain = api.get("/cvms/my-app/compose_file").json()
    cloud.compose_file_has_defaults = True
    filled = api.get("/cvms/my-app/compose_file").json()
    assert {name for name in filled if name not in plain} == {
        "bash_script",
        "default_gateway_domain",
        "init_script",
        "salt",
    }
    assert {name: filled[name] for name in plain} == plain
    assert json.loads(api.get("/cvms/my-app/attestation").json()["compose_file"]) == plain


def test_the_document_may_not_be_there(api: Api, cloud: Cloud, cvm: Cvm) -> None:
    cloud.attestation_compose_file = False
    found = api.get("/cvms/my-app/attestation").json()
    assert (found["is_online"], found["compose_file"], found["tcb_info"]) == (True, None, None)
    cloud.attestation_compose_file = True
    cvm.stop()
    found = api.get("/cvms/my-app/attestation").json()
    assert (found["is_online"], found["compose_file"], bool(found["error"])) == (False, None, True)
    private = cloud.add_cvm("private", app_compose={"public_tcbinfo": False})
    found = api.get(f"/cvms/{private.id}/attestation").json()
    assert (found["is_public"], found["tcb_info"]) == (False, None)
    assert digest(found["compose_file"]) == private.compose_hash
