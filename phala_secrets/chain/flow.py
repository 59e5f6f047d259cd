"""A flow: a sequence of requests, written once and driven by any client, sync or async.

A generator, as in ``httpx.Auth.auth_flow``: it yields what to ask or how long to sleep, and is
sent the parsed answers. Errors are thrown into it, for a lost answer is part of the story.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from phala_secrets.chain.rpc import Rpc
from phala_secrets.errors import PhalaSecretsError

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


def drive(flow: Flow[T], send: Callable[[Rpc[Any]], Any], tell: Callable[[Sleep], None]) -> T:
    """Drives a flow to its result. ``send`` asks the chain; ``tell`` hears of a pause before it begins."""
    try:
        step = next(flow)
        while True:
            try:
                answer = None
                if isinstance(step, Sleep):
                    tell(step)
                    time.sleep(step.seconds)
                else:
                    answer = send(step)
            except PhalaSecretsError as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result
