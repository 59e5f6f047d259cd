"""A ciphertext that was made before, and the approval that it was prepared for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from phala_secrets.dstack.encryption import parse_sealed
from phala_secrets.dstack.environment import Origin
from phala_secrets.dstack.ids import parse_hash
from phala_secrets.dstack.nested import loads
from phala_secrets.errors import InputError
from phala_secrets.inputs.entries import NAME

if TYPE_CHECKING:
    from phala_secrets.inputs.files import Files
    from phala_secrets.inputs.given import Given
    from phala_secrets.inputs.prepared_file import PreparedFile

WITHOUT_DIGEST = "none"
"""The ``prepared-digest`` that skips the check."""


class Prepared(NamedTuple):
    """A ciphertext made before (hex), its names, and what it was approved as.

    ``whole`` is all that was prepared, where it came as one file. Then the ciphertext may be empty.
    """

    encrypted_env: str
    env_keys: tuple[str, ...]
    digest: str | None = None
    compose_hash: str | None = None
    transaction_hash: str | None = None
    whole: PreparedFile | None = None


def read_prepared(given: Given, files: Files) -> Prepared | None:
    """Return what was prepared, or None without a ciphertext.

    Raises:
        InputError: It is invalid, incomplete, or without the digest that shows whose it is.
    """
    if given.text("prepared-file") and not given.flag("prepare-only"):
        return _from_file(given, files)
    text, names = _ciphertext(given, files), given.text("env-keys")
    digest = _digest(given)
    if not text:
        for name in ("env-keys", "prepared-digest", "transaction-hash"):
            if given.text(name):
                raise InputError(f"{name} is set without encrypted-env", hint="set both or neither")
        return None
    if given.text("transaction-hash") and not given.text("compose-hash"):
        raise InputError(
            "transaction-hash is set without compose-hash",
            hint="pass `compose-hash` too: the same run output it",
        )
    prepared = Prepared(
        encrypted_env=parse_sealed(text, "encrypted-env"),
        env_keys=_names(names),
        digest=digest,
        compose_hash=hash_of(given, "compose-hash"),
        transaction_hash=_transaction(given),
    )
    if prepared.compose_hash:
        _require_digest(given)
    return prepared


def hash_of(given: Given, name: str) -> str | None:
    """Return an input that is 32 bytes of hex, or None if it is not set."""
    text = given.text(name)
    return parse_hash(text, name) if text else None


def _ciphertext(given: Given, files: Files) -> str:
    text, path = given.text("encrypted-env"), given.text("encrypted-env-file")
    if text and path:
        raise InputError("both encrypted-env and encrypted-env-file are set", hint="pass only one of them")
    if not path:
        return text
    origin = Origin("encrypted-env-file", path)
    try:
        text = files.read(path, origin).decode().strip()
    except UnicodeDecodeError:
        text = ""
    if not text:
        raise InputError(f"{origin} is not a ciphertext in hex", hint="check the path", file=path)
    return text


def _from_file(given: Given, files: Files) -> Prepared:
    path = given.text("prepared-file")
    for name in ("encrypted-env", "encrypted-env-file", "env-keys", "compose-hash"):
        if given.text(name):
            raise InputError(
                f"both {name} and prepared-file are set", hint=f"leave `{name}` out: the file already has it"
            )
    _require_digest(given)
    from phala_secrets.inputs import prepared_file

    whole = prepared_file.parse(files.read(path, Origin("prepared-file", path)), path)
    return Prepared(
        encrypted_env=whole.encrypted_env,
        env_keys=whole.env_keys,
        digest=_digest(given),
        compose_hash=whole.compose_hash,
        transaction_hash=_transaction(given),
        whole=whole,
    )


def _require_digest(given: Given) -> None:
    if not given.text("prepared-digest"):
        raise InputError(
            "prepared-digest is missing, so nothing shows that this is the approved ciphertext",
            hint="pass the digest from prepare-only, or none to skip the check",
        )


def _digest(given: Given) -> str | None:
    text = given.text("prepared-digest")
    if text in ("", WITHOUT_DIGEST):
        return None
    from phala_secrets.chain.calldata import parse_digest

    return parse_digest(text)


def _names(text: str) -> tuple[str, ...]:
    try:
        names = loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(one, str) and NAME.fullmatch(one) for one in names):
        raise InputError(
            "env-keys is not a JSON list of names",
            hint="pass the `env-keys` that came with the ciphertext",
        )
    return tuple(names)


def _transaction(given: Given) -> str | None:
    text = given.text("transaction-hash")
    if text == "already-registered":
        return text
    return "0x" + parse_hash(text, "transaction-hash") if text else None
