"""A connection to Phala Cloud or to a chain's RPC: its URL, its key and its trusted roots.

The sync and the async client share it: TLS, proxies, headers, the meaning of transport errors, and the
removal of credentials from responses. Nothing is sent here.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from http.cookiejar import CookieJar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlsplit, urlunsplit

import httpx

from phala_secrets import __version__, flow
from phala_secrets.cloud import requests
from phala_secrets.cloud.call import Attempt, Call, Response
from phala_secrets.cloud.ids import parse_url
from phala_secrets.cloud.proxies import Proxy, proxy_for
from phala_secrets.cloud.reading import Hidden
from phala_secrets.cloud.retry import Pace, exchange
from phala_secrets.cloud.secret import Login, Token, parse_api_key
from phala_secrets.errors import AnswerError, InputError, TransportError, untrusted
from phala_secrets.runners.secrecy import credentials_in

if TYPE_CHECKING:
    import ssl

    from phala_secrets.flow import Flow, Pause

T = TypeVar("T")
Http = TypeVar("Http", bound=httpx.Client | httpx.AsyncClient)

Trace = Callable[[str], None]


class _NoCookies(CookieJar):
    """Ignores cookies: they are not needed, and a malformed one would end all requests."""

    def extract_cookies(self, *_: object) -> None:
        """Take none."""

    def add_cookie_header(self, *_: object) -> None:
        """Send none."""


CONNECTIONS = 32
"""Maximum connections. If all are taken, a request waits for one as long as it may take itself."""

KEPT = 30.0
"""Seconds that an idle connection stays open: pauses between looks are at most half as long."""


def _tls(url: str) -> ssl.SSLContext:
    """Return a context that verifies certificates against the user's roots, or else certifi's.

    SSL_CERT_FILE, SSL_CERT_DIR and the variables of requests and curl name the user's roots.

    Python's default context would write session keys to SSLKEYLOGFILE. A loopback http URL gets a
    context without roots: loading them takes longer than the rest of a step.
    """
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if urlsplit(url).scheme == "http":
        return context
    names, file, folder = _roots()
    if not file and not folder:
        import certifi

        file = certifi.where()
    try:
        context.load_verify_locations(file, folder)
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"cannot use {names}: {error.strerror or 'no certificates in it'}",
            hint="point it at a PEM file of root certificates, or unset it",
        ) from None
    return context


def _roots() -> tuple[str, str | None, str | None]:
    """Return the variables that name root certificates, the file, and the folder."""
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file or folder:
        return "SSL_CERT_FILE or SSL_CERT_DIR", file or None, folder or None
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if path := os.environ.get(name):
            return (name, None, path) if Path(path).is_dir() else (name, path, None)
    return "certifi's roots", None, None


def _limits() -> httpx.Limits:
    return httpx.Limits(
        max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS, keepalive_expiry=KEPT
    )


def transport_error(error: Exception, host: str, url: str, hidden: Hidden) -> TransportError:
    """Return the error for one of httpx: whether the server may have read the request, and a hint."""
    if not isinstance(error, httpx.HTTPError):
        return AnswerError(
            f"the response of {host} is malformed ({type(error).__name__})", hint=f"check {url}"
        )
    reason = hidden.in_text(" ".join(str(error)[:2000].split()))[:200] or type(error).__name__
    timed_out = isinstance(error, httpx.TimeoutException)
    if not timed_out and "SSL" in reason.upper() and "EOF" not in reason:
        hint = "if your proxy has its own root certificate, set SSL_CERT_FILE to it"
        if "expired" in reason or "not yet valid" in reason:
            hint = "check this machine's clock"
        return AnswerError(f"no trusted TLS connection to {host}: {untrusted(reason)}", hint=hint)
    unsent = isinstance(
        error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError
    )
    if timed_out:
        reason = "no response in time" if not unsent else "no connection in time"
    return TransportError(
        f"{host} could not be reached: {untrusted(reason)}"
        if unsent
        else f"{host} broke off: {untrusted(reason)}",
        hint=f"check the network, HTTPS_PROXY and {url}, then run again",
        sent=not unsent,
    )


class Connection(Generic[Http]):
    """The state of both clients: URL, login and API version. It never shows the key."""

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        version: str = requests.API_VERSION,
        timeout: float = 30.0,
        trace: Trace | None = None,
        show: Callable[[Pause], None] = lambda _: None,
        workspace: str = "",
        login: Login | None = None,
    ) -> None:
        url = base_url or os.environ.get("PHALA_CLOUD_API_PREFIX") or requests.DEFAULT_URL
        self._login = login or _found(api_key, url, workspace)
        if version not in requests.API_VERSIONS:
            raise InputError(
                f"unknown API version {version!a}", hint=f"use one of {', '.join(requests.API_VERSIONS)}"
            )
        if not 0 < timeout < math.inf:
            raise InputError(
                "timeout is not a positive number of seconds",
                hint="use a positive number, or leave it out for 30",
            )
        self.base_url = parse_url(url, "api-url")
        self.version = version
        self.timeout = timeout
        self._trace = trace
        self._show = show
        self._pace = Pace()
        self._proxies: dict[tuple[str, str], Proxy | None] = {}
        self._http = self._open_to(self.base_url)
        self._elsewhere: dict[tuple[str, str], Http] = {}
        self._opening = threading.Lock()
        self._logging_in = threading.Lock()
        self._hidden = Hidden([*self._login.secrets, *self._credentials_of(self.base_url)])
        self._hidden_elsewhere: dict[str, Hidden] = {}
        self._login.watch(self._hide)
        self._gate = threading.BoundedSemaphore(CONNECTIONS)

    def _open(self, url: str) -> Http:
        raise NotImplementedError

    def _open_to(self, url: str) -> Http:
        proxy = proxy_for(url)
        self._proxies[_origin(url)] = proxy
        try:
            return self._open(url)
        except (ValueError, ImportError, httpx.InvalidURL):  # each would quote a proxy's password
            if proxy is None:
                raise
        raise InputError(
            f"{proxy.variable} names an unsupported kind of proxy",
            hint="use http://host:port",
        )

    def _client_for(self, call: Call[Any]) -> Http:
        """Return the connections to Phala Cloud, or to the call's other server."""
        if not call.absolute:
            return self._http
        origin = _origin(call.path)
        if origin == _origin(self.base_url):
            return self._http
        with self._opening:
            if origin not in self._elsewhere:
                self._elsewhere[origin] = self._open_to(call.path)
            return self._elsewhere[origin]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({without_login(self.base_url)!r})"

    def _settings(self, url: str) -> dict[str, Any]:
        proxy = self._proxies[_origin(url)]
        return {
            "verify": _tls(url),
            "trust_env": False,  # proxies and roots are read here
            "proxy": proxy and httpx.Proxy(proxy.url, auth=proxy.login),
            "timeout": self.timeout,
            "follow_redirects": False,
            "cookies": _NoCookies(),
            "headers": {"User-Agent": f"phala-secrets/{__version__}", "Accept-Encoding": "identity"},
            "limits": _limits(),
        }

    def _request(self, attempt: Attempt, *, stream: bool = False) -> dict[str, Any]:
        """Return the arguments of httpx's request."""
        call = attempt.call
        headers = {"Accept": "text/event-stream" if stream else "application/json", **call.headers}
        if not call.absolute:
            headers |= self._login.headers()
            headers["X-Phala-Version"] = call.version or self.version
        return {
            "method": call.method,
            "url": call.path if call.absolute else self.base_url + call.path,
            "params": dict(call.params) or None,
            "json": call.body,
            "headers": headers,
            "timeout": attempt.seconds,
        }

    def _response(self, call: Call[Any], response: httpx.Response, body: bytes, began: float) -> Response:
        """Return the response without credentials in its headers."""
        self._traced(call, response, began)
        hidden = self._hidden_from(call)
        headers = {name: hidden.in_text(value) for name, value in response.headers.items()}
        by_token = self._login.by_token and not call.absolute
        return Response(response.status_code, headers, body, hidden, by_token)

    def _renewal(self, call: Call[Any]) -> Flow[None] | None:
        """Return the flow to run before a call, if any."""
        return None if call.absolute else self._login.renewal(self.timeout)

    def _hide(self, token: Token) -> None:
        """Keep a new token out of every message from now on."""
        self._hidden = self._hidden.also(token.secrets)
        self._hidden_elsewhere = {}

    def _credentials_of(self, url: str) -> list[str]:
        """Return the credentials in a URL, and the login of the proxy on the way to it."""
        proxy = self._proxies.get(_origin(url))
        return [*credentials_in(url), *(proxy.secrets if proxy else ())]

    def _hidden_from(self, call: Call[Any]) -> Hidden:
        """Return the credentials to hide: those of this connection and those in an RPC's URL."""
        if not call.absolute:
            return self._hidden
        if call.path not in self._hidden_elsewhere:
            self._hidden_elsewhere[call.path] = self._hidden.also(self._credentials_of(call.path))
        return self._hidden_elsewhere[call.path]

    def _traced(self, call: Call[Any], response: httpx.Response, began: float) -> None:
        if self._trace:
            request_id = self._hidden_from(call).in_text(
                response.headers.get("x-request-id", "no request id")
            )
            where = host_of(call.path) if call.absolute else call.path
            took = (flow.clock.monotonic() - began) * 1000
            self._trace(f"{call.method} {where} → {response.status_code} in {took:.0f} ms ({request_id})")

    def _failed(self, call: Call[Any], error: Exception) -> TransportError:
        """Return the error for one of the transport."""
        there = call.path if call.absolute else self.base_url
        host = host_of(there)
        url = call.given_by if call.absolute else "api-url"
        known = error
        if not isinstance(known, TransportError):
            known = transport_error(error, address_of(there), url, self._hidden_from(call))
        if self._trace:
            self._trace(f"{call.method} {host if call.absolute else call.path} → {known.marked}")
        return known

    def _exchange(self, call: Call[T], within: float = math.inf) -> Flow[T]:
        return exchange(call, self._pace, self.timeout, within=within)


def _found(api_key: str | None, url: str, workspace: str) -> Login:
    """Return the API key, or else the login of this job. Raise InputError without either."""
    way = "pass api_key, or set PHALA_CLOUD_API_KEY"
    if key := (api_key or os.environ.get("PHALA_CLOUD_API_KEY") or "").strip():
        return parse_api_key(key, "the API key")
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from phala_secrets.cloud.oidc import login_of_job

        return login_of_job(os.environ, parse_url(url, "api-url"), workspace, way)
    raise InputError("no API key", hint=way)


def _origin(url: str) -> tuple[str, str]:
    """Return what identifies a server: the scheme, and the host with port."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def host_of(url: str) -> str:
    return urlsplit(url).hostname or "the server"


def address_of(url: str) -> str:
    """Return the host of a URL, with its port if it has one."""
    port = urlsplit(url).port
    return f"{host_of(url)}:{port}" if port else host_of(url)


def without_login(url: str) -> str:
    """Return a URL without user, password, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
