"""CircleCI: outputs as ``export`` lines in ``$BASH_ENV``, which the shell of every later step sources.

Whatever is in that file is executed, so each value stands in single quotes, in which a shell (POSIX, 2.2.2)
knows no special character but the quote itself. Values are masked by
CircleCI itself where they come from its contexts and settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from phala_secrets.runners.base import Runner
from phala_secrets.runners.files import Value, append, as_text, in_shell, variable

if TYPE_CHECKING:
    from collections.abc import Mapping

_WHERE = "$BASH_ENV"


class CircleCI(Runner):
    """A step of a job."""

    name = "CircleCI"
    ci = True

    def __init__(self, environ: Mapping[str, str], **options: Any) -> None:
        super().__init__(environ, **options)
        self._path = environ.get("BASH_ENV")

    def check(self) -> None:
        """Check before anything is sent that the file is writable."""
        super().check()
        self._export("")

    def _write_output(self, name: str, value: Value) -> None:
        super()._write_output(name, value)
        text = as_text(value)
        if self._path and self._fits(name, text, _WHERE):
            self._export(f"export {variable(name)}={in_shell(text)}\n")

    def _export(self, line: str) -> None:
        if self._path:
            append(self._path, line, _WHERE)
