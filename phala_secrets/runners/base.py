"""The base of all runners: a shell, with a person before it or not."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TextIO

from phala_secrets import flow
from phala_secrets.errors import Finding
from phala_secrets.runners.files import (
    MAX_VARIABLE_BYTES,
    Format,
    OutputFile,
    Value,
    as_json,
    lacks,
    variable,
)
from phala_secrets.runners.live import Live
from phala_secrets.runners.secrecy import NOT_SHOWN, Secrets
from phala_secrets.runners.text import disarm, one_line

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from phala_secrets.errors import PhalaSecretsError
    from phala_secrets.runners.report import Report, Table

_CHANGES = 500
"""Lines for changes of a state in one log: more help nobody, and a server decides how many there are."""

_AT_ONCE = 5
"""Of them before there is at most one a second: a restart has as many."""

_COLOURS = {"error": "31;1", "warning": "33", "notice": "36", "good": "32", "dim": "2"}


_CIPHERTEXT = "encrypted-env"
"""So many hex digits that any short number is among them, and made here."""


class Runner:
    """Where a run happens: how it is told to people, and where its outputs go.

    This one is for a shell: people's text goes to standard error, so that standard
    output is free for a ciphertext or JSON. A subclass per CI says what differs there.
    Only ``output_names`` can be written as outputs.
    """

    name = "shell"
    ci = False
    output_limit: int | None = None
    """Bytes that ``output-file`` may have where this CI reads it."""

    def __init__(
        self,
        environ: Mapping[str, str],
        *,
        output_names: Collection[str],
        output_file: str | None = None,
        output_format: Format = "dotenv",
        no_mask: Sequence[str] = (),
        json_output: bool = False,
        quiet: bool = False,
        verbose: bool = False,
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
        self._output_names = output_names
        self.outputs: dict[str, Value] = {}
        self._files: list[OutputFile] = []
        self._changes = 0
        self._changes_left = float(_AT_ONCE)
        self._last_change = flow.clock.monotonic()
        if output_file:
            what = f"output-file {output_file[:200]!a}"
            limit = self.output_limit if output_format == "dotenv" else None
            self._files.append(OutputFile(output_file, what, form=output_format, limit=limit))
        self._lock = threading.RLock()
        self._colour = self._talks_to_person() and not environ.get("NO_COLOR")
        self._under_way: dict[str, str] = {}
        self._live: Live | None = None

    # -- to people ---------------------------------------------------------------------------

    def say(self, text: str, style: str = "") -> None:
        """One line of what is going on; not with ``--quiet``."""
        if not self.quiet:
            self._write(self.paint(text, style))

    def trace(self, text: str) -> None:
        """One line for ``--verbose``."""
        if self.verbose:
            self._write(self.paint(text, "dim"))

    def tell(self, finding: Finding) -> None:
        """A notice, a warning, or one of several errors."""
        if finding.severity == "notice" and self.quiet:
            return
        self._problem(finding.severity, finding.message, finding.hint, finding.file, finding.line)

    def fail(self, error: PhalaSecretsError) -> None:
        """The error that ends the run, after the findings that it is made of."""
        for finding in error.findings:
            self.tell(finding)
        self._problem("error", self.message_of(error), error.marked_hint, error.file, error.line)

    def message_of(self, error: PhalaSecretsError) -> str:
        """Return what an error says; where nothing of it can be shown, what kind of error it is."""
        shown = self.secrets.screened(error.marked)
        return f"{type(error).__name__} {NOT_SHOWN}" if shown == NOT_SHOWN else error.marked

    def progress(self, text: str, *, cvm: str = "", change: bool = False) -> None:
        """What is being waited for: a spinner for a person, a line per change in a log.

        With ``cvm`` it is about one of a fleet: a line of a live table for a person, and nothing
        in a log, where each has its line when it is done. Without text that one is done. A ``change``
        of a state comes from outside: a log has one line a second for them, and a bounded number.
        """
        if self.quiet:
            return
        if not self._talks_to_person():
            if not cvm and not (change and self._too_many()):
                self.say(text)
            return
        with self._lock:
            self._under_way = {**self._under_way, cvm: self.clean(text)}
            if cvm:
                self._under_way.pop("", None)
            if not text:
                del self._under_way[cvm]
            if not self._under_way:
                self._end_live()
            elif self._live:
                self._live.show(self._under_way.values())
            else:
                self._live = Live(self.stderr, self._under_way.values())

    def _too_many(self) -> bool:
        now = flow.clock.monotonic()
        self._changes_left = min(_AT_ONCE, self._changes_left + now - self._last_change)
        self._last_change = now
        if self._changes > _CHANGES or self._changes_left < 1:
            return True
        self._changes, self._changes_left = self._changes + 1, self._changes_left - 1
        if self._changes > _CHANGES:
            self.say("further changes are not shown")
            return True
        return False

    @contextmanager
    def group(self, title: str) -> Iterator[None]:  # noqa: ARG002 (a CI that can fold lines shows it)
        """Lines that belong together: under a title where a CI can fold them, and as they are elsewhere."""
        yield

    def report(self, report: Report) -> None:
        """What the run came to."""
        if self.quiet:
            return
        self._write(self.paint(report.title, "good"))
        width = max((len(label) for label, _ in report.facts), default=0)
        for label, value in report.facts:
            self._write(f"  {label.ljust(width)}  {self.clean(value)}")
        for label, url in report.links:
            self._write(self.clean(f"{label}: {url}"))
        for table in report.tables:
            for line in self.columns(table):
                self._write(f"  {line}")
        for line in self.diff_of(report):
            self._write(f"  {self.clean(line)}")
        for sentence, paste in report.advice:
            self._write(self.clean(sentence))
            if paste:
                self._write(f"    {self.clean(paste)}")

    def clean(self, text: str) -> str:
        """Return text as one line that shows no secret and is a command to no CI."""
        return disarm(one_line(self.secrets.screened(text)))

    def diff_of(self, report: Report) -> list[str]:
        """Return the lines of a diff that show no secret, or none where several show one together."""
        lines = [self.secrets.screened(line) for line in report.diff]
        return [NOT_SHOWN] if self.secrets.owner_in("\n".join(lines)) else lines

    def columns(self, table: Table) -> list[str]:
        """A table as aligned lines, each harmless. A cell is cleaned before it is padded or cut."""
        rows = [[self.clean(cell) for cell in row] for row in (table.header, *table.rows)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return [disarm(line) for line in lines]

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
        with self._lock:
            self._end_live()
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
        self._write(self.paint(f"{severity}: {where}{message}", severity))
        if hint:
            self._write(self.clean(f"hint: {hint}"))

    def _write(self, line: str) -> None:
        with self._lock:
            self._end_live()
            self.stderr.write(line + "\n")
            self.stderr.flush()

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
