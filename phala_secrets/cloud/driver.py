"""The engine of the sync client, which takes the steps of flows: it sends requests and waits.

A run needs no more than this. ``client`` adds the documented methods.
"""

from __future__ import annotations

import math
import threading
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar

import httpx

from phala_secrets import flow
from phala_secrets.cloud.call import Attempt, BaseUrl, Body, Call, Response, Within
from phala_secrets.cloud.connection import Connection
from phala_secrets.cloud.deadline import GRACE, in_time
from phala_secrets.errors import InputError
from phala_secrets.flow import Flow, Pause, Settled

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

AT_ONCE = 8
"""Requests in flight at once: a batch may be as long as a fleet."""


class Driver(Connection[httpx.Client]):
    """Sends calls and drives flows. It is a context manager and safe to share between threads."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        for http in (self._http, *self._elsewhere.values()):
            http.close()

    def send(self, call: Call[T], *, within: float = math.inf) -> T:
        """Send one call, with safe retries, for ``within`` seconds in all. Return its result."""
        return flow.drive(self._exchange(call, within), self._take)

    def run(self, asked: Flow[T]) -> T:
        """Drive a flow to its result. Raise the first error of requests that go out together."""
        return flow.drive(asked, self._take)

    def _take(self, step: Any) -> Any:
        if isinstance(step, Attempt):
            return self._try(step)
        if isinstance(step, Pause):
            self._show(step)
            return flow.clock.sleep(step.seconds)
        if type(step) is tuple:
            return raise_first(self._settle(step))
        if isinstance(step, Settled):
            return self._settle(step.requests)
        if isinstance(step, BaseUrl):
            return self.base_url
        if isinstance(step, Within):
            return self.send(step.call, within=step.seconds)
        return self.send(step)

    def _try(self, attempt: Attempt) -> Response:
        self._log_in(attempt.call)
        began = flow.clock.monotonic()
        try:
            with self._opened(attempt) as response:
                body = self._read(response, began + attempt.seconds)
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 (no response may end a run as a bug)
            raise self._failed(attempt.call, error) from None
        return self._response(attempt.call, response, body, began)

    def _log_in(self, call: Call[Any]) -> None:
        """Get a token if one is due: one thread requests it while the others wait."""
        if renewal := self._renewal(call):
            with self._logging_in:
                self.run(renewal)

    @contextmanager
    def _opened(self, attempt: Attempt, *, stream: bool = False) -> Iterator[httpx.Response]:
        """Open a response whose head arrived in time."""
        http = self._client_for(attempt.call)
        request = http.build_request(**self._request(attempt, stream=stream))
        # httpcore's pool may close a connection that a thread uses while others queue, so none queues.
        if not self._gate.acquire(timeout=attempt.seconds):
            raise httpx.PoolTimeout("no connection in time")
        try:
            try:
                response = in_time(
                    lambda: http.send(request, stream=True), attempt.seconds + GRACE, httpx.Response.close
                )
            except TimeoutError:
                raise httpx.ReadTimeout("no response in time") from None
            try:
                yield response
            finally:
                response.close()
        finally:
            self._gate.release()

    def _read(self, response: httpx.Response, deadline: float) -> bytes:
        body = Body(deadline)
        for chunk in response.iter_raw():
            body.add(chunk)
        return body.bytes()

    def _open(self, url: str) -> httpx.Client:
        http = httpx.Client(**self._settings(url))
        weakref.finalize(self, http.close)  # for a script that never calls close
        return http

    def _settle(self, batch: tuple[Call[Any], ...]) -> list[Any]:
        """Return the outcome of each request, errors as values. At most AT_ONCE threads send them."""
        outcomes: list[Any] = [None] * len(batch)
        todo = iter(range(len(batch)))

        def work() -> None:
            for index in todo:
                try:
                    outcomes[index] = self._take(batch[index])
                except Exception as error:  # noqa: BLE001 (raised in the caller's thread)
                    outcomes[index] = error

        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(len(batch), AT_ONCE) - 1)]
        for thread in threads:
            thread.start()
        work()
        for thread in threads:
            thread.join()
        return outcomes


def raise_first(outcomes: list[Any]) -> list[Any]:
    """Return the outcomes, or raise the first error among them."""
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes
