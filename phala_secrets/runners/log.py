"""Progress in a log: a line for each change, at most one a second, repeated every 30 seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets import flow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from phala_secrets.runners.live import Doing

_APART = 1.0
"""Seconds between two lines at least."""

_AGAIN = 30.0
"""Seconds after which a line is repeated: CircleCI ends a step that is silent for ten minutes."""

_CHANGES = 500
"""Lines for changes of a state in one log: more help nobody, and a server decides how many there are."""


class Log:
    """The lines about what is under way. Each pause of the run calls ``pause``."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said = float("-inf")
        self._changes = 0
        self._pending: Doing | None = None

    def step(self, doing: Doing, more: str = "") -> None:
        """Write the line of a new step at once."""
        self._said, self._pending = flow.clock.monotonic(), None
        self._say(doing.line() + more)

    def changed(self, doing: Doing) -> None:
        """Write the line of a change as soon as the limits allow it."""
        self._pending = doing if self._changes < _CHANGES else None
        self.pause([])

    def pause(self, under_way: Sequence[Doing]) -> None:
        """Write what is under way if it has changed, or was not written for a while."""
        timed = [doing for doing in under_way if doing.limit]
        changed, doing = self._pending, self._pending or (timed[-1] if timed else None)
        if not doing or flow.clock.monotonic() - self._said < (_APART if changed else _AGAIN):
            return
        self.step(doing, f" (and {len(timed) - 1} more)" if timed[1:] else "")
        self._changes += changed is not None
        if changed and self._changes == _CHANGES:
            self._say("further changes are not shown")
