"""A compose file as YAML nodes, which know their lines.

An alias is the node of its anchor, and tags have no effect. So reading multiplies nothing and constructs
nothing. ``hold_to_plain`` finds everything else that would trip a real parser.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from yaml.nodes import MappingNode, ScalarNode, SequenceNode

    Node = MappingNode | ScalarNode | SequenceNode

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""A variable's name."""

_MAX_CHARACTERS = 1024 * 1024
_MAX_DEPTH = 64
"""Levels of nesting: a compose file has about ten."""
_MAX_NODES = 100_000
"""Nodes with every alias expanded: 200 KB of plain YAML have fewer."""

_TOKEN = re.compile(
    rf"\$\$|\$(?P<bare>{NAME.pattern})|\$\{{(?P<braced>{NAME.pattern})(?P<operator>:?[-?+])?|(?P<end>\}})"
)
_TAGS = frozenset(
    f"tag:yaml.org,2002:{kind}"
    for kind in ("null", "bool", "int", "float", "str", "seq", "map", "merge", "timestamp", "binary")
)
"""The tags of plain data. Compose's own (``!reset``, ``!override``) are for multiple files."""

Parts: TypeAlias = "Mapping[str, Mapping[str, str]]"
"""The parts of each part of a compose file, by key: ``*`` for any key, ``-`` for the items of a list."""


class UnreadableError(Exception):
    """The reason why a compose file is unreadable, without a quote from it. ``line`` counts from 1."""

    def __init__(self, problem: str, line: int | None = None) -> None:
        super().__init__(problem if line is None else f"{problem} (line {line})")
        self.problem = problem
        self.line = line


class Reference(NamedTuple):
    """A variable in a value. ``position`` is its index there.

    ``operator`` is ``?`` or ``:?`` for a required variable and ``default`` for one that has a default
    or is part of one. Otherwise it is empty.
    """

    name: str
    operator: str
    position: int


def parse(text: str) -> Node | None:
    """Return the root, or None for an empty document. Raise UnreadableError."""
    import yaml

    if len(text) > _MAX_CHARACTERS:
        raise UnreadableError("it is too large")
    line = None
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        node = cast("Node | None", yaml.compose(text, Loader=loader))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
    except (yaml.YAMLError, UnicodeError, RecursionError):
        pass
    else:
        return node
    raise UnreadableError("it is not valid YAML", line)


def hold_to_plain(root: Node) -> None:
    """Raise UnreadableError for anything but plain data.

    That is a custom tag, a key that is duplicate or not text, a merge of anything but mappings, or an
    alias within its own anchor. Too many levels or expanded nodes count too.
    """
    sizes: dict[int, int] = {}

    def size(node: Node, depth: int) -> int:
        if depth > _MAX_DEPTH:
            raise UnreadableError("it is nested too deeply", line_of(node))
        known = sizes.get(id(node))
        if known == 0:
            raise UnreadableError("an alias is within its own anchor", line_of(node))
        if known:
            return known
        sizes[id(node)] = 0
        if node.tag not in _TAGS:
            raise UnreadableError("it has an unsupported tag", line_of(node))
        total = 1
        for child in _children(node):
            total += size(child, depth + 1)
            if total > _MAX_NODES:
                raise UnreadableError("its aliases make it too large", line_of(node))
        sizes[id(node)] = total
        return total

    size(root, 1)


def _children(node: Node) -> Iterator[Node]:
    """Yield the nodes within a node, keys included. Raise UnreadableError for an invalid or duplicate key."""
    if node.id == "sequence":
        yield from node.value
    elif node.id == "mapping":
        seen: set[str] = set()
        for key, value in node.value:
            if key.id != "scalar":
                raise UnreadableError("a key is not text", line_of(key))
            if key.value in seen:
                raise UnreadableError("a key is duplicate", line_of(key))
            merged = value.value if value.id == "sequence" else [value]
            if key.tag.endswith(":merge") and any(one.id != "mapping" for one in merged):
                raise UnreadableError("a merged value is not a mapping", line_of(key))
            seen.add(key.value)
            yield key
            yield value


def values(root: Node | None, *, keys: bool = False) -> Iterator[ScalarNode]:
    """Yield every scalar value once. With ``keys``, yield scalar keys too."""
    seen: set[int] = set()
    waiting = [root] if root else []
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.id == "scalar":
            yield cast("ScalarNode", node)
        else:
            pairs = node.value if node.id == "mapping" else [(item,) for item in node.value]
            waiting += [one for pair in pairs for one in (pair if keys else pair[-1:])]


def parts(root: Node | None, table: Parts) -> Iterator[tuple[Node, str]]:
    """Yield every part in the table once. A merged mapping (``<<``) belongs to the mapping that merges it."""
    seen: set[tuple[int, str]] = set()
    waiting = [(root, "file")] if root else []
    while waiting:
        node, part = waiting.pop()
        if (id(node), part) in seen:
            continue
        seen.add((id(node), part))
        yield node, part
        inner = table.get(part, {})
        if node.id == "mapping":
            for key, value in node.value:
                if key.id != "scalar":
                    continue
                if key.tag.endswith(":merge"):
                    waiting += [(heir, part) for heir in (value.value if value.id == "sequence" else [value])]
                elif name := inner.get("*") or inner.get(key.value):
                    waiting.append((value, name))
        elif node.id == "sequence" and "-" in inner:
            waiting += [(item, inner["-"]) for item in node.value]


def fields(node: Node) -> dict[str, Node]:
    """Return the fields of a mapping without inherited ones, and no fields for any other node."""
    own = node.value if node.id == "mapping" else ()
    return {key.value: value for key, value in own if key.id == "scalar"}


def text_of(node: Node | None) -> str | None:
    """Return the text of a scalar, or None for any other node."""
    return node.value if node is not None and node.id == "scalar" else None


def line_of(node: Node, position: int = 0) -> int:
    """Return the line of a node, from 1. In a literal block it is the line of ``position``."""
    line = int(node.start_mark.line) + 1
    return line + 1 + node.value[:position].count("\n") if getattr(node, "style", None) == "|" else line


def interpolated(value: str) -> Iterator[Reference]:
    """Yield each variable that Compose substitutes in ``value``."""
    depth = 0
    for token in _TOKEN.finditer(value):
        name = token["bare"] or token["braced"]
        if name:
            operator = token["operator"] or ""
            demanding = depth == 0 and operator in ("", "?", ":?")
            yield Reference(name, operator if demanding else "default", token.start())
        if token["braced"]:
            depth += 1
        elif token["end"] and depth:
            depth -= 1
