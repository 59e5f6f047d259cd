"""The clients, sync and async: the only ones that send.

Each method is an endpoint of ``api`` (or a flow of several) made sendable, so
both clients have the same ones, with the same arguments.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
import re
import threading
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Concatenate, Generic, NamedTuple, ParamSpec, Self, TypeVar
from urllib.parse import urlsplit

import httpx

from phala_secrets import __version__, api, flows
from phala_secrets.calls import Batch, Body, Call, Exchange, Flow, Pace, Pause
from phala_secrets.deadline import in_time
from phala_secrets.errors import AnswerError, InputError, PhalaSecretsError, TransportError
from phala_secrets.identifiers import is_loopback, parse_url
from phala_secrets.secret import Secret
from phala_secrets.watch import Watch

if TYPE_CHECKING:
    import ssl

    from phala_secrets.models import CvmState, CvmStateEvent

P = ParamSpec("P")
T = TypeVar("T")
Http = TypeVar("Http", bound=httpx.Client | httpx.AsyncClient)

Trace = Callable[[str], None]

_AT_ONCE = 8
"""Requests under way at once: a batch may be as long as a fleet."""

_GRACE = 1.0
"""Seconds that the whole of an answer's head may take beyond what each of its parts may."""

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


def _transport_error(error: Exception, host: str, url: str = "api-url") -> TransportError:
    """What httpx's error means: whether the request may have been read, and what to do about it."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    timed_out = isinstance(error, httpx.TimeoutException)
    if not timed_out and "SSL" in reason.upper() and "EOF" not in reason:
        return AnswerError(
            f"no trusted TLS connection to {host}: {reason}",
            hint="if a proxy of yours has its own root certificate, set SSL_CERT_FILE to it",
        )
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


class Stream(NamedTuple, Generic[T]):
    """A CVM's state events; ``live`` is whether they come as they happen, or are one answer's."""

    live: bool
    events: T


class _Bounded(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A stream's bytes, at most as many as a Body may have, until ``deadline`` at the latest."""

    def __init__(self, response: httpx.Response, deadline: float) -> None:
        self._stream: Any = response.stream
        self._body = Body(response.headers, deadline)

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._body.count(chunk)
            yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._body.count(chunk)
            yield chunk


