"""A compose file that is to be deployed: what can be known to be wrong with it before it is sent.

A CVM gets the text of the file and nothing of the folder that it lies in. The text is measured, and
public. Compose itself puts the variables in, in the guest: here they are looked for, and never put in.
"""

from __future__ import annotations

import json
import posixpath
import re
from base64 import b64encode
from typing import TYPE_CHECKING, NamedTuple

from phala_secrets.dstack.compose_refs import built_in, missing_and_unused, references
from phala_secrets.dstack.compose_yaml import (
    NAME,
    Parts,
    UnreadableError,
    fields,
    hold_to_plain,
    interpolated,
    line_of,
    parse,
    parts,
    text_of,
    values,
)
from phala_secrets.errors import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any

    from phala_secrets.dstack.compose_yaml import Node
    from phala_secrets.dstack.environment import Environment

MAX_BYTES = 200 * 1024
"""What the service takes of compose file and pre-launch script together."""

_FOLDER, _HANDED_OVER = "/dstack", "/dstack/.host-shared"
"""Where the launcher runs Compose, and the folder there in which the guest writes the variables."""
_CHECKOUT = re.compile(
    rf"(?:\$\{{{NAME.pattern}:?-)?(?:\.{{1,2}}(?:[/\\}}:]|$)|~|\$\{{?(?:PWD|HOME)(?![A-Za-z0-9_]))"
)
"""How a path begins that leads into a checkout or a home, be it as a variable's default."""
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://|[\w.-]+@[\w.-]+:|github\.com/")
_DIGEST = re.compile(r"[^$]*@sha256:[0-9a-f]{64}")
_WHOLE_VARIABLE = re.compile(rf"\$(?:{NAME.pattern}|\{{[^{{}}]*\}})")
_SHOWN = 80
_LONG = 16
"""Characters from which a value is looked for inside of words, too."""

_PLACES: Parts = {
    "file": {
        "services": "services",
        "volumes": "volumes",
        "secrets": "sources",
        "configs": "sources",
        "include": "path",
    },
    "services": {"*": "service"},
    "service": {"build": "build", "volumes": "mount", "env_file": "env_file", "extends": "extends"},
    "mount": {"-": "mount"},
    "env_file": {"-": "env_file"},
    "extends": {"file": "path"},
    "volumes": {"*": "volume"},
    "volume": {"driver_opts": "options"},
    "options": {"device": "device"},
    "sources": {"*": "source"},
    "source": {"file": "path"},
    "path": {"-": "path", "path": "path"},
}


class ComposeFile(NamedTuple):
    """A compose file: its text, and its path as the user wrote it."""

    text: str
    path: str

    def finding(self, message: str, hint: str, line: int | None, *, warning: bool = False) -> Finding:
        """Return what is wrong at a line of it."""
        return Finding(message, hint, self.path, line, "warning" if warning else "error")


def check(compose: ComposeFile, *, require_digest: bool = False) -> list[Finding]:
    """Return what is wrong with a compose file whatever CVM it is for, in the order of its lines.

    Args:
        compose: the file.
        require_digest: whether an image that is not named by digest is an error, and no warning.

    Returns:
        An error for what is no compose file, or takes more than its text; findings about images.
    """
    try:
        root = _services(parse(compose.text))
    except UnreadableError as error:
        hint = "give a docker compose file: YAML with services, and without tags"
        return [compose.finding(f"the compose file cannot be used: {error.problem}", hint, error.line)]
    found = [*_checkout(compose, root), *_images(compose, root, require_digest=require_digest)]
    return sorted(found, key=lambda finding: finding.line or 0)


