"""The code behind an app-compose, in words that a person can compare."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from phala_secrets.dstack.compose_refs import images

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEXTS = {
    "docker_compose_file": "compose file",
    "pre_launch_script": "pre-launch script",
    "init_script": "init script",
    "bash_script": "bash script",
}


_NAMES = "allowed_envs"
"""The names of variables, which the report shows elsewhere."""

_LONG = 64
"""Characters above which a setting shows as its digest."""


def code_of(app_compose: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return labels and values of what would run. The values are untrusted text.

    A file or script shows as ``sha256:`` and the digest of its text (``sha256sum docker-compose.yml``).
    All other settings show too, since the hash approves them: the registry of the images, for example,
    or whether logs are public.
    """
    facts = [
        (label, _digest(text))
        for field, label in _TEXTS.items()
        if isinstance(text := app_compose.get(field), str) and text
    ]
    if found := images(app_compose):
        facts.append(("images", ", ".join(found)))
    shown = {field for field in _TEXTS if isinstance(app_compose.get(field), str)} | {_NAMES}
    others = [f"{field}={_setting(app_compose[field])}" for field in sorted(app_compose.keys() - shown)]
    return [*facts, ("settings", " ".join(others))] if others else facts


def _setting(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return text if len(text) <= _LONG else _digest(text)


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"
