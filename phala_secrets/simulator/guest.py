"""The guest: it decrypts its app's environment and passes it to ``docker compose``, like dstack."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from phala_secrets.simulator.envfile import EnvFileError, read_environment
from phala_secrets.simulator.failure import BootFailedError
from phala_secrets.simulator.generations import V0_5, Generation
from phala_secrets.simulator.prelaunch import Launch, source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SEALED_OVERHEAD = 32 + 12 + 16
"""Bytes of an envelope around nothing: the sender's public key, the nonce, the tag."""

MOST_SEALED = 262_144
"""Bytes of an envelope that the guest copies (``copy(ENCRYPTED_ENV, …)`` in ``system_setup.rs``)."""

_MAX_VARIABLES = 1024
_MAX_NAME_BYTES = 255
_MAX_VALUE_BYTES = 131_072
_MAX_TOTAL_BYTES = 1_048_576
_MAX_ASSIGNMENT_BYTES = 131_071  # Linux, MAX_ARG_STRLEN without the NUL: execve(2) refuses longer ones
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_QUOTED = frozenset(" \t\n|&;<>()$`\\\"'")


@dataclass(frozen=True, slots=True)
class Started:
    """The environment of a guest that came up.

    ``environment`` is what ``docker compose`` gets; ``decrypted_json`` is the exact text of
    ``.decrypted-env.json``.
    """

    environment: dict[str, str]
    decrypted_json: str


def seal(environment: Mapping[str, str], public_key: X25519PublicKey) -> bytes:
    """Return an envelope for ``public_key``: sender's key (32 bytes), nonce (12), ciphertext and tag."""
    text = json.dumps({"env": [{"key": name, "value": value} for name, value in environment.items()]})
    sender, nonce = X25519PrivateKey.generate(), os.urandom(12)
    sealed = AESGCM(sender.exchange(public_key)).encrypt(nonce, text.encode(), None)
    return sender.public_key().public_bytes_raw() + nonce + sealed


def start(
    sealed: bytes,
    key: X25519PrivateKey | None,
    allowed: Iterable[str],
    *,
    generation: Generation = V0_5,
    launch: Launch | None = None,
) -> Started:
    """Boot, or raise `BootFailedError`.

    ``sealed`` is an envelope for ``key`` and ``allowed`` the app-compose's ``allowed_envs``. Without a
    ciphertext or a key the guest comes up with an empty environment, and says nothing.
    """
    if len(sealed) > MOST_SEALED:
        raise BootFailedError(f"failed to copy .encrypted-env: {len(sealed)} bytes, at most {MOST_SEALED}")
    accepted = _accept(_open(sealed, key), frozenset(allowed)) if sealed and key is not None else {}
    try:
        environment = read_environment(_write(accepted, generation), generation.systemd)
    except EnvFileError as error:
        raise BootFailedError(f"app-compose.service: failed to load environment files: {error}") from None
    launched = source(launch or Launch(), _enter_bash(environment, generation))
    _check_lengths(launched)
    return Started(launched, json.dumps(dict(sorted(accepted.items())), ensure_ascii=False))


def boot(
    sealed: bytes, key: X25519PrivateKey, allowed: Iterable[str], *, generation: Generation = V0_5
) -> dict[str, str]:
    """Return the environment that ``docker compose`` gets, or raise `BootFailedError`."""
    return start(sealed, key, allowed, generation=generation).environment


def _open(sealed: bytes, key: X25519PrivateKey) -> list[tuple[str, str]]:
    """Return the pairs in the envelope, in order."""
    try:
        secret = key.exchange(X25519PublicKey.from_public_bytes(sealed[:32]))
        content = json.loads(AESGCM(secret).decrypt(sealed[32:44], sealed[44:], None))
    except InvalidTag:
        raise BootFailedError("failed to decrypt the environment: it is not sealed for this app") from None
    except (ValueError, RecursionError):
        raise BootFailedError("failed to decrypt the environment: malformed") from None
    entries = content.get("env") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise BootFailedError('failed to parse the environment: no list "env"')
    return [_pair(entry) for entry in entries]


def _pair(entry: Any) -> tuple[str, str]:
    match entry:
        case {"key": str(name), "value": str(value)}:
            return name, value
    raise BootFailedError("failed to parse the environment: an entry without key and value")


def _accept(pairs: list[tuple[str, str]], allowed: frozenset[str]) -> dict[str, str]:
    """Return what dstack accepts: allowed names within its limits, and the last value of each.

    From ``dstack-util/src/parse_env_file.rs``; lengths are of UTF-8, and the total counts every
    occurrence of an allowed name.
    """
    if len(pairs) > _MAX_VARIABLES:
        raise BootFailedError(f"too many environment variables: {len(pairs)}, at most {_MAX_VARIABLES}")
    accepted: dict[str, str] = {}
    total = 0
    for name, value in pairs:
        if name not in allowed:
            continue
        name_bytes, value_bytes = _utf8_length(name), _utf8_length(value)
        if name_bytes > _MAX_NAME_BYTES or not _NAME.fullmatch(name):
            raise BootFailedError("invalid environment variable name")
        if value_bytes > _MAX_VALUE_BYTES:
            raise BootFailedError(
                f"value of {name} too long: {value_bytes} bytes, at most {_MAX_VALUE_BYTES}"
            )
        total += name_bytes + value_bytes
        accepted[name] = value
    if total > _MAX_TOTAL_BYTES:
        raise BootFailedError(f"environment too large: {total} bytes, at most {_MAX_TOTAL_BYTES}")
    return accepted


def _utf8_length(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise BootFailedError("failed to parse the environment: a lone surrogate") from None


def _write(environment: Mapping[str, str], generation: Generation) -> str:
    """Return the file that dstack writes for systemd."""
    return "".join(f"{name}={_quote(environment[name], generation)}\n" for name in sorted(environment))


def _quote(value: str, generation: Generation) -> str:
    spaced = generation.quotes_any_space and any(map(str.isspace, value))
    if _QUOTED.isdisjoint(value) and not spaced:
        return value
    for character in '\\"$`' if generation.escapes_backslash else '"$`':
        value = value.replace(character, "\\" + character)
    return '"' + value.replace("\n", "\\n") + '"'


def _enter_bash(environment: Mapping[str, str], generation: Generation) -> dict[str, str]:
    """Return what the launcher passes on: it is a bash script and keeps some names."""
    _check_lengths(environment)
    handed_on: dict[str, str] = {}
    for name, value in environment.items():
        seen = generation.overwritten.get(name, value)
        if seen is not None and not name.startswith("BASH"):
            handed_on[name] = seen
    return handed_on


def _check_lengths(environment: Mapping[str, str]) -> None:
    """Raise `BootFailedError` for an assignment with which Linux starts no program."""
    for name, value in environment.items():
        if len(f"{name}={value}".encode()) > _MAX_ASSIGNMENT_BYTES:
            raise BootFailedError(f"app-compose.service: {name}: argument list too long")
