"""Ids that dstack defines: app ids (20 bytes) and hashes (32 bytes), in hex."""

from __future__ import annotations

import re

from phala_secrets.errors import InputError

APP_ID = re.compile(r"(?:0x|app_)?([0-9a-f]{40})", re.IGNORECASE)
_HASH = re.compile(r"(?:0x)?([0-9a-f]{64})", re.IGNORECASE)


def bare(text: str | None) -> str:
    """Return hex in lower case without ``0x``, or an empty string for None."""
    return (text or "").lower().removeprefix("0x")


def parse_app_id(text: str, what: str = "app-id") -> str:
    """Return the 40 lower-case hex digits of an app id, from text with or without ``0x`` or ``app_``."""
    match = APP_ID.fullmatch(text.strip())
    if not match:
        raise InputError(
            f"{what}: {text[:60]!a} is not an app id", hint="use 40 hex digits, with or without 0x"
        )
    return match[1].lower()


def parse_hash(text: str, what: str) -> str:
    """Return 64 lower-case hex digits, from a hash with or without ``0x``. InputError names ``what``."""
    match = _HASH.fullmatch(text.strip())
    if not match:
        raise InputError(
            f"{what}: {text[:80]!a} is not 32 bytes of hex", hint="use 64 hex digits, with or without 0x"
        )
    return match[1].lower()
