"""Phala's default pre-launch script, which the launcher sources before it starts the containers.

The app-compose has it as ``pre_launch_script``. It logs in to registries, pulls images, sets up root
access, and assigns variables in the shell that then runs Compose. An app may replace it, and an old CVM
keeps the version that it was created with. These rules hold for Phala's own script, by version.

Source: the repository Dstack-TEE/dstack-examples, ``phala-cloud-prelaunch-script/prelaunch.sh``,
v0.0.4 to v0.0.19. v0.0.20 comes from public app-composes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from phala_secrets.errors import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from phala_secrets.dstack.environment import Environment

_DOCKER_LOGIN = ("DSTACK_DOCKER_USERNAME", "DSTACK_DOCKER_PASSWORD")
_DOCKER_REGISTRY = "DSTACK_DOCKER_REGISTRY"
_ECR_LOGIN = (
    "DSTACK_AWS_ACCESS_KEY_ID",
    "DSTACK_AWS_SECRET_ACCESS_KEY",
    "DSTACK_AWS_REGION",
    "DSTACK_AWS_ECR_REGISTRY",
)
_ECR_SESSION = "DSTACK_AWS_SESSION_TOKEN"
_AUTHORIZED_KEYS = "DSTACK_AUTHORIZED_KEYS"
_ROOT_ACCESS = ("DSTACK_ROOT_PASSWORD", "DSTACK_ROOT_PUBLIC_KEY", _AUTHORIZED_KEYS)

FOR_PHALA = frozenset((*_DOCKER_LOGIN, _DOCKER_REGISTRY, *_ECR_LOGIN, _ECR_SESSION, *_ROOT_ACCESS))
"""Names that the user sets for Phala's pre-launch script: registry logins and root access."""

Version = tuple[int, ...]

_LATEST: Version = (1 << 30,)
_ALWAYS: dict[str, tuple[Version, Version]] = {
    "DSTACK_APP_ID": ((0,), _LATEST),
    "DSTACK_APP_DOMAIN": ((0, 0, 7), _LATEST),
    "PASSWD_WRITABLE": ((0, 0, 12), _LATEST),
    "DOCKER_REGISTRY_TARGET": ((0, 0, 13), _LATEST),
    "KEY_COUNT": ((0, 0, 19), _LATEST),
}
"""Names that it assigns at each boot, with the first and the last version that does."""
_WITH_GHCR: dict[str, tuple[Version, Version]] = {
    **dict.fromkeys(("COMPOSE_IMAGES", "img", "repo", "token", "http_code"), ((0, 0, 13), _LATEST)),
    "tag": ((0, 0, 13), (0, 0, 15)),
    **dict.fromkeys(("HEADER", "ref", "reference"), ((0, 0, 16), _LATEST)),
}
"""Names that it assigns while it looks up each image, after a login to ghcr.io."""
_WITH_ECR = {
    "AWS_ACCESS_KEY_ID": "DSTACK_AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY": "DSTACK_AWS_SECRET_ACCESS_KEY",
    "AWS_DEFAULT_REGION": "DSTACK_AWS_REGION",
    "AWS_SESSION_TOKEN": _ECR_SESSION,
}
"""Names that it exports for the login to ECR, with their sources."""
_CHECKS_IMAGES: Version = (0, 0, 13)
_READS_DIGESTS: Version = (0, 0, 16)
_PULLS: Version = (0, 0, 15)

# The banner at the top of the script. A modified script usually begins differently.
_BANNER = re.compile(
    r'\s*(?:#!/bin/bash\n)?(?:echo "-+"\n)?'
    r'echo "Running Phala Cloud Pre-Launch Script v([0-9]{1,9}(?:\.[0-9]{1,9}){1,3})"\r?(?:\n|\Z)'
)


def version_of(app_compose: Mapping[str, Any]) -> Version | None:
    """Return the version of Phala's script, such as ``(0, 0, 20)``, or None for another script."""
    script = app_compose.get("pre_launch_script")
    banner = _BANNER.match(script) if isinstance(script, str) else None
    return tuple(map(int, banner[1].split("."))) if banner else None


def pulls_at_each_boot(app_compose: Mapping[str, Any]) -> bool:
    """Return whether Phala's script pulls the images at each boot, so that a tag may bring new code."""
    version = version_of(app_compose)
    return version is not None and version >= _PULLS