class _Base(Generic[Http]):
    """What both clients know: where, with which key, as which version; the key is never shown."""

    def __init__(
        self,
        api_key: str | None = None,
        base_url: str | None = None,
        *,
        version: str = api.API_VERSION,
        timeout: float = 30.0,
        trace: Trace | None = None,
    ) -> None:
        key = (api_key or os.environ.get("PHALA_CLOUD_API_KEY") or "").strip()
        if not key:
            raise InputError("no API key", hint="pass api_key, or set PHALA_CLOUD_API_KEY")
        if not key.isascii() or not key.isprintable() or " " in key:
            raise InputError(
                "the API key has characters that no API key has", hint="paste it again, alone on one line"
            )
        if version not in api.API_VERSIONS:
            raise InputError(
                f"API version {version!a} is not known", hint=f"use one of {', '.join(api.API_VERSIONS)}"
            )
        if not 0 < timeout < math.inf:
            raise InputError("timeout has to be a number of seconds above 0", hint="leave it out for 30")
        url = base_url or os.environ.get("PHALA_CLOUD_API_PREFIX") or api.DEFAULT_URL
        self.base_url = parse_url(url, "api-url")
        self.version = version
        self.timeout = timeout
        self._key = Secret(key)
        self._trace = trace
        self._pace = Pace()
        self._http = self._open_to(self.base_url)
        self._elsewhere: dict[str, Http] = {}
        self._opening = threading.Lock()

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
            "limits": httpx.Limits(max_connections=32, max_keepalive_connections=32),
        }

    def _request(self, exchange: Exchange[Any], silence: float | None = None) -> dict[str, Any]:
        """What httpx sends; ``silence`` is how many seconds a stream of events may be silent."""
        call, accept = exchange.call, "text/event-stream" if silence else "application/json"
        headers = {"Accept": accept}
        if not call.absolute:
            headers["X-API-Key"] = self._key.reveal()
            headers["X-Phala-Version"] = call.version or self.version
        return {
            "method": call.method,
            "url": call.path if call.absolute else self.base_url + call.path,
            "params": dict(call.params) or None,
            "json": call.body,
            "headers": headers,
            "timeout": exchange.seconds_left(silence or self.timeout),
        }

    def _answered(
        self, exchange: Exchange[T], response: httpx.Response, body: bytes, began: float
    ) -> T | Pause:
        self._traced(exchange.call, response, began)
        headers = {name: self._scrubbed(value, exchange.call) for name, value in response.headers.items()}
        for secret in self._secrets(exchange.call):
            body = body.replace(secret.encode(), b"***")
        outcome = exchange.answered(response.status_code, headers, body)
        if isinstance(outcome, Pause) and response.status_code == 429:
            self._pace.slow_down(exchange, outcome.seconds, began)
        return outcome

    def _secrets(self, call: Call[Any]) -> list[str]:
        """What an answer must not bring into a message: the API key, or what may be the RPC's."""
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
            where = _host(call.path) if call.absolute else call.path
            took = (time.monotonic() - began) * 1000
            self._trace(f"{call.method} {where} → {response.status_code} in {took:.0f} ms ({request_id})")

    def _failed(self, exchange: Exchange[Any], error: Exception) -> Pause:
        call = exchange.call
        host = _host(call.path if call.absolute else self.base_url)
        url = "rpc-url" if call.absolute else "api-url"
        known = error if isinstance(error, TransportError) else _transport_error(error, host, url)
        if self._trace:
            self._trace(f"{call.method} {host if call.absolute else call.path} → {known.message}")
        return exchange.failed(known)


def _host(url: str) -> str:
    return urlsplit(url).hostname or "the server"


def _as_method(build: Callable[..., Any], method: Any) -> Any:
    """The method, with its endpoint's name, docstring and arguments, for ``help`` and editors."""
    functools.update_wrapper(method, build)
    signature = inspect.signature(build)
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    answer = str(signature.return_annotation).partition("[")[2].removesuffix("]")
    method.__signature__ = signature.replace(
        parameters=[itself, *signature.parameters.values()], return_annotation=answer
    )
    return method


def _sync(build: Callable[P, Call[T]]) -> Callable[Concatenate[Client, P], T]:
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.send(build(*args, **kwargs))

    wrapped: Callable[Concatenate[Client, P], T] = _as_method(build, method)
    return wrapped


def _async(build: Callable[P, Call[T]]) -> Callable[Concatenate[AsyncClient, P], Awaitable[T]]:
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.send(build(*args, **kwargs))

    wrapped: Callable[Concatenate[AsyncClient, P], Awaitable[T]] = _as_method(build, method)
    return wrapped


def _sync_flow(build: Callable[P, Flow[T]]) -> Callable[Concatenate[Client, P], T]:
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.run(build(*args, **kwargs))

    wrapped: Callable[Concatenate[Client, P], T] = _as_method(build, method)
    return wrapped


def _async_flow(build: Callable[P, Flow[T]]) -> Callable[Concatenate[AsyncClient, P], Awaitable[T]]:
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.run(build(*args, **kwargs))

    wrapped: Callable[Concatenate[AsyncClient, P], Awaitable[T]] = _as_method(build, method)
    return wrapped


