"""Work through the CVMs of a run, a few at a time."""

from __future__ import annotations

import threading
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from phala_secrets.errors import PhalaSecretsError
from phala_secrets.run import bugs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from phala_secrets.run.context import Target


_M_ARENA_MAX = -8
"""glibc's number for how many heaps there may be, from malloc.h."""

_COLLECT_AFTER = 5_000
"""Objects after which Python looks for garbage: a response of httpx is a cycle with its request."""


def keep_memory_flat() -> None:
    """Keep memory from growing with the number of CVMs. Call this before any thread starts.

    glibc gives each thread a heap of its own, and each heap keeps room for the largest response that was
    read there. One heap for all costs nothing, as Python runs one thread at a time. Other C libraries
    have no such call and need none.
    """
    import ctypes
    import gc

    gc.set_threshold(_COLLECT_AFTER)
    with suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def work_through(
    targets: Sequence[Target], work: Callable[[Target], None], *, at_once: int, fail_fast: bool
) -> None:
    """Do the work for every CVM, ``at_once`` of them at a time, and note each error in its record.

    With ``fail_fast`` no further one is begun once one has failed. Threads are daemons, so that an
    interrupt in the main thread ends the run at once.
    """
    todo: SimpleQueue[Target] = SimpleQueue()
    for target in targets:
        todo.put(target)
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            try:
                target = todo.get_nowait()
            except Empty:
                return
            try:
                work(target)
            except PhalaSecretsError as error:
                target.error = error
            except Exception as error:  # noqa: BLE001 (an internal error about one CVM must not stop the others)
                target.error = bugs.as_error(error, target.progress)
            if target.error:
                target.status = "failed"
                if fail_fast:
                    stop.set()

    if at_once == 1 or len(targets) == 1:
        run()
    else:
        threads = [threading.Thread(target=run, daemon=True) for _ in range(min(at_once, len(targets)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
