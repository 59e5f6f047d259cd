"""The variables of Phala's default pre-launch script.

The launcher sources it before it starts the containers. The rules are those of v0.0.20.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from phala_secrets.simulator.failure import BootFailedError

PHALA_SCRIPT = '#!/bin/bash\necho "Running Phala Cloud Pre-Launch Script v0.0.20"\n'
"""Stands for the script: its mark and version, which is how one knows it."""

_MARK = "Phala Cloud Pre-Launch Script"
_ECR = ("DSTACK_AWS_ACCESS_KEY_ID", "DSTACK_AWS_SECRET_ACCESS_KEY", "DSTACK_AWS_REGION")
_FROM_ECR = {
    "AWS_ACCESS_KEY_ID": "DSTACK_AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY": "DSTACK_AWS_SECRET_ACCESS_KEY",
    "AWS_DEFAULT_REGION": "DSTACK_AWS_REGION",
    "AWS_SESSION_TOKEN": "DSTACK_AWS_SESSION_TOKEN",
}
_GHCR_NAMES = ("COMPOSE_IMAGES", "HEADER", "img", "ref", "repo", "reference", "token", "http_code")
_GHCR_TEMPLATE = re.compile(r"""^\s*(?:-\s+)?image:\s*["']?ghcr\.io/\S*\$""", re.MULTILINE)
_ROOT_ACCESS = ("DSTACK_ROOT_PASSWORD", "DSTACK_ROOT_PUBLIC_KEY", "DSTACK_AUTHORIZED_KEYS")


@dataclass(frozen=True, slots=True)
class Launch:
    """The launcher's input: the app-compose's script and compose file, and the app's identity.

    ``logins_fail`` is whether registries reject the credentials.
    """

    script: str = ""
    docker_compose_file: str = ""
    app_id: str = ""
    gateway: str = ""
    logins_fail: bool = False


def source(launch: Launch, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment after Phala's script, or raise `BootFailedError`. Ignore other scripts."""
    after = dict(environment)
    if _MARK not in launch.script:
        return after
    registry = environment.get("DSTACK_DOCKER_REGISTRY") or "docker.io"
    _overwrite(after, {"DOCKER_REGISTRY_TARGET": registry, "PASSWD_WRITABLE": "true", "KEY_COUNT": "0"})
    if environment.get("DSTACK_DOCKER_USERNAME") and environment.get("DSTACK_DOCKER_PASSWORD"):
        if launch.logins_fail:
            raise BootFailedError("docker login failed")
        if registry == "ghcr.io":
            _verify_ghcr(launch.docker_compose_file)
            _overwrite(after, dict.fromkeys(_GHCR_NAMES, "ghcr.io"))
    elif all(environment.get(name) for name in (*_ECR, "DSTACK_AWS_ECR_REGISTRY")):
        after |= {name: environment[given] for name, given in _FROM_ECR.items() if environment.get(given)}
        if launch.logins_fail and not environment.get("DSTACK_AWS_SESSION_TOKEN"):
            raise BootFailedError("AWS ECR login failed")
    for name in _ROOT_ACCESS:
        after.pop(name, None)
    domain = f"{launch.app_id}.{launch.gateway}"
    return {**after, "DSTACK_APP_ID": launch.app_id, "DSTACK_APP_DOMAIN": domain}


def _overwrite(environment: dict[str, str], values: Mapping[str, str]) -> None:
    """Assign like a shell: only a variable from outside is passed on."""
    environment.update({name: value for name, value in values.items() if name in environment})


def _verify_ghcr(docker_compose_file: str) -> None:
    """Look up each image on ghcr.io as written: one with a variable fails the boot."""
    if _GHCR_TEMPLATE.search(docker_compose_file):
        raise BootFailedError("GHCR token exchange failed")
