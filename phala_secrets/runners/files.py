"""Files that outputs are written to."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from phala_secrets.errors import Finding, InputError

Value = str | bool | Sequence[str] | Sequence[Mapping[str, Any]]
"""An output: text, a flag, or a list that becomes JSON."""

MAX_VARIABLE_BYTES = 128 * 1024
"""What Linux takes as one environment variable, name, ``=`` and a NUL included (``MAX_ARG_STRLEN``)."""


def as_text(value: Value) -> str:
    """An output as the text that a file takes."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value.encode(errors="replace").decode()  # JSON can hold half a character, and no file can
    return json.dumps(value, separators=(",", ":"))


def as_json(value: Any) -> str:
    """JSON as one line of ASCII in which no runner finds a command, since ``##`` stands nowhere in it."""
    return json.dumps(value).replace("##", "#\\u0023")


def variable(name: str) -> str:
    """An output's name as an environment variable: ``cvm-id`` is ``PHALA_CVM_ID``."""
    return "PHALA_" + name.upper().replace("-", "_")


def lacks(where: str, name: str, why: str) -> Finding:
    """The warning that an output has no place somewhere."""
    return Finding(f"{where} lacks the output {name}: {why}", "take it from the JSON of --json")


def append(path: str, text: str, what: str) -> None:
    """Appends to a file that the runner gave us; InputError, naming ``what``, when that fails.

    Then the file is left as it was: half an output would break all the others in it.
    """
    try:
        with _opened(path, os.O_APPEND, 0o600) as descriptor:
            size = os.fstat(descriptor).st_size
            try:
                _write_all(descriptor, text.encode())
            except OSError:
                _cut(descriptor, size)
                raise
    except OSError as error:
        raise unwritable(what, error) from None


@contextmanager
def _opened(path: str | Path, flags: int, mode: int) -> Iterator[int]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _cut(descriptor: int, size: int) -> None:
    with suppress(OSError):  # no regular file
        os.ftruncate(descriptor, size)


def unwritable(what: str, error: OSError) -> InputError:
    """The error for a file that outputs cannot be written to."""
    return InputError(
        f"{what} cannot be written: {error.strerror or type(error).__name__}",
        hint="check that the path exists, is writable, and that the disk is not full",
    )


class DotenvFile:
    """``PHALA_CVM_ID=…`` lines: one an output, no quotes, no blank lines, nothing multi-line.

    The file is written anew with each output, since in a dotenv file a name stands once;
    with ``keep`` behind what it held before. ``limit`` is how many bytes it may have, the
    longest lines being left out first.
    """

    def __init__(self, path: str, what: str, *, limit: int | None = None, keep: bool = False) -> None:
        self._path = path
        self._what = what
        self._limit = limit
        self._keep = keep
        self._before = ""
        self._written = b""
        self._lines: dict[str, str] = {}
        self._told: set[str] = set()

    def check(self) -> None:
        """InputError when the file cannot be written."""
        if self._keep:
            self._before = self._read()
            self._written = _encoded(self._before)
            if self._before and not self._before.endswith("\n"):
                self._before += "\n"
        self._write("")

    def put(self, name: str, value: Value) -> list[Finding]:
        """Adds or replaces one output, and tells of each that has no place in the file, once."""
        text = as_text(value)
        single = text.splitlines() == [text] and "\0" not in text
        if single:
            self._lines[name] = f"{variable(name)}={text}\n"
        else:
            self._lines.pop(name, None)
        kept = dict(self._lines)
        while self._limit and sum(len(line.encode()) for line in kept.values()) > self._limit:
            del kept[max(kept, key=lambda name: len(kept[name]))]
        self._write("".join(kept.values()))
        findings = [
            lacks(self._what, other, f"it may have {self._limit} bytes")
            for other in self._lines.keys() - kept
        ]
        if text and not single:
            findings.append(replace(lacks(self._what, name, "it takes single lines"), severity="notice"))
        findings = [finding for finding in findings if finding.message not in self._told]
        self._told |= {finding.message for finding in findings}
        return findings

    def _read(self) -> str:
        try:
            return Path(self._path).read_text(encoding="utf-8", errors="surrogateescape")
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise unwritable(self._what, error) from None

    def _write(self, text: str) -> None:
        """The whole file anew; where the disk is full, it stays as it was, since that has room already."""
        data = _encoded(self._before + text)
        try:
            with _opened(self._path, 0, 0o666) as descriptor:
                try:
                    _write_all(descriptor, data)
                    _cut(descriptor, len(data))
                except OSError:
                    with suppress(OSError):
                        os.pwrite(descriptor, self._written, 0)
                    _cut(descriptor, len(self._written))
                    raise
        except OSError as error:
            raise unwritable(self._what, error) from None
        self._written = data
