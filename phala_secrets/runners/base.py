"""The base of all runners: a shell, with a person before it or not."""

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
from phala_secrets.runners.live import Doing, Live, on_clock, terminal_width
from phala_secrets.runners.log import Log
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
"""So many hex digits that any short number is among them, and made here."""

_SENTENCES = ("error", "hint", "status")
"""Outputs that are what the log says: a word in them is a word, whatever value is the same one."""


class Runner:
    """Where a run happens: how it is told to people, and where its outputs go.

    This one is for a shell: people's text goes to standard error, so that standard
    output is free for a ciphertext or JSON. A subclass per CI says what differs there.
    Only ``output_names`` can be written as outputs.
    """

    name = "shell"
    ci = False
    speaks_flags = True
    """Whether people give inputs as flags here, so that a hint names them so."""
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
        self._under_way: dict[str, Doing] = {}
        self._live: Live | None = None
        self._log = Log(self.say)

    # -- to people ---------------------------------------------------------------------------

    def say(self, text: str, style: str = "") -> None:
        """One line of what is going on; not with ``--quiet``."""
        if not self.quiet:
            self._say(text, style)

    def trace(self, text: str) -> None:
        """One line for ``--verbose``."""
        if self.verbose:
            self._write(self.paint(text, "dim"))

    def tell(self, finding: Finding) -> None:
        """A notice, a warning, or one of several errors."""
        if finding.severity == "notice" and self.quiet:
            return
        self._problem(finding.severity, finding.message, finding.hint, finding.file, finding.line)

    def fail(self, error: PhalaSecretsError, report: Report | None = None) -> None:
        """The error that ends the run, after the findings that it is made of, and after what is known.

        There is no ``report`` where an earlier one has the error already.
        """
        self._nothing_is_under_way()
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
        """Keep room for the error that ends the run, where problems are counted."""

    def message_of(self, error: PhalaSecretsError) -> str:
        """Return what an error says; where nothing of it can be shown, what kind of error it is."""
        shown = self.secrets.screened(error.marked)
        return f"{type(error).__name__} {NOT_SHOWN}" if shown == NOT_SHOWN else error.marked

    def progress(self, text: str, *, cvm: str = "", change: bool = False, doing: Doing | None = None) -> None:
        """What is being waited for: a spinner for a person, a line per change in a log.

        With ``cvm`` it is about one of a fleet: a line of a live table for a person, and in a log
        only what is repeated, since each has its line when it is done. Without text that one is done.
        A ``change`` of a state comes from outside: a log has one line a second for them, and a bounded
        number. ``doing`` has the clock of a wait.
        """
        if self.quiet:
            return
        now = (doing or Doing(""))._replace(text=self.clean(text))
        with self._lock:
            self._under_way = {**self._under_way, cvm: now}
            if cvm:
                self._under_way.pop("", None)
            if not text:
                del self._under_way[cvm]
            if not self._talks_to_person():
                if not cvm:
                    (self._log.changed if change else self._log.step)(now)
            elif not self._under_way:
                self._end_live()
            elif self._live:
                self._live.show(self._under_way.values())
            else:
                self._live = Live(self.stderr, self._under_way.values())

    def paused(self, message: str = "") -> None:
        """A pause of the run, with what is tried again after it, if anything is."""
        if message:
            self.progress(message, change=True)
        elif not self.quiet and not self._talks_to_person():
            with self._lock:
                self._log.pause(list(self._under_way.values()))

    @property
    def took(self) -> str:
        """How long the run has taken so far."""
        seconds = flow.clock.monotonic() - self._began
        if seconds < _MINUTE:
            return f"{seconds:.1f} s" if seconds < _MINUTE / 6 else f"{seconds:.0f} s"
        return f"{on_clock(seconds)} min"

    @contextmanager
    def group(self, title: str) -> Iterator[None]:  # noqa: ARG002 (a CI that can fold lines shows it)
        """Lines that belong together: under a title where a CI can fold them, and as they are elsewhere."""
        yield

    def report(self, report: Report) -> None:
        """What the run came to; with ``--quiet`` the names of a plan."""
        self._nothing_is_under_way()
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
        """Characters of a line. A log has whole ones, which whoever shows it breaks as it likes."""
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
        """A table as aligned lines, each harmless."""
        return columns_of(table, self.clean)

    def paint(self, text: str, style: str) -> str:
        """Text, harmless, in a colour where a person reads it."""
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
        """Tells the runner, where it can mask."""

    # -- outputs -----------------------------------------------------------------------------

    def check(self) -> None:
        """InputError when outputs could not be written, before anything is sent."""
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
        """The status so far, for a run that is cut short."""
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
                        f"the output {name} is left empty: it would hold the value of {owner}",
                        "if that is no secret, name the variable in no-mask",
                    )
                )
                return ""
        return value

    def _write_output(self, name: str, value: Value) -> None:
        for file in self._files:
            for finding in file.put(name, value):
                self.tell(finding)

    def _fits(self, name: str, text: str, where: str) -> bool:
        """Whether an output can be an environment variable of later steps; one that cannot is told of.

        With a longer one they could start no program at all.
        """
        fits = len(f"{variable(name)}={text}".encode()) < MAX_VARIABLE_BYTES
        if not fits:
            self.tell(lacks(where, name, "it is longer than an environment variable can be"))
        return fits

    def finish(self) -> None:
        """The end of all output."""
        self._nothing_is_under_way()
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
        """Write a line above those of a fleet that are drawn, or in the place of any other."""
        with self._lock:
            fleet = [doing for cvm, doing in self._under_way.items() if cvm] if self._live else []
            self._end_live()
            self.stderr.write(line + "\n")
            self.stderr.flush()
            if fleet:
                self._live = Live(self.stderr, fleet)

    def _nothing_is_under_way(self) -> None:
        with self._lock:
            self._under_way = {}
            self._end_live()

    def _end_live(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None


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
