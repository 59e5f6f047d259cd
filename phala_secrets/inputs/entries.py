"""What sources are read into, and what may be said of it: places and valid names, never a value."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from phala_secrets.errors import Finding, InputError

if TYPE_CHECKING:
    from phala_secrets.dstack.environment import Origin

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_NAME_HINT = "A name has letters, digits and underscores, and does not begin with a digit."
SPLIT_HINT = "Put commas or line ends between names, not blanks."

_ENCRYPTED = (
    (re.compile(rb"\0GITCRYPT\0"), "git-crypt", "git-crypt unlock"),
    (re.compile(rb"\s*\$ANSIBLE_VAULT;"), "ansible-vault", "ansible-vault decrypt"),
    (re.compile(rb"[\s\S]*ENC\[AES256_GCM,data:"), "SOPS", "sops decrypt"),
    (re.compile(rb"\s*encrypted:[A-Za-z0-9+/]{40,}={0,2}\s*\Z"), "dotenvx", "dotenvx decrypt"),
)
"""How a file or value begins that nobody decrypted: the tool's mark, its name, its command."""


class Entry(NamedTuple):
    """A name and its content, in bytes: what a file holds need not be text."""

    name: str
    content: bytes
    origin: Origin

    def __repr__(self) -> str:
        return f"Entry({self.name!r}, {self.origin})"


def refusal(message: str, hint: str, origin: Origin) -> InputError:
    """Return the error that a source gives rise to, with its place."""
    return InputError(message, hint=hint, file=origin.file, line=origin.line)


def check_name(name: str, place: Origin) -> None:
    """Raise InputError for what is no name. It is not quoted: it may be a piece of a value."""
    if not NAME.fullmatch(name):
        hint = SPLIT_HINT if all(map(NAME.fullmatch, name.split())) and name.strip() else _NAME_HINT
        raise refusal(f"{place}: the name is not valid", hint, place)


def encoded(value: str, origin: Origin) -> bytes:
    """Return a value in UTF-8; raise InputError if it cannot be."""
    try:
        return value.encode()
    except UnicodeEncodeError:
        pass
    raise refusal(f"{origin} is not UTF-8 text", "Give it through `files`, with `base64`.", origin)


def refuse_encrypted(content: bytes, what: str, origin: Origin) -> None:
    """Raise InputError for a file or a value that was to be decrypted before."""
    for mark, tool, command in _ENCRYPTED:
        if mark.match(content):
            raise refusal(f"{what} is still encrypted by {tool}", f"Run `{command}` before.", origin)


def remark_on(entry: Entry) -> Finding | None:
    """Return what is odd about a value that is sent as it is, if anything."""
    if not entry.content.startswith(b"op://"):
        return None
    return Finding(
        f"{entry.name} ({entry.origin}) is a reference to 1Password, and is sent as such",
        "Resolve it before, as `op run` does.",
        file=entry.origin.file,
        line=entry.origin.line,
    )
