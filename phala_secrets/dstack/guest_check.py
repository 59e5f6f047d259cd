"""What dstack's guest accepts and what its launcher would read.

The guest limits the variables (dstack, ``dstack-util/src/system_setup.rs`` and ``parse_env_file.rs``).
It passes them to its launcher in a file that not every value survives (``env_file``). The details and
the reserved names depend on its generation (``generations``).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from phala_secrets.dstack.encryption import entry_size, sealed_size
from phala_secrets.dstack.env_file import NAME, NONCHARACTER, Handover, load, unreadable, variables_of
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
"""The guest does not boot with a larger sealed environment (``copy(ENCRYPTED_ENV, …)``).

Its limit of 1,048,576 bytes for all names and values is higher than this one.
"""

_MAX_ASSIGNMENT_BYTES = 131071
"""Linux starts no program with a longer ``NAME=value`` (MAX_ARG_STRLEN minus the NUL; see execve(2))."""

EXACT_FILE = "/dstack/.host-shared/.decrypted-env.json"
"""The guest also writes the variables here, as one JSON object with unchanged values."""

_NAMES_LISTED = 5
_LARGEST_LISTED = 3


# Limits


def check_limits(environment: Environment) -> None:
    """Check the limits above which the guest refuses to boot.

    Raise DeliveryError with a finding for each variable at fault.
    """
    findings = [finding for variable in environment for finding in _beyond_limits(variable)]
    if len(environment) > MAX_VARIABLES:
        message = f"{len(environment)} variables exceed the guest's limit of {MAX_VARIABLES}"
        findings.append(
            Finding(message, "Combine several into one, or fetch them at run time.", severity="error")
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
    """Raise DeliveryError if a sealed environment (hex) exceeds the guest's limit."""
    size = len(encrypted_env) // 2
    if size > MAX_SEALED_BYTES:
        raise DeliveryError(
            f"the sealed environment has {size} bytes; the guest's limit is {MAX_SEALED_BYTES}",
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
        f"The sealed environment has {size} bytes; the guest's limit is {MAX_SEALED_BYTES}. "
        f"The largest variables: {largest}",
        "Fetch the largest ones at run time: above this size the guest does not boot.",
        severity="error",
    )


def _beyond_limits(variable: Variable) -> Iterator[Finding]:
    name, origin, size = variable.name, variable.origin, _size(variable.value)
    if not NAME.fullmatch(name):
        problem = f"A name from {origin} is invalid for the guest"
        hint = "Use letters, digits and underscores, and do not begin with a digit."
        yield Finding(problem, hint, origin.file, origin.line, "error")
    elif len(name) > MAX_NAME_BYTES:
        problem = f"A name from {origin} has {len(name)} bytes; the guest's limit is {MAX_NAME_BYTES}"
        yield Finding(problem, "Shorten it.", origin.file, origin.line, "error")
    elif size > MAX_VALUE_BYTES:
        yield variable.finding(
            f"has {size} bytes; the guest's limit is {MAX_VALUE_BYTES}",
            "Split it into several variables, or fetch it at run time.",
        )


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


# The verdict


class Fallen(NamedTuple):
    """A variable whose value does not arrive unchanged, and the sound ones that fall with it."""

    variable: Variable
    neighbours: tuple[str, ...]


def delivered(variables: Mapping[str, str], handover: Handover = STRICTEST.handovers[0]) -> dict[str, str]:
    """Return the launcher's environment after the guest wrote and read ``variables``."""
    return handover.delivered(variables)


def fallen(environment: Environment, generation: Generation = STRICTEST) -> list[Fallen]:
    """Return each variable whose value does not arrive unchanged, in the order of the guest's file.

    If a generation has several handovers, a value must arrive by each, or with ``by_any`` by one.
    ``check_limits`` handles invalid names.
    """
    named = (variable for variable in environment if NAME.fullmatch(variable.name))
    ordered = sorted(named, key=lambda variable: variable.name)
    ways = [_fallen(ordered, handover) for handover in generation.handovers]
    unsound = (
        set.intersection(*map(set, ways)) if generation.by_any else {name for way in ways for name in way}
    )
    return [
        Fallen(
            variable, tuple(sorted({name for way in ways for name in way.get(variable.name, ())} - unsound))
        )
        for variable in ordered
        if variable.name in unsound
    ]


