"""Files that outputs are written to."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phala_secrets.errors import InputError

Value = str | bool | Sequence[str] | Sequence[Mapping[str, Any]]
"""An output: text, a flag, or a list that becomes JSON."""


def as_text(value: Value) -> str:
    """An output as the text that a file takes."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def variable(name: str) -> str:
    """An output's name as an environment variable: ``cvm-id`` is ``PHALA_CVM_ID``."""
    return "PHALA_" + name.upper().replace("-", "_")


def append(path: str, text: str, what: str) -> None:
    """Appends to a file that the runner gave us; InputError, naming ``what``, when that fails."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise unwritable(what, error) from None


def unwritable(what: str, error: OSError) -> InputError:
    """The error for a file that outputs cannot be written to."""
    return InputError(
        f"{what} cannot be written: {error.strerror or type(error).__name__}",
        hint="check that the path exists, is writable, and that the disk is not full",
    )


class DotenvFile:
    """``PHALA_CVM_ID=…`` lines: one an output, no quotes, no blank lines, nothing multi-line.

    The file is written anew with each output, since in a dotenv file a name stands once;
    ``limit`` is how many bytes it may have, the longest lines being left out first.
    """

    def __init__(self, path: str, limit: int | None = None) -> None:
        self._path = path
        self._limit = limit
        self._lines: dict[str, str] = {}

    def check(self) -> None:
        """InputError when the file cannot be written."""
        self._write("")

    def put(self, name: str, value: Value) -> None:
        """Adds or replaces one output; what takes several lines is left out."""
        text = as_text(value)
        if not text or "\n" in text or "\r" in text:
            self._lines.pop(name, None)
        else:
            self._lines[name] = f"{variable(name)}={text}\n"
        kept = dict(self._lines)
        while self._limit and sum(len(line.encode()) for line in kept.values()) > self._limit:
            del kept[max(kept, key=lambda name: len(kept[name]))]
        self._write("".join(kept.values()))

    def _write(self, text: str) -> None:
        try:
            Path(self._path).write_text(text, encoding="utf-8")
        except OSError as error:
            raise unwritable(f"output-file {self._path[:200]!a}", error) from None
