"""Look at all CVMs of an app at once, for every thread that waits for one of them.

The app's list shows the state of every CVM, so a fleet is followed with requests that do not grow with
the number of those that are under way.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from phala_secrets import flow
from phala_secrets.cloud import progress
from phala_secrets.cloud.call import Within
from phala_secrets.cloud.wait import PASSING, Look, Seen, own_look
from phala_secrets.errors import PhalaSecretsError, TransportError

if TYPE_CHECKING:
    from phala_secrets.cloud.progress import Row
    from phala_secrets.flow import Flow


class _App:
    """The newest look at one app: when its request was sent, and the rows or the error that came of it."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.taken = float("-inf")
        self.rows: dict[str, Row] = {}
        self.error: PhalaSecretsError | None = None


class Looks:
    """The newest look at each app of a run. All of it may be called from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._apps: dict[str, _App] = {}

    def of(self, app_id: str, cvm_id: str) -> Look:
        """Return looks at one CVM, each made from now on, by this waiter or by another."""
        since = flow.clock.monotonic()
        with self._lock:
            app = self._apps.setdefault(app_id, _App())

        def look(left: float, age: float) -> Flow[Seen]:
            # The lock is held while the request is under way, which has a limit of its own.
            if not app.turn.acquire(timeout=max(left, 1.0)):
                raise TransportError("no response about the app in time", hint="run again", sent=False)
            try:
                if app.taken < max(since, flow.clock.monotonic() - age):
                    yield from _take(app, app_id, left)
                error, row = app.error, app.rows.get(cvm_id)
            finally:
                app.turn.release()
            if isinstance(error, PASSING):
                raise error.saying(error.marked)  # each thread has its own
            if error or row is None:  # the CVM may be there, and let itself be asked, all the same
                return (yield from own_look(cvm_id)(left, age))
            return Seen(row.status, in_progress=row.in_progress, compose_hash=row.compose_hash)

        return look


def _take(app: _App, app_id: str, left: float) -> Flow[None]:
    """Look at an app. An error counts for every thread that waits."""
    app.taken = flow.clock.monotonic()
    try:
        app.rows = yield Within(progress.app_states(app_id), left)
    except PhalaSecretsError as error:
        app.error = error
    else:
        app.error = None
