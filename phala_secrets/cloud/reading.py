"""JSON from a server: bounded and without credentials."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from phala_secrets.dstack.nested import loads
from phala_secrets.runners.secrecy import NOT_SHOWN, Secrets

if TYPE_CHECKING:
    from collections.abc import Sequence

_TOKENS = frozenset({"commit_token", "commit_url", "api_commit_url"})
"""The fields of a 465 that commit an update without an API key, for 14 days."""


_SHOWN = 16 * 1024
"""Characters of a text to search for encoded spellings: an error shows less."""


class Hidden:
    """The credentials of a connection, which no text of a response may repeat."""

    def __init__(self, credentials: Sequence[str] = ()) -> None:
        self.credentials = sorted({text for text in credentials if text}, key=len, reverse=True)
        self._secrets = Secrets()
        self._secrets.learn("a credential", self.credentials, credential=True)

    def also(self, credentials: Sequence[str]) -> Hidden:
        """Return these and further ones."""
        return Hidden([*self.credentials, *credentials]) if credentials else self

    def in_text(self, text: str) -> str:
        """Return a text with ``***`` for each credential. Hide all of it if an encoded one remains."""
        for credential in self.credentials:
            text = text.replace(credential, "***")
        return NOT_SHOWN if self._secrets.owner_in(text[:_SHOWN], strict=True) else text

    def in_data(self, data: Any, written: str) -> Any:
        """Return decoded JSON without the credentials, in keys and values. ``written`` is its JSON text."""
        present = [text for text in self.credentials if json.dumps(text, ensure_ascii=False)[1:-1] in written]
        return _without(data, present) if present else data


def decode(body: bytes, hidden: Hidden) -> Any:
    """Return the JSON of a response. Raise ValueError if it is invalid or nested too deeply."""
    data = loads(body)
    written = json.dumps(data, ensure_ascii=False)
    written.encode()  # half a surrogate pair cannot be written
    if any(name in written for name in _TOKENS):
        tokens: list[str] = []
        data = _without_tokens(data, tokens)
        hidden = hidden.also(tokens)
    return hidden.in_data(data, written)


def _without(data: Any, credentials: Sequence[str]) -> Any:
    if isinstance(data, str):
        for credential in credentials:
            data = data.replace(credential, "***")
        return data
    if isinstance(data, list):
        return [_without(part, credentials) for part in data]
    if isinstance(data, dict):
        return {_without(name, credentials): _without(part, credentials) for name, part in data.items()}
    return data


def _without_tokens(data: Any, tokens: list[str]) -> Any:
    """Return decoded JSON without credential fields. Add their texts to ``tokens``."""
    if isinstance(data, list):
        return [_without_tokens(part, tokens) for part in data if not _is_token_row(part, tokens)]
    if not isinstance(data, dict):
        return data
    for name in _TOKENS & data.keys():
        tokens += [data[name]] if isinstance(data[name], str) else []
    return {name: _without_tokens(part, tokens) for name, part in data.items() if name not in _TOKENS}


def _is_token_row(row: Any, tokens: list[str]) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("field"), str) or row["field"] not in _TOKENS:
        return False
    tokens += [row["value"]] if isinstance(row.get("value"), str) else []
    return True
