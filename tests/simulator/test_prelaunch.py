"""Phala's pre-launch script changes variables, and can keep an app from starting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from phala_secrets.simulator.prelaunch import PHALA_SCRIPT

if TYPE_CHECKING:
    from phala_secrets.simulator.cloud import Cloud
    from phala_secrets.simulator.cvm import Cvm

DOCKER = {"DSTACK_DOCKER_USERNAME": "me", "DSTACK_DOCKER_PASSWORD": "secret"}
GHCR = {**DOCKER, "DSTACK_DOCKER_REGISTRY": "ghcr.io"}
ECR = {
    "DSTACK_AWS_ACCESS_KEY_ID": "id",
    "DSTACK_AWS_SECRET_ACCESS_KEY": "key",
    "DSTACK_AWS_REGION": "eu-1",
    "DSTACK_AWS_ECR_REGISTRY": "ecr",
}
OWN = {"AWS_ACCESS_KEY_ID": "mine", "AWS_SECRET_ACCESS_KEY": "mine", "AWS_SESSION_TOKEN": "mine"}
ROOT = {"DSTACK_ROOT_PASSWORD": "1", "DSTACK_ROOT_PUBLIC_KEY": "2", "DSTACK_AUTHORIZED_KEYS": "3"}


def deploy(
    cloud: Cloud,
    environment: dict[str, str],
    *,
    image: str = "nginx",
    script: str = PHALA_SCRIPT,
    logins_fail: bool = False,
) -> Cvm:
    compose = f'services:\n  app:\n    image: "{image}"\n'
    cvm = cloud.add_cvm(environment=environment, docker_compose_file=compose)
    cvm.app_compose["pre_launch_script"] = script
    cvm.logins_fail = logins_fail
    cvm.begin_operation("restart")
    return cvm.wait()


def arrived(cloud: Cloud, environment: dict[str, str], **more: str) -> dict[str, str]:
    environment = deploy(cloud, environment, **more).environment or {}  # type: ignore[arg-type]
    assert environment.pop("DSTACK_APP_DOMAIN").startswith(environment.pop("DSTACK_APP_ID") + ".")
    return environment


def test_it_says_who_the_app_is_and_keeps_root_access_to_itself(cloud: Cloud) -> None:
    cvm = deploy(cloud, {"A": "1", "DSTACK_APP_ID": "mine", "KEY_COUNT": "mine", **ROOT})
    environment = cvm.environment or {}
    assert environment["DSTACK_APP_ID"] == cvm.app_id
    assert environment["KEY_COUNT"] != "mine"
    assert environment["A"] == "1"
    assert not ROOT.keys() & environment.keys()


@pytest.mark.parametrize("script", ["", "#!/bin/bash\necho mine\n"])
def test_another_script_changes_nothing(cloud: Cloud, script: str) -> None:
    environment = {"DSTACK_APP_ID": "mine", **ROOT, **ECR, **OWN}
    assert deploy(cloud, environment, script=script, logins_fail=True).environment == environment


def test_an_ecr_login_takes_the_place_of_the_app_s_own_aws_names(cloud: Cloud) -> None:
    environment = arrived(cloud, {**OWN, **ECR})
    assert environment["AWS_ACCESS_KEY_ID"] == "id"
    assert environment["AWS_SECRET_ACCESS_KEY"] == "key"
    assert environment["AWS_DEFAULT_REGION"] == "eu-1"
    assert environment["AWS_SESSION_TOKEN"] == "mine"
    environment = arrived(cloud, {**OWN, **ECR, "DSTACK_AWS_SESSION_TOKEN": "token"})
    assert environment["AWS_SESSION_TOKEN"] == "token"


def test_a_docker_login_beside_it_wins(cloud: Cloud) -> None:
    assert arrived(cloud, {**OWN, **ECR, **DOCKER})["AWS_ACCESS_KEY_ID"] == "mine"


def test_half_of_an_ecr_login_is_none(cloud: Cloud) -> None:
    assert arrived(cloud, {**OWN, **ECR, "DSTACK_AWS_REGION": ""})["AWS_ACCESS_KEY_ID"] == "mine"


@pytest.mark.parametrize("login", [DOCKER, ECR], ids=["docker", "ecr"])
def test_a_login_that_fails_aborts_the_boot(cloud: Cloud, login: dict[str, str]) -> None:
    cvm = deploy(cloud, login, logins_fail=True)
    assert (cvm.environment, "login failed" in str(cvm.boot_error)) == (None, True)


def test_but_not_with_a_session_token(cloud: Cloud) -> None:
    cvm = deploy(cloud, {**ECR, "DSTACK_AWS_SESSION_TOKEN": "token"}, logins_fail=True)
    assert cvm.status == "running"


def test_with_a_ghcr_login_images_are_looked_up_as_they_are_written(cloud: Cloud) -> None:
    image = "ghcr.io/o/a:${TAG}"
    assert "GHCR" in str(deploy(cloud, {**GHCR, "TAG": "1"}, image=image).boot_error)
    assert deploy(cloud, {**DOCKER, "TAG": "1"}, image=image).status == "running"
    assert deploy(cloud, {**GHCR, "TAG": "1"}, image="docker.io/o/a:${TAG}").status == "running"
    environment = arrived(cloud, {**GHCR, "token": "mine", "img": "mine"}, image="ghcr.io/o/a:1")
    assert "mine" not in (environment["token"], environment["img"])
    assert arrived(cloud, {**DOCKER, "token": "mine"})["token"] == "mine"
