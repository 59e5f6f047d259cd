"""The evidence of a CVM in responses."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from phala_secrets.simulator.formats import made_up, stamp
from phala_secrets.simulator.measured_boot import Evidence, evidence

if TYPE_CHECKING:
    from phala_secrets.simulator.cloud import Cloud
    from phala_secrets.simulator.cvm import Cvm


def attestation(cloud: Cloud, cvm: Cvm) -> dict[str, Any]:
    """Return the body of ``GET /cvms/{id}/attestation``. Non-public parts are null."""
    online = cvm.is_online
    measured = cvm.measured if online and cloud.attestation_compose_file else None
    public = bool(cvm.app_compose["public_tcbinfo"])
    shown = _shown(cloud, cvm) if measured is not None and public else None
    return {
        "is_online": online,
        "is_public": public,
        "error": None if online else "The CVM is not online",
        "name": cvm.name,
        "app_certificates": [_certificate(cloud, cvm, shown)] if shown else None,
        "tcb_info": _tcb_info(shown, measured) if shown else None,
        "compose_file": measured,
    }


def attestations(cloud: Cloud, cvms: list[Cvm]) -> dict[str, Any]:
    """Return the body of ``GET /apps/{app}/attestations`` for running CVMs, without the KMS's own guest."""
    first = cvms[0]
    found = [(cvm, _shown(cloud, cvm)) for cvm in cvms if cvm.is_online and cvm.app_compose["public_tcbinfo"]]
    return {
        "app_id": first.app_id,
        "contract_address": f"0x{first.app_id}" if first.kms.is_on_chain else None,
        "kms_info": {"slug": first.kms.slug, "version": first.kms.version},
        "instances": [
            {
                "quote": shown.quote.hex(),
                "eventlog": json.dumps(shown.event_log, separators=(",", ":")),
                "image_version": f"dstack-{cvm.os_version}",
            }
            for cvm, shown in found
            if shown
        ],
        "kms_guest_agent_info": None,
        "gateway_guest_agent_info": None,
    }


def _shown(cloud: Cloud, cvm: Cvm) -> Evidence | None:
    """Return the evidence of the newest boot that has had time to attest."""
    by_now = cloud.clock.monotonic() - cloud.attests_after
    ready = [boot for boot in cvm.boots if boot.moment <= by_now or boot.number == 0]
    return evidence(cloud.tee, cvm, ready[-1]) if ready else None


def _certificate(cloud: Cloud, cvm: Cvm, shown: Evidence) -> dict[str, Any]:
    since = cloud.now() - timedelta(seconds=cvm.uptime)
    return {
        "subject": {"common_name": cvm.app_id},
        "issuer": {"common_name": f"Dstack App CA {cvm.kms.slug}"},
        "serial_number": made_up("certificate", cvm.id, 16),
        "not_before": stamp(since),
        "not_after": stamp(since + timedelta(days=3650)),
        "version": "v3",
        "fingerprint": made_up("fingerprint", cvm.id, 32),
        "signature_algorithm": "ecdsa-with-SHA256",
        "sans": None,
        "is_ca": False,
        "position_in_chain": 0,
        "quote": shown.quote.hex(),
        "app_id": cvm.app_id,
        "cert_usage": None,
    }


def _tcb_info(shown: Evidence, measured: str | None) -> dict[str, Any]:
    return {
        "mrtd": shown.mrtd,
        "rootfs_hash": None,
        **{f"rtmr{number}": register for number, register in enumerate(shown.rtmrs)},
        "event_log": shown.event_log,
        "app_compose": measured or "",
    }
