"""What dstack's guest accepts, and what its launcher would read.

The guest writes the variables to a file, sorted by name (dstack,
``dstack-util/src/parse_env_file.rs``), which systemd reads as the launcher's
``EnvironmentFile`` (systemd, ``src/basic/env-file.c``, here as of version 252). The
writer does not escape a backslash, nor does it quote a carriage return; so some values
do not come out as they went in, and some take their neighbours with them. Both steps
are modelled here in full, and the tests hold them to systemd's own parser.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, NamedTuple

from phala_secrets.dstack.reserved import acts_on_launcher, overwritten_by_launcher
from phala_secrets.dstack.reserved import built_in as built_in
from phala_secrets.dstack.reserved import registry_hints as registry_hints
from phala_secrets.errors import DeliveryError, Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from phala_secrets.dstack.environment import Environment, Variable

MAX_VARIABLES = 1024
MAX_NAME_BYTES = 255
MAX_VALUE_BYTES = 131072
MAX_TOTAL_BYTES = 1048576

_MAX_ASSIGNMENT_BYTES = 131071
"""Linux starts no program with a longer ``NAME=value`` (MAX_ARG_STRLEN, less its NUL; see execve(2))."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAMES_LISTED = 5


# Limits


def check_limits(environment: Environment) -> None:
    """Hold the environment to the limits beyond which the guest refuses to boot.

    Raises DeliveryError, with a finding for each variable at fault.
    """
    findings = [finding for variable in environment for finding in _beyond_limits(variable)]
    if len(environment) > MAX_VARIABLES:
        message = f"{len(environment)} variables are given, and the guest takes {MAX_VARIABLES}"
        findings.append(
            Finding(message, "Put several into one, or fetch them at run time.", severity="error")
        )
    total = sum(_size(variable.name) + _size(variable.value) for variable in environment)
    if total > MAX_TOTAL_BYTES:
        message = f"Names and values have {total} bytes in all, and the guest takes {MAX_TOTAL_BYTES}"
        findings.append(Finding(message, "Fetch the largest ones at run time.", severity="error"))
    if findings:
        first, more = findings[0], len(findings) - 1
        raise DeliveryError(
            f"{first.message} (and {more} more)" if more else first.message,
            hint=first.hint,
            file=first.file,
            line=first.line,
            findings=findings,
        )


def _beyond_limits(variable: Variable) -> Iterator[Finding]:
    name, size = variable.name, _size(variable.value)
    if not _NAME.fullmatch(name):
        yield _finding(
            variable,
            f"A name from {variable.origin} is not one that the guest takes",
            "A name has letters, digits and underscores, and does not begin with a digit.",
        )
    elif len(name) > MAX_NAME_BYTES:
        yield _finding(
            variable,
            f"A name from {variable.origin} has {len(name)} bytes, and the guest takes {MAX_NAME_BYTES}",
            "Shorten it.",
        )
    elif size > MAX_VALUE_BYTES:
        yield _finding(
            variable,
            f"{_named(variable)} has {size} bytes, and the guest takes {MAX_VALUE_BYTES}",
            "Split it over several variables, or fetch it at run time.",
        )


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


# The writer: dstack

_QUOTED = re.compile("[ \t|&;<>()$`\\\\\"'\n]")
_ESCAPED = re.compile(r'[\n"$`]')


def _written(name: str, value: str) -> str:
    text = _ESCAPED.sub(lambda match: "\\n" if match[0] == "\n" else "\\" + match[0], value)
    return f'{name}="{text}"\n' if _QUOTED.search(value) else f"{name}={text}\n"


# The reader: systemd

_BETWEEN = re.compile(r"(?:[ \t\n\r]++|[#;](?:[^\\\n\r]++|\\.)*+)++", re.DOTALL)
_KEY = re.compile(r"([^\n\r][^=\n\r]*+)(=?)")
_QUOTE = re.compile(r"""[ \t]*+(?:'([^']*+)'?|"((?:[^"\\]++|\\.)*+)\\?+"?)""", re.DOTALL)
_BARE = re.compile(r"[ \t]*+((?:[ \t]*+(?:[^\\ \t\n\r]++|\\(?:.|\Z)))++)[ \t]*+", re.DOTALL)
_BACKSLASHED = re.compile(r"\\(.?)", re.DOTALL)

_UNREADABLE = re.compile(
    "[\0\ud800-\udfff\ufdd0-\ufdef"
    + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17))
    + "]"
)
"""What systemd refuses a whole file for: a NUL, and whatever its UTF-8 check does not let pass."""


class _Assignment(NamedTuple):
    start: int
    name: str
    value: str


def _assignments(text: str) -> Iterator[_Assignment]:
    position = 0
    while True:
        if between := _BETWEEN.match(text, position):
            position = between.end()
        key = _KEY.match(text, position)
        if key is None:
            return
        start, position = position, key.end()
        if not key[2]:
            continue
        pieces = []
        while quote := _QUOTE.match(text, position):
            pieces.append(quote[1] or _BACKSLASHED.sub(_in_quotes, quote[2] or ""))
            position = quote.end()
        if bare := _BARE.match(text, position):
            pieces.append(_BACKSLASHED.sub(_in_the_open, bare[1]))
            position = bare.end()
        yield _Assignment(start, key[1].rstrip(" \t"), "".join(pieces))


def _in_quotes(escape: re.Match[str]) -> str:
    if escape[1] in ('"', "\\", "`", "$"):
        return escape[1]
    return "" if escape[1] == "\n" else escape[0]


def _in_the_open(escape: re.Match[str]) -> str:
    return "" if escape[1] in ("\n", "\r") else escape[1]


