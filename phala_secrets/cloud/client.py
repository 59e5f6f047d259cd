"""The clients, sync and async: the only ones that send.

Each method is an endpoint of ``api`` (or a flow of several) made sendable, so
both clients have the same ones, with the same arguments.
"""

from __future__ import annotations

import functools
import inspect
import math
import threading
import time
import weakref
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from phala_secrets.cloud import methods, requests
from phala_secrets.cloud.call import Batch, Body, Call, Exchange, Flow, Pause
from phala_secrets.cloud.connection import Connection, Trace, host_of, transport_error
from phala_secrets.cloud.deadline import in_time
from phala_secrets.cloud.streams import GRACE, Bounded, Stream, each, end_of, is_stream, polled
from phala_secrets.cloud.watch import Watch
from phala_secrets.errors import PhalaSecretsError, TransportError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator

    from phala_secrets.cloud.models import CvmState, CvmStateEvent

P = ParamSpec("P")
T = TypeVar("T")

_AT_ONCE = 8
"""Requests under way at once: a batch may be as long as a fleet."""


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


def _sync(build: Callable[P, Call[T] | Flow[T]]) -> Callable[Concatenate[Client, P], T]:
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        asked = build(*args, **kwargs)
        return self.send(asked) if isinstance(asked, Call) else self.run(asked)

    wrapped: Callable[Concatenate[Client, P], T] = _as_method(build, method)
    return wrapped


def _async(build: Callable[P, Call[T] | Flow[T]]) -> Callable[Concatenate[AsyncClient, P], Awaitable[T]]:
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        asked = build(*args, **kwargs)
        return await (self.send(asked) if isinstance(asked, Call) else self.run(asked))

    wrapped: Callable[Concatenate[AsyncClient, P], Awaitable[T]] = _as_method(build, method)
    return wrapped


class Client(Connection[httpx.Client]):
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

    def send(self, call: Call[T] | Exchange[T], *, within: float = math.inf) -> T:
        """Sends one call, again where that is right, and returns what it answers; ``within`` seconds.

        An exchange that an error has stopped goes on with the tries that are left.
        """
        exchange = call if isinstance(call, Exchange) else Exchange(call, time.monotonic() + within)
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
        """Drives a flow to its result; raises the first error of a batch."""
        try:
            batch = next(flow)
            while True:
                batch = flow.send(self._together(batch))
        except StopIteration as stop:
            result: T = stop.value
            return result

    @contextmanager
    def stream(self, call: Call[CvmState], *, within: float) -> Iterator[Stream[Iterator[CvmStateEvent]]]:
        """The events of one state stream, or a single ``state`` event where the API answers with JSON.

        Not retried. Raises TransportError where it breaks off, or tells nothing for ``within`` seconds.
        """
        exchange = Exchange(call, time.monotonic() + within, max_tries=1)
        self._await_turn(exchange)
        began = time.monotonic()
        try:
            with self._opened(exchange, within) as response:
                if not is_stream(response):
                    outcome = self._answered(exchange, response, self._read(response, exchange, began), began)
                    yield Stream(False, iter(polled(outcome, call)))
                    return
                self._traced(call, response, began)
                yield Stream(True, self._events(response, call, began, within))
        except httpx.HTTPError as error:
            raise transport_error(error, host_of(self.base_url)) from None

    def _events(
        self, response: httpx.Response, call: Call[CvmState], began: float, silence: float
    ) -> Iterator[CvmStateEvent]:
        from httpx_sse import EventSource

        stream = Bounded(response, end_of(call, began), silence)
        bounded = httpx.Response(200, headers=response.headers, stream=stream)
        for event in EventSource(bounded).iter_sse():
            yield requests.state_event(event.event, self._scrubbed(event.data, call))
            stream.heard()

    def watch_cvm_state(
        self,
        request: requests.Request | str | None = None,
        /,
        *,
        id: str | None = None,
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
                        if watch.saw(event):
                            yield event
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
                lambda: http.send(request, stream=True), asked["timeout"] + GRACE, httpx.Response.close
            )
        except TimeoutError:
            raise httpx.ReadTimeout("no answer in time") from None
        try:
            yield response
        finally:
            response.close()

    def _read(self, response: httpx.Response, exchange: Exchange[Any], began: float) -> bytes:
        body = Body(began + exchange.seconds_left(self.timeout))
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

    get_kms_info = _sync(requests.get_kms_info)
    get_kms_list = _sync(requests.get_kms_list)
    get_kms_on_chain_detail = _sync(requests.get_kms_on_chain_detail)
    get_app_env_encrypt_pub_key = _sync(requests.get_app_env_encrypt_pub_key)
    next_app_ids = _sync(requests.next_app_ids)
    list_kms_contracts = _sync(requests.list_kms_contracts)
    get_kms_contract = _sync(requests.get_kms_contract)
    list_kms_contract_nodes = _sync(requests.list_kms_contract_nodes)
    get_cvm_info = _sync(requests.get_cvm_info)
    get_cvm_compose_file = _sync(requests.get_cvm_compose_file)
    get_cvm_state = _sync(requests.get_cvm_state)
    get_cvm_operations = _sync(requests.get_cvm_operations)
    get_app_cvms = _sync(requests.get_app_cvms)
    update_cvm_envs = _sync(methods.update_cvm_envs)


