"""The authority for simulated quotes: a root, its certificates, and their revocation lists.

It plays Intel's part. Keys and certificates follow from a seed, so that a file can hold the root.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from phala_secrets.simulator.der import SGX_OID, sgx_extension

if TYPE_CHECKING:
    from collections.abc import Sequence

_SINCE = datetime(2020, 1, 1, tzinfo=UTC)
_UNTIL = datetime(2049, 12, 31, tzinfo=UTC)
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256
_SHA256 = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)


class Authority:
    """The root, the PCK CA, the TCB signer, and a platform's PCK certificate."""

    def __init__(self, seed: bytes, fmspc: bytes, svns: bytes, pce_svn: int) -> None:
        self._seed = seed
        self.root = self._certify("Root CA", None, is_ca=True)
        self.pck_ca = self._certify("PCK Platform CA", self.root, is_ca=True)
        self.tcb_signer = self._certify("TCB Signing", self.root)
        sgx = x509.UnrecognizedExtension(x509.ObjectIdentifier(SGX_OID), sgx_extension(fmspc, svns, pce_svn))
        self.pck = self._certify("PCK Certificate", self.pck_ca, more=[sgx])

    def sign(self, name: str, message: bytes) -> bytes:
        """Return a signature by the key of this name, r ‖ s."""
        r, s = decode_dss_signature(self.key(name).sign(message, _SHA256))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def key(self, name: str) -> ec.EllipticCurvePrivateKey:
        """Return the P-256 key of this name."""
        return p256(self._seed, name)

    def point(self, name: str) -> bytes:
        """Return the public key of this name, x ‖ y."""
        numbers = self.key(name).public_key().public_numbers()
        return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")

    def pem(self, *certificates: x509.Certificate) -> str:
        """Return certificates as one chain."""
        return "".join(one.public_bytes(Encoding.PEM).decode() for one in certificates)

    def crl(
        self, issuer: x509.Certificate, since: datetime, revoked: Sequence[x509.Certificate] = ()
    ) -> bytes:
        """Return the list of what an issuer has revoked, in DER, good for 30 days."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.subject)
            .last_update(since)
            .next_update(since + timedelta(days=30))
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(_authority_key(issuer), critical=False)
        )
        for certificate in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(since).build())
        signed = builder.sign(self.key(_name(issuer)), hashes.SHA256(), ecdsa_deterministic=True)
        return signed.public_bytes(Encoding.DER)

    def _certify(
        self,
        name: str,
        issuer: x509.Certificate | None,
        *,
        is_ca: bool = False,
        more: Sequence[x509.ExtensionType] = (),
    ) -> x509.Certificate:
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, f"Simulated SGX {name}"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, "phala-secrets simulator"),
            ]
        )
        public = self.key(name).public_key()
        usage = dict.fromkeys(
            [
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
                "digital_signature",
                "key_cert_sign",
                "crl_sign",
            ],
            False,
        )
        usage |= {"key_cert_sign": True, "crl_sign": True} if is_ca else {"digital_signature": True}
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.subject if issuer else subject)
            .public_key(public)
            .serial_number(int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "big") >> 1)
            .not_valid_before(_SINCE)
            .not_valid_after(_UNTIL)
            .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        )
        if issuer:
            builder = builder.add_extension(_authority_key(issuer), critical=False)
        for extension in more:
            builder = builder.add_extension(extension, critical=False)
        signer = self.key(_name(issuer) if issuer else name)
        return builder.sign(signer, hashes.SHA256(), ecdsa_deterministic=True)


def p256(seed: bytes, name: str) -> ec.EllipticCurvePrivateKey:
    """Return the P-256 key that follows from a seed."""
    secret = int.from_bytes(hmac.digest(seed, f"p256 {name}".encode(), hashlib.sha512), "big")
    return ec.derive_private_key(secret % (_ORDER - 1) + 1, ec.SECP256R1())


def _name(certificate: x509.Certificate) -> str:
    (common,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(common.value).removeprefix("Simulated SGX ")


def _authority_key(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
