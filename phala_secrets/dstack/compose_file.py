"""Checks of a compose file before its deployment.

A CVM gets the text of the file and nothing else from its folder. The text is measured and public.
Compose substitutes the variables in the guest. This module only looks for them.
"""

from __future__ import annotations

import json
import posixpath
import re
from base64 import b64encode
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

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
"""The service's limit for compose file and pre-launch script together."""

_FOLDER, _HANDED_OVER = "/dstack", "/dstack/.host-shared"
"""The folder in which the launcher runs Compose, and the one in which the guest writes the variables."""
_CHECKOUT = re.compile(
    rf"(?:\$\{{{NAME.pattern}:?-)?(?:\.{{1,2}}(?:[/\\}}:]|$)|~|\$\{{?(?:PWD|HOME)(?![A-Za-z0-9_]))"
)
"""The beginning of a path into a checkout or a home folder, also as a variable's default."""
_REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://|[\w.-]+@[\w.-]+:|github\.com/")
_DIGEST = re.compile(r"[^$]*@sha256:[0-9a-f]{64}")
_WHOLE_VARIABLE = re.compile(rf"\$(?:{NAME.pattern}|\{{[^{{}}]*\}})")
_SHOWN = 80
_URL_SAFE = str.maketrans("+/", "-_")
_LONG = 16
"""Characters above which the search for a value includes the inside of words."""

