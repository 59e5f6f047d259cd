"""The smallest driver of a flow: real HTTP, but a clock that only sleeping moves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import httpx
from phala_secrets.chain.flow import Flow, Sleep

from phala_secrets.chain.rpc import Rpc
from phala_secrets.errors import AnswerError, TransportError

T = TypeVar("T")


class Driver:
    """Runs flows against an RPC. ``sleeps`` has what was shown; in ``on_sleep`` a test's world moves on."""

    def __init__(
        self, url: str, *, timeout: float = 20, on_sleep: Callable[[Sleep], None] | None = None
    ) -> None:
        self.url = url
        self.now = 1000.0
        self.sleeps: list[Sleep] = []
        self._timeout = timeout
        self._on_sleep = on_sleep or (lambda _: None)

    def clock(self) -> float:
        return self.now

    @property
    def hashes(self) -> list[str]:
        """Hashes of the transactions that were signed, in order."""
        return list(dict.fromkeys(each.transaction_hash for each in self.sleeps if each.transaction_hash))

    def ask(self, request: Rpc[T]) -> T:
        """One request; raises what a client would."""
        with httpx.Client(timeout=self._timeout, trust_env=False) as http:
            try:
                response = http.post(self.url, json=request.payload())
                return request.read(response.json())
            except httpx.TransportError as error:
                raise TransportError(f"the RPC did not answer: {type(error).__name__}") from None
            except ValueError:
                raise AnswerError("the RPC's answer is not JSON") from None

    def run(self, flow: Flow[T]) -> T:
        try:
            step = next(flow)
            while True:
                answer: Any = None
                try:
                    if isinstance(step, Rpc):
                        answer = self.ask(step)
                    else:
                        self.sleeps.append(step)
                        self.now += step.seconds
                        self._on_sleep(step)
                except TransportError as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result
