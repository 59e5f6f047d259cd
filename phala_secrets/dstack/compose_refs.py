"""Which variables an app-compose refers to, and which images it names by tag.

Compose substitutes variables in values, never in keys or comments. It passes on those that have a
name and no value (Compose Specification, "Interpolation", "environment", "args", "secrets",
"configs"). Scripts may reach a variable in any way, so every word in them counts as mentioned.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from phala_secrets.dstack.compose_yaml import (
    NAME,
    Parts,
    UnreadableError,
    fields,
    interpolated,
    parse,
    parts,
    text_of,
    values,
)
from phala_secrets.dstack.generations import STRICTEST
from phala_secrets.dstack.pre_launch import FOR_PHALA, pulls_at_each_boot
from phala_secrets.errors import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from phala_secrets.dstack.compose_yaml import Node

_NAMES_LISTED = 10
_IMAGE_SHOWN = 80

_NOT_PULLED = ("build", "if_not_present", "missing", "never")
"""Pull policies under which ``docker compose pull`` keeps an existing image."""

_WHOLE_VARIABLE = re.compile(rf"\$(?:{NAME.pattern}|\{{[^{{}}]*\}})")

_FOLDER = "/dstack"
"""The folder in which the launcher runs Compose, where relative paths start."""
_ENVIRONMENT_FILES = ("/dstack/.host-shared/.decrypted-env.json", "/dstack/.host-shared/.decrypted-env")


class References(NamedTuple):
    """The names that an app-compose refers to, or the ``problem`` that makes it unreadable."""

    required: frozenset[str] = frozenset()
    """``${X}``, ``$X``, ``${X:?…}``, and those passed on without a value."""
    demanded: frozenset[str] = frozenset()
    """Of these, ``${X:?…}`` and ``${X?…}``: Compose does not start without them."""
    filled: frozenset[str] = frozenset()
    """Of these, ``${X:?…}``, which may not be empty either."""
    optional: frozenset[str] = frozenset()
    """Those that always have a default or an alternative, and all within one."""
    mentioned: frozenset[str] = frozenset()
    """Every word of the scripts that could be a name."""
    hands_on_all: bool = False
    """Whether a service gets one of the guest's own files with all variables."""
    by_tag: tuple[str, ...] = ()
    """The images without a digest, each once. Images that are built or never pulled do not count."""
    pulls: bool = False
    """Whether each boot pulls the images."""
    problem: str = ""

    def use_of(self, name: str) -> str:
        """Return in words how the app uses a variable, or an empty string if that is unknown."""
        if name in self.demanded:
            return "the app does not start without it"
        if name in self.required:
            return "used by the compose file"
        if name in self.optional:
            return "used by the compose file, which has a default"
        if self.hands_on_all:
            return "passed on with all others"
        if name in self.mentioned or name in FOR_PHALA:
            return "used by a script"
        return "" if self.problem else "not used by the compose file"


def references(app_compose: Mapping[str, Any]) -> References:
    """Read the compose file and the scripts of an app-compose. Never raise: see ``References.problem``."""
    scripts = [app_compose.get(field) for field in ("pre_launch_script", "bash_script")]
    mentioned = frozenset(
        word for script in scripts if isinstance(script, str) for word in NAME.findall(script)
    )
    text = app_compose.get("docker_compose_file")
    if not isinstance(text, str):
        problem = "" if isinstance(scripts[1], str) else "it is missing"
        return References(mentioned=mentioned, problem=problem)
    try:
        root = parse(text)
    except UnreadableError as error:
        return References(mentioned=mentioned, problem=str(error))
    handed_on, paths, images = _searched(root)
    by_operator: dict[str, set[str]] = {operator: set() for operator in ("", "?", ":?", "default")}
    for value in values(root):
        for reference in interpolated(value.value):
            by_operator[reference.operator].add(reference.name)
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
        root = parse(text) if isinstance(text, str) else None
    except UnreadableError:
        return ()
    named = (text_of(fields(node).get("image")) for node, part in parts(root, _PARTS) if part == "service")
    return tuple(dict.fromkeys(image for image in named if image))


def built_in(name: str) -> bool:
    """Return whether a compose file may refer to this name although no user sets it.

    Phala provides some (``DSTACK_APP_…``, ``DSTACK_GATEWAY_DOMAIN``), and the launcher exports
    ``PCCS_URL``. No user can set the launcher's own names.
    """
    return (
        name in ("DSTACK_GATEWAY_DOMAIN", "PCCS_URL")
        or name.startswith("DSTACK_APP_")
        or STRICTEST.acts(name)
        or STRICTEST.overwrites(name)
    )


