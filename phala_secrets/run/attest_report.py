"""What a report says of an attestation: the chain, link by link."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.runners.report import Table

if TYPE_CHECKING:
    from phala_secrets.dstack.attestation import Attestation

_WORDS = {True: "holds", False: "does not hold", None: "not checked"}


def chain_table(attestation: Attestation) -> Table:
    """Return the links of an attestation as a table."""
    rows = [(link.name, _WORDS[link.ok], link.what) for link in attestation.links]
    return Table(("link", "result", "what was found"), rows)


def headline(attestation: Attestation) -> str:
    """Return what the first line of a report says of it."""
    tee = " (simulated TEE)" if attestation.simulated else ""
    return f"attested{tee}" if attestation.attested else f"not attested{tee}"
