"""Buildkite: groups in the log, which a line that begins with ``---``, ``+++``, ``~~~`` or ``^^^`` makes.

Outputs are for ``output-file`` or ``--json``, and the summary for ``summary-file``: meta-data and
annotations are set by the agent, beside the container (``buildkite-agent annotate < FILE``, 1 MiB).
Values are redacted by the agent, by the names of its variables.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from phala_secrets.runners.base import Runner

if TYPE_CHECKING:
    from collections.abc import Iterator


class Buildkite(Runner):
    """A command of a step."""

    name = "Buildkite"
    ci = True

    @contextmanager
    def group(self, title: str) -> Iterator[None]:
        """Write an open group, since the report at the end is in the last one too."""
        if not self.quiet:
            self._write(f"+++ {self.clean(title)}")
        yield
