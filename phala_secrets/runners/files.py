"""Files that outputs are written to."""

from __future__ import annotations

import errno
import json
import os
import re
import select
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from phala_secrets.errors import Finding, InputError

Value = str | bool | int | Sequence[str] | Sequence[Mapping[str, Any]]
"""An output: text, a flag, a number, or a list that becomes JSON."""

MAX_VARIABLE_BYTES = 128 * 1024
"""What Linux takes as one environment variable, name, ``=`` and a NUL included (``MAX_ARG_STRLEN``)."""


Format = Literal["dotenv", "shell", "json"]

_PATIENCE = 10.0
"""Seconds that a pipe may be full: nobody reads it."""

_PLAIN = re.compile(r"[^\x00-\x20!\"#$&'()*;<>?\[\\\]`{|}~\x7f]*")
"""What is one word to a shell, and is interpolated by no reader of dotenv."""

_ACTED_ON = re.compile(r"[$`\\'\"]")
_ESCAPE = re.compile(r'\\["\\/bfnrt]|[$`\'#!]')
_IN_SCRIPTS = re.compile(r"[$`'#!;&|<>()*?~]")
"""What a shell may act on in JSON, quoted or not."""


def as_text(value: Value) -> str:
    """An output as the text that a file takes. JSON has nothing that the script of a later step acts on."""
    if isinstance(value, bool):
        return str(value).lower()
    text = _whole(value) if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return _IN_SCRIPTS.sub(_as_number, text) if text[:1] in ("[", "{") else text


def _whole(text: str) -> str:
    return text.encode(errors="replace").decode()  # JSON can hold half a character, and no file can


def as_json(value: Any) -> str:
    """JSON as one line of ASCII in which no runner finds a command, since ``##`` stands nowhere in it."""
    return json.dumps(value).replace("##", "#\\u0023")


def in_shell(text: str) -> str:
    """Return a text as one word of a shell; a NUL, which no variable can hold, is left out."""
    return "'" + text.replace("\0", "").replace("'", "'\\''") + "'"


def in_dotenv(value: Value) -> str:
    """Return an output as a dotenv line has it: what is one word is as it is.

    Readers differ (a shell, python-dotenv, Compose, GitLab), so nothing may be left that one of them
    acts on. JSON stays the same JSON: its strings have ``$``, backquotes, backslashes and quotes as
    ``\\uXXXX``. Text for people stands in single quotes, with ``?`` for each of those.
    """
    text = _whole(value) if isinstance(value, str) else as_text(value)
    if not isinstance(value, str) or text[:1] in ("[", "{"):
        try:
            return _ESCAPE.sub(_as_number, json.dumps(json.loads(text), separators=(",", ":")))
        except (ValueError, RecursionError):
            pass
    if _PLAIN.fullmatch(text):
        return text
    shown = "".join(character if character.isprintable() else " " for character in text)
    return "'" + _ACTED_ON.sub("?", shown) + "'"


def _as_number(match: re.Match[str]) -> str:
    character = json.loads(f'"{match[0]}"') if len(match[0]) > 1 else match[0]
    return f"\\u{ord(character):04x}"


def variable(name: str) -> str:
    """An output's name as an environment variable: ``cvm-id`` is ``PHALA_CVM_ID``."""
    return "PHALA_" + name.upper().replace("-", "_")


def lacks(where: str, name: str, why: str) -> Finding:
    """The warning that an output has no place somewhere."""
    return Finding(f"{where} lacks the output {name}: {why}", "take it from the JSON of --json")


def append(path: str, text: str, what: str) -> None:
    """Append lines to a file that the runner gave us; InputError, naming ``what``, if that fails.

    Then the file is as it was: half an output would break all the others in it. A last line without
    an end gets one first.
    """
    try:
        with _opened(path, os.O_RDWR | os.O_APPEND, 0o600) as descriptor:
            size = os.fstat(descriptor).st_size
            try:
                if text and size and os.pread(descriptor, 1, size - 1) != b"\n":
                    text = "\n" + text
                _write_all(descriptor, text.encode())
            except OSError:
                _cut(descriptor, size)
                raise
    except OSError as error:
        raise unwritable(what, error) from None


