"""Detect the CI by its variable. A new CI is a row here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from phala_secrets.runners.base import Runner

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROOMS = {
    "GITHUB_ACTIONS": ("github", "GitHub"),
    "GITLAB_CI": ("gitlab", "GitLab"),
    "CIRCLECI": ("circleci", "CircleCI"),
    "TF_BUILD": ("azure", "Azure"),
    "BITBUCKET_BUILD_NUMBER": ("bitbucket", "Bitbucket"),
    "BUILDKITE": ("buildkite", "Buildkite"),
}
"""The variable that a CI is recognised by, and its room; only that one is imported."""


def in_ci(environ: Mapping[str, str]) -> bool:
    """Return whether a CI runs this, known or not."""
    return _says_yes(environ.get("CI", "")) or detect_class(environ).ci


def detect_class(environ: Mapping[str, str]) -> type[Runner]:
    """Return the class of the runner for these variables."""
    for variable, (module, name) in _ROOMS.items():
        if _says_yes(environ.get(variable, "")):
            return cast("type[Runner]", getattr(import_module(f"phala_secrets.runners.{module}"), name))
    return Runner


def detect(environ: Mapping[str, str], **options: Any) -> Runner:
    """Return the runner for these variables, with the arguments of Runner."""
    return detect_class(environ)(environ, **options)


def _says_yes(value: str) -> bool:
    return value.lower() not in ("", "false", "0")
