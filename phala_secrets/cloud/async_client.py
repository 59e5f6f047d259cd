"""The async client: the same flows and methods for asyncio."""

from __future__ import annotations

import math
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from phala_secrets import flow
from phala_secrets.cloud import changes, methods, patch
from phala_secrets.cloud.call import Attempt, BaseUrl, Body, Call, Response, Within
from phala_secrets.cloud.client import as_method
from phala_secrets.cloud.connection import Connection, Trace
from phala_secrets.cloud.deadline import GRACE
from phala_secrets.cloud.driver import AT_ONCE, raise_first
from phala_secrets.cloud.requests import API_VERSION
from phala_secrets.cloud.streams import (
    UTF_8,
    Bounded,
    aiter_of,
    end_of,
    is_stream,
    polled,
    state_event,
)
from phala_secrets.cloud.watch import Watch
from phala_secrets.errors import InputError, PhalaSecretsError
from phala_secrets.flow import Flow, Pause, Settled

if TYPE_CHECKING:
    from asyncio import Lock
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping

    from phala_secrets.cloud.models import CvmState, CvmStateEvent

P = ParamSpec("P")
T = TypeVar("T")


def _method(build: Callable[P, Call[T] | Flow[T]]) -> Callable[Concatenate[AsyncClient, P], Awaitable[T]]:
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        asked = build(*args, **kwargs)
        return await (self.send(asked) if isinstance(asked, Call) else self.run(asked))

    wrapped: Callable[Concatenate[AsyncClient, P], Awaitable[T]] = as_method(build, method)
    return wrapped


