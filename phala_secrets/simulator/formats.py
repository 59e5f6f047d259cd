"""Small pieces of what the API shows: times, and hex that stands for something."""

from __future__ import annotations

import hashlib
from datetime import datetime


def stamp(moment: datetime | None) -> str | None:
    """Return ISO 8601, or ``None``."""
    return None if moment is None else moment.isoformat()


def made_up(purpose: str, name: str, length: int) -> str:
    """Return ``length`` bytes as hex, always the same for a purpose and a name."""
    return hashlib.sha256(f"{purpose} {name}".encode()).hexdigest()[: 2 * length]