def _load(lines: Iterable[str]) -> list[_Assignment]:
    """Return what systemd makes of the file: nothing at all if it refuses any of it."""
    text = "".join(lines)
    assignments = [] if "\0" in text else list(_assignments(text))
    if any(_UNREADABLE.search(name) or _UNREADABLE.search(value) for _, name, value in assignments):
        return []
    return assignments


def _environment(assignments: Iterable[_Assignment]) -> dict[str, str]:
    return {name: value for _, name, value in assignments if _NAME.fullmatch(name)}


def delivered(variables: Mapping[str, str]) -> dict[str, str]:
    """Return what the launcher's environment has of ``variables`` once written and read in the guest.

    It may have variables that nobody gave, where a value breaks out of its line.
    """
    return _environment(_load(_written(*item) for item in sorted(variables.items())))


# The verdict


class Fallen(NamedTuple):
    """A variable whose value does not arrive as given, and the names of sound ones that fall with it."""

    variable: Variable
    neighbours: tuple[str, ...]


def fallen(environment: Environment) -> list[Fallen]:
    """Return each variable whose value does not arrive as given, in the order of the guest's file.

    Invalid names are left to ``check_limits``.
    """
    named = (variable for variable in environment if _NAME.fullmatch(variable.name))
    ordered = sorted(named, key=lambda variable: variable.name)
    lines = [_written(variable.name, variable.value) for variable in ordered]
    assignments = _load(lines)
    arrived = _environment(assignments)
    lost = [index for index, variable in enumerate(ordered) if arrived.get(variable.name) != variable.value]
    unsound = [index for index in lost if not _arrives_alone(ordered[index].name, ordered[index].value)]

    line_starts = list(accumulate(map(len, lines[:-1]), initial=0))
    starts = [assignment.start for assignment in assignments]
    last_start = {assignment.name: assignment.start for assignment in assignments}
    neighbours: dict[int, list[str]] = {index: [] for index in unsound}
    for index in lost:
        if index in neighbours:
            continue
        name, at = ordered[index].name, line_starts[index]
        if assignments:
            taker = starts[bisect_right(starts, at) - 1]
            if taker == at:  # read whole, and then overwritten
                taker = last_start[name]
            culprit = unsound[bisect_right(unsound, bisect_right(line_starts, taker) - 1) - 1]
        else:
            culprit = next(other for other in unsound if _UNREADABLE.search(ordered[other].value))
        neighbours[culprit].append(name)
    return [Fallen(ordered[index], tuple(names)) for index, names in neighbours.items()]


def _arrives_alone(name: str, value: str) -> bool:
    return delivered({name: value}) == {name: value}


_REASONS = (
    (re.compile("\0"), "contains a NUL"),
    (_UNREADABLE, "contains a Unicode noncharacter"),
    (re.compile(r"\A[^\n]*+\n++\Z"), "ends in a newline"),
    (re.compile(r"\n"), "contains a newline"),
    (re.compile(r"\\\Z"), "ends in a backslash"),
    (re.compile(r"\\\""), 'contains a backslash before "'),
    (re.compile(r"\\\\"), "contains two backslashes in a row"),
    (re.compile(r"\A[^\r]*+\r++\Z"), "ends in a carriage return"),
    (re.compile(r"\r"), "contains a carriage return"),
)


def review(environment: Environment) -> list[Finding]:
    """Return an error for each variable that would not arrive as given, or whose name is the launcher's.

    Also a warning for each that is within the guest's limits, but not within Linux's.
    """
    findings = [_explained(variable, neighbours) for variable, neighbours in fallen(environment)]
    for variable in environment:
        if acts_on_launcher(variable.name):
            findings.append(_renamed(variable, "changes what the guest's launcher does"))
        elif overwritten_by_launcher(variable.name):
            findings.append(_renamed(variable, "is overwritten by the guest's launcher"))
        size = _size(f"{variable.name}={variable.value}")
        if size > _MAX_ASSIGNMENT_BYTES:
            message = f"{_named(variable)} has {size} bytes with its name"
            hint = f"Linux starts no program that has more than {_MAX_ASSIGNMENT_BYTES} in one variable."
            findings.append(_finding(variable, message, hint, severity="warning"))
    return findings


def _explained(variable: Variable, neighbours: Sequence[str]) -> Finding:
    name, value = variable.name, variable.value
    reason = next(reason for pattern, reason in _REASONS if pattern.search(value))
    message = f"{_named(variable)} {reason}: the guest would not read it as given"
    if neighbours:
        more = len(neighbours) - _NAMES_LISTED
        listed = ", ".join(neighbours[:_NAMES_LISTED]) + (f" and {more} more" if more > 0 else "")
        message += f", and would lose {listed} with it"
    if "\0" in value:  # which no shell variable can hold either
        decoding = f'printf %s "${name}" | base64 -d > {name.lower()}.bin'
    else:
        decoding = f'export {name}="$(printf %s "${name}" | base64 -d)"'
    hint = f"add {name} to `base64`, and decode it in the entry point: {decoding}"
    bare = value.rstrip("\r\n")
    if bare != value and _arrives_alone(name, bare):
        hint = f"remove the end of line, if it was only pasted along; otherwise {hint}"
    return _finding(variable, message, hint[0].upper() + hint[1:])


def _renamed(variable: Variable, problem: str) -> Finding:
    name = variable.name
    hint = f"Call it APP_{name}, and hand it on in the compose file as `{name}: ${{APP_{name}}}`."
    return _finding(variable, f"{_named(variable)} {problem}", hint)


def _named(variable: Variable) -> str:
    return f"{variable.name} ({variable.origin})"


def _finding(
    variable: Variable, message: str, hint: str, *, severity: Literal["error", "warning"] = "error"
) -> Finding:
    origin = variable.origin
    return Finding(message, hint, file=origin.file, line=origin.line, severity=severity)
