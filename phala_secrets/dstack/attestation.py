"""Attestation: a genuine TEE runs an accepted OS, this app, this code and this KMS.

A chain of links, each checked on its own, so that a report can name the one that failed:

======================  ===========================================================================
quote                   Intel's certificates vouch for the quote
TCB                     the platform's firmware is up to date or has an accepted status
debug                   the VM is not a debug VM
OS                      MRTD, RTMR1 and RTMR2 are those of an accepted image
event log               the log replays to the quote's RTMR3
app, compose hash, …    the guest's claims from before its app ran are as expected
======================  ===========================================================================

Nothing in the event log counts without the OS: a genuine VM with another OS can extend all the right
events. The module is pure, apart from the library that verifies quotes. The time is an argument.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from phala_secrets.dstack.event_log import Claims, parse_event_log, replay
from phala_secrets.dstack.kms_record import bound, parse_ca
from phala_secrets.dstack.nested import loads
from phala_secrets.dstack.quote import Quote, parse_quote, verify_quote
from phala_secrets.errors import EvidenceError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from phala_secrets.dstack.collateral import Collateral
    from phala_secrets.dstack.kms_record import KmsRecord

UP_TO_DATE = "UpToDate"
TCB_STATUSES = (
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
)
"""Statuses that a user may accept in addition to ``UpToDate``. ``Revoked`` is never accepted."""

_UNTRUSTED = "do not trust what this CVM runs"


class Link(NamedTuple):
    """One link of the chain. ``ok`` is None if it could not be checked. ``what`` says what was found."""

    name: str
    ok: bool | None
    what: str


@dataclass(frozen=True, slots=True)
class Expected:
    """What the evidence has to show. The link of an expectation that is None or empty does not hold.

    ``app_id`` and ``instance_id`` are 40 hex digits, ``compose_hash`` 64. ``trusted_os`` are
    ``os_measurements``. ``kms_cas`` maps each accepted CA key of a KMS (SPKI hex) to what vouches for
    it. ``root`` is a root certificate (DER) that replaces Intel's: the TEE is then simulated.
    """

    app_id: str | None = None
    compose_hash: str | None = None
    instance_id: str | None = None
    trusted_os: frozenset[str] = frozenset()
    kms_cas: Mapping[str, str] = field(default_factory=dict)
    allow_tcb: frozenset[str] = frozenset()
    root: bytes | None = None


@dataclass(frozen=True, slots=True)
class Attestation:
    """The result of a verification, link by link.

    ``links`` are all links that were checked. ``required`` names the links without which nothing is
    attested. ``os_measurements`` is the SHA-256 (hex) of MRTD, RTMR1 and RTMR2, or None if the quote is
    unreadable. ``tcb_status`` and ``advisories`` are Intel's. ``evidence_sha256`` is the digest of quote
    and event log. ``report_data`` has the quote's 64 bytes in hex, which the guest chose. ``simulated``
    is whether a root other than Intel's signed.

    ``os_image`` is the hash (hex) that the guest reports for its OS image, or empty. ``os_image_allowed``
    is the KMS contract's verdict on it. Reports show both, but neither is a link.
    """

    links: tuple[Link, ...]
    os_measurements: str | None = None
    tcb_status: str | None = None
    advisories: tuple[str, ...] = ()
    evidence_sha256: str = ""
    report_data: str = ""
    simulated: bool = False
    required: frozenset[str] = frozenset()
    os_image: str = ""
    os_image_allowed: bool | None = None

    @property
    def attested(self) -> bool:
        """Whether every required link holds. One that could not be checked does not hold."""
        held = {link.name for link in self.links if link.ok}
        return bool(self.required) and self.required <= held and not self.broken

    @property
    def broken(self) -> tuple[Link, ...]:
        """The links that do not hold. Those that could not be checked come last."""
        missing = [
            link for link in self.links if link.ok is False or (link.ok is None and link.name not in OPTIONAL)
        ]
        return tuple(sorted(missing, key=lambda link: link.ok is None))

    def and_link(self, link: Link) -> Attestation:
        """Return a copy with one more link, which is required too."""
        return replace(self, links=(*self.links, link), required=self.required | {link.name})

    def as_json(self) -> dict[str, Any]:
        """Return a dict of plain JSON data, for an output."""
        return {
            "attested": self.attested,
            "tee": "simulated TEE" if self.simulated else "Intel TDX",
            "os_measurements": self.os_measurements,
            "tcb_status": self.tcb_status,
            "advisories": list(self.advisories),
            "os_image_hash": self.os_image,
            "os_image_allowed": self.os_image_allowed,
            "evidence_sha256": self.evidence_sha256,
            "links": [link._asdict() for link in self.links],
        }

    def as_text(self) -> str:
        """Return JSON on one line."""
        return json.dumps(self.as_json(), separators=(",", ":"))


_IMAGE_HASH = 32
"""Bytes of the hash of an OS image."""

_PLATFORM = ("quote", "TCB", "debug", "OS")

OPTIONAL = frozenset({"certificate"})
"""Links that may be unchecked but must not fail: the API serves no key for them."""


def evidence_digest(quote: Any, event_log: Any) -> str:
    """Return the SHA-256 (hex) of a quote and an event log as they came, or "" if that is not JSON."""
    try:
        log = event_log if isinstance(event_log, str) else json.dumps(event_log, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError):
        return ""
    text = f"{quote.hex() if isinstance(quote, bytes) else quote}\n{log}"
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def check_cvm(
    quote: Any,
    event_log: Any,
    collateral: Collateral | EvidenceError | None,
    expected: Expected,
    *,
    now: int,
    certificate_key: bytes | None = None,
) -> Attestation:
    """Return what the evidence of a CVM shows, link by link. No evidence makes this raise.

    Args:
        quote: the quote, in hex or as bytes.
        event_log: the event log, parsed from JSON or as its text.
        collateral: Intel's collateral for the quote, or why it is missing.
        expected: what the evidence has to show.
        now: the time to verify at, in Unix seconds.
        certificate_key: the SubjectPublicKeyInfo of the app's certificate (DER), if known.
    """
    chain = _Chain(expected, quote, event_log)
    chain.verify(collateral, now)
    chain.read_log()
    for name, claim, check in (
        ("app", "app-id", _same("app", expected.app_id)),
        ("compose hash", "compose-hash", _same("compose hash", expected.compose_hash)),
        ("instance", "instance-id", _same("instance", expected.instance_id)),
        ("KMS", "key-provider", lambda payload: _kms(payload, expected.kms_cas)),
    ):
        chain.claim(name, claim, check)
    chain.certificate(certificate_key)
    return chain.result(*_PLATFORM, "event log", "app", "compose hash", "instance", "KMS")


def check_kms(
    record: KmsRecord, collateral: Collateral | EvidenceError | None, expected: Expected, *, now: int
) -> Attestation:
    """Return what a KMS's bootstrap record shows, link by link. Arguments are those of ``check_cvm``.

    Only the OS, the TCB and the root certificate of ``expected`` count.
    """
    chain = _Chain(expected, record.quote, record.event_log)
    chain.verify(collateral, now)
    chain.read_log()
    chain.binding("CA and root", bound(record.ca, record.root), f"root {record.root}")
    chain.claim("code", "compose-hash", lambda payload: (True, f"compose hash {payload.hex()}"))
    return chain.result(*_PLATFORM, "event log", "CA and root", "code")


Check = tuple[bool | None, str]


class _Chain:
    """The links while they are checked, one after the other."""

    def __init__(self, expected: Expected, quote: Any, event_log: Any) -> None:
        self.expected = expected
        self.links: list[Link] = []
        self.digest = evidence_digest(quote, event_log)
        self.log = event_log
        self.status: str | None = None
        self.advisories: tuple[str, ...] = ()
        self.claims: Claims | None = None
        try:
            self.quote: Quote | None = parse_quote(quote)
        except EvidenceError as error:
            self.quote = None
            self.add("quote", False, error.message)

    def add(self, name: str, ok: bool | None, what: str) -> None:
        self.links.append(Link(name, ok, what))

    def verify(self, collateral: Collateral | EvidenceError | None, now: int) -> None:
        """Check the quote itself, the platform, debug and the OS."""
        if self.quote is None:
            return
        self._quote(self.quote, collateral, now)
        debug = self.quote.debug
        self.add("debug", not debug, "a debug VM: its host can read it" if debug else "off")
        self.add("OS", *_os(self.quote.os_measurements, self.expected.trusted_os))

    def _quote(self, quote: Quote, collateral: Collateral | EvidenceError | None, now: int) -> None:
        if collateral is None or isinstance(collateral, EvidenceError):
            why = "no collateral" if collateral is None else collateral.message
            self.add("quote", None, f"not verified: {why}")
            return
        try:
            verdict = verify_quote(quote, collateral, now, self.expected.root)
        except EvidenceError as error:
            self.add("quote", False, error.message)
            return
        self.add("quote", True, "simulated TEE" if self.expected.root else "signed by Intel TDX hardware")
        self.status, self.advisories = verdict
        self.add("TCB", *_tcb(verdict.status, verdict.advisories, self.expected.allow_tcb))

    def read_log(self) -> None:
        """Check that the event log replays to the quote's RTMR3."""
        if self.quote is None:
            return
        try:
            events = parse_event_log(self.log)
            same = replay(events) == self.quote.rtmrs[3]
            if same:
                self.claims = Claims(events)
        except EvidenceError as error:
            self.add("event log", False, error.message)
            return
        self.add(
            "event log",
            same,
            "replays to RTMR3" if same else "the event log does not replay to the quote's RTMR3",
        )

    def claim(self, name: str, event: str, check: Callable[[bytes], Check]) -> None:
        """Check a claim of the guest. Without a valid log there is no link of that name."""
        if self.claims is None:
            return
        try:
            self.add(name, *check(self.claims.one(event)))
        except EvidenceError as error:
            self.add(name, False, error.message)

    def binding(self, name: str, report_data: bytes, what: str) -> None:
        """Check the report data that the guest put into its quote."""
        if self.quote:
            same = self.quote.report_data == report_data
            self.add(name, same, what if same else "the quote's report data does not bind these keys")

    def certificate(self, key: bytes | None) -> None:
        """Check the binding of the app's certificate, if its key is known."""
        if key is None:
            self.add("certificate", None, "not available: the API serves no key")
        else:
            self.binding("certificate", certificate_binding(key), "bound to the quote")

    def result(self, *required: str) -> Attestation:
        return Attestation(
            required=frozenset(required),
            links=tuple(self.links),
            os_measurements=self.quote.os_measurements if self.quote else None,
            tcb_status=self.status,
            advisories=self.advisories,
            evidence_sha256=self.digest,
            report_data=self.quote.report_data.hex() if self.quote else "",
            simulated=self.expected.root is not None,
            os_image=self._os_image(),
        )

    def _os_image(self) -> str:
        with suppress(EvidenceError):
            payload = self.claims.optional("os-image-hash") if self.claims else None
            return payload.hex() if payload and len(payload) == _IMAGE_HASH else ""
        return ""


