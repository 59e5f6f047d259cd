"""The function that Phala documents for encrypting: plain values in, ciphertext as hex out."""

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
"""A dict of names and values; or items, each ``{"key", "value"}``, a pair, or an object with both."""


def encrypt_env_vars(env_vars: EnvVars, public_key: str) -> str:
    """Encrypt variables to an app's X25519 public key (hex, 32 bytes), and return the ciphertext as hex.

    The key has to be VERIFIED BEFORE, with ``verify_env_encrypt_public_key``: whoever made it can
    read what is encrypted to it. Values are taken as they are, in the order given; of a repeated
    name the last value counts, as it does in the guest. Nothing is sent.

    Raises ``InputError`` for what is not a name and a value, ``DeliveryError`` for what the guest
    would refuse (its rule for names, its limits, a NUL), ``ProofError`` for a malformed key.
    """
    return seal(read_env_vars(env_vars).as_dict().items(), parse_public_key(public_key)).hex()


def read_env_vars(env_vars: EnvVars) -> Environment:
    """The variables, checked as ``encrypt_env_vars`` says."""
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
                f"the value of {name} has a NUL in it, which no environment can carry",
                hint="encode it, as base64 for example, and decode it in the guest",
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
            f"item {position} of env_vars has a value that is not text but {type(value).__name__}",
            hint="a value is a string; nothing is converted on the way",
        )
    return name, value
