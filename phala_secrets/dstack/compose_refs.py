"""Which variables an app-compose refers to.

In a compose file, Compose puts variables into values, never into keys or comments, and
hands those on that are named without a value (Compose Specification, "Interpolation",
"environment", "args", "secrets", "configs"). Scripts may reach a variable in any way:
whatever stands in them as a word counts as mentioned.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from phala_secrets.dstack.reserved import FOR_PHALA, built_in
from phala_secrets.errors import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from yaml.nodes import MappingNode, ScalarNode, SequenceNode

    Node = MappingNode | ScalarNode | SequenceNode

_MAX_CHARACTERS = 1024 * 1024
_NAMES_LISTED = 10

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKEN = re.compile(
    rf"\$\$|\$(?P<bare>{_NAME.pattern})|\$\{{(?P<braced>{_NAME.pattern})(?P<operator>:?[-?+])?|(?P<end>\}})"
)


@dataclass(frozen=True, slots=True)
class References:
    """The names that an app-compose refers to; or the ``problem`` that kept it from being read."""

    required: frozenset[str] = frozenset()
    """``${X}``, ``$X``, ``${X:?…}``, and those handed on without a value."""
    optional: frozenset[str] = frozenset()
    """Those with a default or an alternative alone, and all within one."""
    mentioned: frozenset[str] = frozenset()
    """Every word of the scripts that could be a name."""
    problem: str = ""


def references(app_compose: Mapping[str, Any]) -> References:
    """Read the compose file and the scripts of an app-compose. Never raises: see ``References.problem``."""
    scripts = [app_compose.get(field) for field in ("pre_launch_script", "bash_script")]
    mentioned = frozenset(
        word for script in scripts if isinstance(script, str) for word in _NAME.findall(script)
    )
    text = app_compose.get("docker_compose_file")
    if not isinstance(text, str):
        problem = "" if isinstance(scripts[1], str) else "there is none"
        return References(mentioned=mentioned, problem=problem)
    try:
        root = _compose(text)
    except _UnreadableError as error:
        return References(mentioned=mentioned, problem=str(error))
    required = set(_handed_on(root))
    optional: set[str] = set()
    for value in _scalars(root):
        for name, is_required in _interpolated(value):
            (required if is_required else optional).add(name)
    return References(frozenset(required), frozenset(optional - required), mentioned)


def missing_and_unused(refs: References, given: Iterable[str]) -> list[Finding]:
    """Warn of names that are referred to and not given, note those given and referred to nowhere."""
    if refs.problem:
        message = f"The CVM's compose file could not be searched for variables: {refs.problem}"
        return [Finding(message, severity="notice")]
    names = frozenset(given)
    findings = []
    missing = [name for name in refs.required - names if not built_in(name)]
    if missing:
        message = f"The CVM's compose file refers to variables that are not given: {_listed(missing)}"
        findings.append(
            Finding(message, "Give them, or write a default in the compose file: ${NAME:-default}.")
        )
    # Compose itself reads COMPOSE_PROFILES and its like.
    unused = [
        name
        for name in names - refs.required - refs.optional - refs.mentioned - FOR_PHALA
        if not name.startswith("COMPOSE_")
    ]
    if unused:
        message = f"Variables are given that the CVM's app refers to nowhere: {_listed(unused)}"
        hint = (
            "No container gets them unless the compose file hands them on, under `environment` for instance."
        )
        findings.append(Finding(message, hint, severity="notice"))
    return findings


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = len(ordered) - _NAMES_LISTED
    return ", ".join(ordered[:_NAMES_LISTED]) + (f" and {more} more" if more > 0 else "")


# Interpolation


def _interpolated(value: str) -> Iterator[tuple[str, bool]]:
    """Each name that ``value`` refers to, and whether it is required: it has no default, nor is it in one."""
    depth = 0
    for token in _TOKEN.finditer(value):
        name = token["bare"] or token["braced"]
        if name:
            yield name, depth == 0 and (token["operator"] or "?")[-1] == "?"
        if token["braced"]:
            depth += 1
        elif token["end"] and depth:
            depth -= 1


# YAML


class _UnreadableError(Exception):
    """What keeps a compose file from being read; quotes nothing of it."""


def _compose(text: str) -> Node | None:
    """Parse into nodes, where an alias is its anchor's node again: nothing multiplies, no tag is acted on."""
    import yaml

    if len(text) > _MAX_CHARACTERS:
        raise _UnreadableError("it is too large")
    line = ""
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        node = cast("Node | None", yaml.compose(text, Loader=loader))
    except yaml.MarkedYAMLError as error:
        line = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
    except (yaml.YAMLError, UnicodeError, RecursionError):
        pass
    else:
        return node
    raise _UnreadableError(f"it is not YAML that can be read{line}")


def _scalars(root: Node | None) -> Iterator[str]:
    """Every scalar that is a value, and not a key."""
    seen: set[int] = set()
    waiting = [root] if root else []
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.id == "scalar":
            yield node.value
        else:
            waiting += [item[1] if node.id == "mapping" else item for item in node.value]


_PARTS: dict[str, dict[str, str]] = {
    "file": {"services": "services", "secrets": "sources", "configs": "sources"},
    "services": {"*": "service"},
    "service": {"environment": "variables", "build": "build"},
    "build": {"args": "variables"},
    "variables": {},
    "sources": {"*": "source"},
    "source": {"environment": "name"},
    "name": {},
}
"""What each part of a compose file is made of, as far as variables without a value may stand in it."""


def _handed_on(root: Node | None) -> Iterator[str]:
    """The names that are handed on without a value; a merged mapping (``<<``) counts as part of its heir."""
    seen: set[tuple[int, str]] = set()
    waiting = [(root, "file")] if root else []
    while waiting:
        node, part = waiting.pop()
        if (id(node), part) in seen:
            continue
        seen.add((id(node), part))
        if node.id == "mapping":
            for key, value in node.value:
                if key.id != "scalar":
                    continue
                if key.tag.endswith(":merge"):
                    waiting += [(heir, part) for heir in (value.value if value.id == "sequence" else [value])]
                elif part == "variables" and value.tag.endswith(":null"):
                    yield from _name(key)
                elif inner := _PARTS[part].get("*") or _PARTS[part].get(key.value):
                    waiting.append((value, inner))
        elif part == "variables" and node.id == "sequence":
            for item in node.value:
                yield from _name(item)
        elif part == "name":
            yield from _name(node)


def _name(node: Node) -> Iterator[str]:
    if node.id == "scalar" and _NAME.fullmatch(node.value):
        yield node.value
