"""The settings of a simulated Phala Cloud, its clock, and the lock over its state.

A CVM and a stream see this much of their cloud. A fact without a source is *inferred*: it has a
setting, and its test runs under each value.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from phala_secrets.simulator.clock import Clock, SystemClock

if TYPE_CHECKING:
    from phala_secrets.simulator.composefile import Form, Order


@dataclass(slots=True)
class RateLimit:
    """A bucket of ``burst`` requests that fills up by ``per_second``; then 429.

    ``retry_after`` is whether the response has a ``Retry-After`` in whole seconds.
    """

    per_second: float
    burst: int = 1
    retry_after: bool = True


class World:
    """The settings. Every attribute may be changed at any time; `changed` guards those that move."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.changed = threading.Condition(threading.RLock())
        """Held while state is read or changed. Notified when a CVM changes."""
        self.clock_offset = 0.0
        """Seconds by which the service's clock is ahead: in ``Date``, and in what its KMSes sign."""

        # Updates and restarts.
        self.restart_seconds = 0.3
        """How long an update takes."""
        self.stale_seconds = 0.1
        """How long a CVM still shows its old status after an operation began."""
        self.progress_lags = True
        """Whether ``in_progress`` lags behind as an old ``running`` does (*inferred*).

        It never lags behind an old ``error``: that shows beside ``in_progress: true``.
        """
        self.update_starts_stopped = True
        """Whether an update starts a stopped CVM (*inferred*)."""
        self.failed_status = "exited"
        """What a CVM shows whose boot failed (*inferred*); one that lacks its secrets shows ``error``."""

        # The app-compose.
        self.allowed_envs_order: Order = "sent"
        """How an update orders names (*inferred*): as ``sent``, as ``kept`` from before, or ``sorted``."""
        self.compose_form: Form = "compact"
        self.compose_normalised = False
        """Whether what is empty is left out of the measured document; the service leaves nothing out."""
        self.compose_file_has_defaults = False
        """Whether ``/compose_file`` shows defaults that the measured document lacks."""
        self.attestation_compose_file = True
        """Whether ``/attestation`` has the measured document; otherwise it is null."""
        self.takes_empty_env = False
        """Whether ``/envs`` takes an empty ``encrypted_env`` (*inferred*)."""

        # Approvals.
        self.flat_preconditions = False
        """Whether a 465 has the older form, without ``details``."""
        self.approval_seconds = 14 * 86_400.0
        """How long a compose hash waits for its approval."""
        self.already_registered = True
        """Whether ``/envs`` takes ``already-registered`` for a transaction (*inferred*); otherwise 467."""
        self.commit_tokens_unasked = True
        """Whether a 465 of ``PATCH /cvms/{id}`` has a commit token unasked (*inferred*)."""
        self.every_device_checked = True
        """Whether an approval needs every enabled device allowed (*inferred*); otherwise one is enough."""
        self.rpc_urls: dict[int, str] = {}
        """JSON-RPC endpoints by chain id, on loopback: approvals on these chains are looked up there."""
        self.approved_transactions: set[str] = set()
        """Transaction hashes that are good, on chains without an RPC."""
        self.approved_hashes: set[str] = set()
        """Compose hashes that are allowed, on chains without an RPC."""
        self.approved_devices: set[str] | None = None
        """Device ids that are allowed, on chains without an RPC; ``None`` allows any."""

        # Keys.
        self.contract_serves_keys = False
        """Whether a contract's slug or id serves keys as its nodes do (*inferred*); otherwise 404."""
        self.v1_signatures = False
        """Whether keys come with a ``timestamp`` and a ``signature_v1``."""

        # Attestation.
        self.attests_after = 0.0
        """Seconds after a boot during which the evidence is still that of the boot before."""

        # Limits of the service.
        self.rate_limit: RateLimit | None = None
        self.streams = True
        """Whether the state of a CVM can be streamed."""
        self.max_streams = 5
        """Streams a user may have open."""
        self.max_body = 16 * 1024 * 1024
        """Bytes that a request may have."""

    def now(self) -> datetime:
        """Return the service's date and time."""
        return datetime.fromtimestamp(self.clock.time(), UTC) + timedelta(seconds=self.clock_offset)
