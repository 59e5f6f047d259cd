"""What a guest runs below the app, and what is kept of its boots."""

from __future__ import annotations

from dataclasses import dataclass, field

AppEvent = tuple[str, bytes]
"""Name and payload of an event in RTMR3."""


@dataclass(slots=True)
class Boot:
    """One boot: when it was (of the clock's `monotonic`), what was measured, and its fresh key."""

    moment: float
    compose_hash: str
    number: int


@dataclass(slots=True)
class Firmware:
    """What a guest runs below the app. What makes no difference to an honest boot is a test's to change."""

    os: str = ""
    """What MRTD, RTMR1 and RTMR2 are made of; empty for dstack's own image of the CVM's version."""
    debug: bool = False
    early_events: list[AppEvent] = field(default_factory=list)
    """Events before ``system-ready``, as an OS of somebody's own may write them."""
    app_events: list[AppEvent] = field(default_factory=list)
    """Events behind ``system-ready``: those of the app."""
    claims: dict[str, bytes] = field(default_factory=dict)
    """Payloads that replace dstack's own, by event, as an OS of somebody's own may write them."""
