"""How CVMs are named, and how a name becomes part of a URL."""

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
    """A CVM as the user named it (``text``), as the API takes it (``id``), and its app if named by that."""

    text: str
    id: str
    app_id: str | None = None


def parse_cvm(text: str) -> CvmRef:
    """A CVM reference: a name, a ``cvm_…`` id, a UUID, an app id, or ``instance_…``.

    Raises InputError for what could not be one of them, or could reach another URL.
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
            hint="give a name, a cvm_… id, a UUID, an app id or an instance_… id, as the dashboard shows it",
        )
    return CvmRef(text, text)


def segment(text: str) -> str:
    """One segment of a URL's path, quoted so that it stays one."""
    if text in ("", ".", "..") or len(text) > _NAME_LIMIT:
        raise InputError(
            f"{text[:60]!a} cannot be part of a request", hint="give the id or slug that the API lists"
        )
    return quote(text, safe="")


def parse_url(text: str, what: str) -> str:
    """A server's URL without a trailing slash: https, or http to a loopback address.

    InputError names ``what`` and not the URL: an RPC's often holds a key.
    """
    text = text.strip()
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")  # what looking it up takes: no empty label, none over 63 characters
        if not _HOST_AND_PORT.fullmatch(parts.netloc.rpartition("@")[2]):
            host = ""
    except ValueError:
        host, port = "", None
    if not host or not text.isascii() or not text.isprintable() or " " in text or port == 0:
        raise InputError(f"{what} is not a URL", hint="give it as https://host/path")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise InputError(
            f"{what} has to be https: {parts.scheme[:20]!a} would show your key to anyone on the way",
            hint="use https; http is for a loopback address",
        )
    return text.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: ``localhost``, 127.0.0.0/8 or ::1."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