class AsyncClient(Connection[httpx.AsyncClient]):
    """An asyncio client of Phala Cloud, with awaitable versions of Client's methods.

    It is an async context manager. Args and Raises are those of ``Client``: InputError, ApiError,
    TransportError.
    """

    _turn: Lock | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        for http in (self._http, *self._elsewhere.values()):
            await http.aclose()

    async def send(self, call: Call[T], *, within: float = math.inf) -> T:
        """Send one call, with safe retries, for ``within`` seconds in all. Return its result."""
        return await flow.adrive(self._exchange(call, within), self._take)

    async def run(self, asked: Flow[T]) -> T:
        """Drive a flow to its result. Raise the first error of requests that go out together."""
        return await flow.adrive(asked, self._take)

    async def _take(self, step: Any) -> Any:
        if isinstance(step, Attempt):
            return await self._try(step)
        if isinstance(step, Pause):
            self._show(step)
            return await flow.clock.asleep(step.seconds)
        if type(step) is tuple:
            return raise_first(await self._settle(step))
        if isinstance(step, Settled):
            return await self._settle(step.requests)
        if isinstance(step, BaseUrl):
            return self.base_url
        if isinstance(step, Within):
            return await self.send(step.call, within=step.seconds)
        return await self.send(step)

    @asynccontextmanager
    async def stream(
        self, call: Call[CvmState], *, within: float
    ) -> AsyncIterator[AsyncGenerator[CvmStateEvent]]:
        """Open one state stream and yield its events: a single ``state`` if the API responds with JSON.

        Do not retry. Raise TransportError if it breaks off or is silent for ``within`` seconds.
        """
        await self._log_in(call)
        began = flow.clock.monotonic()
        try:
            async with self._opened(Attempt(call, within), stream=True) as response:
                if not is_stream(response):
                    body = await self._read(response, began + self.timeout)
                    yield aiter_of(polled(call, self._response(call, response, body, began)))
                    return
                self._traced(call, response, began)
                yield self._events(response, call, began, within)
        except httpx.HTTPError as error:
            raise self._failed(call, error) from None

    async def _events(
        self, response: httpx.Response, call: Call[CvmState], began: float, silence: float
    ) -> AsyncGenerator[CvmStateEvent]:
        from httpx_sse import EventSource

        stream = Bounded(response, end_of(call, began), silence)
        bounded = httpx.Response(200, headers=UTF_8, stream=stream)
        async with aclosing(EventSource(bounded).aiter_sse()) as events:
            async for event in events:
                yield state_event(event.event, event.data, self._hidden_from(call))
                stream.heard()

    def watch_cvm_state(
        self,
        request: Mapping[str, Any] | str | None = None,
        /,
        *,
        id: str | None = None,
        target: str | None = None,
        interval: int | None = None,
        timeout: int | None = None,
    ) -> AsyncIterator[CvmStateEvent]:
        """Return the events of ``Client.watch_cvm_state``, for ``async for``. Same arguments and errors."""
        watch = Watch(request, id=id, target=target, interval=interval, timeout=timeout)
        return self._watched(watch)

    async def _watched(self, watch: Watch) -> AsyncIterator[CvmStateEvent]:
        while not watch.over:
            try:
                async with (
                    self.stream(watch.call(), within=watch.silence()) as stream,
                    aclosing(stream) as events,
                ):
                    async for event in events:
                        if watch.saw(event):
                            yield event
                        if watch.over:
                            break
            except PhalaSecretsError as error:
                watch.broke(error)
            await flow.clock.asleep(watch.pause())
        if not watch.complete:
            yield watch.timed_out()

    async def _try(self, attempt: Attempt) -> Response:
        await self._log_in(attempt.call)
        began = flow.clock.monotonic()
        try:
            async with self._opened(attempt) as response:
                body = await self._read(response, began + attempt.seconds)
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 (no response may end a run as a bug)
            raise self._failed(attempt.call, error) from None
        return self._response(attempt.call, response, body, began)

    async def _log_in(self, call: Call[Any]) -> None:
        """Get a token if one is due: one task requests it while the others wait."""
        if renewal := self._renewal(call):
            from asyncio import Lock

            self._turn = self._turn or Lock()
            async with self._turn:
                await self.run(renewal)

    @asynccontextmanager
    async def _opened(self, attempt: Attempt, *, stream: bool = False) -> AsyncIterator[httpx.Response]:
        """Open a response whose head arrived in time."""
        from asyncio import timeout

        http = self._client_for(attempt.call)
        request = http.build_request(**self._request(attempt, stream=stream))
        try:
            async with timeout(attempt.seconds + GRACE):
                response = await http.send(request, stream=True)
        except TimeoutError:
            raise httpx.ReadTimeout("no response in time") from None
        try:
            yield response
        finally:
            await response.aclose()

    async def _read(self, response: httpx.Response, deadline: float) -> bytes:
        body = Body(deadline)
        async for chunk in response.aiter_raw():
            body.add(chunk)
        return body.bytes()

    def _open(self, url: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(**self._settings(url))

    async def _settle(self, batch: tuple[Call[Any], ...]) -> list[Any]:
        from asyncio import Semaphore, gather

        gate = Semaphore(AT_ONCE)

        async def send(call: Call[Any]) -> Any:
            async with gate:
                return await self._take(call)

        return await gather(*map(send, batch), return_exceptions=True)

    get_kms_info = _method(methods.get_kms_info)
    get_kms_list = _method(methods.get_kms_list)
    get_kms_on_chain_detail = _method(methods.get_kms_on_chain_detail)
    get_app_env_encrypt_pub_key = _method(methods.get_app_env_encrypt_pub_key)
    next_app_ids = _method(methods.next_app_ids)
    list_kms_contracts = _method(methods.list_kms_contracts)
    get_kms_contract = _method(methods.get_kms_contract)
    list_kms_contract_nodes = _method(methods.list_kms_contract_nodes)
    get_cvm_info = _method(methods.get_cvm_info)
    get_cvm_compose_file = _method(methods.get_cvm_compose_file)
    get_cvm_state = _method(methods.get_cvm_state)
    get_cvm_attestation = _method(methods.get_cvm_attestation)
    get_cvm_operations = _method(methods.get_cvm_operations)
    get_cvm_containers = _method(methods.get_cvm_containers)
    get_cvm_list = _method(methods.get_cvm_list)
    get_app_cvms = _method(methods.get_app_cvms)
    start_cvm = _method(changes.start_cvm)
    wait_for_cvm = _method(changes.wait_for_cvm)
    update_cvm_envs = _method(changes.update_cvm_envs)
    patch_cvm = _method(patch.patch_cvm)


def create_async_client(
    api_key: str | None = None,
    base_url: str | None = None,
    *,
    version: str = API_VERSION,
    timeout: float = 30.0,
    trace: Trace | None = None,
    workspace: str = "",
) -> AsyncClient:
    """Return an AsyncClient. Arguments and errors (InputError) are those of ``create_client``."""
    return AsyncClient(api_key, base_url, version=version, timeout=timeout, trace=trace, workspace=workspace)