class AsyncClient(Connection[httpx.AsyncClient]):
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

    async def send(self, call: Call[T] | Exchange[T], *, within: float = math.inf) -> T:
        """Sends one call, again where that is right, and returns what it answers; ``within`` seconds.

        An exchange that an error has stopped goes on with the tries that are left.
        """
        from asyncio import sleep

        exchange = call if isinstance(call, Exchange) else Exchange(call, time.monotonic() + within)
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
        """Drives a flow to its result; raises the first error of a batch."""
        try:
            batch = next(flow)
            while True:
                batch = flow.send(await self._together(batch))
        except StopIteration as stop:
            result: T = stop.value
            return result

    @asynccontextmanager
    async def stream(
        self, call: Call[CvmState], *, within: float
    ) -> AsyncIterator[Stream[AsyncGenerator[CvmStateEvent]]]:
        """The events of one state stream, or a single ``state`` event where the API answers with JSON.

        Not retried. Raises TransportError where it breaks off, or tells nothing for ``within`` seconds.
        """
        exchange = Exchange(call, time.monotonic() + within, max_tries=1)
        await self._await_turn(exchange)
        began = time.monotonic()
        try:
            async with self._opened(exchange, within) as response:
                if not is_stream(response):
                    outcome = self._answered(
                        exchange, response, await self._read(response, exchange, began), began
                    )
                    yield Stream(False, each(polled(outcome, call)))
                    return
                self._traced(call, response, began)
                yield Stream(True, self._events(response, call, began, within))
        except httpx.HTTPError as error:
            raise transport_error(error, host_of(self.base_url)) from None

    async def _events(
        self, response: httpx.Response, call: Call[CvmState], began: float, silence: float
    ) -> AsyncGenerator[CvmStateEvent]:
        from httpx_sse import EventSource

        stream = Bounded(response, end_of(call, began), silence)
        bounded = httpx.Response(200, headers=response.headers, stream=stream)
        async with aclosing(EventSource(bounded).aiter_sse()) as events:
            async for event in events:
                yield requests.state_event(event.event, self._scrubbed(event.data, call))
                stream.heard()

    def watch_cvm_state(
        self,
        request: requests.Request | str | None = None,
        /,
        *,
        id: str | None = None,
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
                        if watch.saw(event):
                            yield event
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
            async with timeout(asked["timeout"] + GRACE):
                response = await http.send(request, stream=True)
        except TimeoutError:
            raise httpx.ReadTimeout("no answer in time") from None
        try:
            yield response
        finally:
            await response.aclose()

    async def _read(self, response: httpx.Response, exchange: Exchange[Any], began: float) -> bytes:
        body = Body(began + exchange.seconds_left(self.timeout))
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

    get_kms_info = _async(requests.get_kms_info)
    get_kms_list = _async(requests.get_kms_list)
    get_kms_on_chain_detail = _async(requests.get_kms_on_chain_detail)
    get_app_env_encrypt_pub_key = _async(requests.get_app_env_encrypt_pub_key)
    next_app_ids = _async(requests.next_app_ids)
    list_kms_contracts = _async(requests.list_kms_contracts)
    get_kms_contract = _async(requests.get_kms_contract)
    list_kms_contract_nodes = _async(requests.list_kms_contract_nodes)
    get_cvm_info = _async(requests.get_cvm_info)
    get_cvm_compose_file = _async(requests.get_cvm_compose_file)
    get_cvm_state = _async(requests.get_cvm_state)
    get_cvm_operations = _async(requests.get_cvm_operations)
    get_app_cvms = _async(requests.get_app_cvms)
    update_cvm_envs = _async(methods.update_cvm_envs)


def _raise_first(outcomes: list[Any]) -> list[Any]:
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes


def create_client(
    api_key: str | None = None,
    base_url: str | None = None,
    *,
    version: str = requests.API_VERSION,
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
    version: str = requests.API_VERSION,
    timeout: float = 30.0,
    trace: Trace | None = None,
) -> AsyncClient:
    """An AsyncClient. Arguments and errors (InputError) are those of create_client."""
    return AsyncClient(api_key, base_url, version=version, timeout=timeout, trace=trace)
