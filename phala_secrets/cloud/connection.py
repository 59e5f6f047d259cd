"""A connection to Phala Cloud, or to a chain's RPC: where to, with which key, trusting whom.

What the sync and the async client have in common: TLS, proxies, headers, what an error
of the transport means, and what of an answer may be shown. Nothing is sent here.
"""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import urlsplit

import httpx

from phala_secrets import __version__, flow
from phala_secrets.cloud import requests
from phala_secrets.cloud.call import Attempt, Call, Response
from phala_secrets.cloud.ids import is_loopback, parse_api_key, parse_url
from phala_secrets.cloud.retry import Pace, exchange
from phala_secrets.cloud.secret import Secret
from phala_secrets.errors import AnswerError, InputError, TransportError

if TYPE_CHECKING:
    import ssl

    from phala_secrets.flow import Flow, Pause

T = TypeVar("T")
Http = TypeVar("Http", bound=httpx.Client | httpx.AsyncClient)

Trace = Callable[[str], None]

CONNECTIONS = 32
"""Connections at most. Who finds them all taken waits as long as one request may take, and no longer."""

KEPT = 30.0
"""Seconds that an idle connection is kept: pauses between looks are half as long at most."""

_RPC_KEY = re.compile(r"[^/?#&=:@]{16,}")
"""What may be a key in the path or query of an RPC's URL."""


def _tls(url: str) -> ssl.SSLContext:
    """Certificates are always verified, against SSL_CERT_FILE or SSL_CERT_DIR, else certifi's roots.

    Made by hand because Python's default context writes session keys to SSLKEYLOGFILE.
    A loopback http URL gets a context that trusts nobody: loading roots takes longer
    than the rest of a step.
    """
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if urlsplit(url).scheme == "http":
        return context
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if not file and not folder:
        import certifi

        file = certifi.where()
    try:
        context.load_verify_locations(file or None, folder or None)
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"SSL_CERT_FILE or SSL_CERT_DIR cannot be used: {error.strerror or 'no certificates in it'}",
            hint="point it at a PEM file of root certificates, or unset it",
        ) from None
    return context


def _limits() -> httpx.Limits:
    return httpx.Limits(
        max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS, keepalive_expiry=KEPT
    )


