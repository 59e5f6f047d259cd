"""What goes wrong on the way: faults that a test asks for, each for some requests."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal[
    "status",
    "redirect",
    "html_200",
    "not_json",
    "huge_body",
    "gzip_bomb",
    "half_body",
    "drip",
    "stall",
    "mute",
    "reset_before",
    "reset_after",
]


@dataclass(slots=True)
class Fault:
    """A fault for the next ``times`` requests (``None``: all) of a method to a path, after ``skip`` others.

    ``path`` is a regular expression that is searched for below the API's prefix. The kinds:

    - ``status``: ``status``, ``headers`` and ``body`` (JSON, or bytes as they are) are the answer
    - ``redirect``: 307 to ``location``
    - ``html_200``: an error page with status 200; ``not_json``: text that is no JSON, with its type
    - ``huge_body``: ``size`` bytes of JSON, with a ``Content-Length`` or ``chunked``
    - ``gzip_bomb``: the same, ``size`` bytes once unpacked
    - ``half_body``: the connection ends in the middle of the answer
    - ``drip``: one byte of the answer every ``seconds``
    - ``stall``: ``seconds`` go by ``where``: before the request is handled, after it, or in the ``body``
    - ``mute``: a stream that is kept open after its first event, and tells nothing any more
    - ``reset_before``, ``reset_after``: the connection is reset before the request is handled, or after it

    ``handled`` tells whether the request is carried out all the same: by default where the answer
    itself is what is sent, and with ``reset_after``.
    """

    kind: Kind
    method: str = "*"
    path: str = ""
    times: int | None = 1
    skip: int = 0
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = field(default_factory=lambda: {"detail": "Internal Server Error"})
    location: str = ""
    seconds: float = 0.0
    where: Literal["before", "after", "body"] = "before"
    size: int = 1024 * 1024 * 1024
    chunked: bool = False
    handled: bool | None = None

    @property
    def carries_out(self) -> bool:
        """Whether the request reaches the cloud."""
        if self.handled is not None:
            return self.handled
        return self.kind in ("half_body", "drip", "stall", "mute", "reset_after")

    def matches(self, method: str, path: str) -> bool:
        return self.method in ("*", method) and re.search(self.path, path) is not None


class Faults:
    """The faults to come, in the order they were added."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, fault: Fault) -> Fault:
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """The fault for this request, which is one less to come."""
        with self._lock:
            for fault in self._faults:
                if not fault.matches(method, path):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                elif fault.times is None:
                    return fault
                elif fault.times > 0:
                    fault.times -= 1
                    return fault
        return None
