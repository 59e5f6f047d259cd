"""A flow: a sequence of requests, written once and driven by a sync or an async client.

A generator, as in ``httpx.Auth.auth_flow``: it yields what to ask or how long to sleep, and is
sent the parsed answers. ``TransportError`` is thrown into it, for a lost answer is part of the story::

    step = next(flow)
    while True:                                      # until StopIteration brings the result
        try:
            answer = client.rpc(url, step) if isinstance(step, Rpc) else sleep(step.seconds)
        except TransportError as error:
            step = flow.throw(error)
        else:
            step = flow.send(answer)
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from phala_secrets.chain.rpc import Rpc

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sleep:
    """Show ``message``, then wait ``seconds``. ``transaction_hash``: of the one under way (``0x``)."""

    seconds: float
    message: str
    transaction_hash: str | None = None


Flow: TypeAlias = Generator[Rpc[Any] | Sleep, Any, T]


def ask(request: Rpc[T]) -> Flow[T]:
    """One request, with its answer's type: ``balance = yield from ask(rpc.balance(address))``."""
    answer: T = yield request
    return answer
