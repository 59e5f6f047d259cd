"""Where a run happens. Each CI has a room of its own; a shell is the base of them all.

A runner masks secrets, tells people what goes on, writes outputs where that CI looks for
them, and disarms whatever in foreign text would be a command to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from phala_secrets.runners.terminal import Runner

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Runner", "detect", "in_ci"]


def in_ci(environ: Mapping[str, str]) -> bool:
    """Whether a CI runs this, known or not."""
    return environ.get("CI", "").lower() not in ("", "false", "0") or detect_class(environ).ci


def detect_class(environ: Mapping[str, str]) -> type[Runner]:
    """The runner that these variables are of."""
    if environ.get("GITHUB_ACTIONS") == "true":
        from phala_secrets.runners.github import GitHub

        return GitHub
    return Runner


def detect(environ: Mapping[str, str], **options: Any) -> Runner:
    """The runner for these variables, with the options of Runner."""
    return detect_class(environ)(environ, **options)