def too_large(compose: ComposeFile, app_compose: Mapping[str, Any]) -> list[Finding]:
    """Return the error for a file that is too large beside the pre-launch script of its app."""
    script = app_compose.get("pre_launch_script")
    size = len(compose.text.encode()) + (len(script.encode()) if isinstance(script, str) else 0)
    if size <= MAX_BYTES:
        return []
    message = (
        f"the compose file and the pre-launch script have {size} bytes, and Phala Cloud takes {MAX_BYTES}"
    )
    return [compose.finding(message, "move what is long into an image, or shorten it", None)]


def unresolved(
    compose: ComposeFile, app_compose: Mapping[str, Any], names: Iterable[str], empty: Iterable[str] = ()
) -> list[Finding]:
    """Return what is missing of the variables that the file refers to, and which are referred to nowhere.

    Args:
        compose: the file; one that ``check`` found to be readable.
        app_compose: the app-compose of which it is to be a part. A script may set what it mentions.
        names: the names that the CVM is to have.
        empty: those of them without a value, as far as that is known.

    Returns:
        An error for each ``${NAME}`` without a default that is not given; else as
        ``compose_refs.missing_and_unused``.
    """
    given = frozenset(names)
    refs = references({**app_compose, "docker_compose_file": compose.text})
    lines: dict[str, int] = {}
    for node in values(parse(compose.text)):
        for reference in interpolated(node.value):
            name = reference.name
            if reference.operator == "default" or name in given | refs.mentioned or built_in(name):
                continue
            line = line_of(node, reference.position)
            lines[name] = min(line, lines.get(name, line))
    errors = [
        compose.finding(
            f"the compose file refers to {name}, which is not given",
            f"give {name}, or write a default: ${{{name}:-default}}",
            line,
        )
        for name, line in sorted(lines.items(), key=lambda one: (one[1], one[0]))
    ]
    others = missing_and_unused(refs, given | lines.keys(), empty)
    return [*errors, *(finding._replace(file=compose.path) for finding in others)]


def in_plain_text(
    compose: ComposeFile, environment: Environment, is_secret: Callable[[str, str], bool]
) -> list[Finding]:
    """Return an error for each variable whose value stands in the compose file, which is public.

    Args:
        compose: the file; one that cannot be parsed is searched as text.
        environment: the variables that are given.
        is_secret: whether a line of a variable's value counts as secret: called with name and line.

    Returns:
        Errors with the line and the name, and never the value. Found is also what is written with YAML's
        or JSON's escapes, with ``$$`` for ``$``, or in base64.
    """
    texts = [(number, line) for number, line in enumerate(compose.text.split("\n"), 1)]
    try:
        scalars = list(values(parse(compose.text)))
    except UnreadableError:
        scalars = []
    texts += [(line_of(node), node.value) for node in scalars]
    found = []
    for variable in environment:
        secret = [line for line in variable.value.splitlines() if line and is_secret(variable.name, line)]
        patterns = [_pattern(form) for line in secret for form in _spellings(line)]
        if secret:
            patterns.append(_pattern(b64encode(variable.value.encode()).decode().rstrip("=")))
        numbers = [number for number, text in texts if any(pattern.search(text) for pattern in patterns)]
        if numbers:
            message = f"the value of {variable.name} stands in the compose file, which is public"
            hint = (
                f"write ${{{variable.name}}} in its place, and change the secret if the file was shared; "
                "a setting is named in no-mask"
            )
            found.append(compose.finding(message, hint, min(numbers)))
    return found


def _services(root: Node | None) -> Node:
    """Return the root of what is plain YAML with services, or raise UnreadableError."""
    if root is None or root.id != "mapping":
        raise UnreadableError("it is not a mapping", None if root is None else line_of(root))
    hold_to_plain(root)
    services = fields(root).get("services")
    if services is None or services.id != "mapping" or not services.value:
        raise UnreadableError("it has no services", None if services is None else line_of(services))
    for service in fields(services).values():
        if service.id != "mapping":
            raise UnreadableError("a service is not a mapping", line_of(service))
    return root


# What a CVM does not have


