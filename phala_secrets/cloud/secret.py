"""A value that does not print itself."""

from __future__ import annotations


class Secret:
    """Holds a secret text; only ``reveal()`` gives it out, and no repr, str or format does."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __bool__(self) -> bool:
        return bool(self._text)
