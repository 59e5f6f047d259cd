"""The fields of an object in a response, each checked and bounded."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from phala_secrets.errors import AnswerError, untrusted

T = TypeVar("T")

_TEXT = 16 * 1024
"""Characters of a guest's text: messages show at most an eighth."""

_FIELD = 1024
"""Characters of any other text: names and ids have 255, keys and signatures a few hundred."""

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:=+@-]{0,127}")
"""A valid id: it becomes an output that a script of the next step may read."""


class Fields:
    """The fields of one object in a response. AnswerError names an invalid field."""

    def __init__(self, body: Any, what: str) -> None:
        if not isinstance(body, dict):
            raise AnswerError(f"Phala Cloud's body is no {what}", hint="check api-url")
        self.all: dict[str, Any] = body
        self._what = what

    def text(self, name: str) -> str:
        value = self.optional(name, str)
        if not value:
            raise self._wrong(name)
        return value

    def identifier(self, name: str) -> str:
        return identifier(self.text(name), self._what, name)

    def optional(self, name: str, kind: type[T]) -> T | None:
        value = self.all.get(name)
        if value is None:
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self._wrong(name)
        if isinstance(value, str) and len(value) > _FIELD:
            raise AnswerError(
                f"Phala Cloud's response is not a valid {self._what}: {name} has {len(value)} characters",
                hint="check api-url; if it is right, report that the API has changed",
            )
        return value

    def words(self, name: str) -> str:
        """Return a guest's text, truncated."""
        value = self.all.get(name)
        if value is not None and not isinstance(value, str):
            raise self._wrong(name)
        return (value or "")[:_TEXT]

    def part(self, name: str) -> Fields:
        return Fields(self.optional(name, dict) or {}, self._what)

    def _wrong(self, name: str) -> AnswerError:
        return AnswerError(
            f"Phala Cloud's response is not a valid {self._what}: {name} is missing or has the wrong type",
            hint="check api-url; if it is right, report that the API has changed",
        )


def identifier(text: str, what: str, name: str) -> str:
    if not _IDENTIFIER.fullmatch(text):
        raise AnswerError(
            f"Phala Cloud's response is not a valid {what}: invalid {name} {untrusted(ascii(text[:60]))}",
            hint="check api-url; if it is right, do not trust this API",
        )
    return text