def _fallen(ordered: Sequence[Variable], handover: Handover) -> dict[str, list[str]]:
    """Return the names whose values do not survive one handover, each with those that fall with it."""
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
            culprit = next(other for other in unsound if unreadable(ordered[other].value))
        neighbours[culprit].append(name)
    return {ordered[index].name: names for index, names in neighbours.items()}


_REASONS = (
    ("\0", "contains a NUL"),
    (NONCHARACTER, "contains a Unicode noncharacter"),
    (r"\A[^\n]*+\n++\Z", "ends in a newline"),
    (r"\n", "contains a newline"),
    (r"\\\Z", "ends in a backslash"),
    (r"\\\"", 'contains a backslash before "'),
    (r"\\\\", "contains two backslashes in a row"),
    (r"\A[^\r]*+\r++\Z", "ends in a carriage return"),
    (r"\r", "contains a carriage return"),
)
"""Patterns, compiled only where there is something to explain."""


def review(environment: Environment, generation: Generation = STRICTEST) -> list[Finding]:
    """Return an error for each variable that would not arrive, or would change what the guest runs.

    Args:
        environment: the variables, which passed ``check_limits``.
        generation: the CVM's (``generations.generation_of``). ``STRICTEST`` if it is unknown, ``CERTAIN``
            before the CVM is known.
    """
    findings = [
        _explained(variable, neighbours, generation)
        for variable, neighbours in fallen(environment, generation)
    ]
    for variable in environment:
        findings += _named_badly(variable, generation)
        size = _size(f"{variable.name}={variable.value}")
        if size > _MAX_ASSIGNMENT_BYTES:
            hint = f"Shorten it: Linux starts no program with over {_MAX_ASSIGNMENT_BYTES} bytes in one."
            findings.append(variable.finding(f"has {size} bytes with its name", hint))
    return findings


def _named_badly(variable: Variable, generation: Generation) -> Iterator[Finding]:
    acting = "changes what the guest's launcher does"
    if variable.name in COMPOSE_OWN:
        hint = "Leave it out, and set it in the compose file (`name`, `include`, `env_file`)."
        yield variable.finding(acting, f"{hint} Renaming does not help: Compose itself reads it.")
    elif generation.acts(variable.name):
        yield variable.misnamed(acting)
    elif generation.overwrites(variable.name):
        yield variable.misnamed("is overwritten by the guest's launcher")


def _explained(variable: Variable, neighbours: Sequence[str], generation: Generation) -> Finding:
    reason = next(reason for pattern, reason in _REASONS if re.search(pattern, variable.value))
    problem = f"{reason}: the guest would read another value"
    if neighbours:
        more = len(neighbours) - _NAMES_LISTED
        listed = ", ".join(neighbours[:_NAMES_LISTED]) + (f" and {more} more" if more > 0 else "")
        problem += f", and would lose {listed} with it"
    hint = "; otherwise ".join(_remedies(variable, generation.handovers))
    return variable.finding(problem, hint[0].upper() + hint[1:])


def _remedies(variable: Variable, handovers: Sequence[Handover]) -> Iterator[str]:
    """Yield the remedies. The line to copy comes last."""
    name, value = variable.name, variable.value
    bare = value.rstrip("\r\n")
    if bare != value and all(handover.carries(name, bare) for handover in handovers):
        yield "remove the line ending if it was pasted by accident"
    if "\n" in bare and variable.origin.line is not None:  # only dotenv text has lines
        yield "use single quotes, which keep \\n as two characters, if the app expects those"
    if all(_contained(name, value, handover) for handover in handovers):
        yield (
            f"mount the guest's own {EXACT_FILE} read-only, which has each value unchanged, "
            "and set `guest-check: warn`"
        )
    if "\0" in value:  # no shell variable can hold it either
        decoding = f'printf %s "${name}" | base64 -d > {name.lower()}.bin'
    else:
        decoding = f'export {name}="$(printf %s "${name}" | base64 -d)"'
    yield f"add {name} to `base64`, and decode it in the entry point: {decoding}"


def _contained(name: str, value: str, handover: Handover) -> bool:
    """Return whether this value alone changes, whatever its neighbours are."""
    arrived = handover.delivered({name: value, f"{name}_": "sound"})
    return arrived.keys() == {name, f"{name}_"} and arrived[f"{name}_"] == "sound"
