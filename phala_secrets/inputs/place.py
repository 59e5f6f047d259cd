"""Where a run happens, as far as its inputs depend on it: GitHub, another CI, a person's terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from phala_secrets.inputs.files import Root
from phala_secrets.runners import detect

if TYPE_CHECKING:
    from collections.abc import Mapping

_WITHOUT_A_ROOM = (
    "BITBUCKET_COMMIT",
    "CODEBUILD_BUILD_ID",
    "HARNESS_BUILD_ID",
    "JENKINS_URL",
    "TEAMCITY_VERSION",
    "bamboo_buildKey",
)
"""CIs that we write no outputs for and that set no ``CI``, each by a variable of its own."""


def in_ci(environ: Mapping[str, str]) -> bool:
    """Return whether a CI runs this."""
    return detect.in_ci(environ) or any(environ.get(name) for name in _WITHOUT_A_ROOM)


def on_github(environ: Mapping[str, str]) -> bool:
    """Return whether this is a job of GitHub Actions, however the variable is written."""
    return _says_yes(environ, "GITHUB_ACTIONS")


def is_action(environ: Mapping[str, str]) -> bool:
    """Return whether this is a step of our action: GitHub passes it every input, the empty ones too."""
    return on_github(environ) and "INPUT_MODE" in environ


def on_azure(environ: Mapping[str, str]) -> bool:
    """Return whether this is a job of Azure Pipelines."""
    return _says_yes(environ, "TF_BUILD")


def person_at_terminal(environ: Mapping[str, str]) -> bool:
    """Return whether a person is at the terminal: the one place that decides it.

    Standard input and standard error are terminals, and nothing says that a CI runs this.
    """
    return not in_ci(environ) and _is_terminal(sys.stdin) and _is_terminal(sys.stderr)


def root_of(environ: Mapping[str, str], folder: Path) -> Root | None:
    """Return what files have to lie in; nothing where no CI runs this."""
    if on_github(environ):
        temp = environ.get("RUNNER_TEMP")
        workspace = environ.get("GITHUB_WORKSPACE")
        return Root(Path(workspace) if workspace else folder, Path(temp) if temp else None, github=True)
    return Root(folder) if in_ci(environ) else None


def _says_yes(environ: Mapping[str, str], name: str) -> bool:
    return environ.get(name, "").lower() not in ("", "false", "0")


def _is_terminal(stream: object) -> bool:
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError):  # it was closed
        return False