def _checkout(compose: ComposeFile, root: Node) -> Iterator[Finding]:
    for node, part in parts(root, _PLACES):
        if part == "build" and _builds_checkout(node):
            message = "the compose file builds an image from the checkout, which a CVM does not have"
            hint = "build and push the image before, and name it by digest: image: name@sha256:…"
            yield compose.finding(message, hint, line_of(node))
        elif what := _path_of(node, part):
            message = f"the compose file {what} of the checkout, which a CVM does not have"
            hint = (
                "put it into an image, or inline: `configs` and `secrets` take `content` or `environment`; "
                "what the guest has is named by its absolute path"
            )
            yield compose.finding(message, hint, line_of(node))


def _builds_checkout(build: Node) -> bool:
    own = fields(build)
    if "dockerfile_inline" in own:
        return False
    context = text_of(build if build.id == "scalar" else own.get("context"))
    return context is None or (not _REMOTE.match(context) and _is_relative(context))


def _path_of(node: Node, part: str) -> str:
    """Return what the compose file does with a path of the checkout, or nothing."""
    text, own = text_of(node), fields(node)
    if part == "mount":
        if text is not None:
            return "mounts a path" if _CHECKOUT.match(text) and not _is_the_guests(text) else ""
        source = text_of(own.get("source"))
        bind = text_of(own.get("type")) == "bind" and source is not None
        return "mounts a path" if bind and _is_relative(source or "") else ""
    if part == "device":
        return "mounts a path" if text is not None and _CHECKOUT.match(text) else ""
    if part == "env_file" and text is None:
        optional = text_of(own.get("required")) == "false"
        text = None if optional else text_of(own.get("path"))
    if part in ("env_file", "path") and text is not None:
        return "reads a file" if not _REMOTE.match(text) and _is_relative(text) else ""
    return ""


def _is_relative(path: str) -> bool:
    return bool(_CHECKOUT.match(path) or not path.startswith(("/", "$"))) and not _is_the_guests(path)


def _is_the_guests(path: str) -> bool:
    """Whether a relative path leads to what the guest itself writes beside the compose file."""
    source = posixpath.normpath(posixpath.join(_FOLDER, path.split(":")[0]))
    return source == _HANDED_OVER or source.startswith(_HANDED_OVER + "/")


# Images


def _images(compose: ComposeFile, root: Node, *, require_digest: bool) -> Iterator[Finding]:
    for node, part in parts(root, _PLACES):
        own = fields(node) if part == "service" else {}
        image = text_of(own.get("image"))
        if image is None or "build" in own or _DIGEST.fullmatch(image):
            continue
        shown, line = f"{image[:_SHOWN]!a}"[1:-1], line_of(own["image"])
        if not require_digest:
            if not _WHOLE_VARIABLE.fullmatch(image):  # its value may well have a digest
                message = f"the image {shown} is named by tag, so its code can change without an update"
                yield compose.finding(message, _by_digest(image, shown), line, warning=True)
        else:
            message = f"the image {shown} is not named by digest, as require-digest demands"
            yield compose.finding(message, _by_digest(image, shown), line)


def _by_digest(image: str, shown: str) -> str:
    if "$" in image:
        return "write the digest into the compose file: a variable is not measured"
    return f"name it by digest: {shown.split('@')[0]}@sha256:…"


# Values


def _spellings(text: str) -> set[str]:
    doubled = text.replace("$", "$$")
    return {text, doubled, *(json.dumps(one)[1:-1] for one in (text, doubled))}


def _pattern(text: str) -> re.Pattern[str]:
    """Match a value as a word of its own: ``web1`` is not in ``web10``. A long one may be anywhere."""
    before = r"(?<![A-Za-z0-9])" if text[:1].isalnum() and len(text) < _LONG else ""
    after = r"(?![A-Za-z0-9])" if text[-1:].isalnum() and len(text) < _LONG else ""
    return re.compile(before + re.escape(text) + after)
