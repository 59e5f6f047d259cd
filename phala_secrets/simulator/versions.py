"""The versions of the API, and what changes with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phala_secrets.simulator.wire import Request

LEGACY = "2025-10-28"
_STRING_IDS_SINCE = "2026-05-22"
_CONTRACTS_SINCE = "2026-06-23"
VERSIONS = (LEGACY, "2026-01-21", _STRING_IDS_SINCE, _CONTRACTS_SINCE)


def version(request: Request) -> str:
    """Return the version asked for; without the header the oldest."""
    return request.headers.get("x-phala-version", LEGACY)


def is_legacy(request: Request) -> bool:
    """Return whether CVMs have the shape from before 2026."""
    return version(request) == LEGACY


def is_contract_keyed(request: Request) -> bool:
    """Return whether ``/kms`` lists contracts rather than nodes."""
    return version(request) >= _CONTRACTS_SINCE


def has_string_ids(request: Request) -> bool:
    """Return whether the ``id`` of a VM record is a string (``js/src/types/cvm_info.ts`` of the SDK)."""
    return version(request) >= _STRING_IDS_SINCE
