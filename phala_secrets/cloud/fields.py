"""The fields of an object in a response, each checked as it is read."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from phala_secrets.errors import AnswerError

T = TypeVar("T")

_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:=+@-]{0,127}")
"""What an id may look like: it becomes an output, which a script of the next step may hold."""


class Fields:
    """The fields of one object in an answer; AnswerError names the field that is not what it has to be."""

    def __init__(self, answer: Any, what: str) -> None:
        if not isinstance(answer, dict):
            raise AnswerError(f"Phala Cloud's answer is no {what}", hint="check api-url")
        self.all: dict[str, Any] = answer
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
        return value

    def part(self, name: str) -> Fields:
        return Fields(self.optional(name, dict) or {}, self._what)

    def _wrong(self, name: str) -> AnswerError:
        return AnswerError(
            f"Phala Cloud's answer is no {self._what}: {name} is missing or of another kind",
            hint="check api-url; if it is right, the API has changed: report it",
        )


def identifier(text: str, what: str, name: str) -> str:
    if not _IDENTIFIER.fullmatch(text):
        raise AnswerError(
            f"Phala Cloud's answer is no {what}: {name} has what no id has ({text[:60]!a})",
            hint="check api-url; if it is right, do not trust this API",
        )
    return text
