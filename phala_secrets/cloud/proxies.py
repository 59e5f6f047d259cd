"""The proxy for a server: HTTPS_PROXY, ALL_PROXY and NO_PROXY, as curl reads them.

httpx refuses to start with an IPv6 network in NO_PROXY, or with a SOCKS proxy in an ALL_PROXY that it
would not use. This module reads both and rejects only an invalid proxy that a run would use.
"""

from __future__ import annotations

import os
import re
from base64 import b64encode
from ipaddress import ip_address, ip_network
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies

from phala_secrets.cloud.ids import is_loopback
from phala_secrets.errors import InputError

_SCHEME = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*)://)?(.*)", re.DOTALL)
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:\[\]]+)(?::(\d{0,5}))?", re.ASCII)
_SCHEMES = ("http", "https", "socks5", "socks5h")
_SHORTEST_SECRET = 4


class Proxy(NamedTuple):
    """A proxy: its URL without the login, its login, and its variable."""

    url: str
    login: tuple[str, str] | None
    variable: str

    def __repr__(self) -> str:
        return f"Proxy({self.url!r})"

    @property
    def secrets(self) -> list[str]:
        """The texts to hide: the password, and the login as sent."""
        if self.login is None:
            return []
        pair = ":".join(self.login)
        texts = [b64encode(pair.encode()).decode(), pair, self.login[1]]
        return [text for text in texts if len(text) >= _SHORTEST_SECRET]


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy for a server, or None. A loopback address has none.

    Raises:
        InputError: The relevant variable is invalid. The message names it without its login.
    """
    host, port = urlsplit(url).hostname or "", urlsplit(url).port or 443
    if is_loopback(host):
        return None
    settings = getproxies()
    kind = next((kind for kind in ("https", "all") if settings.get(kind, "").strip()), None)
    if kind is None:
        return None
    entries = re.split(r"[\s,]+", settings.get("no", "").strip())
    named = [_names(entry, host, port) for entry in entries if entry]  # all, so that each is read
    if any(named):
        return None
    return _parse(settings[kind].strip(), _variable(kind))


def _variable(kind: str) -> str:
    """Return the variable behind a setting. Of two, the one in lower case counts."""
    name = f"{kind}_proxy"
    return name if os.environ.get(name) else name.upper()


def _parse(text: str, variable: str) -> Proxy:
    """Read a proxy's URL. A password may contain any character: it ends at the last ``@``."""
    scheme, rest = _SCHEME.fullmatch(text).groups(default="http")  # type: ignore[union-attr]
    login, at, place = rest.rpartition("@")
    read = _HOST_AND_PORT.fullmatch(re.split(r"[/?#]", place, maxsplit=1)[0])
    port = read[2] if read else None
    if scheme.lower() not in _SCHEMES or read is None or (port and not 0 < int(port) < 65536):
        raise InputError(
            f"{variable} is not a proxy URL",
            hint="use http://host:port or http://user:password@host:port",
        )
    user, _, password = login.partition(":")
    url = f"{scheme.lower()}://{read[1]}" + (f":{port}" if port else "")
    return Proxy(url, (unquote(user), unquote(password)) if at else None, variable)


def _names(entry: str, host: str, port: int) -> bool:
    """Return whether an entry of NO_PROXY names a server."""
    text = entry.partition("://")[2] or entry
    try:
        if "/" in text or ("[" not in text and text.count(":") > 1):
            return _is_in(host, text.replace("[", "").replace("]", ""))
        read = _HOST_AND_PORT.fullmatch(text)
        if read and read[1].startswith("["):
            return _is_in(host, read[1][1:-1]) and read[2] in (None, "", str(port))
    except ValueError:
        read = None
    if read is None:
        raise InputError(
            f"{_variable('no')} has an invalid entry: {entry[:60]!a}",
            hint="use names, addresses and networks, separated by commas",
        )
    name = read[1].removeprefix("*").removeprefix(".").lower().rstrip(".")
    inside = not name or host == name or host.endswith(f".{name}")  # "*" leaves nothing: any host
    return inside and read[2] in (None, "", str(port))


def _is_in(host: str, network: str) -> bool:
    """Return whether a host is an address in a network. Raise ValueError for an invalid network."""
    there = ip_network(network, strict=False)
    try:
        return ip_address(host) in there
    except ValueError:
        return False
