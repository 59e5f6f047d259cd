"""GitHub Actions: workflow commands, annotations, ``$GITHUB_OUTPUT`` and the job summary.

What counts as a command, and how it is escaped, is from the runner's ``ActionCommand.cs``
and ``FileCommandManager.cs``: ``::name prop=…::data`` after leading white space, and
``##[name prop=…]data`` anywhere in a line.
"""

from __future__ import annotations

import re
import secrets
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from phala_secrets.errors import Finding, InputError
from phala_secrets.runners.base import Runner
from phala_secrets.runners.files import Value, append, as_text
from phala_secrets.runners.report import Report
from phala_secrets.runners.text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from phala_secrets.errors import PhalaSecretsError

_ANNOTATIONS = 9  # the runner shows ten of a kind a step; one is kept for the error at the end
_ANNOTATION_LENGTH = 4000
_SUMMARY_BYTES = 1024 * 1024 - 1024
_MARKDOWN = {ord(character): f"&#{ord(character)};" for character in "&<>\"'\\`*_[]|~#@"}
_NO_LINK = {
    **_MARKDOWN,
    **{ord(character): f"&#{ord(character)};" for character in "!$:."},
    ord("@"): "<!-- -->&#64;",  # GitHub decodes the entity of an @ before it looks for addresses
}
_REFERENCE = re.compile(r"[@#$]|://|www\.|:\w+:|\b[0-9a-f]{7,40}\b|\b[A-Z]{2,}-\d", re.IGNORECASE)
"""What GitHub makes links of outside of code: mentions, issues, commits, references like GH-1."""

_ADDRESS = re.compile(r"@|://|www\.", re.IGNORECASE)
"""What GitHub's renderer makes links of, wherever it stands."""


def escape_data(text: str) -> str:
    """Text as a command's data."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def escape_property(text: str) -> str:
    """Text as the value of a command's property."""
    return escape_data(text).replace(":", "%3A").replace(",", "%2C")


def heredoc(name: str, value: str) -> str:
    """One output as the file command takes it, behind a delimiter that no value can know."""
    delimiter = f"phala_{secrets.token_hex(16)}"
    return f"{name}<<{delimiter}\n{value}\n{delimiter}\n"


class GitHub(Runner):
    """A step of a workflow. The runner reads commands from both streams; all of ours go to one, in order."""

    name = "GitHub Actions"
    ci = True

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
        """A group that can be folded in the log."""
        if self.quiet:
            yield
            return
        self._write(f"::group::{escape_data(self.clean(title))}")
        try:
            yield
        finally:
            self._write("::endgroup::")

    def trace(self, text: str) -> None:
        """A debug line: shown when the workflow is run with debug logging."""
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
        """The output file has to be there and writable before anything is sent."""
        super().check()
        if self._output_path:
            append(self._output_path, "", "$GITHUB_OUTPUT")

    def _write_output(self, name: str, value: Value) -> None:
        super()._write_output(name, value)
        if self._output_path:
            append(self._output_path, heredoc(name, as_text(value)), "$GITHUB_OUTPUT")

    def fail(self, error: PhalaSecretsError) -> None:
        """The error that ends the run, with the annotation that was kept for it, and in the job's summary."""
        for finding in error.findings:
            self.tell(finding)
        self._annotated["error"] = min(self._annotated["error"], _ANNOTATIONS - 1)
        message = self.message_of(error)
        self._problem("error", message, error.marked_hint, error.file, error.line)
        self._summarise(Report("Failed", advice=[(message, ""), (error.marked_hint, "")]))

    def report(self, report: Report) -> None:
        """The report in the log, and as the job's summary."""
        super().report(report)
        self._summarise(report)

    def _summarise(self, report: Report) -> None:
        if self._summary_path:
            text = self._markdown(report)
            try:
                if len(text.encode()) <= _SUMMARY_BYTES:
                    append(self._summary_path, text, "$GITHUB_STEP_SUMMARY")
            except InputError as error:
                self.tell(Finding(error.message, error.hint))

    def _markdown(self, report: Report) -> str:
        blocks = [f"### {self._html(report.title)}"]
        if report.facts:
            rows = "".join(
                f"| {self._html(label)} | {self._code(value)} |\n" for label, value in report.facts
            )
            blocks.append(f"| | |\n|---|---|\n{rows}")
        blocks += [f"[{self._html(label)}]({url})" for label, url in report.links]
        for table in report.tables:
            header = "".join(f" {self._html(cell)} |" for cell in table.header)
            rows = "".join(f"|{''.join(f' {self._code(c)} |' for c in row)}\n" for row in table.rows)
            blocks.append(f"|{header}\n|{'---|' * len(table.header)}\n{rows}")
        if report.diff:
            blocks.append(self._diff(self.diff_of(report)))
        for sentence, paste in report.advice:
            pasted = f"\n\n<pre>{self._paste(paste)}</pre>" if paste else ""
            blocks.append(self._html(sentence) + pasted)
        return "\n\n".join(blocks) + "\n\n"

    def _diff(self, lines: list[str]) -> str:
        """Return a block of code that no line of it ends, in which GitHub makes no links."""
        shown = "\n".join(map(one_line, lines))
        longest = max(map(len, re.findall("`+", shown)), default=0)
        fence = "`" * max(3, longest + 1)
        return f"{fence}diff\n{shown}\n{fence}"

    def _html(self, text: str) -> str:
        """Return text as text: no markup, no link and no mention of it counts."""
        shown = one_line(self.secrets.screened(text))
        if _REFERENCE.search(shown):
            return f"<code>{shown.translate(_NO_LINK)}</code>"
        return shown.translate(_MARKDOWN)

    def _code(self, text: str) -> str:
        shown = one_line(self.secrets.screened(text))
        table = _NO_LINK if _REFERENCE.search(shown) else _MARKDOWN
        return f"<code>{shown.translate(table)}</code>" if text else ""

    def _paste(self, text: str) -> str:
        """Return text within ``<pre>``, where GitHub makes links of addresses, and of nothing else."""
        shown = one_line(self.secrets.screened(text))
        return shown.translate(_NO_LINK if _ADDRESS.search(shown) else _MARKDOWN)
