"""Containers are shown as docker describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from phala_secrets.simulator.containers import Container, of_compose
from phala_secrets.simulator.cvm import Cvm

if TYPE_CHECKING:
    from phala_secrets.simulator.cloud import Cloud
    from tests.simulator.conftest import Api
    from tests.support.clock import ManualClock

COMPOSE = """
services:
  web:
    image: nginx:1
    healthcheck: {test: curl localhost}
  worker:
    image: worker:2
"""


@pytest.fixture
def cvm(cloud: Cloud) -> Cvm:
    return cloud.add_cvm("my-app", docker_compose_file=COMPOSE, environment={"A": "1"})


def shown(api: Api) -> list[tuple[str, str]]:
    found: list[dict[str, Any]] = api.get("/cvms/my-app/composition").json()["containers"]
    return [(one["state"], one["status"]) for one in found]


def test_each_service_has_one_that_is_up(api: Api, cvm: Cvm, clock: ManualClock) -> None:
    clock.advance(190)
    found = api.get("/cvms/my-app/composition").json()
    assert found["is_online"] is True
    assert found["docker_compose_file"] == COMPOSE
    assert [one["names"] for one in found["containers"]] == [["/dstack-web-1"], ["/dstack-worker-1"]]
    assert [one["image"] for one in found["containers"]] == ["nginx:1", "worker:2"]
    assert shown(api) == [("running", "Up 3 minutes (healthy)"), ("running", "Up 3 minutes")]


@pytest.mark.parametrize(
    ("container", "state", "status"),
    [
        (Container("c", "up", seconds=0.2), "running", "Up Less than a second"),
        (Container("c", "up", seconds=1), "running", "Up 1 second"),
        (Container("c", "starting", seconds=5), "running", "Up 5 seconds (health: starting)"),
        (Container("c", "healthy", seconds=60), "running", "Up About a minute (healthy)"),
        (Container("c", "unhealthy", seconds=3600), "running", "Up About an hour (unhealthy)"),
        (Container("c", "restarting", 1, seconds=7), "restarting", "Restarting (1) 7 seconds ago"),
        (Container("c", "exited", 0, seconds=7200), "exited", "Exited (0) 2 hours ago"),
        (Container("c", "exited", 137, seconds=172_800), "exited", "Exited (137) 2 days ago"),
        (Container("c", "created"), "created", "Created"),
    ],
    ids=lambda value: value.condition if isinstance(value, Container) else "",
)
def test_a_container_in_any_condition(
    api: Api, cvm: Cvm, container: Container, state: str, status: str
) -> None:
    cvm.containers = [container]
    assert shown(api) == [(state, status)]


def test_looks_that_differ_come_one_after_the_other(api: Api, cvm: Cvm) -> None:
    cvm.containers = [Container("web", "healthy", seconds=9)]
    cvm.looks += [[Container("web", "starting", seconds=1)], None]
    assert shown(api) == [("running", "Up 1 second (health: starting)")]
    assert api.get("/cvms/my-app/composition").json()["containers"] is None
    assert shown(api) == shown(api) == [("running", "Up 9 seconds (healthy)")]


def test_nothing_is_visible_where_it_is_not_to_be_or_the_cvm_does_not_run(
    api: Api, cvm: Cvm, clock: ManualClock
) -> None:
    cvm.containers = None
    found = api.get("/cvms/my-app/composition").json()
    assert (found["is_online"], found["containers"]) == (True, None)
    cvm.stop()
    found = api.get("/cvms/my-app/composition").json()
    assert (found["is_online"], found["containers"], bool(found["error"])) == (False, None, True)
    assert api.get("/cvms/none/composition").status_code == 404


@pytest.mark.parametrize("text", ["", "services: 1", "services: {a: 1}", "{", "- a"])
def test_a_compose_file_that_is_none_has_no_containers(text: str) -> None:
    assert of_compose(text) == []
