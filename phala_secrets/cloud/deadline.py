"""Work that ends in time, however slowly the other side responds. No I/O of its own."""

from __future__ import annotations

import threading
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

GRACE = 1.0
"""Extra seconds for a response's whole head beyond the limit for each part."""


def in_time(work: Callable[[], T], seconds: float, drop: Callable[[T], None]) -> T:
    """Return or raise what ``work`` does. Raise TimeoutError after ``seconds`` in any case.

    A socket's own timeout restarts with each byte. Abandoned work continues in a daemon thread, and
    ``drop`` then gets its result.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 (raised below, in the caller's thread)
            with suppress(InvalidStateError):
                future.set_exception(error)
            return
        try:
            future.set_result(result)
        except InvalidStateError:
            drop(result)

    threading.Thread(target=run, daemon=True).start()
    try:
        return future.result(seconds)
    except TimeoutError:
        if future.cancel():
            raise
        return future.result()
