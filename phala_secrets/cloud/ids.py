"""The names of CVMs, and names as parts of a URL."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import quote, urlsplit

from phala_secrets.dstack.ids import APP_ID
from phala_secrets.errors import InputError

_UUID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
_HOST_AND_PORT = re.compile(r"(\[[^\[\]]+\]|[^\[\]:]+)(:\d*)?", re.ASCII)
_NAME_LIMIT = 255


class CvmRef(NamedTuple):
    """A CVM as the user named it (``text``) and as the API names it (``id``). ``app_id`` if named by that."""

    text: str
    id: str
    app_id: str | None = None


def parse_cvm(text: str) -> CvmRef:
    """Return a CVM reference from a name, a ``cvm_…`` id, a UUID, an app id, or ``instance_…``.

    Raise InputError for any other text and for one that could reach another URL.
    """
    text = text.strip()
    if app := APP_ID.fullmatch(text):
        app_id = app[1].lower()
        return CvmRef(text, f"app_{app_id}", app_id)
    if _UUID.fullmatch(text):
        return CvmRef(text, text.replace("-", "").lower())
    if (
        not text
        or text in (".", "..")
        or len(text.encode("utf-8", "replace")) > _NAME_LIMIT
        or not text.isprintable()
        or set(text) & set("/?#\\%")
    ):
        raise InputError(
            f"cvm: {text[:60]!a} is not a CVM",
            hint="use a name, a cvm_… id, a UUID, an app id or an instance_… id from the dashboard",
        )
    return CvmRef(text, text)


def is_uuid(text: str) -> bool:
    """Return whether a text is a UUID, with or without dashes."""
    return _UUID.fullmatch(text) is not None


def segment(text: str) -> str:
    """Return text quoted as one segment of a URL's path."""
    if text in ("", ".", "..") or len(text) > _NAME_LIMIT:
        raise InputError(f"invalid id or slug {text[:60]!a}", hint="use an id or slug that the API lists")
    return quote(text, safe="")


def parse_url(text: str, what: str) -> str:
    """Return a server's URL without a trailing slash: https, or http to a loopback address.

    InputError names ``what`` and never the URL: an RPC's often contains a key.
    """
    text = text.strip()
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")  # as for a lookup: no empty label and none over 63 characters
        if not _HOST_AND_PORT.fullmatch(parts.netloc.rpartition("@")[2]):
            host = ""
    except ValueError:
        host, port = "", None
    if not host or not text.isascii() or not text.isprintable() or " " in text or port == 0:
        raise InputError(f"{what} is not a URL", hint="use https://host/path")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise InputError(
            f"{what} is not https: {parts.scheme[:20]!a} would expose your key on the network",
            hint="use https; http is for a loopback address",
        )
    return text.rstrip("/")


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine: ``localhost``, 127.0.0.0/8 or ::1."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
