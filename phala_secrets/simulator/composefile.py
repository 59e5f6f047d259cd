"""The app-compose of a CVM, and the hash that an owner approves on chain."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Form = Literal["compact", "pretty"]
Order = Literal["sent", "kept", "sorted"]

_DEFAULTS: dict[str, Any] = {
    "bash_script": None,
    "default_gateway_domain": None,
    "init_script": None,
    "pre_launch_script": None,
    "salt": None,
}

DEFAULT_COMPOSE = "services:\n  app:\n    image: nginx\n"


def app_compose(
    name: str, docker_compose_file: str, allowed_envs: Sequence[str], more: Mapping[str, Any]
) -> dict[str, Any]:
    """Return an ``app-compose.json`` with the service's fields. ``more`` adds or overrides fields."""
    return {
        "allowed_envs": list(allowed_envs),
        "docker_compose_file": docker_compose_file,
        "features": ["kms", "tproxy-net"],
        "gateway_enabled": True,
        "kms_enabled": True,
        "local_key_provider_enabled": False,
        "manifest_version": 2,
        "name": name,
        "no_instance_id": False,
        "pre_launch_script": "",
        "public_logs": True,
        "public_sysinfo": True,
        "public_tcbinfo": True,
        "runner": "docker-compose",
        "secure_time": False,
        "storage_fs": "zfs",
        "tproxy_enabled": True,
        **more,
    }


def measured(compose: Mapping[str, Any], form: Form, *, normalised: bool) -> str:
    """Return the app-compose in ``form``: the text whose bytes the guest measures."""
    content = _normalise(compose) if normalised else dict(compose)
    if form == "compact":
        return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return json.dumps(content, sort_keys=True, indent=4, ensure_ascii=False).replace('": ', '":')


def compose_hash(compose: Mapping[str, Any], form: Form, *, normalised: bool) -> str:
    """Return the SHA-256 (hex) of the app-compose in ``form``."""
    return hashlib.sha256(measured(compose, form, normalised=normalised).encode()).hexdigest()


def with_defaults(compose: Mapping[str, Any]) -> dict[str, Any]:
    """Return the app-compose with the defaults of the API's model (``AppComposeV2``) filled in."""
    return {**_DEFAULTS, **compose}


def new_names(old: Sequence[str], sent: Sequence[str], order: Order) -> list[str]:
    """Return ``allowed_envs`` after an update, in its written order."""
    names = list(dict.fromkeys(sent))
    if order == "sorted":
        return sorted(names)
    if order == "kept":
        kept = [name for name in old if name in names]
        return kept + [name for name in names if name not in kept]
    return names


def _normalise(compose: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content without the unused runner's script and without an empty ``pre_launch_script``."""
    content = dict(compose)
    if compose.get("runner") == "bash":
        content.pop("docker_compose_file", None)
    elif compose.get("runner") == "docker-compose":
        content.pop("bash_script", None)
    if not compose.get("pre_launch_script"):
        content.pop("pre_launch_script", None)
    return content
