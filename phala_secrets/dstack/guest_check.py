"""What dstack's guest accepts, and what its launcher would read.

The guest holds the variables to limits (dstack, ``dstack-util/src/system_setup.rs`` and
``parse_env_file.rs``), and hands them to its launcher in a file that not every value survives
(``env_file``). How, and which names are taken, depends on its generation (``generations``).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from phala_secrets.dstack.encryption import entry_size, sealed_size
from phala_secrets.dstack.env_file import NAME, UNREADABLE, Handover, load, variables_of
from phala_secrets.dstack.generations import COMPOSE_OWN, STRICTEST, Generation
from phala_secrets.dstack.pre_launch import registry_hints as registry_hints
from phala_secrets.errors import DeliveryError, Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from phala_secrets.dstack.environment import Environment, Variable

MAX_VARIABLES = 1024
MAX_NAME_BYTES = 255
MAX_VALUE_BYTES = 131072
MAX_SEALED_BYTES = 262144
"""The guest copies no more of the sealed environment, and does not boot (``copy(ENCRYPTED_ENV, …)``).

Its limit of 1,048,576 bytes for all names and values lies beyond this one.
"""

_MAX_ASSIGNMENT_BYTES = 131071
"""Linux starts no program with a longer ``NAME=value`` (MAX_ARG_STRLEN, less its NUL; see execve(2))."""

EXACT_FILE = "/dstack/.host-shared/.decrypted-env.json"
"""Where the guest also writes the variables as one JSON object, each value as it was sealed."""

_NAMES_LISTED = 5
_LARGEST_LISTED = 3


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
    findings += _beyond_the_envelope(environment)
    if findings:
        first, more = findings[0], len(findings) - 1
        raise DeliveryError(
            f"{first.message} (and {more} more)" if more else first.message,
            hint=first.hint,
            file=first.file,
            line=first.line,
            findings=findings,
        )


def check_sealed(encrypted_env: str) -> None:
    """Hold an environment that was sealed before (hex) to the guest's limit. Raises DeliveryError."""
    size = len(encrypted_env) // 2
    if size > MAX_SEALED_BYTES:
        raise DeliveryError(
            f"the sealed environment has {size} bytes, and the guest takes {MAX_SEALED_BYTES}",
            hint="seal fewer or smaller values: above this size the guest does not boot",
        )


def _beyond_the_envelope(environment: Environment) -> Iterator[Finding]:
    size = sealed_size((variable.name, variable.value) for variable in environment)
    if size <= MAX_SEALED_BYTES:
        return
    # An invalid name is never shown: it may be a piece of a value.
    named = [variable for variable in environment if NAME.fullmatch(variable.name)]
    entries = sorted((-entry_size(one.name, one.value), one.name[:MAX_NAME_BYTES]) for one in named)
    largest = ", ".join(f"{name} ({-bytes_} bytes)" for bytes_, name in entries[:_LARGEST_LISTED])
    yield Finding(
        f"The sealed environment has {size} bytes, and the guest takes {MAX_SEALED_BYTES}. "
        f"The largest variables: {largest}",
        "Fetch the largest ones at run time: above this size the guest does not boot.",
        severity="error",
    )


def _beyond_limits(variable: Variable) -> Iterator[Finding]:
    name, origin, size = variable.name, variable.origin, _size(variable.value)
    if not NAME.fullmatch(name):
        problem = f"A name from {origin} is not one that the guest takes"
        hint = "A name has letters, digits and underscores, and does not begin with a digit."
        yield Finding(problem, hint, origin.file, origin.line, "error")
    elif len(name) > MAX_NAME_BYTES:
        problem = f"A name from {origin} has {len(name)} bytes, and the guest takes {MAX_NAME_BYTES}"
        yield Finding(problem, "Shorten it.", origin.file, origin.line, "error")
    elif size > MAX_VALUE_BYTES:
        yield variable.finding(
            f"has {size} bytes, and the guest takes {MAX_VALUE_BYTES}",
            "Split it over several variables, or fetch it at run time.",
        )


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


# The verdict


class Fallen(NamedTuple):
    """A variable whose value does not arrive as given, and the names of sound ones that fall with it."""

    variable: Variable
    neighbours: tuple[str, ...]


def delivered(variables: Mapping[str, str], handover: Handover = STRICTEST.handovers[0]) -> dict[str, str]:
    """Return what the launcher's environment has of ``variables`` once written and read in the guest."""
    return handover.delivered(variables)


def fallen(environment: Environment, generation: Generation = STRICTEST) -> list[Fallen]:
    """Return each variable whose value does not arrive as given, in the order of the guest's file.

    Where a generation has several ways to hand variables over, a value has to arrive by each.
    Invalid names are left to ``check_limits``.
    """
    named = (variable for variable in environment if NAME.fullmatch(variable.name))
    ordered = sorted(named, key=lambda variable: variable.name)
    ways = [_fallen(ordered, handover) for handover in generation.handovers]
    unsound = {name for way in ways for name in way}
    return [
        Fallen(
            variable, tuple(sorted({name for way in ways for name in way.get(variable.name, ())} - unsound))
        )
        for variable in ordered
        if variable.name in unsound
    ]


