"""What a CVM is doing, and what was done to it: states, operations, revisions, containers.

These are plain records, like those of ``records``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from phala_secrets.cloud import requests
from phala_secrets.cloud.fields import Fields
from phala_secrets.cloud.rows import rows

if TYPE_CHECKING:
    from phala_secrets.cloud.call import Call

_OPERATIONS = 20
"""Newest operations to search for this run's: no more begin while it runs."""

_REVISIONS = 100
"""Newest revisions of an app to search for those of one CVM: each CVM of a fleet makes its own."""

_CONTAINERS = 200
"""Maximum containers per CVM."""

_FAILED = ("failed", "error", "cancelled", "canceled", "timeout", "timed_out")


class State(NamedTuple):
    """What a CVM is doing now, as untrusted text of the guest and the API."""

    status: str
    boot_progress: str
    boot_error: str
    shutdown_progress: str


class Row(NamedTuple):
    """One CVM in the list of an app."""

    status: str
    in_progress: bool
    compose_hash: str


class Operation(NamedTuple):
    """An operation on a CVM. ``status`` ends as ``completed`` or ``failed``.

    ``started`` is in seconds since the epoch, or None if unknown. ``by`` is the user's name.
    """

    correlation_id: str
    status: str
    error: str
    kind: str = ""
    by: str = ""
    started: float | None = None
    compose_hash: str = ""

    @property
    def completed(self) -> bool:
        return self.status == "completed"

    @property
    def failed(self) -> bool:
        """Whether it ended in any other way."""
        return self.status in _FAILED

    @property
    def over(self) -> bool:
        return self.completed or self.failed


class Revision(NamedTuple):
    """An accepted change of a CVM. ``created`` is in seconds since the epoch, ``by`` the user's name."""

    id: str
    vm_uuid: str
    by: str
    created: float | None
    compose_hash: str


class Container(NamedTuple):
    """A container as docker describes it, in untrusted text (``Up 3 minutes (healthy)``)."""

    name: str
    state: str
    status: str


def state(cvm_id: str) -> Call[State]:
    """Request what a CVM is doing now."""
    return requests.state(cvm_id).read_by(_state)


def app_states(app_id: str) -> Call[dict[str, Row]]:
    """Request what each CVM of an app is doing now, by id."""
    return requests.app_cvms(app_id).read_by(lambda body: dict(_row(row) for row in rows(body)))


def start(cvm_id: str) -> Call[None]:
    """Start a CVM. Ignore the response: the operation appears among the others."""
    return requests.start(cvm_id).read_by(lambda _: None)


def operations(cvm_id: str) -> Call[tuple[Operation, ...]]:
    """Request a CVM's newest operations, newest first."""
    call = requests.operations(cvm_id, str(_OPERATIONS))
    return call.read_by(lambda body: tuple(_operation(row) for row in rows(body)[:_OPERATIONS]))


def revisions(app_id: str) -> Call[tuple[Revision, ...]]:
    """Request the newest revisions of an app's CVMs, newest first."""

    def read(body: Any) -> tuple[Revision, ...]:
        listed = Fields(body, "list of revisions").optional("revisions", list) or []
        return tuple(_revision(row) for row in listed[:_REVISIONS])

    return requests.revisions(app_id, str(_REVISIONS)).read_by(read)


def revision_ciphertext(app_id: str, revision_id: str) -> Call[str]:
    """Request the ciphertext of a revision as lower-case hex: empty if it has none."""

    def read(body: Any) -> str:
        text = Fields(body, "revision").all.get("encrypted_env")  # may be longer than any other field
        return text.lower().removeprefix("0x") if isinstance(text, str) else ""

    return requests.revision(app_id, revision_id).read_by(read)


def containers(cvm_id: str) -> Call[tuple[Container, ...] | None]:
    """Request the containers of a CVM: None if they are not visible."""
    return requests.containers(cvm_id).read_by(_containers)


def bare_uuid(text: str | None) -> str:
    """Return a UUID in lower case without dashes."""
    return (text or "").replace("-", "").lower()


def _state(body: Any) -> State:
    fields = Fields(body, "state of a CVM")
    words = map(fields.words, ("boot_progress", "boot_error", "shutdown_progress"))
    return State(fields.text("status"), *words)


def _row(body: Any) -> tuple[str, Row]:
    fields = Fields(body, "CVM")
    in_progress = bool(fields.optional("in_progress", bool))
    return fields.text("id"), Row(fields.text("status"), in_progress, _bare_hash(fields))


def _operation(body: Any) -> Operation:
    fields = Fields(body, "operation")
    return Operation(
        fields.identifier("correlation_id"),
        fields.text("status"),
        fields.words("error_message"),
        kind=fields.optional("operation_type", str) or "",
        by=fields.optional("triggered_by_username", str) or "",
        started=_moment(fields.optional("started_at", str)),
        compose_hash=_bare_hash(fields),
    )


def _revision(body: Any) -> Revision:
    fields = Fields(body, "revision")
    return Revision(
        fields.identifier("revision_id"),
        bare_uuid(fields.optional("vm_uuid", str)),
        by=fields.part("triggered_by").optional("username", str) or "",
        created=_moment(fields.optional("created_at", str)),
        compose_hash=_bare_hash(fields),
    )


def _containers(body: Any) -> tuple[Container, ...] | None:
    listed = Fields(body, "list of containers").optional("containers", list)
    return None if listed is None else tuple(_container(row) for row in listed[:_CONTAINERS])


def _container(body: Any) -> Container:
    fields = Fields(body, "container")
    names = [name for name in fields.optional("names", list) or [] if isinstance(name, str)]
    return Container(
        (names[0] if names else fields.optional("id", str) or "a container").removeprefix("/"),
        fields.optional("state", str) or "",
        fields.optional("status", str) or "",
    )


def _bare_hash(fields: Fields) -> str:
    return (fields.optional("compose_hash", str) or "").lower().removeprefix("0x")


def _moment(text: str | None) -> float | None:
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
