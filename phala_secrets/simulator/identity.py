"""The ids of a CVM, its machine, and its plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from phala_secrets.simulator.generations import DEFAULT_OS


@dataclass(frozen=True, slots=True)
class Identity:
    """The ids of a CVM: ``id`` (``cvm_…``), ``vm_uuid`` with dashes, app and instance id (40 hex digits)."""

    number: int
    id: str
    name: str
    app_id: str
    vm_uuid: str
    instance_id: str
    device_id: str
    deployer_address: str


@dataclass(slots=True)
class Device:
    """A device id of the machine, 32 bytes as hex, by a version of the algorithm that makes it."""

    device_id: str
    algorithm_version: int = 1
    enabled: bool = True


@dataclass(slots=True)
class Plan:
    """What a CVM is made of. ``more`` adds fields to the app-compose, or overrides them."""

    docker_compose_file: str
    environment: Mapping[str, str]
    allowed_envs: Sequence[str]
    os_version: str = DEFAULT_OS
    more: Mapping[str, Any] = field(default_factory=dict)
