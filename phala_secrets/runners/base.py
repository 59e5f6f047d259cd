"""The base of all runners: a shell, with or without a person."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TextIO

from phala_secrets import flow
from phala_secrets.errors import Finding, InputError, split_untrusted, untrusted
from phala_secrets.runners.files import (
    MAX_VARIABLE_BYTES,
    Format,
    OutputFile,
    Value,
    as_json,
    lacks,
    overwrite,
    variable,
)
from phala_secrets.runners.layout import columns_of, lines_of, names_of, wrapped
from phala_secrets.runners.live import Doing, on_clock, terminal_width
from phala_secrets.runners.progress import Progress
from phala_secrets.runners.secrecy import NOT_SHOWN, Secrets
from phala_secrets.runners.text import disarm, for_scripts, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from phala_secrets.errors import PhalaSecretsError
    from phala_secrets.runners.report import Report, Table

_WIDEST = 110
"""Characters of a line on a terminal that is wider still."""
_ONE_LINE = 1 << 20

_MINUTE = 60

_COLOURS = {"error": "31;1", "warning": "33", "notice": "36", "good": "32", "dim": "2"}

_CIPHERTEXT = "encrypted-env"
"""Too many hex digits for the guard: any short number is among them. They were made here."""

_SENTENCES = ("error", "hint", "status")
"""Outputs that repeat the log: a plain word in them is not a secret, even if a value equals it."""


class Runner:
    """Where a run happens: how people see it, and where its outputs go.

    This one is for a shell. Text for people goes to standard error, so that standard
    output is free for a ciphertext or JSON. Each CI has a subclass with what differs there.
    Outputs must be among ``output_names``.
    """

    name = "shell"
    ci = False
    speaks_flags = True
    """Whether people pass inputs as flags here, so that hints name flags."""
    output_limit: int | None = None
    """Bytes that ``output-file`` may have where this CI reads it."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        output_names: Collection[str],
        output_file: str | None = None,
        output_format: Format = "dotenv",
        summary_file: str | None = None,
        no_mask: Sequence[str] = (),
        json_output: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        in_flags: Callable[[str], str] = str,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        self.environ = environ
        self.stdout = stdout or sys.stdout
        self.stderr = stderr or sys.stderr
        self.quiet = quiet
        self.verbose = verbose
        self.json = json_output
        self.secrets = Secrets()
        self._no_mask = no_mask
        self._in_flags = in_flags
        self._output_names = output_names
        self.outputs: dict[str, Value] = {}
        self._files: list[OutputFile] = []
        self._began = flow.clock.monotonic()
        self._summary_file = summary_file
        self._summary = ""
        if output_file:
            what = f"output-file {output_file[:200]!a}"
            limit = self.output_limit if output_format == "dotenv" else None
            self._files.append(OutputFile(output_file, what, form=output_format, limit=limit))
        self._lock = threading.RLock()
        self._colour = self._talks_to_person() and not environ.get("NO_COLOR")
        self._progress = Progress(self.stderr, self.say, person=self._talks_to_person())

    # -- to people ---------------------------------------------------------------------------

    def say(self, text: str, style: str = "") -> None:
        """Write one line of progress, unless ``--quiet``."""
        if not self.quiet:
            self._say(text, style)

    def trace(self, text: str) -> None:
        """Write one line, with ``--verbose`` only."""
        if self.verbose:
            self._write(self.paint(text, "dim"))

    def tell(self, finding: Finding) -> None:
        """Report a notice, a warning, or one of several errors."""
        if finding.severity == "notice" and self.quiet:
            return
        self._problem(finding.severity, finding.message, finding.hint, finding.file, finding.line)

    def fail(self, error: PhalaSecretsError, report: Report | None = None) -> None:
        """Report the error that ends the run, after its findings and what is known.

        There is no ``report`` if an earlier one already has the error.
        """
        self._progress.clear()
        if report and report.facts and not self.quiet:
            self._show(report)
        for finding in error.findings:
            self.tell(finding)
        message = self.message_of(error)
        self._last_problem()
        self._problem("error", message, error.marked_hint, error.file, error.line)
        if report:
            report.problem, report.findings = (message, self.spoken(error.marked_hint)), error.findings
            self._summarise(report)

    def _last_problem(self) -> None:
        """Keep room for the error that ends the run, if the CI limits their number."""

    def message_of(self, error: PhalaSecretsError) -> str:
        """Return the message of an error, or its kind if the message may contain a secret."""
        shown = self.secrets.screened(error.marked)
        return f"{type(error).__name__} {NOT_SHOWN}" if shown == NOT_SHOWN else error.marked

    def progress(self, text: str, *, cvm: str = "", change: bool = False, doing: Doing | None = None) -> None:
        """Show what the run waits for: a spinner for a person, a line per change in a log.

        Args:
            text: What is under way, or nothing once it is over.
            cvm: One CVM of a fleet. A person sees a line for each; a log only repeats what takes long.
            change: Whether a state changed elsewhere. A log shows at most one a second, up to a limit.
            doing: The clock of a wait.
        """
        if not self.quiet:
            now = (doing or Doing(""))._replace(text=self.clean(text))
            self._progress.show(now, cvm, change=change)

    def paused(self, message: str = "") -> None:
        """Note a pause of the run, and what it will try again."""
        if message:
            self.progress(message, change=True)
        elif not self.quiet:
            self._progress.paused()

    @property
    def took(self) -> str:
        """The time that the run has taken so far, as text."""
        seconds = flow.clock.monotonic() - self._began
        if seconds < _MINUTE:
            return f"{seconds:.1f} s" if seconds < _MINUTE / 6 else f"{seconds:.0f} s"
        return f"{on_clock(seconds)} min"

    @contextmanager
    def group(self, title: str) -> Iterator[None]:  # noqa: ARG002 (a CI that can fold lines shows it)
        """Group lines under a title, if the CI can fold them."""
        yield

    def report(self, report: Report) -> None:
        """Write a report; with ``--quiet`` only the names of a plan."""
        self._progress.clear()
        report.diff = self.diff_of(report)
        if not self.quiet:
            self._show(report)
        elif report.names_asked_for:
            for line in names_of(report, self.clean, self.paint):
                self._write(line)
        self._summarise(report)

    def _show(self, report: Report) -> None:
        for line in lines_of(report, self.clean, self.paint, self._width()):
            self._write(line)

    def _say(self, text: str, style: str = "") -> None:
        """Write one line, which a person's terminal would break anywhere."""
        for line in wrapped(self.clean(text), "", self._width()):
            self._write(self.paint(line, style))

    def _width(self) -> int:
        """Return the characters of a line. A log has whole lines, and its viewer wraps them."""
        return min(terminal_width(self.stderr), _WIDEST) if self._talks_to_person() else _ONE_LINE

    def _summarise(self, report: Report) -> None:
        """Add a report to the summary, where there is one. A failure only warns."""
        if self._summary_file:
            self._summary += self._markdown(report)
            try:
                overwrite(self._summary_file, self._summary, self._summary_name)
            except InputError as error:
                self.tell(Finding(error.message, error.hint))

    @property
    def _summary_name(self) -> str:
        return f"summary-file {(self._summary_file or '')[:200]!a}"

    def _markdown(self, report: Report) -> str:
        from phala_secrets.runners.markdown import markdown

        return markdown(report, lambda text: one_line(self.secrets.screened(text)))

    def spoken(self, hint: str) -> str:
        """Return a hint in the words of this place. What is untrusted in it stays as it is."""
        if not self.speaks_flags:
            return hint
        parts = split_untrusted(hint)
        return "".join(untrusted(part) if foreign else self._in_flags(part) for foreign, part in parts)

    def clean(self, text: str) -> str:
        """Return text as one line that shows no secret and is a command to no CI."""
        return disarm(one_line(self.secrets.screened(text)))

    def diff_of(self, report: Report) -> list[str]:
        """Return the lines of a diff that show no secret, or none where several show one together."""
        lines = [self.secrets.screened(line) for line in report.diff]
        return [NOT_SHOWN] if self.secrets.owner_in("\n".join(lines)) else lines

    def columns(self, table: Table) -> list[str]:
        """Return a table as aligned, harmless lines."""
        return columns_of(table, self.clean)

    def paint(self, text: str, style: str) -> str:
        """Return harmless text, in a colour if a person reads it."""
        text = self.clean(text)
        return f"\x1b[{_COLOURS[style]}m{text}\x1b[0m" if style and self._colour else text

    # -- secrets -----------------------------------------------------------------------------

    def mask(self, values: Iterable[str], owner: str = "a credential") -> None:
        """Register credentials before anything else is printed, so that no log shows them."""
        self._mask(self.secrets.learn(owner, values, credential=True))

    def mask_variables(self, variables: Mapping[str, Sequence[str]]) -> None:
        """Register what is secret of the values of variables, by name; ``no-mask`` excepted."""
        self.secrets.spare(variables)
        secret = {name: values for name, values in variables.items() if not self._is_setting(name)}
        self._mask([line for name, values in secret.items() for line in self.secrets.learn(name, values)])

    def secret_parts(self, name: str, value: str) -> list[str]:
        """Return what is secret of the value of a variable: lines, and logins of URLs."""
        return [] if self._is_setting(name) else self.secrets.of_value(value)

    def _is_setting(self, name: str) -> bool:
        return any(fnmatchcase(name, glob) for glob in self._no_mask)

    def _mask(self, lines: list[str]) -> None:
        """Mask lines, if the CI can."""

    # -- outputs -----------------------------------------------------------------------------

    def check(self) -> None:
        """Check before anything is sent that outputs can be written; raise InputError if not."""
        for file in self._files:
            file.check()
        if self._summary_file:
            overwrite(self._summary_file, "", self._summary_name)

    def output(self, name: str, value: Value) -> None:
        """Write one output at once, so that later steps have it whatever happens next.

        Raises:
            ValueError: The name is not one of ``output_names``: a bug.
            InputError: It cannot be written.
        """
        if name not in self._output_names:
            raise ValueError(f"unknown output {name!a}")
        value = self._guarded(name, value)
        with self._lock:
            self.outputs[name] = value
            self._write_output(name, value)

    def last_status(self) -> str:
        """Return the status so far, for an interrupted run."""
        status = self.outputs.get("status")
        return status if isinstance(status, str) else "failed"

    def _guarded(self, name: str, value: Value) -> Value:
        """Return an output, or nothing in its place if a secret is in it."""
        if isinstance(value, bool) or name == _CIPHERTEXT:
            return value
        if name in _SENTENCES:
            return for_scripts(self.clean(str(value)))
        for text in _texts(value):
            if owner := self.secrets.owner_in(text):
                self.tell(
                    Finding(
                        f"the output {name} is empty, because it would contain the value of {owner}",
                        "name the variable in no-mask if it is not a secret",
                    )
                )
                return ""
        return value

    def _write_output(self, name: str, value: Value) -> None:
        for file in self._files:
            for finding in file.put(name, value):
                self.tell(finding)

    def _fits(self, name: str, text: str, where: str) -> bool:
        """Return whether an output fits into an environment variable of later steps; warn if not.

        With a longer variable they could not start any program.
        """
        fits = len(f"{variable(name)}={text}".encode()) < MAX_VARIABLE_BYTES
        if not fits:
            self.tell(lacks(where, name, "it is too long for an environment variable"))
        return fits

    def finish(self) -> None:
        """End all output."""
        self._progress.clear()
        if self.json:
            named = {name.replace("-", "_"): value for name, value in self.outputs.items()}
            self.stdout.write(as_json(named) + "\n")
        self.stdout.flush()

    # -- underneath --------------------------------------------------------------------------

    def _talks_to_person(self) -> bool:
        return not self.ci and self.stderr.isatty() and self.environ.get("TERM") != "dumb"

    def _place(self, file: str | None) -> str | None:
        """Return a file's name as a property of a message, unless a secret is in it."""
        return self.clean(file) if file and not self.secrets.owner_in(file) else None

    def _problem(self, severity: str, message: str, hint: str, file: str | None, line: int | None) -> None:
        file = self._place(file)
        where = f"{file}:{line}: " if file and line else f"{file}: " if file and file not in message else ""
        self._say(f"{severity}: {where}{message}", severity)
        if hint:
            self._say(f"hint: {self.spoken(hint)}")

    def _write(self, line: str) -> None:
        self._progress.write(line)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)
