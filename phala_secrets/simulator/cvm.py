"""A confidential VM: what it is, what it was given, and how it restarts.

Nothing runs in the background: a CVM knows when its operation began, and whoever looks at it sees
what that makes of it by now.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from phala_secrets.simulator.composefile import app_compose, compose_hash
from phala_secrets.simulator.guest import BootFailedError, boot, seal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from phala_secrets.simulator.cloud import Cloud
    from phala_secrets.simulator.kms import Kms


@dataclass(slots=True)
class Operation:
    """An update of the environment; ``begun`` and ``ends`` are of `time.monotonic`."""

    correlation_id: str
    begun: float
    ends: float
    started_at: datetime
    completed_at: datetime | None = None
    status: str = "in_progress"
    error_message: str | None = None
    compose_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """What names a CVM: ``id`` (``cvm_…``), ``vm_uuid`` with dashes, app and instance id of 40 hex digits."""

    number: int
    id: str
    name: str
    app_id: str
    vm_uuid: str
    instance_id: str
    device_id: str
    deployer_address: str


class Cvm:
    """One CVM of a `Cloud`; made by `Cloud.add_cvm`."""

    def __init__(
        self,
        cloud: Cloud,
        kms: Kms,
        identity: Identity,
        *,
        docker_compose_file: str,
        environment: Mapping[str, str],
        allowed_envs: Sequence[str],
        more: Mapping[str, Any],
    ) -> None:
        self.kms = kms
        self.identity = identity
        self.app_compose = app_compose(identity.name, docker_compose_file, allowed_envs, more)
        self.restart_seconds: float | None = None
        """How long an update takes; ``None`` for the cloud's figure."""
        self.deployer_type = "eoa"
        """Who owns the app on chain: ``eoa``, ``safe``, …"""
        self.pending: dict[str, tuple[list[str], datetime]] = {}
        """Compose hashes that wait for an approval: the new names, and until when."""
        self.started = time.monotonic()
        self.exited_at: datetime | None = None
        self._cloud = cloud
        self._operations: list[Operation] = []
        self._sealed = seal(environment, kms.app_key(identity.app_id).public_key())
        self._status = "running"
        self._boot_error: str | None = None
        self._environment: dict[str, str] | None = None
        self._failure: str | None = None
        self._boot()

    @property
    def id(self) -> str:
        return self.identity.id

    @property
    def name(self) -> str:
        return self.identity.name

    @property
    def app_id(self) -> str:
        return self.identity.app_id

    @property
    def vm_uuid(self) -> str:
        return self.identity.vm_uuid

    @property
    def instance_id(self) -> str:
        return self.identity.instance_id

    @property
    def device_id(self) -> str:
        """Of the machine it runs on: 32 bytes as hex."""
        return self.identity.device_id

    @property
    def allowed_envs(self) -> list[str]:
        """The names that the guest takes."""
        return list(self.app_compose["allowed_envs"])

    @property
    def compose_hash(self) -> str:
        """Of the present app-compose, 32 bytes as hex."""
        return self.hash_with(self.allowed_envs)

    def hash_with(self, allowed_envs: Sequence[str]) -> str:
        """The compose hash that other names would give."""
        compose = {**self.app_compose, "allowed_envs": list(allowed_envs)}
        return compose_hash(compose, self._cloud.compose_form, normalised=self._cloud.compose_normalised)

    @property
    def sealed(self) -> str:
        """The envelope it was given last, as hex."""
        return self._sealed.hex()

    @property
    def environment(self) -> dict[str, str] | None:
        """What ``docker compose`` sees in the guest now; ``None`` when it did not boot."""
        with self._cloud.changed:
            self._settle()
            return None if self._environment is None else dict(self._environment)

    @property
    def boot_error(self) -> str | None:
        """Why the last boot failed."""
        with self._cloud.changed:
            self._settle()
            return self._boot_error

    @property
    def operations(self) -> list[Operation]:
        """All of them, oldest first."""
        with self._cloud.changed:
            self._settle()
            return list(self._operations)

    @property
    def operation(self) -> Operation | None:
        """The one in progress."""
        with self._cloud.changed:
            self._settle()
            return self._running_operation()

    @property
    def status(self) -> str:
        """``running``, ``restarting`` or ``exited``; just after an update still what it was before."""
        with self._cloud.changed:
            operation = self.operation
            return self._status if operation is None or self._is_stale(operation) else "restarting"

    @property
    def in_progress(self) -> bool:
        """Whether the API shows an operation; like the status it lags behind."""
        with self._cloud.changed:
            operation = self.operation
            return operation is not None and not self._is_stale(operation)

    @property
    def next_change(self) -> float | None:
        """When, of `time.monotonic`, it will look different by itself; ``None`` when it rests."""
        with self._cloud.changed:
            operation = self.operation
            if operation is None:
                return None
            return self._stale_until(operation) if self._is_stale(operation) else operation.ends

    def boot_fails(self, reason: str) -> None:
        """Make the next boot fail."""
        self._failure = reason

    def update(self, sealed: bytes, allowed_envs: Sequence[str]) -> Operation:
        """Take a new environment, and restart. The caller has seen to it that no operation runs."""
        with self._cloud.changed:
            now = time.monotonic()
            seconds = self._cloud.restart_seconds if self.restart_seconds is None else self.restart_seconds
            operation = Operation(str(uuid.uuid4()), now, now + seconds, self._cloud.now())
            self._sealed = sealed
            self.app_compose = {**self.app_compose, "allowed_envs": list(allowed_envs)}
            operation.compose_hash = self.compose_hash
            self._operations.append(operation)
            self._cloud.changed.notify_all()
            return operation

    def finish(self) -> None:
        """Bring the operation in progress to its end at once."""
        with self._cloud.changed:
            operation = self.operation
            if operation is not None:
                operation.ends = time.monotonic()
                self._settle()
                self._cloud.changed.notify_all()

    def wait(self, timeout: float = 10.0) -> Cvm:
        """Wait until no operation is in progress, at most ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        with self._cloud.changed:
            while (operation := self.operation) is not None:
                now = time.monotonic()
                if now >= deadline:
                    raise TimeoutError(f"{self.name} still restarts after {timeout} s")
                self._cloud.changed.wait(max(0.001, min(operation.ends, deadline) - now))
        return self

    def _running_operation(self) -> Operation | None:
        last = self._operations[-1] if self._operations else None
        return last if last is not None and last.status == "in_progress" else None

    def _stale_until(self, operation: Operation) -> float:
        return min(operation.begun + self._cloud.stale_seconds, operation.ends)

    def _is_stale(self, operation: Operation) -> bool:
        return time.monotonic() < self._stale_until(operation)

    def _settle(self) -> None:
        operation = self._running_operation()
        if operation is None or time.monotonic() < operation.ends:
            return
        self._boot()
        operation.completed_at = self._cloud.now()
        operation.error_message = self._boot_error
        operation.status = "completed" if self._boot_error is None else "failed"

    def _boot(self) -> None:
        self._environment = None
        self._boot_error, self._failure = self._failure, None
        if self._boot_error is None:
            key = self.kms.app_key(self.app_id)
            try:
                self._environment = boot(self._sealed, key, self.allowed_envs, systemd=self._cloud.systemd)
            except BootFailedError as error:
                self._boot_error = error.message
        if self._boot_error is None:
            self._status, self.exited_at, self.started = "running", None, time.monotonic()
        else:
            self._status, self.exited_at = "exited", self._cloud.now()
