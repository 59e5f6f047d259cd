"""The event log of a dstack guest, which explains RTMR3.

The guest extends RTMR3 with one digest per event::

    rtmr   = SHA-384(rtmr ‖ digest), from 48 zero bytes
    digest = SHA-384(event type (4, little-endian) ‖ ":" ‖ event ‖ ":" ‖ payload)

(dstack, ``cc-eventlog``.) A log is untrusted until it replays to the RTMR3 of a verified quote. Even
then the guest's software wrote it, so it counts only if the OS is accepted.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from phala_secrets.dstack.nested import loads
from phala_secrets.errors import EvidenceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RUNTIME_EVENT = 0x08000001
"""The type of all events that dstack writes into RTMR3 (``DSTACK_RUNTIME_EVENT_TYPE``)."""

RTMR3 = 3
READY = "system-ready"
"""The event after which the app runs. From then on its code can add events of any name."""

MAX_EVENTS = 4_096
"""Events per log: a boot writes about thirty, and an app adds a few."""

MAX_NAME = 1_024
MAX_PAYLOAD = 65_536
"""Bytes of an event's payload: the largest of a boot is a UEFI variable with a few thousand."""

MAX_LOG = 4 * 1024 * 1024
"""Characters of a log that comes as JSON text."""

_HEX = re.compile(r"(?:[0-9a-fA-F]{2})*")
_DIGEST = re.compile(r"(?:[0-9a-fA-F]{96})?")
_REPORT = "do not trust this evidence: it was changed or truncated"


class Event(NamedTuple):
    """One event. ``digest`` is the log's own (48 bytes), or empty if the log leaves it out."""

    register: int
    kind: int
    digest: bytes
    name: str
    payload: bytes

    def recomputed(self) -> bytes:
        """Return the digest of the event's content."""
        message = self.kind.to_bytes(4, "little") + b":" + self.name.encode() + b":" + self.payload
        return hashlib.sha384(message).digest()


def parse_event_log(log: Any) -> tuple[Event, ...]:
    """Return the events of a log, from a list parsed from JSON or from JSON text.

    Raises:
        EvidenceError: the log is missing, malformed or too large. The message names the event.
    """
    if isinstance(log, str):
        log = _parsed(log)
    if log is None:
        raise EvidenceError("the evidence has no event log", hint="set public_tcbinfo of the app to true")
    if not isinstance(log, list):
        raise EvidenceError("the event log is not a list", hint=_REPORT)
    if not log:
        raise EvidenceError("the event log is empty", hint="set public_tcbinfo of the app to true")
    if len(log) > MAX_EVENTS:
        raise EvidenceError(f"the event log has over {MAX_EVENTS} events", hint=_REPORT)
    return tuple(_event(row, number) for number, row in enumerate(log, 1))


def replay(events: Iterable[Event]) -> bytes:
    """Return the RTMR3 that the events produce, with each digest recomputed from its event.

    Raises:
        EvidenceError: a digest in the log does not match its event.
    """
    register = bytes(48)
    for number, event in enumerate((one for one in events if one.register == RTMR3), 1):
        digest = event.recomputed()
        if event.digest and event.digest != digest:
            raise EvidenceError(
                f"the event log: the digest of RTMR3 event {number} ({event.name[:60]!a}) does not match it",
                hint=_REPORT,
            )
        register = hashlib.sha384(register + digest).digest()
    return register


class Claims:
    """The claims of a guest while it booted: payloads by event name, only from before ``system-ready``.

    Raises:
        EvidenceError: the log has no ``system-ready``, so the app's own events may begin anywhere.
    """

    def __init__(self, events: Sequence[Event]) -> None:
        self._found: dict[str, list[bytes]] = {}
        for event in events:
            if event.register != RTMR3 or event.kind != RUNTIME_EVENT:
                continue
            if event.name == READY:
                return
            self._found.setdefault(event.name, []).append(event.payload)
        raise EvidenceError(
            f"the event log has no {READY}: it is truncated, or the guest has not booted", hint=_REPORT
        )

    def one(self, name: str) -> bytes:
        """Return the payload of the claim with this name.

        Raises:
            EvidenceError: the claim is missing or appears more than once.
        """
        found = self._found.get(name, [])
        if not found:
            raise EvidenceError(f"the event log has no {name} before {READY}", hint=_REPORT)
        if len(found) > 1:
            raise EvidenceError(f"the event log has {len(found)} {name} events before {READY}", hint=_REPORT)
        return found[0]

    def optional(self, name: str) -> bytes | None:
        """Return the payload of the claim with this name, or None. Raise EvidenceError for two claims."""
        return self.one(name) if name in self._found else None


def _parsed(text: str) -> Any:
    if len(text) > MAX_LOG:
        raise EvidenceError(f"the event log is over {MAX_LOG >> 20} MiB", hint=_REPORT)
    try:
        return loads(text)
    except ValueError:
        raise EvidenceError("the event log is not JSON", hint=_REPORT) from None


def _event(row: Any, number: int) -> Event:
    if not isinstance(row, dict):
        raise _malformed(number, "is not an object")
    register, kind = row.get("imr"), row.get("event_type")
    if type(register) is not int or not 0 <= register <= RTMR3:
        raise _malformed(number, "has an invalid imr: it must be 0 to 3")
    if type(kind) is not int or not 0 <= kind < 2**32:
        raise _malformed(number, "has an event_type that is not a 32-bit number")
    digest, name, payload = row.get("digest"), row.get("event"), row.get("event_payload")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise _malformed(number, "has a digest that is not 48 bytes of hex")
    if not isinstance(name, str) or len(name) > MAX_NAME or not _encodable(name):
        raise _malformed(number, "has an invalid name or one that is too long")
    if not isinstance(payload, str) or len(payload) > 2 * MAX_PAYLOAD or not _HEX.fullmatch(payload):
        raise _malformed(number, "has a payload that is not hex or is too long")
    return Event(register, kind, bytes.fromhex(digest), name, bytes.fromhex(payload))


def _encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _malformed(number: int, what: str) -> EvidenceError:
    return EvidenceError(f"the event log: event {number} {what}", hint=_REPORT)
