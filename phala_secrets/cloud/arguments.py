"""The arguments of a library method: one mapping, keywords, or the single id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phala_secrets.errors import InputError

Arguments = Mapping[str, Any]


def merged(request: Any, single: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments as one dict without Nones. ``single`` is the name of an id passed alone."""
    request = {} if request is None else request
    arguments = {single: request} if isinstance(request, str) else request
    if not isinstance(arguments, Mapping):
        raise InputError("the request is neither a mapping nor an id", hint=f"pass {{{single!r}: …}}")
    unknown = [str(name)[:60] for name in arguments if name not in given]
    if unknown:
        raise InputError(f"unknown argument: {', '.join(unknown)!a}", hint=f"use {', '.join(given)}")
    twice = [name for name in arguments if given[name] is not None]
    if twice:
        raise InputError(f"duplicate argument: {', '.join(twice)}", hint="pass one mapping or keywords")
    return {name: value for name, value in {**given, **arguments}.items() if value is not None}


def required(arguments: Mapping[str, Any], *names: str) -> tuple[str, ...]:
    for name in names:
        value = arguments.get(name)
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{name} is missing", hint=f"pass {name} as a non-empty string")
    return tuple(arguments[name].strip() for name in names)


def whole(arguments: Mapping[str, Any], name: str, low: int, high: int) -> str | None:
    value = arguments.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InputError(f"invalid {name}", hint=f"use a whole number from {low} to {high}")
    return str(value)
