"""GitHub Actions: workflow commands, annotations, ``$GITHUB_OUTPUT`` and the job summary.

What counts as a command, and how it is escaped, is from the runner's ``ActionCommand.cs``
and ``FileCommandManager.cs``: ``::name prop=…::data`` after leading white space, and
``##[name prop=…]data`` anywhere in a line.
"""

from __future__ import annotations

import secrets
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from phala_secrets.errors import Finding, InputError
from phala_secrets.runners.base import Runner
from phala_secrets.runners.files import Value, append, as_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from phala_secrets.runners.report import Report


_ANNOTATIONS = 9  # the runner shows ten of a kind a step; one is kept for the error at the end
_ANNOTATION_LENGTH = 4000


def escape_data(text: str) -> str:
    """Escape text as a command's data."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escape_property(text: str) -> str:
    """Escape text as the value of a command's property."""
    return escape_data(text).replace(":", "%3A").replace(",", "%2C")


def heredoc(name: str, value: str) -> str:
    """Return one output as the file command takes it, behind a delimiter that no value can know."""
    delimiter = f"phala_{secrets.token_hex(16)}"
    return f"{name}<<{delimiter}\n{value}\n{delimiter}\n"


class GitHub(Runner):
    """A step of a workflow. The runner reads commands from both streams; this one writes to one, in order."""

    name = "GitHub Actions"
    ci = True
    speaks_flags = False

    def __init__(self, environ: Mapping[str, str], **options: Any) -> None:
        super().__init__(environ, **options)
        self._annotated: Counter[str] = Counter()
        self._output_path = environ.get("GITHUB_OUTPUT")
        self._summary_path = environ.get("GITHUB_STEP_SUMMARY")

    def _mask(self, lines: list[str]) -> None:
        if lines:
            self._write("\n".join(f"::add-mask::{escape_data(line)}" for line in lines))

    @contextmanager
    def group(self, title: str) -> Iterator[None]:
        """Write a group that the log can fold."""
        if self.quiet:
            yield
            return
        self._write(f"::group::{escape_data(self.clean(title))}")
        try:
            yield
        finally:
            self._write("::endgroup::")

    def trace(self, text: str) -> None:
        """Write a debug line, which the log shows with debug logging."""
        if self.verbose:
            self._write(f"::debug::{escape_data(self.clean(text))}")

    def _problem(self, severity: str, message: str, hint: str, file: str | None, line: int | None) -> None:
        self._annotated[severity] += 1
        if self._annotated[severity] > _ANNOTATIONS:
            super()._problem(severity, message, hint, file, line)
            return
        file = self._place(file)
        places = [f"file={escape_property(file)}"] if file else []
        places += [f"line={line}"] if file and line else []
        text = self.clean(message) + (f"\n{self.clean(hint)}" if hint else "")
        properties = ",".join([*places, "title=phala-secrets"])
        self._write(f"::{severity} {properties}::{escape_data(text[:_ANNOTATION_LENGTH])}")

    def check(self) -> None:
        """Check before anything is sent that the output file is writable."""
        super().check()
        if self._output_path:
            append(self._output_path, "", "$GITHUB_OUTPUT")

    def _write_output(self, name: str, value: Value) -> None:
        super()._write_output(name, value)
        if self._output_path:
            append(self._output_path, heredoc(name, as_text(value)), "$GITHUB_OUTPUT")

    def _last_problem(self) -> None:
        self._annotated["error"] = min(self._annotated["error"], _ANNOTATIONS - 1)

    def _summarise(self, report: Report) -> None:
        """Add a report to the job's summary, too."""
        super()._summarise(report)
        if self._summary_path:
            try:
                append(self._summary_path, self._markdown(report), "$GITHUB_STEP_SUMMARY")
            except InputError as error:
                self.tell(Finding(error.message, error.hint))
