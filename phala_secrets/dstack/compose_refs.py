"""Which variables an app-compose refers to, and which images it names by tag.

In a compose file, Compose puts variables into values, never into keys or comments, and
hands those on that are named without a value (Compose Specification, "Interpolation",
"environment", "args", "secrets", "configs"). Scripts may reach a variable in any way:
whatever stands in them as a word counts as mentioned.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from phala_secrets.dstack.generations import STRICTEST
from phala_secrets.dstack.pre_launch import FOR_PHALA, pulls_at_each_boot
from phala_secrets.errors import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from yaml.nodes import MappingNode, ScalarNode, SequenceNode

    Node = MappingNode | ScalarNode | SequenceNode

_MAX_CHARACTERS = 1024 * 1024
_NAMES_LISTED = 10
_IMAGE_SHOWN = 80

_NOT_PULLED = ("build", "if_not_present", "missing", "never")
"""Pull policies under which ``docker compose pull`` leaves an image that is there."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VARIABLE = re.compile(rf"\$(?:{_NAME.pattern}|\{{[^{{}}]*\}})")
_TOKEN = re.compile(
    rf"\$\$|\$(?P<bare>{_NAME.pattern})|\$\{{(?P<braced>{_NAME.pattern})(?P<operator>:?[-?+])?|(?P<end>\}})"
)


_FOLDER = "/dstack"
"""Where the launcher runs Compose, so where relative paths start."""
_ENVIRONMENT_FILES = ("/dstack/.host-shared/.decrypted-env.json", "/dstack/.host-shared/.decrypted-env")


@dataclass(frozen=True, slots=True)
class References:
    """The names that an app-compose refers to; or the ``problem`` that kept it from being read."""

    required: frozenset[str] = frozenset()
    """``${X}``, ``$X``, ``${X:?…}``, and those handed on without a value."""
    demanded: frozenset[str] = frozenset()
    """Of these ``${X:?…}`` and ``${X?…}``, without which Compose does not start."""
    filled: frozenset[str] = frozenset()
    """Of these ``${X:?…}``, which may not be empty either."""
    optional: frozenset[str] = frozenset()
    """Those with a default or an alternative alone, and all within one."""
    mentioned: frozenset[str] = frozenset()
    """Every word of the scripts that could be a name."""
    hands_on_all: bool = False
    """Whether a service gets one of the guest's own files with all variables."""
    by_tag: tuple[str, ...] = ()
    """The images that are not named by digest, each once; not those that are built there or never pulled."""
    pulls: bool = False
    """Whether each boot pulls the images."""
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
    handed_on, paths, images = _searched(root)
    by_operator: dict[str, set[str]] = {operator: set() for operator in ("", "?", ":?", "default")}
    for value in _scalars(root):
        for name, operator in _interpolated(value):
            by_operator[operator].add(name)
    demanded = by_operator["?"] | by_operator[":?"]
    required = handed_on | demanded | by_operator[""]
    return References(
        required=frozenset(required),
        demanded=frozenset(demanded),
        filled=frozenset(by_operator[":?"]),
        optional=frozenset(by_operator["default"] - required),
        mentioned=mentioned,
        hands_on_all=any(map(_holds_environment, paths)),
        by_tag=tuple(dict.fromkeys(images)),
        pulls=pulls_at_each_boot(app_compose),
    )


