"""The changes of a CVM: an update that waits for approval, an operation, an accepted revision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

Effect = Literal["boot", "stop", "none"]


@dataclass(frozen=True, slots=True)
class Pending:
    """An update that waits for its compose hash to be registered.

    ``changes`` are of the app-compose; ``sealed`` is the new environment, ``None`` where it stays.
    """

    changes: Mapping[str, Any]
    sealed: bytes | None = field(repr=False)
    expires: datetime


@dataclass(slots=True)
class Operation:
    """One operation; ``begun`` and ``ends`` are of the clock's `monotonic`.

    ``before`` is the status that still shows for a while, and ``shown`` the one that shows then.
    ``effect`` is what its end does to the guest.
    """

    correlation_id: str
    operation_type: str
    triggered_by: str
    begun: float
    ends: float
    started_at: datetime
    before: str
    shown: str = "restarting"
    effect: Effect = "boot"
    completed_at: datetime | None = None
    status: str = "in_progress"
    error_message: str | None = None
    compose_hash: str | None = None

    @property
    def target(self) -> str:
        """The status at its end."""
        return "running" if self.effect == "boot" else "stopped"


@dataclass(frozen=True, slots=True)
class Revision:
    """An accepted change of a CVM. It need not run yet."""

    revision_id: str
    operation_type: str
    triggered_by: str
    created_at: datetime
    compose_hash: str
    app_compose: dict[str, Any] = field(repr=False)
    measured: str = field(repr=False)
    """The measured document, as text."""
    encrypted_env: str = field(repr=False)
    """Hex."""
