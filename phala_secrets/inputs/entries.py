"""Entries of sources. Messages about them have places and valid names, never a value."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from phala_secrets.errors import Finding, InputError

if TYPE_CHECKING:
    from phala_secrets.dstack.environment import Origin

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_NAME_HINT = "use letters, digits and underscores; a name does not begin with a digit"
SPLIT_HINT = "separate names with commas or line breaks, not spaces"

_ENCRYPTED = (
    (re.compile(rb"\0GITCRYPT\0"), "git-crypt", "git-crypt unlock"),
    (re.compile(rb"\s*\$ANSIBLE_VAULT;"), "ansible-vault", "ansible-vault decrypt"),
    (re.compile(rb"[\s\S]*ENC\[AES256_GCM,data:"), "SOPS", "sops decrypt"),
    (re.compile(rb"\s*encrypted:[A-Za-z0-9+/]{40,}={0,2}\s*\Z"), "dotenvx", "dotenvx decrypt"),
)
"""The mark of a file or value that nobody decrypted, with the tool's name and its command."""


class Entry(NamedTuple):
    """A name and its content, in bytes: what a file holds need not be text."""

    name: str
    content: bytes
    origin: Origin

    def __repr__(self) -> str:
        return f"Entry({self.name!r}, {self.origin})"


def refusal(message: str, hint: str, origin: Origin) -> InputError:
    """Return the error of a source, with its place."""
    return InputError(message, hint=hint, file=origin.file, line=origin.line)


def check_name(name: str, place: Origin) -> None:
    """Raise InputError for an invalid name. Do not quote it: it may be a piece of a value."""
    if not NAME.fullmatch(name):
        hint = SPLIT_HINT if all(map(NAME.fullmatch, name.split())) and name.strip() else _NAME_HINT
        raise refusal(f"{place}: invalid name", hint, place)


def encoded(value: str, origin: Origin) -> bytes:
    """Return a value in UTF-8; raise InputError if it cannot be."""
    try:
        return value.encode()
    except UnicodeEncodeError:
        pass
    raise refusal(f"{origin} is not UTF-8 text", "pass it through `files`, with `base64`", origin)


def refuse_encrypted(content: bytes, what: str, origin: Origin) -> None:
    """Raise InputError for a file or a value that is still encrypted."""
    for mark, tool, command in _ENCRYPTED:
        if mark.match(content):
            raise refusal(f"{what} is still encrypted with {tool}", f"run `{command}` first", origin)


def remark_on(entry: Entry) -> Finding | None:
    """Return a warning about a value that looks unresolved, or None."""
    if not entry.content.startswith(b"op://"):
        return None
    return Finding(
        f"{entry.name} ({entry.origin}) is a 1Password reference, and is sent as is",
        "resolve it first, as `op run` does",
        file=entry.origin.file,
        line=entry.origin.line,
    )
