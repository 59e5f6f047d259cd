"""SIGINT and SIGTERM as KeyboardInterrupt in the main thread, which nothing can swallow."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
_AGAIN = 0.25
"""Seconds: Python drops an exception that comes up in a callback, so it is raised until code receives it."""

_received = False


def received() -> bool:
    """Return whether there was one since they are caught."""
    return _received


@contextmanager
def caught() -> Iterator[None]:
    """Raise KeyboardInterrupt for an interrupt within the block. After a nested block it is ignored."""
    global _received
    _received = False
    before = {number: signal.signal(number, _raise) for number in _NUMBERS}
    try:
        yield
    finally:
        over()
        for number, handler in before.items():
            if handler is not _raise:
                signal.signal(number, handler)


def over() -> None:
    """Ignore further interrupts, so that the final report is complete."""
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0)


def _raise(_number: int, _frame: FrameType | None) -> NoReturn:
    global _received
    _received = True
    signal.setitimer(signal.ITIMER_REAL, _AGAIN)
    raise KeyboardInterrupt
