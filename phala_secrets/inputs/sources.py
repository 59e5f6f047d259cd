"""The sources of a run, read into one ordered environment.

Weakest first: ``env-file`` in the order given, ``env``, ``files``, ``secrets-json``,
``secrets``. Dotenv text is read as python-dotenv reads a file with interpolation
off. A variable keeps the place where its name first appeared, and has the value of
the strongest source that gives it.

Nothing said here holds a value, nor any text that may be one: of a line that cannot
be read, its number is all that is told.
"""

from __future__ import annotations

import json
import os
import re
import stat
from base64 import b64encode
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from phala_secrets.dstack.environment import Environment, Origin, Variable
from phala_secrets.errors import Finding, InputError
from phala_secrets.inputs import dotenv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

__all__ = ["MAX_FILE_BYTES", "Environment", "Origin", "Sources", "Variable", "gather"]

MAX_FILE_BYTES = 8 * 1024 * 1024
"""The largest file read: eight times what the guest takes in all, comments included."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHOWABLE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_SHOWABLE_GLOB = re.compile(r"[A-Za-z0-9_.*?!\[\]-]{1,64}")
_SHOWABLE_PATH = re.compile(r"[\w .,/@+~()\[\]-]{1,255}")

_NAME_HINT = "A name has letters, digits and underscores, and does not begin with a digit."
_BASE64_HINT = "Add the name to `base64`, and decode it where it is used."


@dataclass(frozen=True, slots=True)
class Sources:
    """What the user gave. Lists are split already; nothing is read or checked yet."""

    env_files: tuple[str, ...] = ()
    env: str = field(default="", repr=False)
    files: tuple[str, ...] = ()
    secrets_json: str = field(default="", repr=False)
    secrets_include: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    base64: tuple[str, ...] = ()
    allow_empty: bool = False

    @property
    def given(self) -> bool:
        """Whether there is any source at all (``base64`` and ``secrets-include`` are none)."""
        return bool(self.env_files or self.env or self.files or self.secrets_json or self.secrets)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A name and its content, in bytes: what a file holds need not be text."""

    name: str
    content: bytes = field(repr=False)
    origin: Origin


def gather(
    sources: Sources,
    *,
    environ: Mapping[str, str],
    root: Path | None = None,
    folder: Path = Path(),
    stdin: Callable[[], bytes] | None = None,
) -> tuple[Environment, list[Finding]]:
    """Read all sources into one environment, with the warnings that this gave rise to.

    ``secrets`` takes its names from ``environ``. Relative paths start from ``folder``;
    with ``root``, every file has to lie inside it once symbolic links are followed.
    ``stdin`` reads standard input for the env-file ``-``, which is refused without it.

    Raises InputError for whatever is wrong with a source.
    """
    if not sources.given:
        raise InputError(
            "No source is given",
            hint="Give `env-file`, `env`, `files`, `secrets`, or `secrets-json` with `secrets-include`.",
        )
    findings: list[Finding] = []
    entries: dict[str, _Entry] = {}
    for source in _read_all(sources, environ, _Files(folder, root), stdin, findings):
        findings += _merge(source, entries)
    if not entries:
        findings.append(Finding("The sources hold no variable at all"))
    findings += [
        Finding(f"`base64`: {_shown(glob, _SHOWABLE_GLOB)} matches no variable", "Check its spelling.")
        for glob in _matching_nothing(sources.base64, entries)
    ]
    return Environment(tuple(_variable(entry, sources.base64) for entry in entries.values())), findings


def _read_all(
    sources: Sources,
    environ: Mapping[str, str],
    files: _Files,
    stdin: Callable[[], bytes] | None,
    findings: list[Finding],
) -> Iterator[Iterable[_Entry]]:
    """Yield what each source gives, the weakest first."""
    for path in sources.env_files:
        yield _from_env_file(path, files, stdin)
    yield _from_dotenv(sources.env.encode("utf-8", "surrogatepass"), Origin("env"))
    yield _from_files(sources.files, files)
    yield _from_json(sources.secrets_json, sources.secrets_include, findings)
    yield _from_environ(sources.secrets, environ, allow_empty=sources.allow_empty)