def certificate_binding(key: bytes) -> bytes:
    """Return the report data of an app certificate's quote, 64 bytes, from its SubjectPublicKeyInfo (DER)."""
    return hashlib.sha512(b"ratls-cert:" + key).digest()


def _tcb(status: str, advisories: tuple[str, ...], allowed: frozenset[str]) -> Check:
    listed = f" ({', '.join(advisories)})" if advisories else ""
    if status == UP_TO_DATE or (status in allowed and status in TCB_STATUSES):
        return True, status + listed
    return False, f"the platform is {status}{listed}"


def _os(measurements: str, trusted: frozenset[str]) -> Check:
    if not trusted:
        return None, f"OS not compared: {measurements}"
    if measurements in trusted:
        return True, measurements
    return False, f"the OS measures {measurements}, which is not in trusted-os"


def _same(what: str, wanted: str | None) -> Callable[[bytes], Check]:
    def check(payload: bytes) -> Check:
        found = payload.hex()
        if wanted is None:
            return None, f"not compared: {found or 'none'}"
        if found == wanted:
            return True, found
        return False, f"the {what} is {found or 'none'}, not {wanted}"

    return check


def _kms(payload: bytes, accepted: Mapping[str, str]) -> Check:
    try:
        provider = loads(payload)
        name, key = provider["name"], provider["id"]
    except (ValueError, TypeError, KeyError):
        raise EvidenceError("the key-provider event has no name or id", hint=_UNTRUSTED) from None
    if name != "kms":
        return False, f"the key provider is {ascii(name)[:60]}, not a KMS"
    try:
        ca = parse_ca(key, "the CA key of the key-provider")
    except InputError as error:
        return False, error.message
    if not accepted:
        return None, f"KMS not compared: its CA key is {ca}"
    if ca not in accepted:
        return False, f"the KMS has the CA key {ca}, which is not trusted"
    return True, f"its CA key is that of {accepted[ca]}"
