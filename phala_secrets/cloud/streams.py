"""The events of a CVM's state: from a stream bounded in bytes and time, or from one response."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from phala_secrets import flow
from phala_secrets.cloud import readers
from phala_secrets.cloud.call import Body, Call, Response, read, refuse_compressed
from phala_secrets.cloud.deadline import GRACE
from phala_secrets.cloud.reading import Hidden, decode
from phala_secrets.errors import AnswerError, PhalaSecretsError, TransportError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

    from phala_secrets.cloud.models import CvmState, CvmStateEvent

T = TypeVar("T")

UTF_8 = {"content-type": "text/event-stream; charset=utf-8"}
"""An event stream is UTF-8 by definition, whatever codec a server names."""


class Bounded(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A stream's bytes, bounded like a Body and by ``deadline``.

    It may be without an event for at most ``silence`` seconds. The reader reports each event with
    ``heard`` once it is processed. Keep-alive data is no event.
    """

    def __init__(self, response: httpx.Response, deadline: float, silence: float) -> None:
        self._stream: Any = response.stream
        refuse_compressed(response.headers)
        self._body = Body(deadline)
        self._silence = silence
        self.heard()

    def heard(self) -> None:
        """Note an event: the next one may take as long again."""
        self._last = flow.clock.monotonic()

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
        if flow.clock.monotonic() - self._last > self._silence:
            raise TransportError("the stream of the CVM's state was silent", hint="run again")


def is_stream(response: httpx.Response) -> bool:
    kind = str(response.headers.get("content-type", ""))
    return response.status_code == 200 and kind.partition(";")[0].strip() == "text/event-stream"


def end_of(call: Call[CvmState], began: float) -> float:
    """Return when to end a stream that began at ``began``."""
    return began + float(call.params["timeout"]) + GRACE


def polled(call: Call[CvmState], response: Response) -> list[CvmStateEvent]:
    """Return the events that a stream would have sent so far, from a single response."""
    from phala_secrets.cloud.models import CvmStateEvent

    state = read(call, response)
    events = [CvmStateEvent(type="state", state=state, data=state.model_dump(mode="json"))]
    if state.status == call.params["target"]:
        events.append(CvmStateEvent(type="complete", data={"status": state.status}))
    return events


def state_event(kind: str, data: str, hidden: Hidden) -> CvmStateEvent:
    """Read one server-sent event of a state stream. Raise AnswerError when it is not one."""
    try:
        content = decode(data.encode(), hidden) if data else {}
    except (ValueError, RecursionError):
        raise AnswerError("an event of the state stream is not JSON", hint="run again") from None
    if not isinstance(content, dict):
        raise AnswerError("an event of the state stream is not an object", hint="run again")
    try:
        state = readers.read("CvmState")(content) if kind == "state" else None
        fields = {"type": hidden.in_text(kind), "state": state, "data": content}
        event: CvmStateEvent = readers.read("CvmStateEvent")(fields)
    except PhalaSecretsError:
        raise
    except Exception as error:  # noqa: BLE001 (no event may end a run as a bug)
        kind_of = type(error).__name__
        raise AnswerError(
            f"an event of the state stream is malformed ({kind_of})", hint="run again"
        ) from None
    return event


async def aiter_of(events: list[CvmStateEvent]) -> AsyncGenerator[CvmStateEvent]:
    """Iterate over a list asynchronously."""
    for event in events:
        yield event
