"""Evidence of a simulated CVM, and the many ways in which it can be wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from phala_secrets.dstack.kms_record import bound
from phala_secrets.dstack.quote import parse_quote
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.measured_boot import evidence, os_measurements, runtime_event
from phala_secrets.simulator.tee import Measured

FOREIGN_CA = "3059301306072a8648ce3d020106082a8648ce3d03010703420004" + "11" * 64
APP_ID = "a1" * 20

Answer = dict[str, Any]


@dataclass(frozen=True)
class Sabotage:
    """One lie: about what the guest is, about the platform, or in the API's response.

    ``reason`` is a regular expression for what the broken link says, ``link`` its name.
    """

    link: str
    reason: str
    guest: Callable[[Cloud, Cvm], None] | None = None
    answer: Callable[[Cloud, Cvm, Answer], None] | None = None

    def commit(self, cloud: Cloud, cvm: Cvm) -> None:
        """Lie from now on."""
        if self.guest:
            self.guest(cloud, cvm)
        if self.answer:
            lie = self.answer
            before = cloud.tamper

            def tamper(request: Any, answer: Any) -> Any:
                answer = before(request, answer)
                if request.path.endswith("/attestations"):
                    answer.body = {**answer.body, "instances": []}
                if request.path.endswith("/attestation") and answer.body.get("app_certificates"):
                    answer.body = copy.deepcopy(answer.body)
                    lie(cloud, cvm, answer.body)
                return answer

            cloud.tamper = tamper


def _other(cloud: Cloud, cvm: Cvm, answer: Answer, **of: Any) -> None:
    """The whole evidence of another CVM, genuine as it is."""
    other = cloud.add_cvm("other", **of)
    shown = evidence(cloud.tee, other, other.boots[-1])
    answer["app_certificates"][0]["quote"] = shown.quote.hex()
    answer["tcb_info"]["event_log"] = shown.event_log


def _quote_alone(cloud: Cloud, cvm: Cvm, answer: Answer) -> None:
    log = answer["tcb_info"]["event_log"]
    _other(cloud, cvm, answer)
    answer["tcb_info"]["event_log"] = log


def _flip(position: int) -> Callable[[Cloud, Cvm, Answer], None]:
    def flip(cloud: Cloud, cvm: Cvm, answer: Answer) -> None:
        quote = bytearray.fromhex(answer["app_certificates"][0]["quote"])
        quote[position] ^= 1
        answer["app_certificates"][0]["quote"] = quote.hex()

    return flip


def _log(change: Callable[[list[Answer]], Any]) -> Callable[[Cloud, Cvm, Answer], None]:
    def changed(cloud: Cloud, cvm: Cvm, answer: Answer) -> None:
        answer["tcb_info"]["event_log"] = change(answer["tcb_info"]["event_log"])

    return changed


def _payload(log: list[Answer]) -> list[Answer]:
    (row,) = (row for row in log if row["event"] == "compose-hash")
    row["event_payload"] = "ee" * 32
    return log


def _payload_and_digest(log: list[Answer]) -> list[Answer]:
    return [
        runtime_event("compose-hash", b"\xee" * 32) if row["event"] == "compose-hash" else row for row in log
    ]


def _bare(log: list[Answer]) -> list[Answer]:
    return [{**row, "digest": ""} for row in _payload_and_digest(log)]


def _rtmr0_in_place(log: list[Answer]) -> list[Answer]:
    return [{**row, "imr": 3} for row in log if row["imr"] == 0]


def _set(name: str, value: Any) -> Callable[[Cloud, Cvm], None]:
    return lambda cloud, cvm: setattr(cloud.tee, name, value)


def _firmware(**changes: Any) -> Callable[[Cloud, Cvm], None]:
    def change(cloud: Cloud, cvm: Cvm) -> None:
        for name, value in changes.items():
            setattr(cvm.firmware, name, value)

    return change


def _another_os(cloud: Cloud, cvm: Cvm) -> None:
    """A genuine VM with an OS of its own, which extends all the right events."""
    cvm.firmware.os = "somebody's own"


def _another_compose_hash(cloud: Cloud, cvm: Cvm) -> None:
    """Other code, which extends the right compose hash itself once it runs."""
    cvm.firmware.claims["compose-hash"] = b"\xee" * 32
    cvm.firmware.app_events.append(("compose-hash", bytes.fromhex(cvm.compose_hash)))


def _cut(cloud: Cloud, cvm: Cvm, answer: Answer) -> None:
    certificate = answer["app_certificates"][0]
    certificate["quote"] = certificate["quote"][:800]


def _old_boot(cloud: Cloud, cvm: Cvm) -> None:
    """The CVM never attests again."""
    cloud.attests_after = 1e9


def _null(name: str) -> Callable[[Cloud, Cvm, Answer], None]:
    return lambda cloud, cvm, answer: answer.update({name: None})


_ANOTHER = ("compose-hash", b"\xee" * 32)
_KMS = json.dumps({"name": "kms", "id": FOREIGN_CA}).encode()
_LOCAL = json.dumps({"name": "local-sgx", "id": "00" * 32}).encode()

LINKS: dict[str, Sabotage] = {
    "quote of another VM": Sabotage("event log", "does not replay", answer=_quote_alone),
    "evidence of another CVM of the app": Sabotage(
        "instance", r"the instance is \w{40}, not", answer=lambda *a: _other(*a, app_id=APP_ID)
    ),
    "evidence of another app": Sabotage("app", r"the app is \w{40}, not", answer=_other),
    "a bit of the TD report flipped": Sabotage("quote", "does not verify", answer=_flip(400)),
    "a bit of the signature flipped": Sabotage("quote", "does not verify", answer=_flip(650)),
    "a quote cut short": Sabotage("quote", "too short", answer=_cut),
    "no quote": Sabotage("quote", "no quote", answer=_null("app_certificates")),
    "no event log": Sabotage("event log", "no event log", answer=_null("tcb_info")),
    "another OS with all the right events": Sabotage("OS", "not in trusted-os", guest=_another_os),
    "expired collateral": Sabotage("quote", "expired", guest=_set("collateral_age", timedelta(days=31))),
    "collateral of tomorrow": Sabotage(
        "quote", "does not verify", guest=_set("collateral_age", timedelta(days=-1))
    ),
    "a revoked platform": Sabotage("quote", "revoked", guest=_set("revoked", True)),
    "OutOfDate": Sabotage("TCB", "the platform is OutOfDate", guest=_set("status", "OutOfDate")),
    "a debug VM": Sabotage("debug", "a debug VM", guest=_firmware(debug=True)),
    "collateral of another platform": Sabotage("quote", "Fmspc", guest=_set("collateral_fmspc", bytes(6))),
    "an unreachable PCCS": Sabotage("quote", "no collateral from pccs-url", guest=_set("pccs_is_down", True)),
    "a changed payload": Sabotage("event log", "does not match it", answer=_log(_payload)),
    "a changed payload with its digest": Sabotage(
        "event log", "does not replay", answer=_log(_payload_and_digest)
    ),
    "a changed payload and no digests": Sabotage("event log", "does not replay", answer=_log(_bare)),
    "another compose hash, and the right one behind system-ready": Sabotage(
        "compose hash",
        r"the compose hash is (ee){32}, not",
        guest=_another_compose_hash,
    ),
    "two compose hashes before system-ready": Sabotage(
        "compose hash",
        "2 compose-hash events",
        guest=_firmware(early_events=[_ANOTHER]),
    ),
    "a log cut short": Sabotage("event log", "does not replay", answer=_log(lambda log: log[:-2])),
    "events of RTMR0 in the place of RTMR3's": Sabotage(
        "event log", "does not match it", answer=_log(_rtmr0_in_place)
    ),
    "a foreign KMS": Sabotage("KMS", "which is not trusted", guest=_firmware(claims={"key-provider": _KMS})),
    "keys of no KMS": Sabotage(
        "KMS", "'local-sgx', not a KMS", guest=_firmware(claims={"key-provider": _LOCAL})
    ),
    "a key provider that is no object": Sabotage(
        "KMS", "key-provider event has no", guest=_firmware(claims={"key-provider": b"[" * 50_000})
    ),
    "a log of nonsense": Sabotage("event log", "not a list", answer=_log(lambda log: {"deep": [[[]]]})),
}
"""Each breaks one link, and has a reason of its own."""

STALE = Sabotage("fresh", "from the boot before the update", guest=_old_boot)


def expected(cloud: Cloud, cvm: Cvm) -> dict[str, Any]:
    """What an honest CVM shows, as arguments of ``verify_attestation``."""
    return {
        "app_id": cvm.app_id,
        "compose_hash": cvm.compose_hash,
        "instance_id": cvm.instance_id,
        "trusted_os": os_measurements(cvm),
        "trusted_kms_ca": cvm.kms.ca_public_key,
        "root": cloud.tee.root,
    }


def kms_record(cloud: Cloud, cvm: Cvm) -> dict[str, Any]:
    """The bootstrap record of the CVM's KMS, whose own guest is as the CVM's."""
    kms, shown = cvm.kms, evidence(cloud.tee, cvm, cvm.boots[-1])
    parsed = parse_quote(shown.quote)
    measured = Measured(parsed.mrtd, parsed.rtmrs, bound(kms.ca_public_key, kms.root_public_key))
    return {
        "k256_pubkey": kms.root_public_key,
        "ca_pubkey": kms.ca_public_key,
        "quote": cloud.tee.quote(measured).hex(),
        "event_log": shown.event_log,
    }
