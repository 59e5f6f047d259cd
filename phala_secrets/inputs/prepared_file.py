"""The file that ``prepare-only`` writes: all that the second half of an update needs, and nothing secret.

It is JSON, for eyes and for ``jq``. Anyone who can write to its storage can change it, so its digest
goes another way.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from phala_secrets.dstack.encryption import parse_sealed
from phala_secrets.dstack.ids import parse_app_id, parse_hash
from phala_secrets.dstack.nested import loads
from phala_secrets.errors import InputError
from phala_secrets.inputs.entries import NAME

_VERSION = 1
_CVM = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:=+@-]{0,127}")


class PreparedFile(NamedTuple):
    """What an approval is for. Hex has no ``0x``.

    ``encrypted_env`` is empty where the environment stays as it is, ``docker_compose_file`` None where
    the compose file does.
    """

    app_id: str
    cvm_id: str
    chain_id: int
    device_ids: tuple[str, ...]
    public_key: str
    env_keys: tuple[str, ...]
    compose_hash: str
    encrypted_env: str
    docker_compose_file: str | None

    def text(self) -> str:
        """Return the content of the file: the same for the same fields."""
        return json.dumps({"version": _VERSION, **self._asdict()}, indent=2, ensure_ascii=False) + "\n"


def parse(data: bytes, path: str) -> PreparedFile:
    """Return the content of a file, unproven.

    Raises:
        InputError: It is not a prepared file, or has another version.
    """
    try:
        content = loads(data.decode())
    except ValueError:
        content = None
    if not isinstance(content, dict) or "version" not in content:
        raise _invalid("prepare-only did not write it", path)
    if content["version"] != _VERSION:
        raise _invalid("another release wrote it", path)
    if set(content) != {"version", *PreparedFile._fields}:
        raise _invalid("a field is missing or unknown", path)
    try:
        return _read(content)
    except (InputError, TypeError):
        raise _invalid("a field has an invalid value", path) from None


def _read(content: dict[str, Any]) -> PreparedFile:
    """Return the fields. Raise InputError or TypeError where one is not what it should be."""
    sealed, compose = _text(content["encrypted_env"]), content["docker_compose_file"]
    if not sealed and compose is None:
        raise TypeError("it changes nothing")
    if type(content["chain_id"]) is not int or not _CVM.fullmatch(_text(content["cvm_id"])):
        raise TypeError("chain_id or cvm_id")
    return PreparedFile(
        app_id=parse_app_id(_text(content["app_id"])),
        cvm_id=content["cvm_id"],
        chain_id=content["chain_id"],
        device_ids=tuple(parse_hash(device, "device") for device in _texts(content["device_ids"])),
        public_key=parse_hash(_text(content["public_key"]), "public_key"),
        env_keys=_names(content["env_keys"]),
        compose_hash=parse_hash(_text(content["compose_hash"]), "compose_hash"),
        encrypted_env=parse_sealed(sealed, "encrypted_env") if sealed else "",
        docker_compose_file=None if compose is None else _text(compose),
    )


def _names(value: Any) -> tuple[str, ...]:
    names = _texts(value)
    if not all(map(NAME.fullmatch, names)):
        raise TypeError("not names")
    return names


def _text(value: Any) -> str:
    if not isinstance(value, str) or any("\ud800" <= character <= "\udfff" for character in value):
        raise TypeError("not a text")  # half a character is none
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return tuple(map(_text, value))


def _invalid(problem: str, path: str) -> InputError:
    return InputError(
        f"invalid prepared-file: {problem}",
        hint="pass the file as prepare-only wrote it",
        file=path,
    )
