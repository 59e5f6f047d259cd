"""A TDX quote: its content, and whether Intel's keys vouch for it.

The layout is Intel's (*TDX DCAP: Quote Generation Library and Quote Verification Library*, appendix 3):
a header of 48 bytes, in version 5 six bytes of type and size, then the TD report. Only this module loads
``dcap-qvl``, which checks signatures, certificates, revocation lists and the TCB level.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from phala_secrets.errors import EvidenceError, InputError, install_extra

if TYPE_CHECKING:
    from phala_secrets.dstack.collateral import Collateral

MAX_QUOTE = 64 * 1024
"""Bytes of a quote: dstack's have about 5,000."""

_HEADER = 48
_REPORT = 584
_TDX = 0x81
_REPORT_TYPES = {2: _REPORT, 3: 648}
"""Bytes of the TD reports 1.0 and 1.5 in a version 5 quote. Both begin alike."""

_HEX = re.compile(r"(?:0x)?((?:[0-9a-fA-F]{2})+)")
_FMSPC = re.compile(r"[0-9A-Fa-f]{12}")
_UNTRUSTED = "do not trust this evidence"


class Quote(NamedTuple):
    """The content of a quote. All of it is unproven until ``verify_quote`` accepts its bytes (``raw``)."""

    raw: bytes
    attributes: bytes
    mrtd: bytes
    rtmrs: tuple[bytes, bytes, bytes, bytes]
    report_data: bytes

    @property
    def debug(self) -> bool:
        """Whether this is a debug VM, whose memory the host can read.

        TDATTRIBUTES.TUD, bits 7:0: bit 0 is debug, the others are reserved for similar modes.
        """
        return self.attributes[0] != 0

    @property
    def os_measurements(self) -> str:
        """SHA-256 of MRTD ‖ RTMR1 ‖ RTMR2, in hex: firmware, kernel, command line and initrd."""
        return hashlib.sha256(self.mrtd + self.rtmrs[1] + self.rtmrs[2]).hexdigest()


class Platform(NamedTuple):
    """The collateral to request: the FMSPC (12 hex digits), and ``platform`` or ``processor``."""

    fmspc: str
    ca: str


class Verdict(NamedTuple):
    """The verdict on the platform: its TCB status and Intel's advisories."""

    status: str
    advisories: tuple[str, ...]


def parse_quote(quote: Any) -> Quote:
    """Return the content of a quote, from hex (with or without ``0x``) or bytes.

    Raises:
        EvidenceError: it is missing, malformed, too large, or not a TDX quote.
    """
    raw = _bytes(quote)
    if len(raw) < _HEADER + 6:
        raise EvidenceError(f"the quote has {len(raw)} bytes, which is too short", hint=_UNTRUSTED)
    version, tee = int.from_bytes(raw[:2], "little"), int.from_bytes(raw[4:8], "little")
    if version not in (4, 5):
        raise EvidenceError(f"the quote has version {version}, not 4 or 5", hint=_UNTRUSTED)
    if tee != _TDX:
        raise EvidenceError("the quote is not a TDX quote", hint=_UNTRUSTED)
    begin, length = _HEADER, _REPORT
    if version == 5:
        kind, length = int.from_bytes(raw[48:50], "little"), int.from_bytes(raw[50:54], "little")
        if _REPORT_TYPES.get(kind) != length:
            raise EvidenceError("the quote has a report of an unknown type", hint=_UNTRUSTED)
        begin = _HEADER + 6
    report = raw[begin : begin + length]
    if len(report) < length:
        raise EvidenceError(f"the quote has {len(raw)} bytes, which is too short", hint=_UNTRUSTED)
    rtmrs = [report[start : start + 48] for start in range(328, 520, 48)]
    return Quote(
        raw=raw,
        attributes=report[120:128],
        mrtd=report[136:184],
        rtmrs=(rtmrs[0], rtmrs[1], rtmrs[2], rtmrs[3]),
        report_data=report[520:584],
    )


