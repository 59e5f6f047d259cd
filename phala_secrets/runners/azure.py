"""Azure Pipelines: outputs, masks, problems and groups as logging commands.

``##vso[area.action name=value;…]data`` counts anywhere in a line, of standard error too.
The escapes are those of ``taskcommand.ts`` of the azure-pipelines-task-lib, and the
agent's ``Command.cs`` reads them back. A summary is a file that the agent uploads from where it runs:
``uploadsummary`` of one that is not there fails the step (``TaskCommandExtension.cs``).
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from phala_secrets.errors import Finding, InputError
from phala_secrets.runners.base import Runner
from phala_secrets.runners.files import Value, as_text, overwrite, variable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from phala_secrets.runners.report import Report

_SUMMARY_BYTES = 1024 * 1024
"""Bytes of a summary: what GitHub and Buildkite take, since Azure names no limit."""


def escape_data(text: str) -> str:
    """Escape text as a command's data."""
    return text.replace("%", "%AZP25").replace("\r", "%0D").replace("\n", "%0A")


def escape_property(text: str) -> str:
    """Escape text as the value of a command's property."""
    return escape_data(text).replace(";", "%3B").replace("]", "%5D")


class Azure(Runner):
    """A step of a job. A later step has ``$(STEP.PHALA_CVM_ID)``, where STEP is the ``name`` of this one."""

    name = "Azure Pipelines"
    ci = True

    def __init__(self, environ: Mapping[str, str], **options: Any) -> None:
        super().__init__(environ, **options)
        self._agents_folder = Path(environ.get("AGENT_TEMPDIRECTORY", ""))
        self._uploaded = ""

    def _mask(self, lines: list[str]) -> None:
        if lines:
            self._write("\n".join(f"##vso[task.setsecret]{escape_data(line)}" for line in lines))

    @contextmanager
    def group(self, title: str) -> Iterator[None]:
        """Write a group that the log can fold."""
        if self.quiet:
            yield
            return
        self._write(f"##[group]{self.clean(title)}")
        try:
            yield
        finally:
            self._write("##[endgroup]")

    def trace(self, text: str) -> None:
        """Write a debug line."""
        if self.verbose:
            self._write(f"##[debug]{self.clean(text)}")

    def _problem(self, severity: str, message: str, hint: str, file: str | None, line: int | None) -> None:
        if severity == "notice":
            super()._problem(severity, message, hint, file, line)
            return
        file = self._place(file)
        places = f"sourcepath={escape_property(file)};" if file else ""
        places += f"linenumber={line};" if file and line else ""
        text = self.clean(message) + (f" (hint: {self.clean(self.spoken(hint))})" if hint else "")
        self._write(f"##vso[task.logissue type={severity};{places}]{escape_data(text)}")

    def _write_output(self, name: str, value: Value) -> None:
        super()._write_output(name, value)
        text = as_text(value)
        if self._fits(name, text, "this step"):
            self._write(f"##vso[task.setvariable variable={variable(name)};isOutput=true]{escape_data(text)}")

    def _summarise(self, report: Report) -> None:
        super()._summarise(report)
        longer = self._uploaded + self._markdown(report)
        if len(longer.encode()) <= _SUMMARY_BYTES:
            self._uploaded = longer

    def finish(self) -> None:
        """Hand the summary to the agent, as a file in a folder that both see; no folder, no summary."""
        folder = self._agents_folder
        if self._uploaded and folder.is_absolute() and folder.is_dir():
            path = str(folder / f"phala-secrets-{token_hex(8)}.md")
            try:
                overwrite(path, self._uploaded, "the summary in AGENT_TEMPDIRECTORY")
                self._write(f"##vso[task.uploadsummary]{escape_data(path)}")
            except InputError as error:
                self.tell(Finding(error.message, error.hint))
        super().finish()
