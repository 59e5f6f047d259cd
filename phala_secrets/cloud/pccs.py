"""A PCCS, which caches Intel's collateral. This module fetches it, and ``dstack`` verifies it.

The routes are those of version 4 (Intel, *Provisioning Certificate Caching Service*). No key is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from phala_secrets.cloud.call import Call, Response
from phala_secrets.dstack.collateral import Collateral, crl, issuer_chain, signed_object
from phala_secrets.errors import EvidenceError, PhalaSecretsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from phala_secrets.dstack.quote import Platform
    from phala_secrets.flow import Flow

T = TypeVar("T")

DEFAULT_URL = "https://pccs.phala.network"


def fetch(url: str, platform: Platform) -> Flow[Collateral]:
    """Return the collateral for a platform, in one round trip.

    Args:
        url: the PCCS, without a trailing slash.
        platform: the result of ``platform_of`` for the quote.

    Raises:
        EvidenceError: the PCCS was unreachable, refused, or sent an invalid response.
    """
    try:
        pck, root, tcb, identity = yield (
            _get(url, "/sgx/certification/v4/pckcrl", _pck, ca=platform.ca, encoding="der"),
            _get(url, "/sgx/certification/v4/rootcacrl", lambda response: crl(response.body, "root CRL")),
            _get(url, "/tdx/certification/v4/tcb", _tcb, fmspc=platform.fmspc),
            _get(url, "/tdx/certification/v4/qe/identity", _identity, update="standard"),
        )
    except EvidenceError:
        raise
    except PhalaSecretsError as error:
        raise EvidenceError(f"no collateral from pccs-url: {error.message}", hint=error.hint) from None
    return Collateral(pck[0], root, pck[1], *tcb, *identity)


def _get(url: str, path: str, parse: Callable[[Response], T], **params: str) -> Call[T]:
    return Call("GET", url + path, parse, params, given_by="pccs-url", whole=True)


def _pck(response: Response) -> tuple[str, bytes]:
    chain = issuer_chain(response.headers, "SGX-PCK-CRL-Issuer-Chain")
    return chain, crl(response.body, "PCK CRL")


def _tcb(response: Response) -> tuple[str, str, bytes]:
    chain = issuer_chain(response.headers, "TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain")
    return chain, *signed_object(response.body, "tcbInfo")


def _identity(response: Response) -> tuple[str, str, bytes]:
    chain = issuer_chain(response.headers, "SGX-Enclave-Identity-Issuer-Chain")
    return chain, *signed_object(response.body, "enclaveIdentity")