def review(app_compose: Mapping[str, Any], environment: Environment) -> list[Finding]:
    """Return findings about what Phala's pre-launch script would do with these variables.

    Args:
        app_compose: the app-compose of the next boot.
        environment: the variables of the next boot.

    Returns:
        An error if the app would not start or would get another value, otherwise a notice. Nothing for
        another script. ``registry_hints`` handles an incomplete login.
    """
    version = version_of(app_compose)
    if version is None:
        return []
    values = environment.as_dict()
    findings = list(_overwritten(environment, _ALWAYS, version, "at each boot"))
    if all(map(values.get, _DOCKER_LOGIN)):
        findings += _ecr_beside_docker(values)
        if values.get(_DOCKER_REGISTRY) == "ghcr.io" and version >= _CHECKS_IMAGES:
            findings += _overwritten(environment, _WITH_GHCR, version, "while it looks up images on ghcr.io")
            findings += _aborting_images(app_compose, version)
    elif all(map(values.get, _ECR_LOGIN)):
        findings += _own_aws(environment)
    return findings


def _overwritten(
    environment: Environment, names: Mapping[str, tuple[Version, Version]], version: Version, when: str
) -> Iterator[Finding]:
    for variable in environment:
        first, last = names.get(variable.name, (_LATEST, ()))
        if first <= version <= last:
            yield variable.misnamed(f"is overwritten by Phala's pre-launch script {when}")


def _ecr_beside_docker(values: Mapping[str, str]) -> Iterator[Finding]:
    if all(map(values.get, _ECR_LOGIN)):
        yield Finding(
            "There are two registry logins, but Phala's pre-launch script uses only the first: "
            "Docker before AWS ECR",
            f"Leave out {_DOCKER_LOGIN[0]} and {_DOCKER_LOGIN[1]} to pull images from ECR.",
            severity="notice",
        )


def _own_aws(environment: Environment) -> Iterator[Finding]:
    values = environment.as_dict()
    for name, source in _WITH_ECR.items():
        login = values.get(source, "")
        if values.get(name, login) == login:
            continue
        if name == "AWS_SESSION_TOKEN" and not login:
            yield environment[name].misnamed("would break the login to AWS ECR, which would use it")
        else:
            problem = "is overwritten by Phala's pre-launch script with the login to AWS ECR"
            yield environment[name].misnamed(problem)


def _aborting_images(app_compose: Mapping[str, Any], version: Version) -> Iterator[Finding]:
    """Yield errors for images that make the script end the boot: it looks up each as written."""
    images = list(_looked_up(app_compose.get("docker_compose_file")))
    if any("$" in image for image in images):
        yield Finding(
            "Phala's pre-launch script would end the boot: after a login to ghcr.io it looks up each "
            "`image: ghcr.io/…` as written, and one contains a variable",
            "Write out the image, or use one variable for the whole reference: `image: ${IMAGE}`.",
            severity="error",
        )
    if version < _READS_DIGESTS and any("@" in image for image in images):
        yield Finding(
            "Phala's pre-launch script would end the boot: this version cannot look up an "
            "`image: ghcr.io/…` by digest after a login to ghcr.io",
            "Name the image by tag, or update the app's pre-launch script to v0.0.16 or later.",
            severity="error",
        )


def _looked_up(compose: object) -> Iterator[str]:
    """Yield the images that the script finds: the second word of a line with ``image:``, without quotes."""
    for line in compose.split("\n") if isinstance(compose, str) else ():
        words = line.replace('"', "").replace("'", "").split()
        if "image:" in line and len(words) > 1 and words[1].startswith("ghcr.io/"):
            yield words[1]


def registry_hints(names: Iterable[str]) -> list[Finding]:
    """Return warnings about incomplete registry logins, which the pre-launch script skips."""
    given = frozenset(names)
    hints = []
    for registry, needed, optional in (
        ("Docker", _DOCKER_LOGIN, (_DOCKER_REGISTRY,)),
        ("AWS ECR", _ECR_LOGIN, (_ECR_SESSION,)),
    ):
        missing = [name for name in needed if name not in given]
        if missing and not given.isdisjoint((*needed, *optional)):
            hints.append(
                Finding(
                    f"The {registry} registry login is incomplete: {', '.join(missing)} missing",
                    "Set all of them or none: Phala's pre-launch script skips an incomplete login.",
                )
            )
    return hints


def root_access(today: Iterable[str], given: Iterable[str]) -> Finding | None:
    """Return the warning for ``DSTACK_AUTHORIZED_KEYS`` that a CVM has today and would lose.

    Args:
        today: the names that the CVM has (``allowed_envs``).
        given: the names that it will have.
    """
    if _AUTHORIZED_KEYS not in set(today).difference(given):
        return None
    return Finding(
        f"The CVM has {_AUTHORIZED_KEYS}, which is missing here: the official CLI adds it at `phala deploy` "
        "from a machine with an SSH key. It gives root SSH access to anyone who may update the environment",
        f"Set {_AUTHORIZED_KEYS} to keep that access. To end it, drop the name with `allow-removal: true`. "
        "That changes the compose hash.",
    )
