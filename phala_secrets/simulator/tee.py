"""A TEE that behaves: quotes like those of Intel's hardware, and a PCCS with their collateral.

It follows Intel's specifications (quote version 4, the API of a PCCS) with its own root.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any
from urllib.parse import quote as url_encoded

from cryptography.hazmat.primitives.serialization import Encoding

from phala_secrets.simulator.authority import Authority
from phala_secrets.simulator.wire import Answer

_FMSPC = bytes.fromhex("51b0c06f0000")
_SVNS = bytes([2, 2, 2, 2, 3, 1, 0, 5, *[0] * 8])
_TDX_SVNS = bytes([6, 1, 3, *[0] * 13])
_PCE_SVN = 11
_QE_SIGNER = hashlib.sha256(b"simulated quoting enclave").digest()
_QE_DATA = bytes(range(32))


@dataclass(slots=True)
class Measured:
    """The content of a quote: registers of 48 bytes, 64 bytes of report data, and the VM's attributes."""

    mrtd: bytes
    rtmrs: tuple[bytes, bytes, bytes, bytes]
    report_data: bytes
    debug: bool = False


class Tee:
    """The hardware, its vendor and the PCCS. A test may change attributes without an underscore."""

    def __init__(self, seed: bytes, now: Callable[[], datetime]) -> None:
        self.status = "UpToDate"
        """The TCB status of the platform in the TCB info."""
        self.advisories: list[str] = []
        self.revoked = False
        """Whether the platform's certificate is on the PCK CA's list."""
        self.collateral_age = timedelta(days=1)
        """The age of lists and TCB info, which last 30 days."""
        self.collateral_fmspc = _FMSPC
        """The platform of the PCCS's TCB info, whatever the request."""
        self.pccs_is_down = False
        self.asked: list[str] = []
        """The paths of the requests to the PCCS."""
        self._seed = seed
        self._now = now

    @cached_property
    def authority(self) -> Authority:
        return Authority(self._seed, _FMSPC, _SVNS, _PCE_SVN)

    @property
    def root(self) -> bytes:
        """The root certificate, in DER."""
        return self.authority.root.public_bytes(Encoding.DER)

    @property
    def root_pem(self) -> str:
        """The root certificate, in PEM."""
        return self.authority.pem(self.authority.root)

    def quote(self, measured: Measured) -> bytes:
        """Return a quote, version 4, with the certificate chain inside."""
        who = self.authority
        signed = _header() + _report(measured)
        attestation_key = who.point("attestation")
        enclave = _enclave_report(hashlib.sha256(attestation_key + _QE_DATA).digest())
        chain = who.pem(who.pck, who.pck_ca, who.root).encode()
        certification = (
            enclave
            + who.sign("PCK Certificate", enclave)
            + len(_QE_DATA).to_bytes(2, "little")
            + _QE_DATA
            + _sized(5, chain)
        )
        signature = who.sign("attestation", signed) + attestation_key + _sized(6, certification)
        return signed + len(signature).to_bytes(4, "little") + signature

    # -- the PCCS --------------------------------------------------------------------------------

    def respond(self, path: str, query: Mapping[str, list[str]]) -> Answer:
        """Answer a request to the PCCS."""
        self.asked.append(path)
        if self.pccs_is_down:
            return Answer({"detail": "Service Unavailable"}, 503)
        who, since = self.authority, self._now() - self.collateral_age
        chain = url_encoded(who.pem(who.tcb_signer, who.root))
        if path == "/sgx/certification/v4/pckcrl" and query.get("ca") == ["platform"]:
            revoked = [who.pck] if self.revoked else []
            issuers = url_encoded(who.pem(who.pck_ca, who.root))
            body = who.crl(who.pck_ca, since, revoked)
            return Answer(body, headers={"SGX-PCK-CRL-Issuer-Chain": issuers, **_DER})
        if path == "/sgx/certification/v4/rootcacrl":
            return Answer(who.crl(who.root, since).hex().encode(), headers=_TEXT)
        if path == "/tdx/certification/v4/tcb" and query.get("fmspc"):
            if query["fmspc"][0].upper() != _FMSPC.hex().upper():
                return Answer({"detail": "No cache data for this platform"}, 404)
            return self._signed("tcbInfo", self._tcb_info(since), {"TCB-Info-Issuer-Chain": chain})
        if path == "/tdx/certification/v4/qe/identity":
            headers = {"SGX-Enclave-Identity-Issuer-Chain": chain}
            return self._signed("enclaveIdentity", _identity(since), headers)
        return Answer({"detail": "Not Found"}, 404)

    def _signed(self, name: str, content: dict[str, Any], headers: dict[str, str]) -> Answer:
        """Return a signed object. The signature covers its exact bytes, in a spelling of its own."""
        text = json.dumps(content, separators=(",", ":"))
        signature = self.authority.sign("TCB Signing", text.encode()).hex()
        return Answer(f'{{"{name}": {text}, "signature": "{signature}"}}'.encode(), headers=headers)

    def _tcb_info(self, since: datetime) -> dict[str, Any]:
        zeros, level = "00" * 48, {"tcbDate": "2024-03-13T00:00:00Z", "tcbStatus": "UpToDate"}
        module = {"mrsigner": zeros, "attributes": "00" * 8, "attributesMask": "FF" * 8}
        return {
            "id": "TDX",
            "version": 3,
            **_dates(since),
            "fmspc": self.collateral_fmspc.hex().upper(),
            "pceId": "0000",
            "tcbType": 0,
            "tcbEvaluationDataNumber": 17,
            "tdxModule": module,
            "tdxModuleIdentities": [
                {"id": "TDX_01", **module, "tcbLevels": [{"tcb": {"isvsvn": 4}, **level}]}
            ],
            "tcbLevels": [
                {
                    "tcb": {
                        "sgxtcbcomponents": [{"svn": svn} for svn in _SVNS],
                        "pcesvn": _PCE_SVN,
                        "tdxtcbcomponents": [{"svn": svn} for svn in (5, 0, 2, *[0] * 13)],
                    },
                    **level,
                    "tcbStatus": self.status,
                    "advisoryIDs": self.advisories,
                }
            ],
        }


