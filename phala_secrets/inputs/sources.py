"""The sources of a run, read into one ordered environment.

Weakest first: ``env-file`` in the order given, ``env``, ``files``, ``secrets-json``,
``secrets``. Dotenv text is read as python-dotenv reads a file with interpolation
off. A variable keeps the place where its name first appeared, and has the value of
the strongest source that gives it.

No message holds a value, nor any text that may be one: it gives the number of an unreadable line, or of
an invalid or unset name.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from phala_secrets.dstack.environment import Environment, Origin, Variable
from phala_secrets.dstack.nested import loads
from phala_secrets.errors import Finding, InputError
from phala_secrets.inputs import dotenv
from phala_secrets.inputs.entries import (
    NAME,
    SPLIT_HINT,
    Entry,
    check_name,
    encoded,
    refusal,
    refuse_encrypted,
    remark_on,
)
from phala_secrets.inputs.files import MAX_FILE_BYTES, Files, bounded
from phala_secrets.inputs.given import UNEXPANDED, expanded
from phala_secrets.inputs.table import INPUTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from phala_secrets.cloud.secret import Secret
    from phala_secrets.inputs.files import Root

__all__ = ["MAX_FILE_BYTES", "Environment", "Origin", "Sources", "Variable", "gather"]

_SHOWABLE_GLOB = re.compile(r"[A-Za-z0-9_.*?!\[\]-]{1,64}")
_SHOWABLE_PATH = re.compile(r"[\w .,/@+~()\[\]-]{1,255}")
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)[^}]*\}")

_BASE64_HINT = "add the name to `base64`, and decode the value in the app"


class Sources(NamedTuple):
    """The sources, unread and unchecked. Lists are split already.

    ``by_checkout`` is whether the env-files are those of ``phala.toml``, ``allow_none`` whether all
    sources together may hold no variable, ``azure`` whether ``$(NAME)`` is a variable that was not
    expanded. ``own_key`` is the run's API key, and ``withheld`` names the inputs whose fallback is
    among ``secrets``.
    """

    env_files: tuple[str, ...] = ()
    env: str = ""
    files: tuple[str, ...] = ()
    secrets_json: str = ""
    secrets_include: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    base64: tuple[str, ...] = ()
    allow_empty: bool = False
    by_checkout: bool = False
    allow_none: bool = False
    azure: bool = False
    own_key: Secret | None = None
    withheld: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Sources({self.names})"

    @property
    def given(self) -> bool:
        """Whether there is any source at all (``base64`` and ``secrets-include`` are not sources)."""
        return bool(self.env_files or self.env or self.files or self.secrets_json or self.secrets)

    @property
    def names(self) -> str:
        """The sources that are set, as people read them."""
        given = {
            "env_file of phala.toml" if self.by_checkout else "env-file": self.env_files,
            "env": self.env,
            "files": self.files,
            "secrets-json": self.secrets_json,
            "secrets": self.secrets,
        }
        return ", ".join(name for name, text in given.items() if text)


def gather(
    sources: Sources,
    *,
    environ: Mapping[str, str],
    root: Root | None = None,
    folder: Path = Path(),
    stdin: Callable[[], bytes] | None = None,
) -> tuple[Environment, list[Finding]]:
    """Read all sources into one environment.

    ``secrets`` takes its names from ``environ``. Relative paths start from ``folder``;
    with ``root``, every file has to lie in what that takes once symbolic links are followed.
    ``stdin`` reads standard input for the env-file ``-``, which is refused without it.

    Returns:
        The environment, and the warnings about it.

    Raises:
        InputError: A source is invalid.
    """
    if not sources.given:
        raise InputError(
            "no source specified",
            hint="pass `env-file`, `env`, `files`, `secrets`, or `secrets-json` with `secrets-include`",
        )
    findings = [_withheld(name) for name in sources.withheld]
    entries: dict[str, Entry] = {}
    for source in _read_all(sources, environ, Files(folder, root), stdin, findings):
        findings += _merge(source, entries)
    if not entries and not sources.allow_none:
        raise InputError(
            f"no variables: {sources.names} is empty",
            hint="check it; to drop every variable of the CVM, set `allow-removal: all`",
        )
    findings += [
        Finding(f"`base64`: {_shown_glob(glob)} matches no variable", _split_hint(glob, "check its spelling"))
        for glob in _matching_nothing(sources.base64, entries)
    ]
    variables = tuple(_variable(entry, sources.base64) for entry in entries.values())
    return Environment(variables), [*findings, *filter(None, map(remark_on, entries.values()))]


def _withheld(name: str) -> Finding:
    return Finding(
        f"`secrets` takes {INPUTS[name].fallback}, so the run does not use it as {name}",
        f"set {name} if the run needs it",
        severity="notice",
    )


def _read_all(
    sources: Sources,
    environ: Mapping[str, str],
    files: Files,
    stdin: Callable[[], bytes] | None,
    findings: list[Finding],
) -> Iterator[Iterable[Entry]]:
    """Yield what each source gives, the weakest first."""
    unread: list[Origin] = []
    for path in sources.env_files:
        yield _from_env_file(path, files, stdin, unread, by_checkout=sources.by_checkout)
    yield _of_env(sources, unread)
    findings += _as_written(unread)
    yield _from_files(sources.files, files)
    yield _from_json(sources, findings)
    environ = expanded(environ) if sources.azure else environ
    yield _from_environ(sources.secrets, environ, allow_empty=sources.allow_empty)


def _merge(source: Iterable[Entry], entries: dict[str, Entry]) -> Iterable[Finding]:
    """Add the entries of one source. Return a warning for each name that it sets more than once."""
    first: dict[str, Origin] = {}
    repeated: dict[str, Finding] = {}
    for entry in source:
        name, origin = entry.name, entry.origin
        earlier = first.setdefault(name, origin)
        if earlier is not origin:
            lines = "" if origin.line is None else f" (line {earlier.line} and line {origin.line})"
            repeated[name] = Finding(
                f"{origin.label} sets {name} more than once{lines}; the last one counts",
                "remove all but one",
                file=origin.file,
                line=origin.line,
            )
        entries[name] = entry
    return repeated.values()


def _variable(entry: Entry, base64: Sequence[str]) -> Variable:
    if any(fnmatchcase(entry.name, glob) for glob in base64):
        given = entry.content.decode(errors="ignore")
        refuse_encrypted(entry.content[:10], f"{entry.name} ({entry.origin})", entry.origin)
        return Variable(entry.name, b64encode(entry.content).decode(), entry.origin, given)
    refuse_encrypted(entry.content, f"{entry.name} ({entry.origin})", entry.origin)
    problem = "contains a NUL, which no environment can carry" if b"\0" in entry.content else ""
    try:
        value = entry.content.decode()
    except UnicodeDecodeError:
        problem = "is not UTF-8 text"
    if problem:
        raise refusal(f"{entry.name} ({entry.origin}) {problem}", _BASE64_HINT, entry.origin)
    return Variable(entry.name, value, entry.origin)


# Files


def _from_files(given: Sequence[str], files: Files) -> Iterator[Entry]:
    """Read each ``NAME=path``. No message shows either before the file was read."""
    for number, (name, equals, path) in enumerate((entry.partition("=") for entry in given), 1):
        place = Origin(f"`files`, entry {number}")
        if not (equals and path):
            raise refusal(f"{place} is not NAME=path", "write one NAME=path per line", place)
        check_name(name, place)
        content = files.read(path, Origin(f"`files`, entry {number}: the file"))
        yield Entry(name, content, Origin(f"files {name}={path}", file=path))


def _from_env_file(
    path: str,
    files: Files,
    stdin: Callable[[], bytes] | None,
    unread: list[Origin],
    *,
    by_checkout: bool,
) -> Iterator[Entry]:
    if path != "-" or by_checkout:
        what = "env_file" if by_checkout else "env-file"
        shown = _SHOWABLE_PATH.fullmatch(path) is not None
        origin = Origin(f"{what} {path}", path) if shown else Origin(f"{what} (a path not shown)")
        data = files.read(path, origin, by_checkout=by_checkout)
    elif stdin is None:
        raise InputError("env-file - is standard input, which only the command reads", hint="name a file")
    else:
        origin = Origin("env-file - (standard input)")
        data = bounded(stdin(), origin)
    return _from_dotenv(data, origin, unread)


def _of_env(sources: Sources, unread: list[Origin]) -> Iterator[Entry]:
    for entry in _from_dotenv(sources.env.encode("utf-8", "surrogatepass"), Origin("env"), unread):
        if sources.azure and UNEXPANDED.fullmatch(entry.content.decode()) and not sources.allow_empty:
            raise refusal(
                f"{entry.origin} is an undefined pipeline variable",
                "check its spelling, or set `allow-empty`",
                entry.origin,
            )
        yield entry


def _from_dotenv(data: bytes, origin: Origin, unread: list[Origin]) -> Iterator[Entry]:
    """Yield what dotenv text assigns; ``unread`` gets the lines that other readers would change."""
    refuse_encrypted(data, str(origin), origin)
    names: set[str] = set()
    changed: list[tuple[set[str], Origin]] = []  # the variables that a line refers to, or none
    for assignment in dotenv.parse(_text(data, origin)):
        place = Origin(origin.label, origin.file, assignment.line)
        if assignment.problem:
            raise refusal(f"{place} {assignment.problem}", assignment.hint, place)
        check_name(assignment.name, place)
        names.add(assignment.name)
        value = assignment.value
        if assignment.escaped or (assignment.quote == "`" and len(value) > 1 and value.endswith("`")):
            changed.append((set(), place))
        elif assignment.quote != "'":
            closed = value[: value.rfind("}") + 1]  # so that no search runs to the end in vain
            changed += [(found, place)] if (found := set(_REFERENCE.findall(closed))) else []
        yield Entry(assignment.name, value.encode(), place)
    unread += [place for found, place in changed if not found or found & names]


def _as_written(unread: Sequence[Origin]) -> Iterator[Finding]:
    """Yield one remark on all lines that another reader would expand or unescape."""
    if unread:
        more = f" (the first of {len(unread)} such lines)" if len(unread) > 1 else ""
        yield Finding(
            f"{unread[0]} is sent as written{more}: ${{NAME}}, \\$ and backticks mean nothing here",
            "write the expanded value if the app needs it",
            file=unread[0].file,
            line=unread[0].line,
            severity="notice",
        )


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
    raise refusal(f"{place} {problem}", "save it as UTF-8 text", place)


# JSON and the step's own environment


class _Pairs(list[tuple[str, object]]):
    """A JSON object, repeated names and all."""


_KINDS = {bool: "true or false", int: "a number", float: "a number", type(None): "null", _Pairs: "an object"}


def _from_json(sources: Sources, findings: list[Finding]) -> Iterator[Entry]:
    text, include = sources.secrets_json, sources.secrets_include
    if not text and not include:
        return
    if not text or not include:
        raise InputError(
            "only one of `secrets-json` and `secrets-include` is set",
            hint="set both: `secrets-include` has globs for the names to take from `secrets-json`",
        )
    pairs = _object(text)
    for glob in _matching_nothing(include, [name for name, _ in pairs]):
        raise InputError(
            f"`secrets-include`: {_shown_glob(glob)} matches no name in `secrets-json`",
            hint=_split_hint(glob, "check its spelling and case; GitHub leaves out unset secrets"),
        )
    for number, (name, value) in enumerate(pairs, 1):
        if not any(fnmatchcase(name, glob) for glob in include):
            continue
        check_name(name, Origin(f"secrets-json entry {number}"))
        origin = Origin(f"secrets-json {name}")
        if not isinstance(value, str):
            kind = _KINDS.get(type(value), "a list")
            raise InputError(f"{origin} is {kind}, not a string", hint="make every value a string")
        if name not in include and (what := _own(name, value, sources.own_key)):
            findings.append(
                Finding(
                    f"`secrets-include` also matches {name}, this {what}",
                    "name the secrets, or narrow the glob",
                )
            )
        yield Entry(name, encoded(value, origin), origin)


def _own(name: str, value: str, key: Secret | None) -> str:
    """Return what a secret is to this very run, if anything."""
    if name == "github_token":
        return "job's own token"
    return "run's own API key" if key and value.strip() == key.reveal() else ""


def _object(text: str) -> _Pairs:
    problem = "is not a JSON object"
    try:
        value = loads(text, object_pairs_hook=_Pairs)
        if isinstance(value, _Pairs):
            return value
    except json.JSONDecodeError as error:
        problem = f"is not JSON (line {error.lineno}, column {error.colno})"
    except ValueError:
        problem = "is not readable JSON"
    raise InputError(f"`secrets-json` {problem}", hint="on GitHub, write ${{ toJSON(secrets) }}")


def _from_environ(
    secrets: Sequence[str], environ: Mapping[str, str], *, allow_empty: bool
) -> Iterator[Entry]:
    missing: list[str] = []
    for number, entry in enumerate(secrets, 1):
        target, equals, source = entry.partition("=")
        place = Origin(f"`secrets`, entry {number}")
        check_name(target, place)
        source = source if equals else target
        if not NAME.fullmatch(source) and source not in environ:
            raise refusal(
                f"{place} has a value after the equals sign, not the name of a variable",
                "write only the name, and set that variable in the step's env",
                place,
            )
        origin = Origin(f"secrets {target}")
        value = environ.get(source, "")
        if not value and not allow_empty:
            missing.append(target if source in environ else f"entry {number}")
        yield Entry(target, encoded(value, origin), origin)
    if missing:
        raise InputError(
            f"`secrets`: unset or empty in this step's environment: {', '.join(missing)}",
            hint="check the spelling and the step's env, or set `allow-empty`; each entry is a name, "
            "never a value",
        )


def _split_hint(glob: str, hint: str) -> str:
    return SPLIT_HINT if " " in glob else hint


def _shown_glob(glob: str) -> str:
    """Return a glob if it looks like one; anything else may be a secret in the wrong place."""
    return glob if _SHOWABLE_GLOB.fullmatch(glob) else "(not shown)"


def _matching_nothing(globs: Iterable[str], names: Iterable[str]) -> list[str]:
    known = list(names)
    return [glob for glob in globs if not any(fnmatchcase(name, glob) for name in known)]