def platform_of(quote: Quote) -> Platform:
    """Return the collateral that the quote needs, from its PCK certificate.

    Raises:
        EvidenceError: the certificate is missing or names no platform.
    """
    dcap = _library()
    with _refusals("the quote is unreadable"):
        parsed = dcap.parse_quote(quote.raw)
        platform = Platform(str(parsed.fmspc()).upper(), str(parsed.ca()))
    if not _FMSPC.fullmatch(platform.fmspc) or platform.ca not in ("platform", "processor"):
        raise EvidenceError("the quote names an unknown platform", hint=_UNTRUSTED)
    return platform


def verify_quote(quote: Quote, collateral: Collateral, now: int, root: bytes | None = None) -> Verdict:
    """Verify a quote with Intel's collateral and return the verdict on its platform.

    A TCB status other than ``UpToDate`` is a result, not an error.

    Args:
        quote: the quote.
        collateral: certificates, revocation lists, TCB info and QE identity for its platform.
        now: the time to verify at, in Unix seconds.
        root: a root certificate (DER) that replaces Intel's.

    Raises:
        EvidenceError: a signature, a certificate, a list or a date is invalid.
    """
    dcap = _library()
    with _refusals("the quote does not verify"):
        given = dcap.QuoteCollateralV3(*collateral)
        if root is None:
            report = dcap.verify(quote.raw, given, now)
        else:
            report = dcap.verify_with_root_ca(quote.raw, given, root, now)
        read = dcap.parse_quote(quote.raw).report
        same = (
            bytes(read.td_attributes) == quote.attributes
            and bytes(read.mr_td) == quote.mrtd
            and tuple(map(bytes, (read.rt_mr0, read.rt_mr1, read.rt_mr2, read.rt_mr3))) == quote.rtmrs
            and bytes(read.report_data) == quote.report_data
        )
    if not same:
        raise EvidenceError("two parsers read the quote differently", hint=_UNTRUSTED)
    return Verdict(str(report.status), tuple(str(one) for one in report.advisory_ids))


def need_library() -> None:
    """Raise InputError unless the library that verifies quotes is installed."""
    _library()


def _library() -> Any:
    try:
        import dcap_qvl
    except ImportError:
        raise InputError(
            "attestation needs the package dcap-qvl, which is not installed",
            hint=install_extra("attest"),
        ) from None
    return dcap_qvl


def _bytes(quote: Any) -> bytes:
    if not quote:
        raise EvidenceError("the evidence has no quote", hint="run again later if the CVM has just started")
    if isinstance(quote, bytes):
        raw = quote
    elif isinstance(quote, str) and len(quote) <= 2 * MAX_QUOTE + 2 and (match := _HEX.fullmatch(quote)):
        raw = bytes.fromhex(match[1])
    else:
        raise EvidenceError("the quote is not hex or is too long", hint=_UNTRUSTED)
    if len(raw) > MAX_QUOTE:
        raise EvidenceError(f"the quote is over {MAX_QUOTE >> 10} KiB", hint=_UNTRUSTED)
    return raw


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """Turn the library's errors into EvidenceError, including a panic of its Rust code."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise EvidenceError(f"{what}: {_said(error)}", hint=_UNTRUSTED) from None


_PLAIN = {
    "CrlExpired": "a revocation list has expired",
    "CertExpired": "a certificate has expired",
    "CertRevoked": "a certificate was revoked",
    "TCBInfo expired": "the TCB info has expired",
}
"""The library's error names in plain words."""


def _said(error: BaseException) -> str:
    """Return the library's message as one line of printable ASCII: it may quote the evidence."""
    text = " ".join(str(error).split()).removeprefix("Verification failed: ")[:200]
    plain = next((f"{words}: " for name, words in _PLAIN.items() if name in text), "")
    return plain + ascii(text)[1:-1]
