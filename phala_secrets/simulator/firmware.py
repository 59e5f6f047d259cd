"""The software of a guest below the app, and the record of its boots."""

from __future__ import annotations

from dataclasses import dataclass, field

AppEvent = tuple[str, bytes]
"""Name and payload of an event in RTMR3."""


@dataclass(slots=True)
class Boot:
    """One boot: its time (the clock's `monotonic`), its compose hash, and its number."""

    moment: float
    compose_hash: str
    number: int


@dataclass(slots=True)
class Firmware:
    """The software of a guest below the app. A test may change it."""

    os: str = ""
    """The source of MRTD, RTMR1 and RTMR2. Empty for dstack's own image of the CVM's version."""
    debug: bool = False
    early_events: list[AppEvent] = field(default_factory=list)
    """Events before ``system-ready``, as a foreign OS may write them."""
    app_events: list[AppEvent] = field(default_factory=list)
    """Events after ``system-ready``, which the app writes."""
    claims: dict[str, bytes] = field(default_factory=dict)
    """Payloads that replace dstack's own, by event, as a foreign OS may write them."""