class Client(_Base[httpx.Client]):
    """Phala Cloud, synchronously. A context manager; safe to share between threads.

    ``api_key`` and ``base_url`` default to ``PHALA_CLOUD_API_KEY`` and
    ``PHALA_CLOUD_API_PREFIX``; ``timeout`` is in seconds, for one request; ``trace`` is
    called with a line per request, without values or headers. ``version`` is the shape of the
    answers about a KMS: up to ``2026-05-22`` a node, from ``2026-06-23`` a contract.

    Every method raises InputError before anything is sent, ApiError when Phala Cloud refuses,
    and TransportError when it cannot be reached, or does not answer as it should. What may be
    repeated is tried four times, ``Retry-After`` honoured up to a minute.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        for http in (self._http, *self._elsewhere.values()):
            http.close()

    def send(self, call: Call[T], *, within: float = float("inf")) -> T:
        """Sends one call, again where that is right, and returns what it answers; ``within`` seconds."""
        exchange = Exchange(call, time.monotonic() + within)
        try:
            while True:
                self._await_turn(exchange)
                outcome = self._try(exchange)
                if not isinstance(outcome, Pause):
                    return outcome
                time.sleep(outcome.seconds)
        finally:
            self._pace.over(exchange)

    def _await_turn(self, exchange: Exchange[Any]) -> None:
        while seconds := self._pace.turn(exchange):
            time.sleep(exchange.wait(seconds))

    def run(self, flow: Flow[T]) -> T:
        """Drives a flow to its result; the first error of a batch is raised inside the flow."""
        try:
            batch = next(flow)
            while True:
                try:
                    answers = self._together(batch)
                except PhalaSecretsError as error:
                    batch = flow.throw(error)
                else:
                    batch = flow.send(answers)
        except StopIteration as stop:
            result: T = stop.value
            return result

    @contextmanager
    def stream(self, call: Call[CvmState], *, within: float) -> Iterator[Stream[Iterator[CvmStateEvent]]]:
        """The events of one state stream, or a single ``state`` event where the API answers with JSON.

        Not retried. Raises TransportError where the stream breaks off, or is silent ``within`` seconds.
        """
        exchange = Exchange(call, time.monotonic() + within, max_tries=1)
        self._await_turn(exchange)
        began = time.monotonic()
        try:
            with self._opened(exchange, within) as response:
                if not _is_stream(response):
                    outcome = self._answered(exchange, response, self._read(response, exchange, began), began)
                    yield Stream(False, iter(_polled(outcome, call)))
                    return
                self._traced(call, response, began)
                yield Stream(True, self._events(response, call, began))
        except httpx.HTTPError as error:
            raise _transport_error(error, _host(self.base_url)) from None

    def _events(
        self, response: httpx.Response, call: Call[CvmState], began: float
    ) -> Iterator[CvmStateEvent]:
        from httpx_sse import EventSource

        stream = _Bounded(response, _end(call, began))
        bounded = httpx.Response(200, headers=response.headers, stream=stream)
        for event in EventSource(bounded).iter_sse():
            yield api.state_event(event.event, self._scrubbed(event.data, call))

    def watch_cvm_state(
        self,
        request: api.Request | str | None = None,
        /,
        *,
        id: str | None = None,  # noqa: A002
        target: str | None = None,
        interval: int | None = None,
        timeout: int | None = None,
    ) -> Iterator[CvmStateEvent]:
        """The events of a CVM's state until it reaches ``target`` (``running``), reconnecting.

        ``id`` is a name, ``cvm_…`` id, UUID, app id or ``instance_…``. ``interval`` is 5 to 30
        seconds (5), ``timeout`` 10 to 600 (300) in all. The last event is ``complete`` or
        ``timeout``. A stream that breaks off is taken up again; where the API does not stream,
        the state is asked for at the interval.

        JUST AFTER AN UPDATE the state may still be the old ``running``: ``get_cvm_operations``
        tells when the update with this ``correlation_id`` is over.

        Raises InputError at once, ApiError when Phala Cloud refuses, and TransportError or
        ServerError after the fourth stream in a row that told nothing.
        """
        watch = Watch(request, id=id, target=target, interval=interval, timeout=timeout)
        return self._watched(watch)

    def _watched(self, watch: Watch) -> Iterator[CvmStateEvent]:
        while not watch.over:
            try:
                with self.stream(watch.call(), within=watch.silence()) as stream:
                    for event in stream.events:
                        yield from watch.saw(event)
                        if watch.over:
                            break
            except PhalaSecretsError as error:
                watch.broke(error)
            time.sleep(watch.pause())
        if not watch.complete:
            yield watch.timed_out()

    def _try(self, exchange: Exchange[T]) -> T | Pause:
        began = time.monotonic()
        try:
            with self._opened(exchange) as response:
                body = self._read(response, exchange, began)
        except (httpx.HTTPError, TransportError) as error:
            return self._failed(exchange, error)
        return self._answered(exchange, response, body, began)

    @contextmanager
    def _opened(self, exchange: Exchange[Any], silence: float | None = None) -> Iterator[httpx.Response]:
        """An answer whose head has come in time, to be read."""
        http, asked = self._client_for(exchange.call), self._request(exchange, silence)
        request = http.build_request(**asked)
        try:
            response = in_time(
                lambda: http.send(request, stream=True), asked["timeout"] + _GRACE, httpx.Response.close
            )
        except TimeoutError:
            raise httpx.ReadTimeout("no answer in time") from None
        try:
            yield response
        finally:
            response.close()

    def _read(self, response: httpx.Response, exchange: Exchange[Any], began: float) -> bytes:
        body = Body(response.headers, began + exchange.seconds_left(self.timeout))
        for chunk in response.iter_raw():
            body.add(chunk)
        return body.bytes()

    def _open(self, url: str) -> httpx.Client:
        http = httpx.Client(**self._settings(url))
        weakref.finalize(self, http.close)  # for who never calls close, as in a script of a few lines
        return http

    def _together(self, batch: Batch) -> list[Any]:
        """Sends what does not depend on each other at once, in at most _AT_ONCE threads."""
        outcomes: list[Any] = [None] * len(batch)
        todo = iter(range(len(batch)))

        def work() -> None:
            for index in todo:
                try:
                    outcomes[index] = self.send(batch[index])
                except Exception as error:  # noqa: BLE001 (raised below, in the caller's thread)
                    outcomes[index] = error

        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(len(batch), _AT_ONCE) - 1)]
        for thread in threads:
            thread.start()
        work()
        for thread in threads:
            thread.join()
        return _raise_first(outcomes)

    get_kms_info = _sync(api.get_kms_info)
    get_kms_list = _sync(api.get_kms_list)
    get_kms_on_chain_detail = _sync(api.get_kms_on_chain_detail)
    get_app_env_encrypt_pub_key = _sync(api.get_app_env_encrypt_pub_key)
    next_app_ids = _sync(api.next_app_ids)
    list_kms_contracts = _sync(api.list_kms_contracts)
    get_kms_contract = _sync(api.get_kms_contract)
    list_kms_contract_nodes = _sync(api.list_kms_contract_nodes)
    get_cvm_info = _sync(api.get_cvm_info)
    get_cvm_compose_file = _sync(api.get_cvm_compose_file)
    get_cvm_state = _sync(api.get_cvm_state)
    get_cvm_operations = _sync(api.get_cvm_operations)
    get_app_cvms = _sync(api.get_app_cvms)
    update_cvm_envs = _sync_flow(flows.update_cvm_envs)


class AsyncClient(_Base[httpx.AsyncClient]):
    """Phala Cloud, asynchronously (asyncio): Client's methods, to be awaited. An async context manager.

    Arguments and errors (InputError, ApiError, TransportError) are those of Client.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections."""
        for http in (self._http, *self._elsewhere.values()):
            await http.aclose()

    async def send(self, call: Call[T], *, within: float = float("inf")) -> T:
        """Sends one call, again where that is right, and returns what it answers; ``within`` seconds."""
        from asyncio import sleep

        exchange = Exchange(call, time.monotonic() + within)
        try:
            while True:
                await self._await_turn(exchange)
                outcome = await self._try(exchange)
                if not isinstance(outcome, Pause):
                    return outcome
                await sleep(outcome.seconds)
        finally:
            self._pace.over(exchange)

    async def _await_turn(self, exchange: Exchange[Any]) -> None:
        from asyncio import sleep

        while seconds := self._pace.turn(exchange):
            await sleep(exchange.wait(seconds))

    async def run(self, flow: Flow[T]) -> T:
        """Drives a flow to its result; the first error of a batch is raised inside the flow."""
        try:
            batch = next(flow)
            while True:
                try:
                    answers = await self._together(batch)
                except PhalaSecretsError as error:
                    batch = flow.throw(error)
                else:
                    batch = flow.send(answers)
        except StopIteration as stop:
            result: T = stop.value
            return result

    @asynccontextmanager
    async def stream(
        self, call: Call[CvmState], *, within: float
    ) -> AsyncIterator[Stream[AsyncGenerator[CvmStateEvent]]]:
        """The events of one state stream, or a single ``state`` event where the API answers with JSON.

        Not retried. Raises TransportError where the stream breaks off, or is silent ``within`` seconds.
        """
        exchange = Exchange(call, time.monotonic() + within, max_tries=1)
        await self._await_turn(exchange)
        began = time.monotonic()
        try:
            async with self._opened(exchange, within) as response:
                if not _is_stream(response):
                    outcome = self._answered(
                        exchange, response, await self._read(response, exchange, began), began
                    )
                    yield Stream(False, _each(_polled(outcome, call)))
                    return
                self._traced(call, response, began)
                yield Stream(True, self._events(response, call, began))
        except httpx.HTTPError as error:
            raise _transport_error(error, _host(self.base_url)) from None

    async def _events(
        self, response: httpx.Response, call: Call[CvmState], began: float
    ) -> AsyncGenerator[CvmStateEvent]:
        from httpx_sse import EventSource

        stream = _Bounded(response, _end(call, began))
        bounded = httpx.Response(200, headers=response.headers, stream=stream)
        async with aclosing(EventSource(bounded).aiter_sse()) as events:
            async for event in events:
                yield api.state_event(event.event, self._scrubbed(event.data, call))

    def watch_cvm_state(
        self,
        request: api.Request | str | None = None,
        /,
        *,
        id: str | None = None,  # noqa: A002
        target: str | None = None,
        interval: int | None = None,
        timeout: int | None = None,
    ) -> AsyncIterator[CvmStateEvent]:
        """Like Client.watch_cvm_state, errors and all, to be iterated with ``async for``."""
        watch = Watch(request, id=id, target=target, interval=interval, timeout=timeout)
        return self._watched(watch)

    async def _watched(self, watch: Watch) -> AsyncIterator[CvmStateEvent]:
        from asyncio import sleep

        while not watch.over:
            try:
                async with (
                    self.stream(watch.call(), within=watch.silence()) as stream,
                    aclosing(stream.events) as events,
                ):
                    async for event in events:
                        for seen in watch.saw(event):
                            yield seen
                        if watch.over:
                            break
            except PhalaSecretsError as error:
                watch.broke(error)
            await sleep(watch.pause())
        if not watch.complete:
            yield watch.timed_out()

    async def _try(self, exchange: Exchange[T]) -> T | Pause:
        began = time.monotonic()
        try:
            async with self._opened(exchange) as response:
                body = await self._read(response, exchange, began)
        except (httpx.HTTPError, TransportError) as error:
            return self._failed(exchange, error)
        return self._answered(exchange, response, body, began)

    @asynccontextmanager
    async def _opened(
        self, exchange: Exchange[Any], silence: float | None = None
    ) -> AsyncIterator[httpx.Response]:
        """An answer whose head has come in time, to be read."""
        from asyncio import timeout

        http, asked = self._client_for(exchange.call), self._request(exchange, silence)
        request = http.build_request(**asked)
        try:
            async with timeout(asked["timeout"] + _GRACE):
                response = await http.send(request, stream=True)
        except TimeoutError:
            raise httpx.ReadTimeout("no answer in time") from None
        try:
            yield response
        finally:
            await response.aclose()

    async def _read(self, response: httpx.Response, exchange: Exchange[Any], began: float) -> bytes:
        body = Body(response.headers, began + exchange.seconds_left(self.timeout))
        async for chunk in response.aiter_raw():
            body.add(chunk)
        return body.bytes()

    def _open(self, url: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(**self._settings(url))

    async def _together(self, batch: Batch) -> list[Any]:
        from asyncio import Semaphore, gather

        gate = Semaphore(_AT_ONCE)

        async def send(call: Call[Any]) -> Any:
            async with gate:
                return await self.send(call)

        return _raise_first(await gather(*map(send, batch), return_exceptions=True))

    get_kms_info = _async(api.get_kms_info)
    get_kms_list = _async(api.get_kms_list)
    get_kms_on_chain_detail = _async(api.get_kms_on_chain_detail)
    get_app_env_encrypt_pub_key = _async(api.get_app_env_encrypt_pub_key)
    next_app_ids = _async(api.next_app_ids)
    list_kms_contracts = _async(api.list_kms_contracts)
    get_kms_contract = _async(api.get_kms_contract)
    list_kms_contract_nodes = _async(api.list_kms_contract_nodes)
    get_cvm_info = _async(api.get_cvm_info)
    get_cvm_compose_file = _async(api.get_cvm_compose_file)
    get_cvm_state = _async(api.get_cvm_state)
    get_cvm_operations = _async(api.get_cvm_operations)
    get_app_cvms = _async(api.get_app_cvms)
    update_cvm_envs = _async_flow(flows.update_cvm_envs)


def _is_stream(response: httpx.Response) -> bool:
    kind = str(response.headers.get("content-type", ""))
    return response.status_code == 200 and kind.partition(";")[0].strip() == "text/event-stream"


def _end(call: Call[CvmState], began: float) -> float:
    """When a stream that was asked for at ``began`` is over: what only keeps it open holds nobody longer."""
    return began + float(call.params["timeout"]) + _GRACE


def _polled(outcome: CvmState | Pause, call: Call[CvmState]) -> list[CvmStateEvent]:
    """A single answer as the events that a stream would have had so far."""
    from phala_secrets.models import CvmStateEvent

    if isinstance(outcome, Pause):
        raise TransportError(outcome.reason, hint="run again")
    events = [CvmStateEvent(type="state", state=outcome, data=outcome.model_dump(mode="json"))]
    if outcome.status == call.params["target"]:
        events.append(CvmStateEvent(type="complete", data={"status": outcome.status}))
    return events


async def _each(events: list[CvmStateEvent]) -> AsyncGenerator[CvmStateEvent]:
    for event in events:
        yield event


def _raise_first(outcomes: list[Any]) -> list[Any]:
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes


def create_client(
    api_key: str | None = None,
    base_url: str | None = None,
    *,
    version: str = api.API_VERSION,
    timeout: float = 30.0,
    trace: Trace | None = None,
) -> Client:
    """A Client; its docstring has the arguments.

    Raises InputError without a key, with a ``base_url`` that is not https (loopback excepted),
    an unknown ``version`` (of Phala Cloud's API), or a ``timeout`` that is none.
    """
    return Client(api_key, base_url, version=version, timeout=timeout, trace=trace)


def create_async_client(
    api_key: str | None = None,
    base_url: str | None = None,
    *,
    version: str = api.API_VERSION,
    timeout: float = 30.0,
    trace: Trace | None = None,
) -> AsyncClient:
    """An AsyncClient. Arguments and errors (InputError) are those of create_client."""
    return AsyncClient(api_key, base_url, version=version, timeout=timeout, trace=trace)