def _fallen(ordered: Sequence[Variable], handover: Handover) -> dict[str, list[str]]:
    """The names whose values do not arrive by one handover, each with those that fall with it."""
    lines = handover.lines((variable.name, variable.value) for variable in ordered)
    assignments = load("".join(lines), handover.systemd)
    arrived = variables_of(assignments)
    lost = [index for index, variable in enumerate(ordered) if arrived.get(variable.name) != variable.value]
    unsound = [index for index in lost if not handover.carries(ordered[index].name, ordered[index].value)]

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
            culprit = next(other for other in unsound if UNREADABLE.search(ordered[other].value))
        neighbours[culprit].append(name)
    return {ordered[index].name: names for index, names in neighbours.items()}


_REASONS = (
    (re.compile("\0"), "contains a NUL"),
    (UNREADABLE, "contains a Unicode noncharacter"),
    (re.compile(r"\A[^\n]*+\n++\Z"), "ends in a newline"),
    (re.compile(r"\n"), "contains a newline"),
    (re.compile(r"\\\Z"), "ends in a backslash"),
    (re.compile(r"\\\""), 'contains a backslash before "'),
    (re.compile(r"\\\\"), "contains two backslashes in a row"),
    (re.compile(r"\A[^\r]*+\r++\Z"), "ends in a carriage return"),
    (re.compile(r"\r"), "contains a carriage return"),
)


def review(environment: Environment, generation: Generation = STRICTEST) -> list[Finding]:
    """Return an error for each variable that would not arrive, or would change what the guest runs.

    Args:
        environment: the variables, within ``check_limits``.
        generation: that of the CVM (``generations.generation_of``). ``STRICTEST`` where it is not
            known, ``CERTAIN`` for what can be refused before it is.
    """
    findings = [
        _explained(variable, neighbours, generation)
        for variable, neighbours in fallen(environment, generation)
    ]
    for variable in environment:
        findings += _named_badly(variable, generation)
        size = _size(f"{variable.name}={variable.value}")
        if size > _MAX_ASSIGNMENT_BYTES:
            hint = f"Linux starts no program that has more than {_MAX_ASSIGNMENT_BYTES} in one variable."
            findings.append(variable.finding(f"has {size} bytes with its name", hint))
    return findings


def _named_badly(variable: Variable, generation: Generation) -> Iterator[Finding]:
    acting = "changes what the guest's launcher does"
    if variable.name in COMPOSE_OWN:
        hint = "Leave it out, and write it in the compose file (`name`, `include`, `env_file`)."
        yield variable.finding(acting, f"{hint} Renaming does not help: Compose itself reads it.")
    elif generation.acts(variable.name):
        yield variable.misnamed(acting)
    elif generation.overwrites(variable.name):
        yield variable.misnamed("is overwritten by the guest's launcher")


def _explained(variable: Variable, neighbours: Sequence[str], generation: Generation) -> Finding:
    reason = next(reason for pattern, reason in _REASONS if pattern.search(variable.value))
    problem = f"{reason}: the guest would not read it as given"
    if neighbours:
        more = len(neighbours) - _NAMES_LISTED
        listed = ", ".join(neighbours[:_NAMES_LISTED]) + (f" and {more} more" if more > 0 else "")
        problem += f", and would lose {listed} with it"
    hint = "; otherwise ".join(_remedies(variable, generation.handovers))
    return variable.finding(problem, hint[0].upper() + hint[1:])


def _remedies(variable: Variable, handovers: Sequence[Handover]) -> Iterator[str]:
    """The ways on, the line to copy at the end."""
    name, value = variable.name, variable.value
    bare = value.rstrip("\r\n")
    if bare != value and all(handover.carries(name, bare) for handover in handovers):
        yield "remove the end of line, if it was only pasted along"
    if "\n" in bare and variable.origin.line is not None:  # only dotenv text has lines
        yield "use single quotes, which keep \\n as two characters, if the app expects those"
    if all(_contained(name, value, handover) for handover in handovers):
        yield (
            f"mount the guest's own {EXACT_FILE} read-only, which has each value as it was sealed, "
            "and set `guest-check: warn`"
        )
    if "\0" in value:  # which no shell variable can hold either
        decoding = f'printf %s "${name}" | base64 -d > {name.lower()}.bin'
    else:
        decoding = f'export {name}="$(printf %s "${name}" | base64 -d)"'
    yield f"add {name} to `base64`, and decode it in the entry point: {decoding}"


def _contained(name: str, value: str, handover: Handover) -> bool:
    """Whether only this value suffers, whatever stands beside it."""
    arrived = handover.delivered({name: value, f"{name}_": "sound"})
    return arrived.keys() == {name, f"{name}_"} and arrived[f"{name}_"] == "sound"
