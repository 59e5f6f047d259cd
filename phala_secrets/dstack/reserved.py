"""Names of variables that are not an app's own: the guest's launcher's, and Phala's.

The launcher is dstack's ``os/common/rootfs/app-compose.sh``, a bash script that runs in
the environment it hands on to ``docker compose``. Phala's names are those of its
default pre-launch script, which an app may replace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.errors import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable

_OVERWRITTEN = frozenset(
    (
        "ACTION",
        "runner",
        "snapshotter",
        "HOST_SHARED_DIR",
        "SYS_CONFIG_FILE",
        "CFG_PCCS_URL",
        "IFS",
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
        "UID",
        "EUID",
        "PPID",
    )
)
_ACTING = frozenset(
    (
        "APP_COMPOSE_FILE",
        "COMPOSE_FILE",
        "COMPOSE_PATH_SEPARATOR",
        "COMPOSE_ENV_FILES",
        "COMPOSE_PROJECT_NAME",
        "NERDCTL_NAMESPACE",
        "PATH",
        "HOME",
        "ENV",
        "BASH_ENV",
        "SHELLOPTS",
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "LD_AUDIT",
        "DOCKER_HOST",
        "DOCKER_CONTEXT",
        "DOCKER_CONFIG",
        "DOCKER_CERT_PATH",
        "DOCKER_TLS_VERIFY",
        "DOCKER_API_VERSION",
    )
)
_DOCKER_LOGIN = ("DSTACK_DOCKER_USERNAME", "DSTACK_DOCKER_PASSWORD")
_DOCKER_REGISTRY = "DSTACK_DOCKER_REGISTRY"
_ECR_LOGIN = (
    "DSTACK_AWS_ACCESS_KEY_ID",
    "DSTACK_AWS_SECRET_ACCESS_KEY",
    "DSTACK_AWS_REGION",
    "DSTACK_AWS_ECR_REGISTRY",
)
_ROOT_ACCESS = ("DSTACK_ROOT_PASSWORD", "DSTACK_ROOT_PUBLIC_KEY", "DSTACK_AUTHORIZED_KEYS")

FOR_PHALA = frozenset((*_DOCKER_LOGIN, _DOCKER_REGISTRY, *_ECR_LOGIN, *_ROOT_ACCESS))
"""Names that the user gives to Phala's pre-launch script: registry logins and root access."""


def acts_on_launcher(name: str) -> bool:
    """Whether a variable of this name changes what the launcher, or a program it calls, does."""
    return name in _ACTING


def overwritten_by_launcher(name: str) -> bool:
    """Whether the launcher, or bash under it, has a value of its own for this name."""
    return name in _OVERWRITTEN or (name.startswith("BASH") and not acts_on_launcher(name))


def built_in(name: str) -> bool:
    """Whether a compose file may refer to this name though nobody gives it.

    Phala provides some (``DSTACK_APP_…``, ``DSTACK_GATEWAY_DOMAIN``); the launcher exports
    ``PCCS_URL``; and the launcher's own names can be given by nobody.
    """
    return (
        name in ("DSTACK_GATEWAY_DOMAIN", "PCCS_URL")
        or name.startswith("DSTACK_APP_")
        or acts_on_launcher(name)
        or overwritten_by_launcher(name)
    )


def registry_hints(names: Iterable[str]) -> list[Finding]:
    """Warn of a registry login that is given in part: the pre-launch script would leave it out."""
    given = frozenset(names)
    hints = []
    for registry, needed, optional in (
        ("Docker", _DOCKER_LOGIN, (_DOCKER_REGISTRY,)),
        ("AWS ECR", _ECR_LOGIN, ()),
    ):
        missing = [name for name in needed if name not in given]
        if missing and not given.isdisjoint((*needed, *optional)):
            hints.append(
                Finding(
                    f"The {registry} registry login is incomplete: {', '.join(missing)} not given",
                    "Phala's pre-launch script logs in only with all of them: give the rest, or none.",
                )
            )
    return hints
