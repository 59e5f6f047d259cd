"""The compose hash that an app's owner registered last, read from the contract's events."""

from __future__ import annotations

from phala_secrets.chain import rpc
from phala_secrets.errors import AnswerError
from phala_secrets.flow import Flow, ask

MOST_REQUESTS = 100
"""Requests per search: public RPCs limit the blocks per request as well as the requests."""

_SPAN = 10_000
"""Blocks per request once the RPC refused a longer range: most public RPCs accept this many."""


def newest_registered(app: str) -> Flow[str | None]:
    """Return the compose hash (64 hex digits) that ``app`` registered last, or None.

    Search back from the head with at most ``MOST_REQUESTS``: all blocks at once if the RPC allows
    it, otherwise as many as it allows. Raise AnswerError for a malformed response.
    """
    last = yield from ask(rpc.block_number())
    span = last + 1
    for _ in range(MOST_REQUESTS - 1):
        first = max(0, last - span + 1)
        try:
            found = yield from ask(rpc.compose_hashes_added(app, first, last))
        except AnswerError:
            if span == 1:
                raise
            span = min(_SPAN, max(1, span // 2))
            continue
        if found:
            return found[-1]
        if first == 0:
            return None
        last = first - 1
    return None
