"""What an app's owner registered last, read from the events of its contract."""

from __future__ import annotations

from phala_secrets.chain import rpc
from phala_secrets.errors import AnswerError
from phala_secrets.flow import Flow, ask

MOST_REQUESTS = 100
"""Requests for one look back: public RPCs limit both the blocks of one and the number of them."""

_SPAN = 10_000
"""Blocks to ask for once a longer range was refused: what most public RPCs take."""


def newest_registered(app: str) -> Flow[str | None]:
    """Return the compose hash (64 hex digits) that ``app`` registered last, or None where none was found.

    Look back from the head, with at most ``MOST_REQUESTS``: all blocks at once where the RPC takes
    that, else as many as it does. Raise AnswerError for garbage.
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
