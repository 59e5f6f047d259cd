"""``phala.toml``, which the checkout decides: the official CLI's file for a project."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

from phala_secrets.dstack.environment import Origin
from phala_secrets.errors import InputError

if TYPE_CHECKING:
    from phala_secrets.inputs.files import Files

_NAME = "phala.toml"
_MOST = 64 * 1024
_DOTS = 64
"""Dots in a line: the library takes memory for the square of the parts of a key."""


class Project:
    """``phala.toml`` of the working folder, read when something of it is needed; there may be none."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def first(self, *names: str) -> str:
        """Return the first of these settings that it has, or nothing."""
        return next((text for name in names for text in self.texts(name)[:1]), "")

    def seen(self, name: str) -> str:
        """Return a setting of a file that was read already, or nothing: no file is read for it."""
        value = self.__dict__.get("_settings", {}).get(name)
        return value if isinstance(value, str) else ""

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a setting that is a text, or a list of them, without empty ones.

        Raises:
            InputError: It is anything else.
        """
        value = self._settings.get(name)
        texts = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(text, str) for text in texts):
            raise InputError(f"{_NAME}: {name} is not text", hint="put quotes around it", file=_NAME)
        return tuple(text for text in texts if text)

    @cached_property
    def _settings(self) -> dict[str, Any]:
        if not os.path.lexists(self._files.folder / _NAME):
            return {}
        content = self._files.read(
            _NAME, Origin(_NAME, _NAME), by_checkout=True, hint="make it a regular file", most=_MOST
        )
        import tomllib

        try:
            if all(line.count(b".") <= _DOTS for line in content.splitlines()):
                return tomllib.loads(content.decode())
        except (ValueError, RecursionError):
            pass
        raise InputError(f"{_NAME} is not valid TOML", hint="fix it, or pass the inputs directly", file=_NAME)
