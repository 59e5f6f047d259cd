"""The chains that Phala documents: their names, KMS contracts and block explorers, by chain id (EIP-155)."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

CHAIN_NAMES: Mapping[int, str] = MappingProxyType({1: "Ethereum", 8453: "Base"})

WELL_KNOWN_KMS: Mapping[int, str] = MappingProxyType(
    {
        1: "0xd343a3f5593b93D8056aB5D60c433622d7D65a80",
        8453: "0x2f83172A49584C017F2B256F0FB2Dca14126Ba9C",
    }
)
"""The KMS contract of each chain, from Phala's documentation (EIP-55 checksums)."""

EXPLORERS: Mapping[int, str] = MappingProxyType({1: "https://etherscan.io", 8453: "https://basescan.org"})


def chain_name(chain: int) -> str:
    """Return ``Base (chain 8453)``, or ``chain 31337`` for an unknown chain."""
    return f"{CHAIN_NAMES[chain]} (chain {chain})" if chain in CHAIN_NAMES else f"chain {chain}"


def address_link(chain: int, address: str) -> str | None:
    """Return the explorer's page of an address (40 hex digits, with or without ``0x``), or None."""
    return _link(chain, "address", address)


def transaction_link(chain: int, transaction_hash: str) -> str | None:
    """Return the explorer's page of a transaction (64 hex digits, with or without ``0x``), or None."""
    return _link(chain, "tx", transaction_hash)


def _link(chain: int, kind: str, what: str) -> str | None:
    return f"{EXPLORERS[chain]}/{kind}/0x{what.removeprefix('0x')}" if chain in EXPLORERS else None
