"""A value that does not print itself, and the API key, which is one."""

from __future__ import annotations

from phala_secrets.errors import InputError


class Secret:
    """Holds a secret text; only ``reveal()`` gives it out, and no repr, str or format does."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    def __bool__(self) -> bool:
        return bool(self._text)


def parse_api_key(text: str, what: str) -> Secret:
    """Return an API key that fits into a header.

    Raises:
        InputError: It does not. The message names ``what``, and never the key.
    """
    if not text.isascii() or not text.isprintable() or " " in text:
        raise InputError(
            f"{what} has characters that no API key has", hint="paste it again, alone on one line"
        )
    return Secret(text)