def overwrite(path: str, text: str, what: str) -> None:
    """Write a file that everybody may read, in place of what was there; InputError, naming ``what``."""
    try:
        with _opened(path, os.O_WRONLY | os.O_TRUNC, 0o644) as descriptor:
            with suppress(OSError):  # a later step is not root, and the umask may be strict
                os.fchmod(descriptor, 0o644)
            _write_all(descriptor, text.encode())
    except OSError as error:
        raise unwritable(what, error) from None


@contextmanager
def _opened(path: str | Path, flags: int, mode: int) -> Iterator[int]:
    """Open a file without waiting for anybody.

    Below the working folder, which is a checkout, through no link, and a regular file: who writes a
    pull request would choose else where the outputs go.
    """
    flags |= os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    folder, below = _below_here(path)
    try:
        if below:
            flags |= os.O_NOFOLLOW
            for name in below[:-1]:
                outer, folder = (
                    folder,
                    os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder),
                )
                os.close(outer)
        descriptor = os.open(below[-1] if below else path, flags, mode, dir_fd=folder if below else None)
    except OSError as error:
        if error.errno == errno.ELOOP and below:
            raise OSError(errno.ELOOP, "it is, or is behind, a link of the working folder") from None
        raise
    finally:
        if below:
            os.close(folder)
    try:
        if below and not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file")
        yield descriptor
    finally:
        os.close(descriptor)


def _below_here(path: str | Path) -> tuple[int, tuple[str, ...]]:
    """Return the working folder, opened, and the way from there; nothing for a path to elsewhere."""
    here = str(Path.cwd())
    parts = Path(os.path.relpath(path, here)).parts  # without its ``..``, as if no link were in it
    if parts[:1] == ("..",):  # the working folder may have another name: that of a link to it
        way = Path(os.path.normpath(Path(path).absolute()))
        named = next((one for one in reversed(way.parents) if _is_folder(one, here)), None)
        parts = way.relative_to(named).parts if named else ()
    if here == "/" or not parts:
        return -1, ()
    return os.open(here, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), parts


def _is_folder(path: Path, folder: str) -> bool:
    try:
        return path.samefile(folder)
    except OSError:
        return False


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            if not select.select([], [descriptor], [], _PATIENCE)[1]:
                raise


def _cut(descriptor: int, size: int) -> None:
    with suppress(OSError):  # no regular file
        os.ftruncate(descriptor, size)


def unwritable(what: str, error: OSError) -> InputError:
    """The error for a file that outputs cannot be written to."""
    return InputError(
        f"{what} cannot be written: {error.strerror or type(error).__name__}",
        hint="check that the path exists, is writable, and that the disk is not full",
    )


class OutputFile:
    """The outputs as a file, written anew with each of them, since a name stands in it once.

    ``dotenv`` is ``PHALA_CVM_ID=…`` lines: no blank lines, nothing multi-line. ``shell`` is the same
    with each value in quotes, to be sourced. ``json`` is one object. With ``keep`` they stand behind
    what the file held before. ``limit`` is how many bytes it may have, the longest lines being left
    out first.
    """

    def __init__(
        self,
        path: str,
        what: str,
        *,
        form: Format = "dotenv",
        limit: int | None = None,
        keep: bool = False,
    ) -> None:
        self._path = path
        self._what = what
        self._form = form
        self._values: dict[str, Value] = {}
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
        if self._form == "json":
            self._values[name.replace("-", "_")] = value
            self._write(as_json(self._values) + "\n")
            return []
        single = text.splitlines() == [text] and "\0" not in text
        if self._form == "shell":
            self._lines[name] = f"{variable(name)}={in_shell(text)}\n"
            single = True
        elif single:
            self._lines[name] = f"{variable(name)}={in_dotenv(value)}\n"
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
            findings.append(lacks(self._what, name, "it takes single lines")._replace(severity="notice"))
        findings = [finding for finding in findings if finding.message not in self._told]
        self._told |= {finding.message for finding in findings}
        return findings

    def _read(self) -> str:
        try:
            with _opened(self._path, os.O_RDWR, 0o666) as descriptor:
                size = os.fstat(descriptor).st_size
                return os.pread(descriptor, size, 0).decode("utf-8", "surrogateescape")
        except OSError as error:
            raise unwritable(self._what, error) from None

    def _write(self, text: str) -> None:
        """The whole file anew; where the disk is full, it stays as it was, since that has room already."""
        data = _encoded(self._before + text)
        try:
            with _opened(self._path, os.O_WRONLY, 0o666) as descriptor:
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