def _merge(source: Iterable[_Entry], entries: dict[str, _Entry]) -> Iterable[Finding]:
    """Add what one source gives, and tell of each name that it gives more than once."""
    first: dict[str, Origin] = {}
    told: dict[str, Finding] = {}
    for entry in source:
        name, origin = entry.name, entry.origin
        earlier = first.setdefault(name, origin)
        if earlier is not origin:
            lines = "" if origin.line is None else f" (line {earlier.line} and line {origin.line})"
            told[name] = Finding(
                f"{name} is given more than once in {origin.label}{lines}; the last one counts",
                "Remove all but one of them.",
                file=origin.file,
                line=origin.line,
            )
        entries[name] = entry
    return told.values()


def _variable(entry: _Entry, base64: Sequence[str]) -> Variable:
    if any(fnmatchcase(entry.name, glob) for glob in base64):
        given = entry.content.decode(errors="ignore")
        return Variable(entry.name, b64encode(entry.content).decode(), entry.origin, given)
    problem = "contains a NUL, which no environment can carry" if b"\0" in entry.content else ""
    try:
        value = entry.content.decode()
    except UnicodeDecodeError:
        problem = "is not UTF-8 text"
    if problem:
        raise _refusal(f"{entry.name} ({entry.origin}) {problem}", _BASE64_HINT, entry.origin)
    return Variable(entry.name, value, entry.origin)


# Files


@dataclass(frozen=True, slots=True)
class _Files:
    """Reads regular files, those inside ``root`` alone if there is one."""

    folder: Path
    root: Path | None

    def read(self, path: str, origin: Origin) -> bytes:
        hint = "The path starts from the working folder; it is not the content itself."
        try:
            target = (self.folder / path).resolve()
            if self.root is not None and not target.is_relative_to(self.root.resolve()):
                raise _refusal(f"{origin} lies outside the workspace", "Put the file inside it.", origin)
            with open(target, "rb", opener=_open_at_once) as stream:
                if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                    return _limited(stream.read(MAX_FILE_BYTES + 1), origin)
            problem = "is not a regular file"
            hint = "Of a pipe, the command reads standard input, as the env-file `-`."
        except (FileNotFoundError, NotADirectoryError):
            problem = "does not exist"
        except IsADirectoryError:
            problem = "is a directory"
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
        except (RuntimeError, ValueError):
            problem = "cannot be read (no path leads there)"
        raise _refusal(f"{origin} {problem}", hint, origin)


