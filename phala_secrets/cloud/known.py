"""The published root of Phala's Cloud KMS, which ships with us.

Phala publishes it in its trust-center (Phala-Network/trust-center, ``phalaCloudKmsVerifier.ts``, commit
f081105), with the KMS's CA key, an event log, and a TDX quote whose report data binds both keys. That the
default API's Cloud KMS has this root is inferred. If that is wrong, change ``expected_root``.
docs/trust.md says how to check it again.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

from phala_secrets.cloud.requests import DEFAULT_URL

NAME = "phala-cloud"
"""Its name in ``trusted-signers``."""


class Published(NamedTuple):
    """A published KMS: its root (compressed SEC1 hex), its CA key (SPKI hex), and the URL of its API."""

    root: str
    ca: str
    api_url: str


published = Published(
    root="0334c76e0c3f52ec64cbf9bbf5c910c272330166fd656c0a86bb330963e46910e1",
    ca="3059301306072a8648ce3d020106082a8648ce3d03010703420004"
    "8844eb42ccdf8c52fd4f174f362fcb9bbd19c45fd48f1edec2d8f1ca23536ec1"
    "a74021b4cee610c074f8294d431b2b7fee2c39e5333fdaf0a4522d43fb159d9f",
    api_url=DEFAULT_URL,
)
"""Only tests replace it."""


def expected_root(api_url: str) -> str | None:
    """Return the root that the Cloud KMS of this API must have, or None for any root."""
    return published.root if _host(api_url) == _host(published.api_url) else None


def _host(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return (parts.hostname or "").rstrip("."), parts.port or (443 if parts.scheme == "https" else 80)