def transport_error(error: Exception, host: str, url: str = "api-url") -> TransportError:
    """What httpx's error means: whether the request may have been read, and what to do about it."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    timed_out = isinstance(error, httpx.TimeoutException)
    if not timed_out and "SSL" in reason.upper() and "EOF" not in reason:
        hint = "if a proxy of yours has its own root certificate, set SSL_CERT_FILE to it"
        if "expired" in reason or "not yet valid" in reason:
            hint = "check this machine's clock"
        return AnswerError(f"no trusted TLS connection to {host}: {reason}", hint=hint)
    unsent = isinstance(
        error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError
    )
    if timed_out:
        reason = "no answer in time" if not unsent else "no connection in time"
    return TransportError(
        f"{host} could not be reached: {reason}" if unsent else f"{host} broke off: {reason}",
        hint=f"check the network, HTTPS_PROXY and {url}, then run again",
        sent=not unsent,
    )


class Connection(Generic[Http]):
    """What both clients know: where, with which key, as which version; the key is never shown."""

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        version: str = requests.API_VERSION,
        timeout: float = 30.0,
        trace: Trace | None = None,
        show: Callable[[Pause], None] = lambda _: None,
    ) -> None:
        key = (api_key or os.environ.get("PHALA_CLOUD_API_KEY") or "").strip()
        if not key:
            raise InputError("no API key", hint="pass api_key, or set PHALA_CLOUD_API_KEY")
        parse_api_key(key, "the API key")
        if version not in requests.API_VERSIONS:
            raise InputError(
                f"API version {version!a} is not known", hint=f"use one of {', '.join(requests.API_VERSIONS)}"
            )
        if not 0 < timeout < math.inf:
            raise InputError("timeout has to be a number of seconds above 0", hint="leave it out for 30")
        url = base_url or os.environ.get("PHALA_CLOUD_API_PREFIX") or requests.DEFAULT_URL
        self.base_url = parse_url(url, "api-url")
        self.version = version
        self.timeout = timeout
        self._key = Secret(key)
        self._trace = trace
        self._show = show
        self._pace = Pace()
        self._http = self._open_to(self.base_url)
        self._elsewhere: dict[str, Http] = {}
        self._opening = threading.Lock()
        self._gate = threading.BoundedSemaphore(CONNECTIONS)

    def _open(self, url: str) -> Http:
        raise NotImplementedError

    def _open_to(self, url: str) -> Http:
        try:
            return self._open(url)
        except (ValueError, ImportError, httpx.InvalidURL):  # each would quote a proxy's password
            raise InputError(
                "HTTPS_PROXY, ALL_PROXY or NO_PROXY cannot be used",
                hint="a proxy is given as http://host:port, and NO_PROXY as names with commas between",
            ) from None

    def _client_for(self, call: Call[Any]) -> Http:
        """The connections to Phala Cloud, or to the other server that the call is for."""
        if not call.absolute:
            return self._http
        with self._opening:
            if call.path not in self._elsewhere:
                self._elsewhere[call.path] = self._open_to(call.path)
            return self._elsewhere[call.path]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"

    def _settings(self, url: str) -> dict[str, Any]:
        loopback = is_loopback(urlsplit(url).hostname or "")
        return {
            "verify": _tls(url),
            "trust_env": not loopback,  # a proxy has no business between this machine and itself
            "timeout": self.timeout,
            "follow_redirects": False,
            "headers": {"User-Agent": f"phala-secrets/{__version__}", "Accept-Encoding": "identity"},
            "limits": _limits(),
        }

    def _request(self, attempt: Attempt, *, stream: bool = False) -> dict[str, Any]:
        """Return what httpx is to send."""
        call = attempt.call
        headers = {"Accept": "text/event-stream" if stream else "application/json"}
        if not call.absolute:
            headers["X-API-Key"] = self._key.reveal()
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
        """Return what came back, without anything that must not come into a message."""
        self._traced(call, response, began)
        headers = {name: self._scrubbed(value, call) for name, value in response.headers.items()}
        for secret in self._secrets(call):
            body = body.replace(secret.encode(), b"***")
        return Response(response.status_code, headers, body)

    def _secrets(self, call: Call[Any]) -> list[str]:
        """Return what must not come into a message: the API key, or what may be the RPC's."""
        if not call.absolute:
            return [self._key.reveal()]
        parts = urlsplit(call.path)
        return _RPC_KEY.findall(f"{parts.username}:{parts.password}@{parts.path}?{parts.query}")

    def _scrubbed(self, text: str, call: Call[Any]) -> str:
        for secret in self._secrets(call):
            text = text.replace(secret, "***")
        return text

    def _traced(self, call: Call[Any], response: httpx.Response, began: float) -> None:
        if self._trace:
            request_id = self._scrubbed(response.headers.get("x-request-id", "no request id"), call)
            where = host_of(call.path) if call.absolute else call.path
            took = (flow.clock.monotonic() - began) * 1000
            self._trace(f"{call.method} {where} → {response.status_code} in {took:.0f} ms ({request_id})")

    def _failed(self, call: Call[Any], error: Exception) -> TransportError:
        """Return what an error of the transport means."""
        host = host_of(call.path if call.absolute else self.base_url)
        url = "rpc-url" if call.absolute else "api-url"
        known = error if isinstance(error, TransportError) else transport_error(error, host, url)
        if self._trace:
            self._trace(f"{call.method} {host if call.absolute else call.path} → {known.message}")
        return known

    def _exchange(self, call: Call[T], within: float = math.inf) -> Flow[T]:
        return exchange(call, self._pace, self.timeout, within=within)


def host_of(url: str) -> str:
    return urlsplit(url).hostname or "the server"
