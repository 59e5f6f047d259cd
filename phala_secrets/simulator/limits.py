"""The limits of one user: requests per second and open streams."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from phala_secrets.simulator.wire import RefusalError

if TYPE_CHECKING:
    from phala_secrets.simulator.world import World


class Limits:
    """The user's current use."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.open_streams = 0
        """The number of open streams."""
        self._tokens: float | None = None
        self._tokens_at = 0.0

    def take_request(self) -> None:
        """Take a request out of the bucket. Raise a 429 if it is empty."""
        limit = self._world.rate_limit
        if limit is None:
            return
        with self._world.changed:
            now = self._world.clock.monotonic()
            tokens = limit.burst if self._tokens is None else self._tokens
            tokens = min(limit.burst, tokens + (now - self._tokens_at) * limit.per_second)
            enough = tokens >= 1
            self._tokens, self._tokens_at = tokens - enough, now
        if not enough:
            seconds = math.ceil((1 - tokens) / limit.per_second)
            headers = {"Retry-After": str(seconds)} if limit.retry_after else {}
            raise RefusalError(429, "Rate limit exceeded", headers=headers)

    def open_stream(self) -> None:
        """Take one of the user's streams. Raise a 429 if all are taken."""
        with self._world.changed:
            if self.open_streams >= self._world.max_streams:
                raise RefusalError(429, f"Too many streams: at most {self._world.max_streams} a user")
            self.open_streams += 1

    def close_stream(self) -> None:
        """Give a stream back."""
        with self._world.changed:
            self.open_streams -= 1
            self._world.changed.notify_all()
