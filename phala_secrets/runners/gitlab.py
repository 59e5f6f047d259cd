"""GitLab CI: ``output-file`` as a dotenv report, and sections of the log that can be folded.

What a report may hold is from GitLab's ``ParseDotenvArtifactService``: ``NAME=value``
lines, 5 KiB in all. A section's marker is ``section_start:TIME:NAME``, a carriage return
and ``ESC[0K``. Values are masked by GitLab itself, where its settings say so; a job has
no way to add any.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

from phala_secrets.runners.base import Runner

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = count(1)


class GitLab(Runner):
    """A job of a pipeline."""

    name = "GitLab CI"
    ci = True
    output_limit = 5 * 1024

    @contextmanager
    def group(self, title: str) -> Iterator[None]:
        """Write a section that the log can fold."""
        if self.quiet:
            yield
            return
        section = f"phala_secrets_{next(_numbers)}"
        self._write(f"\x1b[0Ksection_start:{int(time.time())}:{section}\r\x1b[0K{self.clean(title)}")
        try:
            yield
        finally:
            self._write(f"\x1b[0Ksection_end:{int(time.time())}:{section}\r\x1b[0K")
