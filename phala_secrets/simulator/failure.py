"""The failure of a boot."""

from __future__ import annotations

from phala_secrets.errors import PhalaSecretsError


class BootFailedError(PhalaSecretsError):
    """The guest does not come up. The message names no value."""
