"""The containers of a CVM, as docker describes them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import yaml

Condition = Literal["up", "starting", "healthy", "unhealthy", "restarting", "exited", "created"]

_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))
_SERVICE_LABEL = "dstack"  # the project's name in the guest, from the folder of its compose file


@dataclass(slots=True)
class Container:
    """A container. ``exit_code`` counts if it ``exited`` or is ``restarting``.

    It has been in its condition for ``seconds``. None means as long as the CVM runs.
    """

    name: str
    condition: Condition = "up"
    exit_code: int = 0
    image: str = "nginx"
    seconds: float | None = None

    @property
    def state(self) -> str:
        """One of docker's words: ``running``, ``restarting``, ``exited`` or ``created``."""
        return self.condition if self.condition in ("restarting", "exited", "created") else "running"

    def status(self, uptime: float) -> str:
        """Return the status as ``docker ps`` prints it, in a CVM that is up for ``uptime`` seconds."""
        span = _span(uptime if self.seconds is None else self.seconds)
        match self.condition:
            case "up":
                return f"Up {span}"
            case "starting":
                return f"Up {span} (health: starting)"
            case "healthy" | "unhealthy":
                return f"Up {span} ({self.condition})"
            case "restarting":
                return f"Restarting ({self.exit_code}) {span} ago"
            case "exited":
                return f"Exited ({self.exit_code}) {span} ago"
            case "created":
                return "Created"


def of_compose(docker_compose_file: str) -> list[Container]:
    """Return a container that is up for each service, healthy where it has a health check."""
    return [
        Container(f"{_SERVICE_LABEL}-{name}-1", condition, image=image)
        for name, condition, image in _services(docker_compose_file)
    ]


@lru_cache(maxsize=64)
def _services(docker_compose_file: str) -> list[tuple[str, Condition, str]]:
    """Return the name, condition and image of each service. Cached, since reading YAML is slow."""
    try:
        services: dict[str, dict[str, Any]] = yaml.safe_load(docker_compose_file)["services"]
        return [
            (name, "healthy" if "healthcheck" in service else "up", str(service.get("image", name)))
            for name, service in services.items()
        ]
    except (yaml.YAMLError, TypeError, KeyError, AttributeError):
        return []  # docker compose would not start it either


def _span(seconds: float) -> str:
    """Return a duration as docker prints it."""
    if seconds < 1:
        return "Less than a second"
    length, unit = next((length, unit) for length, unit in _UNITS if seconds >= length)
    number = int(seconds // length)
    if number == 1 and unit in ("minute", "hour"):
        return f"About {'an' if unit == 'hour' else 'a'} {unit}"
    return f"{number} {unit}{'' if number == 1 else 's'}"
