"""Decide what is secret, and whether a text shows any of it. One rule for everything that is printed.

A line of a value is secret if it has four characters or more, and is no word of configuration, no number
under six digits, and not equal to a name, id, slug or status that the run knows. So is every credential:
the keys, tokens, and what a URL has of them.

A text that shows a secret is refused, not repaired: what is left around a hole says more than one thinks.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from phala_secrets.errors import split_untrusted
from phala_secrets.runners.spellings import GRAM, forms, pieces, readings, skeleton

if TYPE_CHECKING:
    from collections.abc import Iterable

NOT_SHOWN = "(not shown: it may contain a secret; read the CVM's serial log)"
"""What stands where a text is refused."""

SHORTEST = 4
"""Characters of a secret: to mask ``1`` or ``{`` would blank the log."""

WINDOW = 16 * 1024
"""Characters of an untrusted text that are looked at. Less than that is shown, so no cut goes unseen."""

_DIGITS = 6
"""Digits from which a number is secret: a port, a count or a year is not."""

_WORDS = frozenset(
    {
        *("true", "false", "yes", "no", "on", "off", "null", "none"),
        *("trace", "debug", "verbose", "info", "information", "notice", "warn", "warning"),
        *("error", "critical", "fatal", "silent"),
        *("production", "staging", "development", "test", "localhost"),
        *("running", "stopped", "starting", "stopping", "restarting", "in_progress"),
        *("completed", "failed", "interrupted", "planned", "encrypted", "verified"),
        *("precondition_required", "already-registered", "pinned", "chain", "known"),
    }
)
"""Words of configuration, and statuses: nobody keeps them secret, and every log has them."""

_NUMBER = re.compile(r"[+-]?\d*\.?\d+")
_ALPHANUMERIC = re.compile(r"[^\W_]+")
_PLAIN_WORD = re.compile(r"[a-z]{1,16}")
_KEY_NAME = re.compile(r"key|token|secret|auth|pass|sig", re.IGNORECASE)
_KEY_LIKE = re.compile(r"(?=.*\d)(?=.*[a-z]).{8,}|.{16,}", re.IGNORECASE)


def is_secret(line: str) -> bool:
    """Return whether a line of a value is secret."""
    bare = line.strip()
    if len(bare) < SHORTEST or bare.casefold() in _WORDS:
        return False
    return not (_NUMBER.fullmatch(bare) and sum(map(str.isdigit, bare)) < _DIGITS)


def secret_lines(values: Iterable[str]) -> list[str]:
    """Return the secret lines of values, without the blanks around them, each once."""
    return [line for line in _lines(values) if is_secret(line)]


def _parts(values: Iterable[str]) -> list[str]:
    """Return the secret lines of values, then the logins of those that are URLs."""
    lines = secret_lines(values)
    return lines + [part for line in lines if "://" in line for part in login_in(line)]


def _lines(values: Iterable[str]) -> list[str]:
    lines = (line.strip() for value in values for line in value.replace("\r", "\n").split("\n"))
    return list(dict.fromkeys(line for line in lines if len(line) >= SHORTEST))


def login_in(url: str) -> list[str]:
    """Return the password of a URL, or its user where there is none, and the header that both become."""
    try:
        parts = urlsplit(url.strip())
        user, password = parts.username or "", parts.password or ""
    except ValueError:
        return []
    found = [password or user]
    if password:
        found.append(base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode())
        found += [user] if len(user) >= 2 * GRAM else []
    return _decoded(found)


def credentials_in(url: str) -> list[str]:
    """Return what of a URL may be a credential: its login, and keys in path and query, decoded too."""
    try:
        parts = urlsplit(url.strip())
        queries = parse_qsl(parts.query)
    except ValueError:
        return []
    found = [part for part in parts.path.split("/") if _KEY_LIKE.fullmatch(part)]
    found += [value for name, value in queries if _KEY_NAME.search(name) or _KEY_LIKE.fullmatch(value)]
    return list(dict.fromkeys([*login_in(url), *_decoded(found)]))


def _decoded(found: Iterable[str]) -> list[str]:
    both = (text for one in found for text in (one, unquote(one)))
    return list(dict.fromkeys(text for text in both if len(text) >= SHORTEST))


class _Known(NamedTuple):
    """A form that a secret may have: whose it is, its line, and whether it is a piece, or a credential's."""

    form: str
    owner: str
    line: str
    piece: bool
    credential: bool


class Secrets:
    """The secrets of a run, and the names that are not secret."""

    def __init__(self) -> None:
        self._grams: dict[str, list[_Known]] = {}
        self._words: dict[str, _Known] = {}
        self._short: dict[str, _Known] = {}
        self._lines: set[str] = set()
        self._spared: set[str] = set()

    def learn(self, owner: str, values: Iterable[str], *, credential: bool = False) -> list[str]:
        """Take in the values of a variable, or a credential, and return the lines to mask that are new."""
        values = list(values)
        lines = _lines(values) if credential else _parts(values)
        new = [line for line in dict.fromkeys(lines) if line not in self._lines | self._spared]
        self._lines.update(new)
        for line in new:
            self._take_in(line, owner, credential=credential)
        for value in values:
            if "\n" in value.strip():
                self._index(owner, value, forms(value), credential=credential)
        return new

    def spare(self, texts: Iterable[str | None]) -> None:
        """Take in names, ids, slugs and statuses: a line that equals one is not secret."""
        self._spared.update(text for text in texts if text)

    def of_value(self, value: str) -> list[str]:
        """Return what is secret of a value: lines, and logins of URLs; no name that the run knows."""
        return [part for part in _parts([value]) if part not in self._spared]

    def credential_in(self, text: str) -> str | None:
        """Return which credential a text shows whole, in any spelling; values of variables do not count."""
        found = self._find(text, strict=False, credentials=True, whole=True)
        return found.owner if found else None

    def owner_in(self, text: str, *, strict: bool = False, ours: bool = False) -> str | None:
        """Return whose secret a text shows, in any spelling; ``strict`` finds beginnings and ends, too.

        In a sentence of ``ours`` a value that is a plain word is that word, and no secret.
        A name that the run knows is not a secret, even where a value is part of it.
        """
        if not self._lines:
            return None
        found = self._find(text, strict, ours=ours)
        if not found or found.credential:
            return found.owner if found else None
        bare = text
        for name in sorted(self._spared, key=len, reverse=True):
            if name in bare and self._find(name, strict, ours=ours):  # no other explains what was found
                bare = bare.replace(name, " ")
        if bare != text:
            found = self._find(text, strict, credentials=True) or self._find(bare, strict, ours=ours)
        return found.owner if found else None

    def screened(self, text: str) -> str:
        """Return a text in which what is untrusted and shows a secret is replaced, and all else as well."""
        shown = "".join(
            NOT_SHOWN if untrusted and self.owner_in(part[:WINDOW], strict=True) else part
            for untrusted, part in split_untrusted(text)
        )
        return NOT_SHOWN if self.owner_in(shown[:WINDOW], ours=True) else shown

    def _take_in(self, line: str, owner: str, *, credential: bool) -> None:
        self._index(owner, line, forms(line), credential=credential)
        self._index(owner, line, pieces(line), credential=credential, piece=True)
        if len(skeleton(line)) >= GRAM:
            return
        short = [line]
        if len(line) > SHORTEST:
            short.append(base64.b64encode(line.encode(errors="replace")).decode().rstrip("="))
        for text in short:
            known = _Known(text, owner, line, piece=False, credential=credential)
            is_word = _ALPHANUMERIC.fullmatch(text) and not (
                len(text) >= SHORTEST + 2 and any(map(str.isdigit, text)) and any(map(str.isalpha, text))
            )
            (self._words if is_word else self._short)[text] = known

    def _index(
        self, owner: str, line: str, found: Iterable[str], *, credential: bool, piece: bool = False
    ) -> None:
        for form in found:
            known = _Known(form, owner, line, piece, credential)
            self._grams.setdefault(form[:GRAM], []).append(known)

    def _find(
        self,
        text: str,
        strict: bool,
        *,
        credentials: bool = False,
        ours: bool = False,
        whole: bool = False,
    ) -> _Known | None:
        def counts(known: _Known) -> bool:
            if known.credential:
                return not (whole and known.piece)
            if ours and _PLAIN_WORD.fullmatch(known.line):
                return False
            return not credentials and known.line not in self._spared and (strict or not known.piece)

        for reading in readings(text):
            letters = skeleton(reading)
            for start in range(len(letters) - GRAM + 1):
                for known in self._grams.get(letters[start : start + GRAM], ()):
                    if counts(known) and letters.startswith(known.form, start):
                        return known
            for word in _ALPHANUMERIC.findall(reading):
                if (short := self._words.get(word)) and counts(short):
                    return short
            for part, short in self._short.items():
                if part in reading and counts(short):
                    return short
        return None
