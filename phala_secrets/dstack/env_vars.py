"""The encryption function that Phala documents: plain values in, ciphertext as hex out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from phala_secrets.dstack.encryption import seal
from phala_secrets.dstack.environment import Environment, Origin, Variable
from phala_secrets.dstack.guest_check import check_limits
from phala_secrets.dstack.key_proof import parse_public_key
from phala_secrets.errors import DeliveryError, InputError


class EnvVar(Protocol):
    """Anything with a ``key`` and a ``value``, such as dstack's own ``EnvVar``."""

    @property
    def key(self) -> str: ...
    @property
    def value(self) -> str: ...


EnvVars = Mapping[str, str] | Iterable[Mapping[str, str] | tuple[str, str] | EnvVar]
"""A dict of names and values, or items: each is ``{"key", "value"}``, a pair, or an object with both."""


def encrypt_env_vars(env_vars: EnvVars, public_key: str) -> str:
    """Encrypt variables to an app's public key and return the ciphertext as hex. Send nothing.

    VERIFY THE KEY FIRST with ``verify_env_encrypt_public_key``: its maker can read what you encrypt.

    Args:
        env_vars: a dict of names and values, or items: each is ``{"key", "value"}``, a pair, or an object
            with both. Values are encrypted unchanged and in this order. The last value of a repeated
            name counts, as in the guest.
        public_key: the app's X25519 key, 32 bytes as hex.

    Returns:
        The ciphertext as lower-case hex without ``0x``: ephemeral key (32 bytes), nonce (12), AES-256-GCM.

    Raises:
        InputError: an item is not a name and a value.
        DeliveryError: the guest would refuse a name, a size or a NUL.
        ProofError: the key is malformed.
    """
    return seal(read_env_vars(env_vars).as_dict().items(), parse_public_key(public_key)).hex()


def read_env_vars(env_vars: EnvVars) -> Environment:
    """Return the variables, checked as in ``encrypt_env_vars``."""
    values: dict[str, str] = {}
    positions: dict[str, int] = {}
    for position, item in enumerate(env_vars.items() if isinstance(env_vars, Mapping) else env_vars, 1):
        name, value = _pair(item, position)
        values[name] = value
        positions[name] = position
    environment = Environment(
        tuple(
            Variable(name, value, Origin(f"env_vars (item {positions[name]})"))
            for name, value in values.items()
        )
    )
    check_limits(environment)
    for name, value in values.items():
        if "\0" in value:
            raise DeliveryError(
                f"the value of {name} contains a NUL, which no environment can carry",
                hint="encode it, for example as base64, and decode it in the guest",
            )
    return environment


def _pair(item: Any, position: int) -> tuple[str, str]:
    if isinstance(item, Mapping):
        name, value = item.get("key"), item.get("value")
    elif isinstance(item, (tuple, list)) and len(item) == 2:
        name, value = item
    else:
        name, value = getattr(item, "key", None), getattr(item, "value", None)
    if not isinstance(name, str):
        raise InputError(
            f"item {position} of env_vars is not a name and a value",
            hint='pass a dict, or items that are {"key": …, "value": …} or pairs',
        )
    if not isinstance(value, str):
        raise InputError(
            f"item {position} of env_vars has a value of type {type(value).__name__}, not str",
            hint="convert it to a string",
        )
    return name, value