def images(app_compose: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the images that the compose file names, each once, as written. Untrusted text."""
    text = app_compose.get("docker_compose_file")
    try:
        root = _compose(text) if isinstance(text, str) else None
    except _UnreadableError:
        return ()
    named = (_image(node) for node, part in _parts(root) if part == "service")
    return tuple(dict.fromkeys(image for image in named if image))


def built_in(name: str) -> bool:
    """Return whether a compose file may refer to this name though nobody gives it.

    Phala provides some (``DSTACK_APP_…``, ``DSTACK_GATEWAY_DOMAIN``); the launcher exports
    ``PCCS_URL``; and the launcher's own names can be given by nobody.
    """
    return (
        name in ("DSTACK_GATEWAY_DOMAIN", "PCCS_URL")
        or name.startswith("DSTACK_APP_")
        or STRICTEST.acts(name)
        or STRICTEST.overwrites(name)
    )


def missing_and_unused(refs: References, given: Iterable[str], empty: Iterable[str] = ()) -> list[Finding]:
    """Return a finding for names that are referred to and not given, and for those referred to nowhere.

    Args:
        refs: what the app-compose refers to.
        given: the names that are given.
        empty: those of them that are given without a value.

    Returns:
        An error for names that Compose does not start without; a warning for others that are
        missing; a notice for unused ones, or where the compose file could not be searched.
    """
    if refs.problem:
        message = f"The CVM's compose file could not be searched for variables: {refs.problem}"
        return [Finding(message, severity="notice")]
    names = frozenset(given)
    # A script may well set what it mentions, in Compose's `.env` for instance.
    fatal = (refs.demanded - names | refs.filled.intersection(empty)) - refs.mentioned
    return [
        *_demanded(name for name in fatal if not built_in(name)),
        *_missing(name for name in refs.required - names - fatal if not built_in(name)),
        # Compose itself reads COMPOSE_PROFILES and its like.
        *_unused(refs, (name for name in names - FOR_PHALA if not name.startswith("COMPOSE_"))),
    ]


def _demanded(names: Iterable[str]) -> Iterator[Finding]:
    if listed := _listed(names):
        message = f"The CVM's compose file does not start without variables that are missing: {listed}"
        yield Finding(message, "Give them a value: `${NAME:?}` and `${NAME?}` demand one.", severity="error")


def _missing(names: Iterable[str]) -> Iterator[Finding]:
    if listed := _listed(names):
        message = f"The CVM's compose file refers to variables that are not given: {listed}"
        yield Finding(message, "Give them, or write a default in the compose file: ${NAME:-default}.")


def _unused(refs: References, names: Iterable[str]) -> Iterator[Finding]:
    used = refs.required | refs.optional | refs.mentioned
    listed = _listed(name for name in names if name not in used)
    if listed and not refs.hands_on_all:
        message = f"Variables are given that the CVM's app refers to nowhere: {listed}"
        hint = (
            "No container gets them unless the compose file hands them on, under `environment` for instance."
        )
        yield Finding(message, hint, severity="notice")


def mutable_images(refs: References) -> list[Finding]:
    """Return the notice for images that are named by tag, where each boot pulls them."""
    # A whole reference in a variable may well have a digest.
    listed = _listed(image[:_IMAGE_SHOWN] for image in refs.by_tag if not _VARIABLE.fullmatch(image))
    if not refs.pulls or not listed:
        return []
    return [
        Finding(
            f"Each boot pulls images that are named by tag: {listed}. "
            "An update of secrets alone can start new code",
            "Name them by digest: image@sha256:….",
            severity="notice",
        )
    ]


def _listed(names: Iterable[str]) -> str:
    ordered = sorted(names)
    more = len(ordered) - _NAMES_LISTED
    return ", ".join(ordered[:_NAMES_LISTED]) + (f" and {more} more" if more > 0 else "")


# Interpolation


def _interpolated(value: str) -> Iterator[tuple[str, str]]:
    """Each name that ``value`` refers to, and what it takes.

    ``?`` or ``:?`` demand it, ``default`` is for one that has a default or is in one, empty is for others.
    """
    depth = 0
    for token in _TOKEN.finditer(value):
        name = token["bare"] or token["braced"]
        if name:
            operator = token["operator"] or ""
            yield name, operator if depth == 0 and operator in ("", "?", ":?") else "default"
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
    "service": {"environment": "variables", "build": "build", "env_file": "path", "volumes": "path"},
    "build": {"args": "variables"},
    "variables": {},
    "sources": {"*": "source"},
    "source": {"environment": "name", "file": "path"},
    "name": {},
    "path": {"path": "path", "source": "path"},
}
"""What each part of a compose file is made of, as far as it is searched."""


def _searched(root: Node | None) -> tuple[set[str], list[str], list[str]]:
    """The names that are handed on without a value, the paths of files and mounts, the images by tag."""
    names: set[str] = set()
    paths: list[str] = []
    images: list[str] = []
    for node, part in _parts(root):
        if part == "variables":
            names.update(_without_value(node))
        elif part == "name":
            names.update(_name(node))
        elif part == "path" and node.id == "scalar":
            paths.append(node.value)
        elif part == "service":
            images += _image_by_tag(node)
    return names, paths, images


def _parts(root: Node | None) -> Iterator[tuple[Node, str]]:
    """Every part that is searched, once; a merged mapping (``<<``) counts as part of its heir."""
    seen: set[tuple[int, str]] = set()
    waiting = [(root, "file")] if root else []
    while waiting:
        node, part = waiting.pop()
        if (id(node), part) in seen:
            continue
        seen.add((id(node), part))
        yield node, part
        if node.id == "mapping":
            for key, value in node.value:
                if key.id != "scalar":
                    continue
                if key.tag.endswith(":merge"):
                    waiting += [(heir, part) for heir in (value.value if value.id == "sequence" else [value])]
                elif inner := _PARTS[part].get("*") or _PARTS[part].get(key.value):
                    waiting.append((value, inner))
        elif part == "path" and node.id == "sequence":
            waiting += [(item, part) for item in node.value]


def _without_value(node: Node) -> Iterator[str]:
    if node.id == "sequence":
        for item in node.value:
            yield from _name(item)
    elif node.id == "mapping":
        for key, value in node.value:
            if not key.tag.endswith(":merge") and value.tag.endswith(":null"):
                yield from _name(key)


def _name(node: Node) -> Iterator[str]:
    if node.id == "scalar" and _NAME.fullmatch(node.value):
        yield node.value


def _image_by_tag(service: Node) -> Iterator[str]:
    own = _own(service)
    image = _image(service)
    if image and "@" not in image and "build" not in own and own.get("pull_policy") not in _NOT_PULLED:
        yield image


def _image(service: Node) -> str | None:
    image = _own(service).get("image")
    return image if isinstance(image, str) else None


def _own(service: Node) -> dict[Any, Any]:
    """The fields of a service itself, without those that it inherits."""
    fields = service.value if service.id == "mapping" else ()
    return {key.value: value.value for key, value in fields if key.id == "scalar"}


def _holds_environment(path: str) -> bool:
    """Whether a file or mount (``source:target`` or ``source`` alone) has the guest's files in it."""
    source = posixpath.normpath(posixpath.join(_FOLDER, path.split(":")[0]))
    return any(posixpath.commonpath((source, file)) == source for file in _ENVIRONMENT_FILES)
