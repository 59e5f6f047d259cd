"""The sync client: the documented methods, on the engine of ``driver``."""

from __future__ import annotations

import functools
import inspect
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import httpx

from phala_secrets import flow
from phala_secrets.cloud import changes, methods, patch
from phala_secrets.cloud.call import Attempt, Call
from phala_secrets.cloud.driver import Driver
from phala_secrets.cloud.requests import API_VERSION
from phala_secrets.cloud.streams import UTF_8, Bounded, end_of, is_stream, polled, state_event
from phala_secrets.cloud.watch import Watch
from phala_secrets.errors import PhalaSecretsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from phala_secrets.cloud.connection import Trace
    from phala_secrets.cloud.models import CvmState, CvmStateEvent
    from phala_secrets.flow import Flow

P = ParamSpec("P")
T = TypeVar("T")


def as_method(build: Callable[..., Any], method: Any) -> Any:
    """Return the method with its endpoint's name, docstring and signature, for ``help`` and editors."""
    functools.update_wrapper(method, build)
    signature = inspect.signature(build)
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    result = str(signature.return_annotation).partition("[")[2].removesuffix("]")
    method.__signature__ = signature.replace(
        parameters=[itself, *signature.parameters.values()], return_annotation=result
    )
    return method


def _method(build: Callable[P, Call[T] | Flow[T]]) -> Callable[Concatenate[Client, P], T]:
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        asked = build(*args, **kwargs)
        return self.send(asked) if isinstance(asked, Call) else self.run(asked)

    wrapped: Callable[Concatenate[Client, P], T] = as_method(build, method)
    return wrapped


class Client(Driver):
    """A synchronous client of Phala Cloud. It is a context manager and safe to share between threads.

    A method tries a repeatable request up to four times. It honours ``Retry-After`` up to a minute.

    Args:
        api_key: the API key. The default is ``PHALA_CLOUD_API_KEY``. Without a key, a job of GitHub
            Actions with ``id-token: write`` logs in with GitHub's token.
        base_url: the API's URL. The default is ``PHALA_CLOUD_API_PREFIX``, then Phala Cloud.
        version: the API version, which sets the shape of a KMS: a node up to ``2026-05-22``, a contract
            from ``2026-06-23``.
        timeout: seconds for one request.
        trace: called with one line per request, without values or headers.
        workspace: the workspace to log in to, if multiple trust the job's repository.

    Raises:
        InputError: an argument of a method or of this class is invalid. Nothing was sent.
        ApiError: Phala Cloud refused a request.
        TransportError: Phala Cloud was unreachable or sent an invalid response.
    """

    @contextmanager
    def stream(self, call: Call[CvmState], *, within: float) -> Iterator[Iterator[CvmStateEvent]]:
        """Open one state stream and yield its events: a single ``state`` if the API responds with JSON.

        Do not retry. Raise TransportError if it breaks off or is silent for ``within`` seconds.
        """
        self._log_in(call)
        began = flow.clock.monotonic()
        try:
            with self._opened(Attempt(call, within), stream=True) as response:
                if not is_stream(response):
                    body = self._read(response, began + self.timeout)
                    yield iter(polled(call, self._response(call, response, body, began)))
                    return
                self._traced(call, response, began)
                yield self._events(response, call, began, within)
        except httpx.HTTPError as error:
            raise self._failed(call, error) from None

    def _events(
        self, response: httpx.Response, call: Call[CvmState], began: float, silence: float
    ) -> Iterator[CvmStateEvent]:
        from httpx_sse import EventSource

        stream = Bounded(response, end_of(call, began), silence)
        bounded = httpx.Response(200, headers=UTF_8, stream=stream)
        for event in EventSource(bounded).iter_sse():
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
    ) -> Iterator[CvmStateEvent]:
        """Return the events of a CVM's state until it reaches ``target``. Reconnect if a stream breaks off.

        JUST AFTER AN UPDATE the state may still be the old ``running``. ``get_cvm_operations`` shows when
        the update with its ``correlation_id`` has ended. If the API does not stream, poll the state.

        Args:
            request: the arguments as a mapping, or the ``id``.
            id: a name, ``cvm_…`` id, UUID, app id or ``instance_…``.
            target: the status to wait for (default ``running``).
            interval: seconds between events, 5 to 30 (default 5).
            timeout: seconds in all, 10 to 600 (default 300).

        Returns:
            An iterator of events. The last one is ``complete`` or ``timeout``.

        Raises:
            InputError: an argument is invalid. Raised at once.
            ApiError: Phala Cloud refused.
            TransportError: four streams in a row broke off without an event. Also ServerError.
        """
        watch = Watch(request, id=id, target=target, interval=interval, timeout=timeout)
        return self._watched(watch)

    def _watched(self, watch: Watch) -> Iterator[CvmStateEvent]:
        while not watch.over:
            try:
                with self.stream(watch.call(), within=watch.silence()) as events:
                    for event in events:
                        if watch.saw(event):
                            yield event
                        if watch.over:
                            break
            except PhalaSecretsError as error:
                watch.broke(error)
            flow.clock.sleep(watch.pause())
        if not watch.complete:
            yield watch.timed_out()

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


def create_client(
    api_key: str | None = None,
    base_url: str | None = None,
    *,
    version: str = API_VERSION,
    timeout: float = 30.0,
    trace: Trace | None = None,
    workspace: str = "",
) -> Client:
    """Return a Client.

    Args:
        api_key: as in ``Client``.
        base_url: as in ``Client``. https only, except for a loopback address.
        version: as in ``Client``.
        timeout: as in ``Client``.
        trace: as in ``Client``.
        workspace: as in ``Client``.

    Raises:
        InputError: the key is missing, or another argument is invalid.
    """
    return Client(api_key, base_url, version=version, timeout=timeout, trace=trace, workspace=workspace)