def missing_and_unused(refs: References, given: Iterable[str], empty: Iterable[str] = ()) -> list[Finding]:
    """Return findings for missing names and for unused ones.

    Args:
        refs: what the app-compose refers to.
        given: the names that the CVM will have.
        empty: those of them without a value.

    Returns:
        An error for missing names without which Compose does not start, and a warning for other missing
        ones. A notice for unused names, or if the compose file is unreadable.
    """
    if refs.problem:
        message = f"The CVM's compose file cannot be searched for variables: {refs.problem}"
        return [Finding(message, severity="notice")]
    names = frozenset(given)
    # A script may set what it mentions, for instance in Compose's `.env`.
    fatal = (refs.demanded - names | refs.filled.intersection(empty)) - refs.mentioned
    return [
        *_demanded(name for name in fatal if not built_in(name)),
        *_missing(name for name in refs.required - names - fatal if not built_in(name)),
        # Compose itself reads COMPOSE_PROFILES and similar names.
        *_unused(refs, (name for name in names - FOR_PHALA if not name.startswith("COMPOSE_"))),
    ]


def _demanded(names: Iterable[str]) -> Iterator[Finding]:
    if listed := _listed(names):
        message = f"The CVM's compose file requires variables that are missing: {listed}"
        yield Finding(message, "Give them a value: `${NAME:?}` and `${NAME?}` require one.", severity="error")


def _missing(names: Iterable[str]) -> Iterator[Finding]:
    if listed := _listed(names):
        message = f"The CVM's compose file refers to variables that are missing: {listed}"
        yield Finding(message, "Add them, or write a default in the compose file: ${NAME:-default}.")


def _unused(refs: References, names: Iterable[str]) -> Iterator[Finding]:
    used = refs.required | refs.optional | refs.mentioned
    listed = _listed(name for name in names if name not in used)
    if listed and not refs.hands_on_all:
        message = f"The CVM's app never refers to these variables: {listed}"
        hint = (
            "No container gets them unless the compose file passes them on, for instance under `environment`."
        )
        yield Finding(message, hint, severity="notice")


def mutable_images(refs: References) -> list[Finding]:
    """Return the notice for images named by tag that each boot pulls."""
    # A variable that is the whole reference may have a digest.
    listed = _listed(image[:_IMAGE_SHOWN] for image in refs.by_tag if not _WHOLE_VARIABLE.fullmatch(image))
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


_PARTS: Parts = {
    "file": {"services": "services", "secrets": "sources", "configs": "sources"},
    "services": {"*": "service"},
    "service": {"environment": "variables", "build": "build", "env_file": "path", "volumes": "path"},
    "build": {"args": "variables"},
    "variables": {},
    "sources": {"*": "source"},
    "source": {"environment": "name", "file": "path"},
    "name": {},
    "path": {"-": "path", "path": "path", "source": "path"},
}
"""The parts of each part of a compose file, as far as the search goes."""


def _searched(root: Node | None) -> tuple[set[str], list[str], list[str]]:
    """Return the names passed on without a value, the paths of files and mounts, and the images by tag."""
    names: set[str] = set()
    paths: list[str] = []
    images: list[str] = []
    for node, part in parts(root, _PARTS):
        if part == "variables":
            names.update(_without_value(node))
        elif part == "name":
            names.update(_name(node))
        elif part == "path" and node.id == "scalar":
            paths.append(node.value)
        elif part == "service":
            images += _image_by_tag(node)
    return names, paths, images


def _without_value(node: Node) -> Iterator[str]:
    if node.id == "sequence":
        for item in node.value:
            yield from _name(item)
    elif node.id == "mapping":
        for key, value in node.value:
            if not key.tag.endswith(":merge") and value.tag.endswith(":null"):
                yield from _name(key)


def _name(node: Node) -> Iterator[str]:
    if node.id == "scalar" and NAME.fullmatch(node.value):
        yield node.value


def _image_by_tag(service: Node) -> Iterator[str]:
    own = fields(service)
    image = text_of(own.get("image"))
    pulled = "build" not in own and text_of(own.get("pull_policy")) not in _NOT_PULLED
    if image and "@" not in image and pulled:
        yield image


def _holds_environment(path: str) -> bool:
    """Return whether a file or mount (``source:target`` or ``source``) contains the guest's files."""
    source = posixpath.normpath(posixpath.join(_FOLDER, path.split(":")[0]))
    return any(posixpath.commonpath((source, file)) == source for file in _ENVIRONMENT_FILES)
