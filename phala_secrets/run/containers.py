"""Wait for the containers of a CVM: ``running`` says nothing about them.

What docker prints is read (``docker ps``, ``STATUS``): ``Up 3 minutes (healthy)``, ``Restarting (1) 5
seconds ago``, ``Exited (0) 2 hours ago``, ``Created``. It is the guest's word, and untrusted text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

from phala_secrets import flow
from phala_secrets.cloud import progress
from phala_secrets.cloud.call import Within
from phala_secrets.cloud.wait import PASSING
from phala_secrets.errors import BootError, WaitTimeoutError, untrusted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from phala_secrets.cloud.progress import Container
    from phala_secrets.cloud.wait import Patience
    from phala_secrets.flow import Flow

Condition = Literal["up", "waiting", "unhealthy", "restarting", "done", "exited"]

_STATUS = re.compile(
    r"(?P<word>Up|Restarting|Exited)\b(?: \((?P<code>\d+)\))?(?P<span>[^(]*)(?:\((?P<note>[^)]*)\))?"
)
_SPAN = re.compile(r"(\d+|an?|Less than a) (second|minute|hour|day|week|month|year)")
_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800, "month": 2_592_000}
_SHOWN = 120
_LISTED = 10


class Reading(NamedTuple):
    """What a status means. ``seconds`` is how long it has lasted, None where it does not say."""

    condition: Condition
    seconds: float | None = None


def read(container: Container) -> Reading:
    """Return what the status of a container means."""
    match = _STATUS.match(container.status)
    if not match:
        return Reading("restarting" if container.state == "restarting" else "waiting")
    seconds = _seconds(match["span"])
    if match["word"] == "Restarting":
        return Reading("restarting", seconds)
    if match["word"] == "Exited":
        return Reading("done" if match["code"] == "0" else "exited", seconds)
    note = (match["note"] or "").lower()
    if "unhealthy" in note:
        return Reading("unhealthy", seconds)
    return Reading("up" if note in ("", "healthy") else "waiting", seconds)


def _seconds(span: str) -> float | None:
    match = _SPAN.search(span)
    if not match:
        return None
    number = 0 if match[1].startswith("Less") else 1 if match[1].startswith("a") else int(match[1][:9])
    return float(number * _UNITS.get(match[2], 31_536_000))


def until_up(cvm_id: str, patience: Patience, show: Callable[[str], None]) -> Flow[None]:
    """Wait until all containers are up, and healthy if they have a health check, three looks in a row.

    One that ended with 0 has done its job. Raise BootError with name and status for one that is
    unhealthy or restarts three times, or ended with anything else; WaitTimeoutError when the time is up.
    """
    looks, good = _Looks(patience.age), 0
    while patience.left > 0:
        try:
            listed: Sequence[Container] | None = yield Within(progress.containers(cvm_id), patience.left)
        except PASSING as error:
            patience.missed(error)
            good = 0
        else:
            patience.heard()
            looks.take(listed, patience.age)
            if looks.failed:
                hint = f"read its logs: phala logs --cvm-id {cvm_id}, or the dashboard"
                raise BootError(looks.failed, hint=hint)
            good = good + 1 if looks.good else 0
            if good >= flow.IN_A_ROW:
                return
            if looks.news:
                show(looks.news)
        yield patience.pause(steady=True)
    if not looks.seen:
        raise WaitTimeoutError(
            f"its containers were not visible for {patience.seconds:.0f} s",
            hint="bring the CVM online with visible containers, or set wait-for: running",
        )
    raise WaitTimeoutError(
        f"not all containers are up after {patience.seconds:.0f} s; last seen: {untrusted(looks.waiting)}",
        hint="read their logs, or raise wait-timeout: they may still come up",
    )


@dataclass(slots=True)
class _Looks:
    """What the looks so far have shown of each container, by name; ``began`` is the age of the wait then."""

    began: float
    seen: bool = False
    good: bool = False
    failed: str = ""
    waiting: str = "nothing"
    news: str = ""
    _taken: float | None = None
    _before: dict[str, Condition] = field(default_factory=dict)
    _in_a_row: dict[str, int] = field(default_factory=dict)
    _restarts: dict[str, int] = field(default_factory=dict)

    def take(self, listed: Sequence[Container] | None, age: float) -> None:
        """Take in one look, ``age`` seconds after the wait began."""
        since, self._taken = 0.0 if self._taken is None else age - self._taken, age
        self.news = ""
        if not listed:
            self.good = False
            self._say("its containers are not visible yet")
            return
        self.seen = True
        waiting = []
        for container in listed:
            reading = read(container)
            restarted = self._has_restarted(container.name, reading, since)
            if self._has_failed(container.name, reading, age, restarted=restarted):
                self.failed = f"the container {untrusted(in_words(container))}"
            if reading.condition not in ("up", "done") or restarted:
                waiting.append(in_words(container))
            self._before[container.name] = reading.condition
        self.good = not waiting
        if waiting:
            more = f" and {len(waiting) - _LISTED} more" if len(waiting) > _LISTED else ""
            self._say("; ".join(waiting[:_LISTED]) + more)

    def _has_restarted(self, name: str, reading: Reading, since: float) -> bool:
        """Return whether a container restarts now, or has since the look before, when it was up."""
        if reading.condition == "restarting":
            return True
        was_up = self._before.get(name) in ("up", "unhealthy", "restarting")
        return was_up and reading.condition in ("up", "waiting", "unhealthy") and _short(reading, since)

    def _has_failed(self, name: str, reading: Reading, age: float, *, restarted: bool) -> bool:
        bad = reading.condition in ("unhealthy", "exited")
        same = self._before.get(name) == reading.condition
        self._in_a_row[name] = (self._in_a_row.get(name, 0) if same else 0) + 1 if bad else 0
        self._restarts[name] = self._restarts.get(name, 0) + restarted
        if reading.condition == "exited" and _short(reading, age - self.began + flow.POLL):
            return True  # one that ended earlier may be of the boot before: see whether it stays so
        return max(self._in_a_row[name], self._restarts[name]) >= flow.IN_A_ROW

    def _say(self, what: str) -> None:
        if what != self.waiting:
            self.waiting = self.news = what


def _short(reading: Reading, seconds: float) -> bool:
    """Return whether a status has lasted for less than this, by more than rounding."""
    return reading.seconds is not None and reading.seconds < seconds - 1


def in_words(container: Container) -> str:
    """Return the name and status of a container, cut short."""
    return f"{container.name[:_SHOWN]}: {(container.status or container.state)[:_SHOWN]}"
