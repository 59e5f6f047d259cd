"""How systemd reads an ``EnvironmentFile``.

The states are those of ``parse_env_file_internal`` in systemd's ``src/basic/env-file.c``. A test
compares this reader with the real one, ``load_env_file`` in ``libsystemd-shared``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_State = Callable[[str], Any]  # returns a _State

_NEWLINE = frozenset("\n\r")
_WHITESPACE = frozenset(" \t\n\r")
_COMMENT = frozenset("#;")
_UNESCAPED_IN_DOUBLE_QUOTES = frozenset('"\\`$')
_TOKEN = re.compile(r"""[^ \t\n\r\\'"`$=#;]+|.""", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COMMENTS_END_AT_A_BACKSLASHED_NEWLINE = 254


class EnvFileError(ValueError):
    """systemd would reject the whole file: it has a NUL or text that is not UTF-8."""


def read_environment(text: str, systemd: int = 252) -> dict[str, str]:
    """Return the environment of a service with this file. The last value of a repeated name counts.

    ``systemd`` is the version of the reader. Raise `EnvFileError`.
    """
    if "\0" in text:
        raise EnvFileError("a NUL in the environment file")
    reader = _Reader(systemd)
    state: _State = reader.before_name
    for token in _TOKEN.findall(text):
        state = state(token)
    reader.finish(state)
    return {name: value for name, value in reader.pairs.items() if _NAME.fullmatch(name)}


def _is_utf8(text: str) -> bool:
    """Return ``utf8_is_valid`` of ``src/basic/utf8.c``: false for surrogates and noncharacters."""
    return text.isascii() or not any(
        0xD800 <= code <= 0xDFFF or 0xFDD0 <= code <= 0xFDEF or code & 0xFFFE == 0xFFFE
        for code in map(ord, text)
    )


class _Reader:
    """Each state is a method that takes a token and returns the next state.

    A token is one character that means something to some state, or a run of others.
    """

    def __init__(self, systemd: int) -> None:
        self.pairs: dict[str, str] = {}
        self._comment_ends = systemd >= _COMMENTS_END_AT_A_BACKSLASHED_NEWLINE
        self._name: list[str] = []
        self._value: list[str] = []
        self._chomp: int | None = None

    def finish(self, state: _State) -> None:
        """Take what the end of the file leaves unfinished; a name without ``=`` is dropped."""
        if state == self.value:
            self._chomp_value()
        if state in (
            self.before_value,
            self.value,
            self.value_escape,
            self.single_quoted,
            self.double_quoted,
            self.double_quoted_escape,
        ):
            self._push()

    def before_name(self, c: str) -> _State:
        if c in _COMMENT:
            return self.comment
        if c in _WHITESPACE:
            return self.before_name
        self._name.append(c)
        return self.name

    def name(self, c: str) -> _State:
        if c in _NEWLINE:
            self._name.clear()
            return self.before_name
        if c == "=":
            self._chomp = None
            return self.before_value
        self._name.append(c)
        return self.name

    def before_value(self, c: str) -> _State:
        if c in _NEWLINE:
            return self._push()
        if c == "'":
            return self.single_quoted
        if c == '"':
            return self.double_quoted
        if c == "\\":
            return self.value_escape
        if c in _WHITESPACE:
            return self.before_value
        self._value.append(c)
        return self.value

    def value(self, c: str) -> _State:
        if c in _NEWLINE:
            self._chomp_value()
            return self._push()
        if c == "\\":
            self._chomp = None
            return self.value_escape
        if c not in _WHITESPACE:
            self._chomp = None
        elif self._chomp is None:
            self._chomp = len(self._value)
        self._value.append(c)
        return self.value

    def value_escape(self, c: str) -> _State:
        if c not in _NEWLINE:
            self._value.append(c)
        return self.value

    def single_quoted(self, c: str) -> _State:
        if c == "'":
            return self.before_value
        self._value.append(c)
        return self.single_quoted

    def double_quoted(self, c: str) -> _State:
        if c == '"':
            return self.before_value
        if c == "\\":
            return self.double_quoted_escape
        self._value.append(c)
        return self.double_quoted

    def double_quoted_escape(self, c: str) -> _State:
        if c in _UNESCAPED_IN_DOUBLE_QUOTES:
            self._value.append(c)
        elif c != "\n":
            self._value += ("\\", c)
        return self.double_quoted

    def comment(self, c: str) -> _State:
        if c == "\\":
            return self.comment_escape
        return self.before_name if c in _NEWLINE else self.comment

    def comment_escape(self, c: str) -> _State:
        return self.before_name if self._comment_ends and c in _NEWLINE else self.comment

    def _chomp_value(self) -> None:
        if self._chomp is not None:
            del self._value[self._chomp :]

    def _push(self) -> _State:
        name = "".join(self._name).rstrip(" \t\n\r")
        assignment = f"{name}={''.join(self._value)}"
        if not _is_utf8(assignment):
            raise EnvFileError("not valid UTF-8")
        name, _, value = assignment.partition("=")  # an invalid name may begin with "="
        self.pairs[name] = value
        self._name.clear()
        self._value.clear()
        return self.before_name
