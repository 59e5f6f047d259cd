"""How a program that shows a secret may write it: readings of a text, and forms of a secret."""

from __future__ import annotations

import base64
import re
import unicodedata
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterator

GRAM = 8
"""Characters that forms are found by. What has fewer is looked for as it is."""

FORM = 64
"""Characters of a form that are compared: as many do not agree by chance."""

_READINGS = 16
"""Readings of one text at most: three decoders, one after the other, make fewer of what people write."""

_DEPTH = 3
"""Escapes within escapes that are undone: JSON in JSON in a URL."""

_NOT_WORD = re.compile(r"[\W_]+")
_BACKSLASH = re.compile(
    r"\\(?:u([0-9a-fA-F]{4})|(?:[ux]\{|U)([0-9a-fA-F]{1,8})\}?|x([0-9a-fA-F]{2})|([0-7]{1,3})|(.))", re.DOTALL
)
_HEX = re.compile(r"[%=]([0-9a-fA-F]{2})")
_COLOUR = re.compile(r"\x1b\[[0-9;:?]*[ -/]*[@-~]")
_PREFIX = re.compile(r"\b0x([0-9a-fA-F]{2})\b")
_HIGH = re.compile("[\x80-\xff]+")
_SPACES = dict.fromkeys("nrtbfvae", " ")


def skeleton(text: str) -> str:
    """Return the letters and digits of a text, whatever stands between them, and in whatever case."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _NOT_WORD.sub("", text.casefold())


def readings(text: str) -> list[str]:
    """Return a text as it is, and with its escapes undone: backslashes, ``%XX``, entities, colours."""
    found = {text: None}
    last = [text]
    for _ in range(_DEPTH):
        last = [new for old in last for new in _decoded(old) if new not in found]
        found |= dict.fromkeys(last)
        if not last or len(found) > _READINGS:
            break
    return list(found)[:_READINGS]


def _decoded(text: str) -> Iterator[str]:
    if "\\" in text:
        yield _bytes_as_text(_BACKSLASH.sub(_unescaped, text))
    if "%" in text:
        yield unquote(text)
    if "=" in text:  # quoted-printable
        yield _bytes_as_text(_HEX.sub(lambda match: chr(int(match[1], 16)), text))
    if "&" in text:
        from html import unescape

        yield unescape(text)
    if "\x1b" in text:
        yield _COLOUR.sub("", text)
    if "0x" in text:
        yield _PREFIX.sub(r"\1", text)


def _unescaped(match: re.Match[str]) -> str:
    long, longer, byte, octal, plain = match.groups()
    if plain is not None:
        return _SPACES.get(plain, plain)
    number = int(octal, 8) if octal else int(long or longer or byte, 16)
    return chr(number) if number < 0x110000 else " "


def _bytes_as_text(text: str) -> str:
    r"""Join what was escaped piece by piece: UTF-8 bytes (``\xc3\xa9``), and halves of a character."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _HIGH.sub(_decoded_bytes, text)


def _decoded_bytes(match: re.Match[str]) -> str:
    try:
        return match[0].encode("latin-1").decode()
    except UnicodeDecodeError:
        return match[0]


def forms(line: str) -> Iterator[str]:
    """Yield what a secret's skeleton is as text, base64, hex and decimal bytes; short ones are left out."""
    start = line[: 4 * FORM]
    data = start.encode(errors="replace")[:FORM]
    found = [skeleton(start)[:FORM], data.hex()[:FORM], "".join(map(str, data[:FORM]))[:FORM]]
    for offset in range(3):  # where in a longer text it stands
        head = base64.b64encode(bytes(offset) + data).translate(None, b"+/=").decode().lower()
        found.append(head[(0, 2, 3)[offset] : -1 if len(head) > GRAM else None][:FORM])
    yield from (form for form in found if len(form) >= GRAM)


def pieces(line: str) -> Iterator[str]:
    """Yield the beginning and the end of a secret, which is all that is left of one that was cut."""
    text = re.sub(r"^[a-z][a-z0-9+.-]*://", "", line, flags=re.IGNORECASE) if "://" in line else line
    if line.startswith("-----"):  # the armour of a key is public
        return
    letters = skeleton(text[: 4 * FORM])
    if len(letters) > GRAM:
        yield letters[:GRAM]
    end = skeleton(text[-4 * FORM :])
    if len(end) > GRAM + GRAM // 2:
        yield end[-GRAM - GRAM // 2 :]
