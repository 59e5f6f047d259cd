"""What code an app-compose is of, in words that a person can compare."""

from __future__ import annotations

import hashlib
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


def code_of(app_compose: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what would run: label and value. A file or script is shown as ``sha256:`` and its digest.

    That is the digest of the text itself (``sha256sum docker-compose.yml``). The values are untrusted.
    """
    facts = [
        (label, f"sha256:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}")
        for field, label in _TEXTS.items()
        if isinstance(text := app_compose.get(field), str) and text
    ]
    found = images(app_compose)
    return [*facts, ("images", ", ".join(found))] if found else facts