_DER = {"Content-Type": "application/pkix-crl"}
_TEXT = {"Content-Type": "text/plain"}


def _dates(since: datetime) -> dict[str, str]:
    form = "%Y-%m-%dT%H:%M:%SZ"
    return {
        "issueDate": since.strftime(form),
        "nextUpdate": (since + timedelta(days=30)).strftime(form),
    }


def _identity(since: datetime) -> dict[str, Any]:
    """Return the identity of the quoting enclave."""
    return {
        "id": "TD_QE",
        "version": 2,
        **_dates(since),
        "tcbEvaluationDataNumber": 17,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11" + "00" * 15,
        "attributesMask": "FBFFFFFFFFFFFFFF" + "00" * 8,
        "mrsigner": _QE_SIGNER.hex().upper(),
        "isvprodid": 2,
        "tcbLevels": [{"tcb": {"isvsvn": 4}, "tcbDate": "2024-03-13T00:00:00Z", "tcbStatus": "UpToDate"}],
    }


def _header() -> bytes:
    """Return a header: version 4, ECDSA with P-256, TDX, and the vendor id of Intel's quoting enclave."""
    vendor = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
    return bytes([4, 0, 2, 0, 0x81, 0, 0, 0]) + bytes(4) + vendor + bytes(20)


def _report(measured: Measured) -> bytes:
    """Return the TD report, 584 bytes."""
    attributes = bytes([1 if measured.debug else 0, 0, 0, 0x10, 0, 0, 0, 0])
    xfam = bytes.fromhex("e702060000000000")
    seam = hashlib.sha384(b"simulated TDX module").digest()
    return (
        _TDX_SVNS
        + seam
        + bytes(48 + 8)
        + attributes
        + xfam
        + measured.mrtd
        + bytes(3 * 48)
        + b"".join(measured.rtmrs)
        + measured.report_data
    )


def _enclave_report(key_hash: bytes) -> bytes:
    """Return the quoting enclave's report, 384 bytes, which binds the attestation key."""
    attributes = bytes.fromhex("1500000000000000e700000000000000")
    return (
        _SVNS
        + bytes(4 + 28)
        + attributes
        + hashlib.sha256(b"simulated enclave").digest()
        + bytes(32)
        + _QE_SIGNER
        + bytes(96)
        + (2).to_bytes(2, "little")
        + (6).to_bytes(2, "little")
        + bytes(60)
        + key_hash
        + bytes(32)
    )


def _sized(kind: int, data: bytes) -> bytes:
    return kind.to_bytes(2, "little") + len(data).to_bytes(4, "little") + data
