"""A confidential VM: its identity, its environment, and its restarts.

Nothing runs in the background: a CVM knows when its operation began and derives its present state from
that.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from phala_secrets.simulator.composefile import app_compose, compose_hash, measured
from phala_secrets.simulator.containers import Container, of_compose
from phala_secrets.simulator.failure import BootFailedError
from phala_secrets.simulator.firmware import Boot, Firmware
from phala_secrets.simulator.generations import OS_VERSIONS
from phala_secrets.simulator.guest import Started, seal, start
from phala_secrets.simulator.identity import Device, Identity, Plan
from phala_secrets.simulator.operation import Effect, Operation, Pending, Revision
from phala_secrets.simulator.prelaunch import Launch

if TYPE_CHECKING:
    from phala_secrets.simulator.kms import Kms
    from phala_secrets.simulator.world import World

GATEWAY = "gateway.invalid"
_USER = "simulator"


@dataclass(slots=True)
class _Shown:
    """The state that the last boot or its replacement left behind."""

    status: str
    boot_error: str | None = None
    started: Started | None = None
    since: float = 0.0
    exited_at: datetime | None = None


class Cvm:
    """One CVM of a cloud, from `Cloud.add_cvm`. A test may change any attribute without an underscore."""

    def __init__(self, world: World, kms: Kms, identity: Identity, plan: Plan) -> None:
        self.kms = kms
        self.identity = identity
        self.app_compose = app_compose(identity.name, plan.docker_compose_file, plan.allowed_envs, plan.more)
        self.os_version = plan.os_version
        """``os.version``: one of `OS_VERSIONS`. An unknown one behaves like the newest."""
        self.devices = [Device(identity.device_id)]
        self.restart_seconds: float | None = None
        """Duration of an update. None for the cloud's."""
        self.required: list[str] = []
        """Variables without which the app fails and the CVM shows ``error``."""
        self.logins_fail = False
        """Whether registries refuse the credentials of the pre-launch script."""
        self.containers: list[Container] | None = of_compose(plan.docker_compose_file)
        """The containers in ``/composition`` while the CVM runs. None if they are not visible."""
        self.looks: deque[list[Container] | None] = deque()
        """The results of the next requests to ``/composition``, one each, before ``containers``."""
        self.deployer_type = "eoa"
        """The kind of owner on chain: ``eoa``, ``safe``, …"""
        self.pending: dict[str, Pending] = {}
        """The updates that wait for an approval, by compose hash."""
        self.firmware = Firmware()
        self.boots: list[Boot] = []
        """The successful boots, oldest first."""
        self._world = world
        self._operations: list[Operation] = []
        self._revisions: list[Revision] = []
        self._sealed = seal(plan.environment, kms.app_key(identity.app_id).public_key())
        self._failure: str | None = None
        self._shown = self._boot(world.clock.monotonic(), world.now())
        self._record("deploy", _USER)

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
        """The id of its first machine, 32 bytes in hex."""
        return self.devices[0].device_id

    @property
    def allowed_envs(self) -> list[str]:
        """The names that the guest takes."""
        return list(self.app_compose["allowed_envs"])

    @property
    def measured(self) -> str:
        """The app-compose whose bytes the guest measures."""
        world = self._world
        return measured(self.app_compose, world.compose_form, normalised=world.compose_normalised)

    @property
    def compose_hash(self) -> str:
        """SHA-256 of the measured app-compose, as hex."""
        return self.hash_with(self.allowed_envs)

    def hash_with(self, allowed_envs: Sequence[str], **changes: Any) -> str:
        """Return the compose hash that other names, and ``changes`` of the app-compose, would make."""
        compose = {**self.app_compose, **changes, "allowed_envs": list(allowed_envs)}
        return compose_hash(compose, self._world.compose_form, normalised=self._world.compose_normalised)

    @property
    def sealed(self) -> str:
        """The last envelope, in hex."""
        return self._sealed.hex()

    @property
    def environment(self) -> dict[str, str] | None:
        """The environment of ``docker compose`` in the guest. None if it does not run."""
        started = self._look().started
        return None if started is None else dict(started.environment)

    @property
    def decrypted_json(self) -> str | None:
        """The text of ``.decrypted-env.json`` in the guest. None if it does not run."""
        started = self._look().started
        return None if started is None else started.decrypted_json

    @property
    def boot_error(self) -> str | None:
        """Why the last boot failed."""
        return self._look().boot_error

    @property
    def exited_at(self) -> datetime | None:
        """The time since which it has not run."""
        return self._look().exited_at

    @property
    def uptime(self) -> float:
        """Seconds since the last boot."""
        return self._world.clock.monotonic() - self._look().since

    @property
    def operations(self) -> list[Operation]:
        """All operations, oldest first."""
        with self._world.changed:
            self._settle()
            return list(self._operations)

    @property
    def operation(self) -> Operation | None:
        """The operation in progress."""
        with self._world.changed:
            self._settle()
            return self._running_operation()

    @property
    def revisions(self) -> list[Revision]:
        """The accepted changes, oldest first."""
        return list(self._revisions)

    @property
    def status(self) -> str:
        """``running``, ``restarting``, ``starting``, ``stopped``, ``error``, …

        Just after an operation began it is still the old one.
        """
        with self._world.changed:
            operation = self.operation
            if operation is None:
                return self._shown.status
            return operation.before if self._is_stale(operation) else operation.shown

    @property
    def in_progress(self) -> bool:
        """Whether the API shows an operation. It may lag behind as the status does, but not an ``error``."""
        with self._world.changed:
            operation = self.operation
            if operation is None or not self._is_stale(operation):
                return operation is not None
            return operation.before == "error" or not self._world.progress_lags

    @property
    def is_online(self) -> bool:
        """Whether its guest is reachable."""
        with self._world.changed:
            return self.operation is None and self._shown.status == "running"

    @property
    def next_change(self) -> float | None:
        """When its state changes next, in the clock's `monotonic`. None if it is at rest."""
        with self._world.changed:
            operation = self.operation
            if operation is None:
                return None
            return self._stale_until(operation) if self._is_stale(operation) else operation.ends

    def look_at_containers(self) -> list[Container] | None:
        """Return the containers for one request."""
        with self._world.changed:
            return self.looks.popleft() if self.looks else self.containers

    def boot_fails(self, reason: str) -> None:
        """Make the next boot fail."""
        self._failure = reason

    def fail(self, reason: str) -> None:
        """Put it into ``error`` until the next boot, with ``reason`` as the ``boot_error``."""
        self._rest("error", reason)

    def stop(self) -> None:
        """Stop it."""
        self._rest("stopped", None)

    def lose_environment(self) -> None:
        """Drop the ciphertext, as in a CVM deployed without one, and boot again at once."""
        with self._world.changed:
            self._sealed = b""
            self._shown = self._boot(self._world.clock.monotonic(), self._world.now())
            self._world.changed.notify_all()

    def update(self, sealed: bytes, allowed_envs: Sequence[str]) -> Operation:
        """Take a new environment and restart. The caller ensures that no operation runs."""
        return self.change({"allowed_envs": list(allowed_envs)}, sealed, "update_envs")

    def change(self, changes: Mapping[str, Any], sealed: bytes | None, operation_type: str) -> Operation:
        """Take ``changes`` of the app-compose and a new environment, if any. Restart once.

        The caller ensures that no operation runs.
        """
        with self._world.changed:
            if sealed is not None:
                self._sealed = sealed
            if (
                changes.get("docker_compose_file", self.app_compose["docker_compose_file"])
                != (self.app_compose["docker_compose_file"])
            ):
                self.containers = of_compose(changes["docker_compose_file"])
            self.app_compose = {**self.app_compose, **changes}
            stays = self.status == "stopped" and not self._world.update_starts_stopped
            operation = self.begin_operation(operation_type, effect="stop" if stays else "boot")
            self._record("update", operation.triggered_by)
            return operation

    def begin_operation(
        self,
        operation_type: str,
        seconds: float | None = None,
        *,
        by: str = _USER,
        effect: Effect = "boot",
        changes: Mapping[str, Any] | None = None,
    ) -> Operation:
        """Begin an operation of any type, which blocks others for ``seconds``.

        ``by`` is the user, ``effect`` the effect of its end on the guest, and ``changes`` are new fields of
        the app-compose. ``seconds`` defaults to the duration of an update.
        """
        with self._world.changed:
            if self.operation is not None:
                raise RuntimeError(f"{self.name} already has an operation")
            if seconds is None:
                seconds = (
                    self._world.restart_seconds if self.restart_seconds is None else self.restart_seconds
                )
            now = self._world.clock.monotonic()
            shown = {"start": "starting", "stop": "stopping"}.get(operation_type, "restarting")
            operation = Operation(
                correlation_id=str(uuid.uuid4()),
                operation_type=operation_type,
                triggered_by=by,
                begun=now,
                ends=now + seconds,
                started_at=self._world.now(),
                before=self._shown.status,
                shown="stopped" if self._shown.status == "stopped" and effect == "stop" else shown,
                effect=effect,
            )
            if changes:
                self.app_compose = {**self.app_compose, **changes}
                self._record(operation_type, by)
            operation.compose_hash = self.compose_hash
            self._operations.append(operation)
            self._world.changed.notify_all()
            return operation

    def finish(self) -> None:
        """End the operation in progress at once."""
        with self._world.changed:
            operation = self.operation
            if operation is not None:
                operation.ends = self._world.clock.monotonic()
                self._settle()
                self._world.changed.notify_all()

    def wait(self, timeout: float = 10.0) -> Cvm:
        """Let time pass until no operation is in progress, at most ``timeout`` seconds."""
        clock = self._world.clock
        deadline = clock.monotonic() + timeout
        while (operation := self.operation) is not None:
            now = clock.monotonic()
            if now >= deadline:
                raise TimeoutError(f"{self.name} still restarts after {timeout} s")
            clock.sleep(max(0.0, min(operation.ends, deadline) - now))
        return self

    def _look(self) -> _Shown:
        with self._world.changed:
            self._settle()
            return self._shown

    def _rest(self, status: str, boot_error: str | None) -> None:
        with self._world.changed:
            self.finish()
            self._shown = _Shown(status, boot_error, exited_at=self._world.now())
            self._world.changed.notify_all()

    def _running_operation(self) -> Operation | None:
        last = self._operations[-1] if self._operations else None
        return last if last is not None and last.status == "in_progress" else None

    def _stale_until(self, operation: Operation) -> float:
        return min(operation.begun + self._world.stale_seconds, operation.ends)

    def _is_stale(self, operation: Operation) -> bool:
        return self._world.clock.monotonic() < self._stale_until(operation)

    def _settle(self) -> None:
        """Apply an operation that has ended, as of its end."""
        operation = self._running_operation()
        if operation is None or self._world.clock.monotonic() < operation.ends:
            return
        ended_at = operation.started_at + timedelta(seconds=operation.ends - operation.begun)
        if operation.effect == "boot":
            self._shown = self._boot(operation.ends, ended_at)
            operation.error_message = self._shown.boot_error
        elif operation.effect == "stop":
            self._shown = _Shown("stopped", exited_at=self._shown.exited_at or ended_at)
        operation.completed_at = ended_at
        operation.status = "completed" if operation.error_message is None else "failed"

    def _boot(self, moment: float, date: datetime) -> _Shown:
        reason, self._failure = self._failure, None
        if reason is not None:
            return _Shown(self._world.failed_status, reason, exited_at=date)
        generation = OS_VERSIONS.get(self.os_version) or list(OS_VERSIONS.values())[-1]
        launch = Launch(
            script=str(self.app_compose.get("pre_launch_script") or ""),
            docker_compose_file=str(self.app_compose.get("docker_compose_file") or ""),
            app_id=self.app_id,
            gateway=GATEWAY,
            logins_fail=self.logins_fail,
        )
        key = self.kms.app_key(self.app_id)
        try:
            started = start(self._sealed, key, self.allowed_envs, generation=generation, launch=launch)
        except BootFailedError as error:
            return _Shown(self._world.failed_status, error.message, exited_at=date)
        missing = [name for name in self.required if not started.environment.get(name)]
        if missing:
            reason = f"required variable {missing[0]} is missing a value"
            return _Shown("error", reason, exited_at=date)
        self.boots.append(Boot(moment, self.compose_hash, len(self.boots)))
        return _Shown("running", started=started, since=moment)

    def _record(self, operation_type: str, by: str) -> None:
        revision = Revision(
            revision_id=uuid.uuid4().hex[:12],
            operation_type=operation_type,
            triggered_by=by,
            created_at=self._world.now(),
            compose_hash=self.compose_hash,
            app_compose=dict(self.app_compose),
            measured=self.measured,
            encrypted_env=self.sealed,
        )
        self._revisions.append(revision)
