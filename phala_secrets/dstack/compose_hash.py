"""The compose hash: the SHA-256 of an app-compose as written, which the guest measures.

The API returns the app-compose as JSON, not the bytes that were hashed. Several ways of writing them
are in use, each a ``Form`` here. All write JSON like JavaScript's ``JSON.stringify`` (ECMA-262) with
keys sorted at every depth.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, Literal, NamedTuple

from phala_secrets.dstack.nested import loads
from phala_secrets.errors import InputError

_ARRAY_INDEX = re.compile("0|[1-9][0-9]{0,9}")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Form(NamedTuple):
    """A way of writing an app-compose.

    ``style`` is ``compact`` (no white space; npm and PyPI ``dstack-sdk``) or ``pretty`` (an indent of
    four, then every ``": `` becomes ``":``, inside strings too; npm ``@phala/cloud``). ``normalised``
    leaves out the other runner's script and an empty ``pre_launch_script``: each SDK can do this.
    ``nulls_dropped`` leaves out nulls at the top and in ``docker_config``, like PyPI ``dstack-sdk``.
    """

    style: Literal["compact", "pretty"]
    normalised: bool
    nulls_dropped: bool


_STYLES: tuple[Literal["compact", "pretty"], ...] = ("compact", "pretty")
FORMS = tuple(Form(*choice) for choice in product(_STYLES, (False, True), (False, True)))
"""Every form, starting with the plainest."""


def get_compose_hash(app_compose: Mapping[str, Any], normalize: bool = False) -> str:
    """Return the compose hash as dstack's SDKs define it: SHA-256 of the compact form, 64 hex digits.

    Nulls are kept and hashed, as in npm ``@phala/dstack-sdk``. PyPI ``dstack-sdk`` drops those at the
    top and rejects ``docker_config: null``.

    Args:
        app_compose: the app-compose, parsed from JSON. It is not modified.
        normalize: leave out ``docker_compose_file`` if the runner is ``bash``, ``bash_script`` if it is
            ``docker-compose``, and an empty ``pre_launch_script``.

    Returns:
        64 lower-case hex digits without ``0x``.

    Raises:
        InputError: JSON cannot express the app-compose, or its nesting is too deep.
    """
    return _sha256(app_compose, Form("compact", normalised=normalize, nulls_dropped=False))


def hash_with(app_compose: Mapping[str, Any], names: Sequence[str], form: Form) -> str:
    """Return the compose hash (64 hex digits) of the app-compose with these names in this order."""
    return _sha256({**app_compose, "allowed_envs": list(names)}, form)


def find_form(app_compose: Mapping[str, Any], compose_hash: str) -> Form | None:
    """Return the form under which an app-compose hashes to ``compose_hash`` (hex), or None.

    If several forms write a non-empty app-compose alike, they still do after any change of
    ``allowed_envs``. So any of them will do.
    """
    wanted = compose_hash.lower().removeprefix("0x")
    return next((form for form in FORMS if _sha256(app_compose, form) == wanted), None)


def ordered(today: Iterable[str], given: Iterable[str]) -> list[str]:
    """Return the given names in the order that keeps today's compose hash if possible.

    The order is measured. So existing names keep the CVM's order, and new ones follow in the order given.

    Args:
        today: the names that the CVM has, in its order (``allowed_envs``).
        given: the names that it will have.
    """
    new = dict.fromkeys(given)
    return list(dict.fromkeys([*(name for name in today if name in new), *new]))


def candidates(app_compose: Mapping[str, Any], names: Sequence[str], form: Form) -> dict[str, str]:
    """Return the possible hashes of the app-compose after its ``allowed_envs`` become ``names``.

    The result maps each hash (64 hex digits) to its order of the names: ``as sent``, ``kept`` (that of
    ``ordered``) or ``sorted``. If several orders give the same hash, the first of these counts.
    """
    allowed = app_compose.get("allowed_envs")
    today = [name for name in allowed if isinstance(name, str)] if isinstance(allowed, list) else []
    orders = {"sorted": sorted(names), "kept": ordered(today, names), "as sent": list(names)}
    return {_sha256({**app_compose, "allowed_envs": listed}, form): order for order, listed in orders.items()}


class Written(NamedTuple):
    """How an app-compose with new names was written: the order of the names and the form."""

    order: str
    form: Form


def recognise(app_compose: Mapping[str, Any], names: Sequence[str], compose_hash: str) -> Written | None:
    """Return how the app-compose was written with ``names`` to have this hash, or None.

    Args:
        app_compose: that from before or after the change. Its ``allowed_envs`` set the order to keep.
        names: the names in the order sent.
        compose_hash: 64 hex digits, with or without ``0x``.
    """
    wanted = compose_hash.lower().removeprefix("0x")
    for form in FORMS:
        if order := candidates(app_compose, names, form).get(wanted):
            return Written(order, form)
    return None


class Measured(NamedTuple):
    """The document that the guest measures: its hash (64 hex digits) and its content."""

    compose_hash: str
    app_compose: dict[str, Any]


def measured(text: str) -> Measured:
    """Return the compose hash of an app-compose from the exact text that the guest measures.

    The API serves it as the string ``compose_file`` of a CVM's attestation. Unlike an object from the
    API, it has no added defaults and needs no form.

    Raises:
        InputError: the text is not a JSON object.
    """
    try:
        content = loads(text)
        digest = hashlib.sha256(text.encode()).hexdigest()
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise InputError(
            "the measured app-compose is not a JSON object",
            hint="pass the text from the attestation unchanged",
        )
    return Measured(digest, content)


def serialise(app_compose: Mapping[str, Any], form: Form) -> bytes:
    """Return the bytes of an app-compose in one form.

    Raise InputError if JSON cannot express it or its nesting is too deep.
    """
    content = dict(app_compose)
    if form.normalised:
        content = _normalised(content)
    if form.nulls_dropped:
        content = _without_nulls(content)
        if isinstance(docker_config := content.get("docker_config"), Mapping):
            content["docker_config"] = _without_nulls(docker_config)
    try:
        text = _stringify(content, "    " if form.style == "pretty" else "")
    except RecursionError:
        raise InputError(
            "the app-compose is nested too deeply", hint="pass a genuine app-compose: it has a few levels"
        ) from None
    if form.style == "pretty":
        text = text.replace('": ', '":')
    return _well_formed(text).encode()


def _sha256(app_compose: Mapping[str, Any], form: Form) -> str:
    return hashlib.sha256(serialise(app_compose, form)).hexdigest()


def _normalised(content: dict[str, Any]) -> dict[str, Any]:
    unused = set()
    if content.get("runner") == "bash":
        unused.add("docker_compose_file")
    if content.get("runner") == "docker-compose":
        unused.add("bash_script")
    if content.get("pre_launch_script") in (None, "", 0):
        unused.add("pre_launch_script")
    return {key: value for key, value in content.items() if key not in unused}


def _without_nulls(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if value is not None}


def _stringify(value: Any, indent: str, line: str = "\n") -> str:
    """Return ``JSON.stringify(value, null, indent)`` with sorted keys. ``line`` begins a line."""
    if value is None or isinstance(value, (bool, str)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (int, float)):
        return _number(value)
    deeper = line + indent
    if isinstance(value, Mapping):
        colon = ": " if indent else ":"
        items = [
            json.dumps(key, ensure_ascii=False) + colon + _stringify(value[key], indent, deeper)
            for key in sorted(value, key=_property_order)
        ]
        opening, closing = "{}"
    elif isinstance(value, (list, tuple)):
        items = [_stringify(item, indent, deeper) for item in value]
        opening, closing = "[]"
    else:
        raise InputError(
            f"the app-compose contains a {type(value).__name__}, which JSON cannot express",
            hint="pass it as parsed from JSON: objects, lists, strings, numbers, booleans and null",
        )
    if not items or not indent:
        return opening + ",".join(items) + closing
    return opening + deeper + ("," + deeper).join(items) + line + closing


def _property_order(key: Any) -> tuple[int, bytes]:
    """Return the sort key of a property that JavaScript set in sorted order.

    Array indices come first by number, then the others by UTF-16 code units (ECMA-262,
    OrdinaryOwnPropertyKeys and SortCompare).
    """
    if not isinstance(key, str):
        raise InputError(
            f"the app-compose has a key that is a {type(key).__name__}", hint="use strings as keys"
        )
    if _ARRAY_INDEX.fullmatch(key) and int(key) < 2**32 - 1:
        return int(key), b""
    return 2**32, key.encode("utf-16-be", "surrogatepass")


def _number(value: float) -> str:
    """Return a number as JavaScript writes it as a double (ECMA-262, Number::toString)."""
    try:
        double = float(value)
    except OverflowError:
        return "null"
    if not math.isfinite(double):
        return "null"
    # Python's repr has the same shortest digits in another notation.
    mantissa, _, exponent = repr(abs(double)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = len(digits) - len(fraction) + int(exponent or 0)
    digits = digits.rstrip("0")
    if not digits:
        return "0"
    sign = "-" if double < 0 else ""
    if len(digits) <= point <= 21:
        return sign + digits.ljust(point, "0")
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    scientific = f"{digits[0]}.{digits[1:]}" if len(digits) > 1 else digits
    return f"{sign}{scientific}e{point - 1:+d}"


def _well_formed(text: str) -> str:
    """Return JSON text with surrogates paired, or escaped if they are alone, as in JavaScript."""
    if not _SURROGATE.search(text):
        return text
    paired = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return _SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", paired)
