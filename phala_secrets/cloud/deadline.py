"""Work that ends in time, however little by little the other side answers. No I/O of its own."""

from __future__ import annotations

import threading
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def in_time(work: Callable[[], T], seconds: float, drop: Callable[[T], None]) -> T:
    """What ``work`` returns or raises; TimeoutError after ``seconds``, whatever it is doing by then.

    A socket's own timeout starts anew with each byte. Work that is given up goes on in a daemon
    thread until it ends by itself; ``drop`` then gets what nobody waits for any more.
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
