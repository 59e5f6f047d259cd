"""The events of a CVM's state: a stream's, bounded in bytes and time, or one answer's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import httpx

from phala_secrets.cloud.call import Body, Call, Pause, refuse_compressed
from phala_secrets.errors import TransportError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

    from phala_secrets.cloud.models import CvmState, CvmStateEvent

T = TypeVar("T")

GRACE = 1.0
"""Seconds that the whole of an answer's head may take beyond what each of its parts may."""


class Stream(NamedTuple, Generic[T]):
    """A CVM's state events; ``live`` is whether they come as they happen, or are one answer's."""

    live: bool
    events: T


class Bounded(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A stream's bytes: at most as many as a Body may have, until ``deadline`` at the latest.

    And for ``silence`` seconds at most without an event, which whoever reads them says with
    ``heard`` when done with it: what only keeps the stream open is none.
    """

    def __init__(self, response: httpx.Response, deadline: float, silence: float) -> None:
        self._stream: Any = response.stream
        refuse_compressed(response.headers)
        self._body = Body(deadline)
        self._silence = silence
        self.heard()

    def heard(self) -> None:
        """An event had come; the next one may take as long again."""
        self._last = time.monotonic()

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._check(chunk)
            yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._check(chunk)
            yield chunk

    def _check(self, chunk: bytes) -> None:
        self._body.count(chunk)
        if time.monotonic() - self._last > self._silence:
            raise TransportError("the stream of the CVM's state told nothing", hint="run again")


def is_stream(response: httpx.Response) -> bool:
    kind = str(response.headers.get("content-type", ""))
    return response.status_code == 200 and kind.partition(";")[0].strip() == "text/event-stream"


def end_of(call: Call[CvmState], began: float) -> float:
    """When a stream that was asked for at ``began`` is over, even if it goes on."""
    return began + float(call.params["timeout"]) + GRACE


def polled(outcome: CvmState | Pause, call: Call[CvmState]) -> list[CvmStateEvent]:
    """A single answer as the events that a stream would have had so far."""
    from phala_secrets.cloud.models import CvmStateEvent

    if isinstance(outcome, Pause):
        raise TransportError(outcome.reason, hint="run again")
    events = [CvmStateEvent(type="state", state=outcome, data=outcome.model_dump(mode="json"))]
    if outcome.status == call.params["target"]:
        events.append(CvmStateEvent(type="complete", data={"status": outcome.status}))
    return events


async def each(events: list[CvmStateEvent]) -> AsyncGenerator[CvmStateEvent]:
    for event in events:
        yield event