def _open_at_once(path: str, flags: int) -> int:
    """Open without waiting for the other end of a pipe, nor through a link made since."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


def _limited(data: bytes, origin: Origin) -> bytes:
    if len(data) > MAX_FILE_BYTES:
        raise _refusal(
            f"{origin} is larger than {MAX_FILE_BYTES} bytes", "The guest takes 1048576 bytes in all.", origin
        )
    return data


def _from_files(given: Sequence[str], files: _Files) -> Iterator[_Entry]:
    """Read each ``NAME=path``. A path is told only once it has proved to be one."""
    for number, (name, equals, path) in enumerate((entry.partition("=") for entry in given), 1):
        place = Origin(f"`files`, entry {number}")
        if not (equals and path):
            raise _refusal(f"{place} is not NAME=path", "Write one NAME=path a line.", place)
        _check_name(name, place)
        content = files.read(path, Origin(f"The file of {name} in `files`"))
        yield _Entry(name, content, Origin(f"files {name}={path}", file=path))


def _from_env_file(path: str, files: _Files, stdin: Callable[[], bytes] | None) -> Iterator[_Entry]:
    if path != "-":
        shown = _SHOWABLE_PATH.fullmatch(path) is not None
        origin = Origin(f"env-file {path}", path) if shown else Origin("env-file (a path not shown)")
        return _from_dotenv(files.read(path, origin), origin)
    if stdin is None:
        raise InputError("env-file - is standard input, which the command alone reads", hint="Name a file.")
    origin = Origin("env-file - (standard input)")
    return _from_dotenv(_limited(stdin(), origin), origin)


def _from_dotenv(data: bytes, origin: Origin) -> Iterator[_Entry]:
    for line, name, value, problem in dotenv.parse(_text(data, origin)):
        place = Origin(origin.label, origin.file, line)
        if problem:
            raise _refusal(
                f"{place} {problem}", "Write NAME=value, quotes around the whole value if at all.", place
            )
        _check_name(name, place)
        yield _Entry(name, value.encode(), place)


def _text(data: bytes, origin: Origin) -> str:
    """Decode as Python reads a text file: any newline is ``\\n``, a byte order mark is dropped."""
    data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    problem, where = "is not UTF-8", 0
    try:
        text = data.decode()
        if "\0" not in text:
            return text
        problem, where = "contains a NUL", data.index(b"\0")
    except UnicodeDecodeError as error:
        where = error.start
    place = Origin(origin.label, origin.file, data.count(b"\n", 0, where) + 1)
    raise _refusal(f"{place} {problem}", "Save it as UTF-8 text.", place)


# JSON and the step's own environment


class _Pairs(list[tuple[str, object]]):
    """A JSON object, repeated names and all."""


_KINDS = {bool: "true or false", int: "a number", float: "a number", type(None): "null", _Pairs: "an object"}


def _from_json(text: str, include: Sequence[str], findings: list[Finding]) -> Iterator[_Entry]:
    if not text and not include:
        return
    if not text or not include:
        raise InputError(
            "`secrets-json` and `secrets-include` go together, and only one is given",
            hint="`secrets-include` has the globs that say which names of `secrets-json` are taken.",
        )
    pairs = _object(text)
    for glob in _matching_nothing(include, [name for name, _ in pairs]):
        raise InputError(
            f"`secrets-include`: {_shown(glob, _SHOWABLE_GLOB)} matches no name in `secrets-json`",
            hint="Check its spelling, case included; GitHub leaves out secrets that are not set.",
        )
    for name, value in pairs:
        if not any(fnmatchcase(name, glob) for glob in include):
            continue
        origin = Origin(f"secrets-json {_shown(name)}")
        _check_name(name, origin)
        if not isinstance(value, str):
            kind = _KINDS.get(type(value), "a list")
            raise InputError(f"{origin} is {kind}, not a string", hint="Every value has to be a string.")
        if name == "github_token" and name not in include:
            findings.append(
                Finding(
                    "`secrets-include` takes github_token too, this job's own token",
                    "Name the secrets, or narrow the glob.",
                )
            )
        yield _Entry(name, _encoded(value, origin), origin)


def _object(text: str) -> _Pairs:
    problem = "has to be a JSON object"
    try:
        value = json.loads(text, object_pairs_hook=_Pairs)
        if isinstance(value, _Pairs):
            return value
    except json.JSONDecodeError as error:
        problem = f"is not JSON (line {error.lineno}, column {error.colno})"
    except (RecursionError, ValueError):
        problem = "is not JSON that can be read"
    raise InputError(f"`secrets-json` {problem}", hint="On GitHub, write ${{ toJSON(secrets) }}.")


def _from_environ(
    secrets: Sequence[str], environ: Mapping[str, str], *, allow_empty: bool
) -> Iterator[_Entry]:
    unset: list[str] = []
    for number, entry in enumerate(secrets, 1):
        target, equals, source = entry.partition("=")
        _check_name(target, Origin(f"`secrets`, entry {number}"))
        origin = Origin(f"secrets {target}")
        value = environ.get(source if equals else target, "")
        if not value and not allow_empty:
            unset.append(target)
        yield _Entry(target, _encoded(value, origin), origin)
    if unset:
        raise InputError(
            f"`secrets`: unset or empty in this step's environment: {', '.join(map(_shown, unset))}",
            hint="Check the spelling and the step's `env`, or set `allow-empty`.",
        )


# What may be said


def _refusal(message: str, hint: str, origin: Origin) -> InputError:
    return InputError(message, hint=hint, file=origin.file, line=origin.line)


def _shown(text: str, pattern: re.Pattern[str] = _SHOWABLE) -> str:
    """``text`` if it looks like what it should be; anything else may be a secret in the wrong place."""
    return text if pattern.fullmatch(text) else "(not shown)"


def _check_name(name: str, place: Origin) -> None:
    if not _NAME.fullmatch(name):
        raise _refusal(f"{place}: the name {_shown(name)} is not valid", _NAME_HINT, place)


def _encoded(value: str, origin: Origin) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError:
        pass
    raise _refusal(f"{origin} is not UTF-8 text", "Give it through `files`, with `base64`.", origin)


def _matching_nothing(globs: Iterable[str], names: Iterable[str]) -> list[str]:
    known = list(names)
    return [glob for glob in globs if not any(fnmatchcase(name, glob) for name in known)]