_PLACES: Parts = {
    "file": {
        "services": "services",
        "volumes": "volumes",
        "secrets": "sources",
        "configs": "sources",
        "include": "path",
    },
    "services": {"*": "service"},
    "service": {
        "build": "build",
        "volumes": "mount",
        "env_file": "env_file",
        "extends": "extends",
        "label_file": "path",
    },
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
        """Return a finding about one of its lines."""
        return Finding(message, hint, self.path, line, "warning" if warning else "error")


def check(compose: ComposeFile, *, require_digest: bool = False) -> list[Finding]:
    """Return what is wrong with a compose file for any CVM, in the order of its lines.

    Args:
        compose: the file.
        require_digest: whether an image without a digest is an error rather than a warning.

    Returns:
        Errors if it is not a compose file or needs more than its text. Findings about images.
    """
    try:
        root = _services(parse(compose.text))
    except UnreadableError as error:
        hint = "use a docker compose file: YAML with services and without tags"
        return [compose.finding(f"the compose file cannot be used: {error.problem}", hint, error.line)]
    if too_much := too_large(compose, {}):
        return too_much
    found = [*_checkout(compose, root), *_images(compose, root, require_digest=require_digest)]
    return sorted(found, key=lambda finding: finding.line or 0)


def too_large(compose: ComposeFile, app_compose: Mapping[str, Any]) -> list[Finding]:
    """Return the error for a file that is too large together with its app's pre-launch script."""
    script = app_compose.get("pre_launch_script")
    size = len(compose.text.encode()) + (len(script.encode()) if isinstance(script, str) else 0)
    if size <= MAX_BYTES:
        return []
    message = f"the compose file and the pre-launch script have {size} bytes; Phala Cloud accepts {MAX_BYTES}"
    return [compose.finding(message, "shorten them, or move long parts into an image", None)]


def unresolved(
    compose: ComposeFile, app_compose: Mapping[str, Any], names: Iterable[str], empty: Iterable[str] = ()
) -> list[Finding]:
    """Return findings for variables that the file needs and lacks, and for those that it never uses.

    Args:
        compose: the file. ``check`` found it readable.
        app_compose: the app-compose that it becomes part of. A script may set what it mentions.
        names: the names that the CVM will have.
        empty: those of them that are known to have no value.

    Returns:
        An error for each missing ``${NAME}`` without a default. Otherwise the findings of
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
            f"the compose file refers to {name}, which is missing",
            f"add {name}, or write a default: ${{{name}:-default}}",
            line,
        )
        for name, line in sorted(lines.items(), key=lambda one: (one[1], one[0]))
    ]
    others = missing_and_unused(refs, given | lines.keys(), empty)
    return [*errors, *(finding._replace(file=compose.path) for finding in others)]


def in_plain_text(
    compose: ComposeFile, environment: Environment, secret_parts: Callable[[str, str], Iterable[str]]
) -> list[Finding]:
    """Return an error for each variable whose value appears in the compose file, which is public.

    Args:
        compose: the file. If it does not parse, its plain text is searched.
        environment: the variables of this run.
        secret_parts: returns the secret parts of a variable, from its name and its value.

    Returns:
        Errors with the line and the name but never the value. The search covers the escapes of YAML and
        JSON, ``$$`` for ``$``, parts of a URL, and base64 alone or within other text. Return nothing for
        a file that is too large: it is refused anyway.
    """
    if too_large(compose, {}):
        return []
    texts = [(number, line) for number, line in enumerate(compose.text.split("\n"), 1)]
    try:
        scalars = list(values(parse(compose.text), keys=True))
    except UnreadableError:
        scalars = []
    texts += [(line_of(node), node.value) for node in scalars]
    whole = "\n".join(text for _, text in texts)  # rules out most spellings at once
    found = []
    for variable in environment:
        secret = secret_parts(variable.name, variable.value)
        spelled = {form for part in secret for form in _spellings(part)}
        spelled |= set(_base64(variable.value)) if secret else set()
        patterns = [_pattern(form) for form in spelled if form in whole]
        if not patterns:
            continue
        numbers = [number for number, text in texts if any(pattern.search(text) for pattern in patterns)]
        if numbers:
            message = f"the value of {variable.name} is in the compose file, which is public"
            hint = (
                f"write ${{{variable.name}}} instead, and replace the secret if the file was shared; "
                "if it is a setting, add it to no-mask"
            )
            found.append(compose.finding(message, hint, min(numbers)))
    return found


def _services(root: Node | None) -> Node:
    """Return the root of plain YAML with services, or raise UnreadableError."""
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


# Files that a CVM does not have


def _checkout(compose: ComposeFile, root: Node) -> Iterator[Finding]:
    for node, part in parts(root, _PLACES):
        if part == "build" and _builds_checkout(node):
            message = "the compose file builds an image from the checkout, which a CVM does not have"
            hint = "build and push the image first, and name it by digest: image: name@sha256:…"
            yield compose.finding(message, hint, line_of(node))
        elif what := _path_of(node, part):
            message = f"the compose file {what} of the checkout, which a CVM does not have"
            hint = (
                "put it into an image, or inline: configs and secrets accept `content` or `environment`; "
                "name a file of the guest by its absolute path"
            )
            yield compose.finding(message, hint, line_of(node))


def _builds_checkout(build: Node) -> bool:
    own = fields(build)
    beside = own.get("additional_contexts")
    if beside and any(_CHECKOUT.match(one.value.partition("=")[2] or one.value) for one in values(beside)):
        return True
    if "dockerfile_inline" in own:
        return False
    context = text_of(build if build.id == "scalar" else own.get("context"))
    return context is None or (not _REMOTE.match(context) and _is_relative(context))


def _path_of(node: Node, part: str) -> str:
    """Return what the compose file does with a path of the checkout, or an empty string."""
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
    """Return whether a relative path leads to a file that the guest writes beside the compose file."""
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
            if not _WHOLE_VARIABLE.fullmatch(image):  # its value may have a digest
                message = f"the image {shown} is named by tag, so its code can change without an update"
                yield compose.finding(message, _by_digest(image, shown), line, warning=True)
        else:
            message = f"require-digest is set, but the image {shown} has no digest"
            yield compose.finding(message, _by_digest(image, shown), line)


def _by_digest(image: str, shown: str) -> str:
    if "$" in image:
        return "write the digest into the compose file: a variable is not measured"
    return f"name it by digest: {shown.split('@')[0]}@sha256:…"


# Values


def _spellings(text: str) -> set[str]:
    doubled = text.replace("$", "$$")
    escaped = (json.dumps(one)[1:-1] for one in (text, doubled))
    return {text, doubled, *escaped, quote(text, safe=""), *_base64(text)}


def _base64(text: str) -> Iterator[str]:
    """Yield the base64 of a text at every offset: it may follow a user name and a colon, for example."""
    data = text.encode()
    yield b64encode(data).decode().rstrip("=")
    for offset in range(3):
        coded = b64encode(bytes(offset) + data).decode()
        inner = coded.rstrip("=")[(0, 2, 3)[offset] : -1 if coded.endswith("=") else None]
        if len(inner) >= _LONG:
            yield inner
            yield inner.translate(_URL_SAFE)


def _pattern(text: str) -> re.Pattern[str]:
    """Match a value as a whole word: ``web1`` is not in ``web10``. A long value may be anywhere."""
    before = r"(?<![A-Za-z0-9])" if text[:1].isalnum() and len(text) < _LONG else ""
    after = r"(?![A-Za-z0-9])" if text[-1:].isalnum() and len(text) < _LONG else ""
    return re.compile(before + re.escape(text) + after)
