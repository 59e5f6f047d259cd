"""A guest's measurements while it boots, and the quote of its agent.

It follows dstack's ``cc-eventlog`` and ``dstack-util``: the order of the events, and how each extends a
register.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from phala_secrets.simulator.tee import Measured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phala_secrets.simulator.cvm import Cvm
    from phala_secrets.simulator.firmware import AppEvent, Boot
    from phala_secrets.simulator.tee import Tee

_RUNTIME = 0x08000001


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence from the guest's agent: a quote, its log, and the registers (hex)."""

    quote: bytes
    event_log: list[dict[str, Any]]
    mrtd: str
    rtmrs: tuple[str, str, str, str]


def evidence(tee: Tee, cvm: Cvm, boot: Boot) -> Evidence:
    """Return the evidence of one boot of a CVM."""
    log = [*_firmware_events(cvm), *_runtime_events(cvm, boot)]
    registers = [_replayed(log, number) for number in range(4)]
    mrtd = hashlib.sha384(b"mrtd " + os_of(cvm).encode()).digest()
    key = f"certificate {cvm.identity.instance_id} {boot.number}".encode()
    measured = Measured(
        mrtd=mrtd,
        rtmrs=(registers[0], registers[1], registers[2], registers[3]),
        report_data=hashlib.sha512(b"ratls-cert:" + key).digest(),
        debug=cvm.firmware.debug,
    )
    hexed = [register.hex() for register in registers]
    return Evidence(tee.quote(measured), log, mrtd.hex(), (hexed[0], hexed[1], hexed[2], hexed[3]))


def os_measurements(cvm: Cvm) -> str:
    """Return the SHA-256 of MRTD ‖ RTMR1 ‖ RTMR2, in hex."""
    log = _firmware_events(cvm)
    mrtd = hashlib.sha384(b"mrtd " + os_of(cvm).encode()).digest()
    return hashlib.sha256(mrtd + _replayed(log, 1) + _replayed(log, 2)).hexdigest()


def os_of(cvm: Cvm) -> str:
    """Return the name of the guest's image."""
    return cvm.firmware.os or f"dstack {cvm.os_version}"


def _firmware_events(cvm: Cvm) -> list[dict[str, Any]]:
    """Return the events of RTMR0 (virtual hardware), RTMR1 (kernel) and RTMR2 (command line, initrd)."""
    image = os_of(cvm)
    return [
        _measured(0, 0x8000000B, "hardware 1 vCPU 2048 MiB"),
        _measured(1, 0x80000003, f"kernel {image}"),
        _measured(1, 4, "separator"),
        _measured(2, 6, f"command line {image}"),
        _measured(2, 6, f"initrd {image}"),
    ]


def _runtime_events(cvm: Cvm, boot: Boot) -> list[dict[str, Any]]:
    provider = {"name": "kms", "id": cvm.kms.ca_public_key}
    own: Sequence[AppEvent] = [
        ("system-preparing", b""),
        ("app-id", bytes.fromhex(cvm.app_id)),
        ("compose-hash", bytes.fromhex(boot.compose_hash)),
        ("instance-id", bytes.fromhex(cvm.instance_id)),
        ("boot-mr-done", b""),
        ("os-image-hash", hashlib.sha256(os_of(cvm).encode()).digest()),
        ("key-provider", json.dumps(provider, separators=(",", ":")).encode()),
        ("storage-fs", b"zfs"),
    ]
    firmware = cvm.firmware
    rows = [
        *((name, firmware.claims.get(name, payload)) for name, payload in own),
        *firmware.early_events,
        ("system-ready", b""),
        *firmware.app_events,
    ]
    return [runtime_event(name, payload) for name, payload in rows]


def runtime_event(name: str, payload: bytes) -> dict[str, Any]:
    """Return an event of RTMR3 as the log has it."""
    kind = _RUNTIME.to_bytes(4, "little")
    digest = hashlib.sha384(b":".join((kind, name.encode(), payload))).hexdigest()
    return {
        "imr": 3,
        "event_type": _RUNTIME,
        "digest": digest,
        "event": name,
        "event_payload": payload.hex(),
    }


def _measured(register: int, kind: int, what: str) -> dict[str, Any]:
    digest = hashlib.sha384(what.encode()).hexdigest()
    payload = what.encode().hex()
    return {"imr": register, "event_type": kind, "digest": digest, "event": "", "event_payload": payload}


def _replayed(log: list[dict[str, Any]], register: int) -> bytes:
    value = bytes(48)
    for row in log:
        if row["imr"] == register:
            value = hashlib.sha384(value + bytes.fromhex(row["digest"])).digest()
    return value
