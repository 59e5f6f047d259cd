"""Phala's pre-launch script: which one it is, and what it makes of an app's variables."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phala_secrets.dstack.environment import Environment, Origin, Variable
from phala_secrets.dstack.pre_launch import (
    FOR_PHALA,
    pulls_at_each_boot,
    registry_hints,
    review,
    root_access,
    version_of,
)
from phala_secrets.errors import Finding

LINE = 'echo "----------------------------------------------"'


def script(version: str = "0.0.20") -> str:
    banner = f'echo "Running Phala Cloud Pre-Launch Script v{version}"'
    return f"#!/bin/bash\n{LINE}\n{banner}\n{LINE}\nset -e\n"


def app(version: str = "0.0.20", image: str = "org/app:1") -> dict[str, Any]:
    compose = f"services:\n  web:\n    image: {image}\n"
    return {"pre_launch_script": script(version), "docker_compose_file": compose}


def environment(variables: dict[str, str]) -> Environment:
    return Environment(tuple(Variable(name, value, Origin("env")) for name, value in variables.items()))


def errors(app_compose: dict[str, Any], variables: dict[str, str]) -> list[Finding]:
    findings = review(app_compose, environment(variables))
    return [finding for finding in findings if finding.severity == "error"]


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (script(), (0, 0, 20)),
        ("\n" + script("0.0.7"), (0, 0, 7)),
        (script("1.2").replace("#!/bin/bash\n", ""), (1, 2)),
        (script("0.0.15").replace("\n", "\r\n").replace("\r", "", 2), (0, 0, 15)),
        (script() + "anything", (0, 0, 20)),
        ("# my own\n" + script(), None),
        (script("0.0.3 with enhanced logging"), None),
        (script("0.0.14").replace("Phala Cloud", "OAuth3"), None),
        (script("next"), None),
        (script("1"), None),
        (f"#!/bin/bash\nset -e\nlogin() {{ :; }}\n{script()}", None),
        ("", None),
        (None, None),
        (7, None),
    ],
)
def test_only_a_script_with_phala_s_head_is_phala_s(text: object, version: tuple[int, ...] | None) -> None:
    assert version_of({"pre_launch_script": text}) == version
    assert version_of({}) is None


@given(st.text())
def test_any_other_script_has_no_rules(text: str) -> None:
    compose = {"pre_launch_script": text, "docker_compose_file": "image: ghcr.io/a:$X"}
    assert review(compose, environment(GHCR | ECR | {"AWS_ACCESS_KEY_ID": "own", "img": "own"})) == []
    assert not pulls_at_each_boot(compose)


@pytest.mark.parametrize(
    ("version", "pulls"), [("0.0.14", False), ("0.0.15", True), ("0.0.20", True), ("0.1", True)]
)
def test_each_boot_pulls_from_v0_0_15(version: str, pulls: bool) -> None:
    assert pulls_at_each_boot(app(version)) == pulls


DOCKER = {"DSTACK_DOCKER_USERNAME": "me", "DSTACK_DOCKER_PASSWORD": "p"}
GHCR = DOCKER | {"DSTACK_DOCKER_REGISTRY": "ghcr.io"}
ECR = {
    f"DSTACK_AWS_{part}": part for part in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "REGION", "ECR_REGISTRY")
}
SESSION = {"DSTACK_AWS_SESSION_TOKEN": "s"}


@pytest.mark.parametrize("name", ["DSTACK_APP_ID", "DSTACK_APP_DOMAIN", "DOCKER_REGISTRY_TARGET"])
@pytest.mark.parametrize("login", [{}, DOCKER, ECR])
def test_what_it_overwrites_at_each_boot_is_an_error(name: str, login: dict[str, str]) -> None:
    (finding,) = errors(app(), {name: "mine"} | login)
    assert finding.message == f"{name} (env) is overwritten by Phala's pre-launch script at each boot"
    assert f"`{name}: ${{APP_{name}}}`" in finding.hint


@pytest.mark.parametrize(
    ("name", "first"),
    [("DSTACK_APP_DOMAIN", 7), ("PASSWD_WRITABLE", 12), ("DOCKER_REGISTRY_TARGET", 13), ("KEY_COUNT", 19)],
)
def test_an_older_script_leaves_what_it_does_not_know(name: str, first: int) -> None:
    assert errors(app(f"0.0.{first - 1}"), {name: "mine"}) == []
    assert len(errors(app(f"0.0.{first}"), {name: "mine"})) == 1


# The login to ECR

OWN_AWS = {"AWS_ACCESS_KEY_ID": "own", "AWS_SECRET_ACCESS_KEY": "own", "AWS_DEFAULT_REGION": "own"}
EXPORTS = """
export AWS_ACCESS_KEY_ID=$DSTACK_AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY=$DSTACK_AWS_SECRET_ACCESS_KEY
export AWS_DEFAULT_REGION=$DSTACK_AWS_REGION
if [ -n "${DSTACK_AWS_SESSION_TOKEN-}" ]; then export AWS_SESSION_TOKEN=$DSTACK_AWS_SESSION_TOKEN; fi
env -0
"""
"""What the script does for the login, in short."""


@pytest.mark.parametrize("session", [{}, SESSION])
@pytest.mark.parametrize("own", [OWN_AWS, OWN_AWS | {"AWS_SESSION_TOKEN": "own"}])
def test_an_ecr_login_takes_the_app_s_own_aws_names(session: dict[str, str], own: dict[str, str]) -> None:
    variables = own | ECR | session
    run = subprocess.run(
        ["bash", "-c", EXPORTS], env=variables | {"PATH": "/usr/bin:/bin"}, capture_output=True, check=True
    )
    after = dict(entry.split("=", 1) for entry in run.stdout.decode().split("\0") if entry)
    findings = {finding.message.split()[0]: finding.message for finding in errors(app(), variables)}
    assert findings.keys() == own.keys()
    for name, message in findings.items():
        assert ("overwritten" in message) == (after[name] != "own")
        assert ("break the login" in message) == (after[name] == "own")


def test_aws_names_that_stay_what_they_are_pass() -> None:
    same = {
        "AWS_ACCESS_KEY_ID": ECR["DSTACK_AWS_ACCESS_KEY_ID"],
        "AWS_SESSION_TOKEN": "",
        "AWS_REGION": "elsewhere",
    }
    assert review(app(), environment(same | ECR)) == []
    assert review(app(), environment(OWN_AWS)) == [], "without a login"
    assert review(app(), environment(OWN_AWS | ECR | {"DSTACK_AWS_REGION": ""})) == [], "with half of one"


def test_a_docker_login_comes_before_that_of_ecr() -> None:
    (finding,) = review(app(), environment(DOCKER | ECR | OWN_AWS))
    assert finding.severity == "notice"
    assert "Docker before AWS ECR" in finding.message
    assert finding.hint
    assert len(errors(app(), DOCKER | ECR | OWN_AWS | {"DSTACK_DOCKER_PASSWORD": ""})) == 3


# The login to ghcr.io


@pytest.mark.parametrize(
    ("name", "versions"),
    [
        *((name, (13, 15, 16, 20)) for name in ("COMPOSE_IMAGES", "img", "repo", "token", "http_code")),
        *((name, (16, 20)) for name in ("HEADER", "ref", "reference")),
        ("tag", (13, 15)),
        ("IMG", ()),
    ],
)
def test_a_ghcr_login_takes_these_names(name: str, versions: tuple[int, ...]) -> None:
    for version in (12, 13, 15, 16, 20):
        found = [finding.message for finding in errors(app(f"0.0.{version}"), GHCR | {name: "own"})]
        assert len(found) == (version in versions)
        assert all("while it looks up images on ghcr.io" in message for message in found)
    for login in (DOCKER, ECR, GHCR | {"DSTACK_DOCKER_REGISTRY": "docker.io"}):
        assert errors(app(), login | {name: "own"}) == []


@pytest.mark.parametrize(
    ("image", "aborts"),
    [
        ("ghcr.io/o/a:${TAG}", True),
        ("ghcr.io/$ORG/a:1", True),
        ('"ghcr.io/o/a:${TAG:-1}"', True),
        ("'ghcr.io/o/a@${DIGEST}' # pinned", True),
        ("ghcr.io/o/a:1", False),
        ("ghcr.io/o/a@sha256:00", False),
        ("${IMAGE}", False),
        ("docker.io/o/a:${TAG}", False),
        ("ghcr.io/o/a:1 # $TAG", False),
        ("", False),
    ],
)
def test_a_ghcr_image_with_a_variable_ends_the_boot(image: str, aborts: bool) -> None:
    found = errors(app(image=image), GHCR)
    assert [("end the boot" in one.message, bool(one.hint)) for one in found] == [(True, True)] * aborts
    assert errors(app(image=image), DOCKER) == errors(app("0.0.12", image), GHCR) == []


@pytest.mark.parametrize(("version", "aborts"), [("0.0.13", True), ("0.0.15", True), ("0.0.16", False)])
def test_a_script_before_v0_0_16_cannot_look_up_a_digest(version: str, aborts: bool) -> None:
    found = errors(app(version, "ghcr.io/o/a@sha256:00"), GHCR)
    assert ["by digest" in finding.message for finding in found] == [True] * aborts


def test_a_bash_app_has_no_images_to_look_up() -> None:
    assert review({"pre_launch_script": script(), "bash_script": "run"}, environment(GHCR)) == []


# Logins in part, and root access

NEEDED = [*DOCKER]
NEEDED_ECR = [*ECR]


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["DB_URL"], []),
        (NEEDED, []),
        (NEEDED_ECR, []),
        ([*GHCR, *ECR], []),
        ([*ECR, *SESSION], []),
        ([*SESSION], [f"AWS ECR registry login is incomplete: {', '.join(ECR)} missing"]),
        (["DSTACK_ROOT_PASSWORD", "DSTACK_ROOT_PUBLIC_KEY", "DSTACK_AUTHORIZED_KEYS"], []),
        (NEEDED[:1], ["Docker registry login is incomplete: DSTACK_DOCKER_PASSWORD missing"]),
        (NEEDED[1:], ["Docker registry login is incomplete: DSTACK_DOCKER_USERNAME missing"]),
        (
            ["DSTACK_DOCKER_REGISTRY"],
            ["Docker registry login is incomplete: DSTACK_DOCKER_USERNAME, DSTACK_DOCKER_PASSWORD missing"],
        ),
        (NEEDED_ECR[:3], ["AWS ECR registry login is incomplete: DSTACK_AWS_ECR_REGISTRY missing"]),
        (
            [*NEEDED[:1], *NEEDED_ECR[1:]],
            [
                "Docker registry login is incomplete: DSTACK_DOCKER_PASSWORD missing",
                "AWS ECR registry login is incomplete: DSTACK_AWS_ACCESS_KEY_ID missing",
            ],
        ),
    ],
)
def test_an_incomplete_registry_login_is_a_warning(names: list[str], missing: list[str]) -> None:
    hints = registry_hints(iter(names))
    assert [hint.message for hint in hints] == [f"The {message}" for message in missing]
    assert all(hint.severity == "warning" and hint.hint for hint in hints)


def test_every_name_of_phala_s_script_is_known() -> None:
    assert {*GHCR, *ECR, *SESSION, "DSTACK_ROOT_PASSWORD"} <= FOR_PHALA


def test_missing_authorized_keys_are_explained() -> None:
    keys = "DSTACK_AUTHORIZED_KEYS"
    finding = root_access(["A", keys], ["A", "B"])
    assert finding is not None
    assert "root SSH" in finding.message
    assert "phala deploy" in finding.message
    assert f"Set {keys}" in finding.hint
    assert "allow-removal" in finding.hint
    assert "compose hash" in finding.hint
    assert finding.severity == "warning"
    for today, given_ in (([keys], [keys]), (["A"], [keys]), ([], []), (iter(["A"]), iter(["A"]))):
        assert root_access(today, given_) is None
