"""Flows: steps written once and taken by one driver, sync or async.

A flow is a generator, like ``httpx.Auth.auth_flow``. It yields requests (a ``Call`` to an API, an ``Rpc``
to a chain, or a tuple of them that go out together) or a ``Pause``. The driver sends back the results and
throws in the errors, because a flow handles a lost response itself. A test drives it by hand: it needs
no socket, and it asserts a pause instead of sleeping.

The numbers of every retry and wait are below, each with its reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from phala_secrets.errors import PhalaSecretsError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Pause(NamedTuple):
    """A step: show ``message``, then wait ``seconds``.

    ``transaction`` is the hash (``0x``) of the transaction in question.
    """

    seconds: float
    message: str = ""
    transaction: str = ""


Flow: TypeAlias = Generator[Any, Any, T]


class Clock:
    """The time for flows and drivers. Only tests replace ``flow.clock``."""

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start."""
        return time.monotonic()

    def time(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        time.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        """Let ``seconds`` pass while other tasks run."""
        from asyncio import sleep

        await sleep(seconds)


clock = Clock()


def drive(flow: Flow[T], take: Callable[[Any], Any]) -> T:
    """Take each step of a flow and return its result. Close the flow in any case."""
    try:
        step = next(flow)
        while True:
            try:
                result = take(step)
            except PhalaSecretsError as error:
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        flow.close()


async def adrive(flow: Flow[T], take: Callable[[Any], Any]) -> T:
    """Do the same as ``drive`` with an awaitable ``take``."""
    try:
        step = next(flow)
        while True:
            try:
                result = await take(step)
            except PhalaSecretsError as error:
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        flow.close()


class Request(Protocol[T_co]):
    """A request that can read its own response: a ``Call`` or an ``Rpc``."""

    @property
    def parse(self) -> Callable[[Any], T_co]: ...


def ask(request: Request[T]) -> Flow[T]:
    """Return the result of one request: ``balance = yield from ask(rpc.balance(address))``."""
    result: T = yield request
    return result


def mapped(flow: Flow[T], change: Callable[[Any], Any]) -> Flow[T]:
    """Return a flow with each step changed, for example a chain's requests as calls to one RPC."""
    try:
        step = next(flow)
        while True:
            try:
                result = yield change(step)
            except PhalaSecretsError as error:
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as stop:
        value: T = stop.value
        return value
    finally:
        flow.close()


class Settled(NamedTuple):
    """A step: requests that go out together. Each may fail, and the result has errors as values."""

    requests: tuple[Any, ...]


def together(*flows: Flow[Any]) -> Flow[list[Any]]:
    """Return the results of several flows, whose requests go out together.

    An error is thrown into the flow behind the request. These flows must not pause. The first error that
    a flow raises ends them all.
    """
    results: list[Any] = [None] * len(flows)
    steps: dict[int, Any] = {}

    def take(index: int, move: Callable[[], Any]) -> None:
        try:
            steps[index] = move()
        except StopIteration as stop:
            results[index] = stop.value

    try:
        for index, flow in enumerate(flows):
            take(index, partial(next, flow))
        while steps:
            waiting = {i: step if type(step) is tuple else (step,) for i, step in steps.items()}
            outcomes = iter((yield Settled(tuple(one for batch in waiting.values() for one in batch))))
            answered, steps = steps, {}
            for index, step in answered.items():
                got = [next(outcomes) for _ in waiting[index]]
                failed = next((one for one in got if isinstance(one, PhalaSecretsError)), None)
                if failed:
                    take(index, partial(flows[index].throw, failed))
                else:
                    take(index, partial(flows[index].send, got if type(step) is tuple else got[0]))
        return results
    finally:
        for flow in flows:
            flow.close()


# -- how often, how long --------------------------------------------------------------------------

TRIES = 4
"""Tries of one request: three pauses of 0.5, 1 and 2 s outlast a restart of a load balancer."""

FIRST_PAUSE = 0.5
"""Seconds before the second try; each further pause is ``GROWTH`` times as long."""

GROWTH = 2
LIMITED_GROWTH = 5
"""After a 429 without ``Retry-After``: limits are often by the minute, and 0.5, 2.5 and 12.5 s reach far."""

LONGEST_PAUSE = 60.0
"""Seconds: a longer ``Retry-After`` fails at once instead of blocking a job."""

LOOKS = (0.5, 1.0, 2.0, 4.0, 7.5, 7.5, 7.5)
"""Seconds between looks for an update whose response was lost: a revision shows within 30 s, or never."""

POLL = 5.0
"""Seconds between looks at a CVM: the API streams its state as often, and a boot takes minutes."""

POLL_AT_FIRST = (0.3, 0.5, 1.0, 2.0, 3.0)
"""Seconds between the first looks: most failures show at once."""

POLL_GROWTH = 3
"""The next look at a fleet comes after a third of the elapsed time: few looks, and hardly ever late."""

POLL_LATER = 15.0
"""Maximum seconds between looks at a fleet."""

IN_A_ROW = 3
"""Looks in a row that must agree: a single one may be outdated."""

LAST_LOOK = 2.0
"""Seconds before the time is up at which a last look happens, whatever the pause."""

NONSENSE = 4
"""Malformed responses in a row: fewer may come from a proxy during a deployment."""

STREAM_BREAKS = 4
"""Streams in a row that break off without an event: then the service does not stream."""

TOKEN_MARGIN = 60.0
"""Seconds before its expiry at which a job's token is replaced: GitHub's last five minutes."""

TOKEN_LONGEST = 24 * 3600.0
"""Maximum lifetime of a job's token in seconds: no job may run longer."""

CHAIN_POLL = 3.0
"""Seconds between looks at a chain: Base has a block every 2 s, Ethereum every 12."""

REFUSALS = 3
"""Times that an RPC may reject a transaction that it does not know."""

SIGHTINGS = 3
"""Looks in a row that must show the nonce used by another transaction: an RPC's nodes may lag behind."""


def pause_before(tries: int, asked: float | None = None, *, growth: int = GROWTH) -> float | None:
    """Return the seconds to wait after so many tries, or None to give up.

    ``asked`` is the ``Retry-After`` of the response, in seconds.
    """
    if tries >= TRIES or (asked or 0.0) > LONGEST_PAUSE:
        return None
    return max(asked or 0.0, FIRST_PAUSE * float(growth ** (tries - 1)))
