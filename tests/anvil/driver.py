"""The smallest driver of a flow: real HTTP, but pauses that only move a clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import httpx

from phala_secrets import flow
from phala_secrets.chain.rpc import Rpc
from phala_secrets.errors import AnswerError, TransportError
from phala_secrets.flow import Flow, Pause

T = TypeVar("T")


class Driver:
    """Runs flows against an RPC. ``pauses`` has what was shown; in ``on_pause`` a test's world moves on.

    Pauses are made on ``flow.clock``, which the fixture ``clock`` replaces.
    """

    def __init__(
        self, url: str, *, timeout: float = 20, on_pause: Callable[[Pause], None] | None = None
    ) -> None:
        self.url = url
        self.pauses: list[Pause] = []
        self._timeout = timeout
        self._on_pause = on_pause or (lambda _: None)

    @property
    def hashes(self) -> list[str]:
        """Hashes of the transactions that were signed, in order."""
        return list(dict.fromkeys(pause.transaction for pause in self.pauses if pause.transaction))

    @property
    def seconds(self) -> float:
        """How long all the pauses took."""
        return sum(pause.seconds for pause in self.pauses)

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

    def run(self, asked: Flow[T]) -> T:
        return flow.drive(asked, self._take)

    def _take(self, step: Any) -> Any:
        if isinstance(step, Rpc):
            return self.ask(step)
        self.pauses.append(step)
        flow.clock.sleep(step.seconds)
        return self._on_pause(step)
