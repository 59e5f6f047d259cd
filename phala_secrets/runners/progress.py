"""What is under way: drawn in place for a person, a line for each change in a log."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from phala_secrets.runners.live import Doing, Live
from phala_secrets.runners.log import Log

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TextIO


class Progress:
    """What a run waits for, by CVM, and the stream that shows it. Any thread may call it.

    ``say`` writes one line of a log. A ``person`` sees live lines instead.
    """

    def __init__(self, stream: TextIO, say: Callable[[str], None], *, person: bool) -> None:
        self._stream = stream
        self._person = person
        self._lock = threading.RLock()
        self._under_way: dict[str, Doing] = {}
        self._live: Live | None = None
        self._log = Log(say)

    def show(self, doing: Doing, cvm: str = "", *, change: bool = False) -> None:
        """Show what is under way for a CVM of a fleet, or for the whole run. Without text it is over."""
        with self._lock:
            self._under_way = {**self._under_way, cvm: doing}
            if cvm:
                self._under_way.pop("", None)
            if not doing.text:
                del self._under_way[cvm]
            if not self._person:
                if not cvm:
                    (self._log.changed if change else self._log.step)(doing)
            elif not self._under_way:
                self._end_live()
            elif self._live:
                self._live.show(self._under_way.values())
            else:
                self._live = Live(self._stream, self._under_way.values())

    def paused(self) -> None:
        """Let time pass in a log, which repeats what takes long."""
        if not self._person:
            with self._lock:
                self._log.pause(list(self._under_way.values()))

    def write(self, line: str) -> None:
        """Write a line above the live lines of a fleet, or in the place of any other."""
        with self._lock:
            fleet = [doing for cvm, doing in self._under_way.items() if cvm] if self._live else []
            self._end_live()
            self._stream.write(line + "\n")
            self._stream.flush()
            if fleet:
                self._live = Live(self._stream, fleet)

    def clear(self) -> None:
        """Forget what is under way."""
        with self._lock:
            self._under_way = {}
            self._end_live()

    def _end_live(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None
