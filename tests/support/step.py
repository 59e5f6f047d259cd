"""A step of a workflow as GitHub's runner runs it, and as the runner reads what the step leaves.

The reading is from the runner's own rules (``ActionCommand.cs``, ``FileCommandManager.cs``), written
apart from the product: it is what decides whether a forged command would count.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from phala_secrets.simulator.server import Simulator
from tests.support.command import ENTRYPOINT, Command, Outcome

_LINE_END = re.compile(r"\r\n|\r|\n")
_COLONS = re.compile(r"\s*::(?P<name>[^\s:]+)(?: (?P<properties>.*?))?::(?P<data>.*)", re.DOTALL)
_BRACKETS = re.compile(r"##\[(?P<name>[^\s\]]+)(?: (?P<properties>[^\]]*))?\](?P<data>.*)", re.DOTALL)


class WorkflowCommand(NamedTuple):
    """One command that the runner acts on, unescaped."""

    name: str
    properties: dict[str, str]
    data: str


def command_of(line: str) -> WorkflowCommand | None:
    """What the runner takes a line of a log for."""
    if match := _COLONS.match(line):
        escapes = {"%0D": "\r", "%0A": "\n", "%3A": ":", "%2C": ",", "%25": "%"}
        separator = ","
    elif match := _BRACKETS.search(line):
        escapes = {"%0D": "\r", "%0A": "\n", "%5D": "]", "%3B": ";", "%25": "%"}
        separator = ";"
    else:
        return None

    def plain(text: str, codes: Mapping[str, str]) -> str:
        for code, character in codes.items():
            text = text.replace(code, character)
        return text

    pairs = (pair.partition("=") for pair in (match["properties"] or "").split(separator) if pair)
    properties = {name.strip(): plain(value, escapes) for name, _, value in pairs}
    data_escapes = {code: escapes[code] for code in escapes if code not in ("%3A", "%2C")}
    return WorkflowCommand(match["name"], properties, plain(match["data"], data_escapes))


def read_outputs(text: str) -> dict[str, str]:
    """``$GITHUB_OUTPUT`` as the runner reads it; ValueError where it would fail the step."""
    outputs: dict[str, str] = {}
    lines = iter(text.split("\n"))  # of a file, Linux's runner knows no other line end
    for line in lines:
        if not line:
            continue
        equals, heredoc = line.find("="), line.find("<<")
        if equals >= 0 and (heredoc < 0 or equals < heredoc):
            name, _, value = line.partition("=")
            outputs[name] = value
        elif heredoc >= 0:
            name, _, delimiter = line.partition("<<")
            value_lines = []
            for value_line in lines:
                if value_line == delimiter:
                    break
                value_lines.append(value_line)
            else:
                raise ValueError(f"no end of {name}")
            outputs[name] = "\n".join(value_lines)
        else:
            raise ValueError("a line that is no output")
    return outputs


@dataclass(frozen=True, slots=True)
class Done:
    """A step that is over: its exit code, its log, and the files that it was given."""

    code: int
    log: str
    output_file: str
    summary: str

    @property
    def lines(self) -> list[str]:
        """The log's lines as the runner ends them."""
        return _LINE_END.split(self.log)

    @property
    def outputs(self) -> dict[str, str]:
        return read_outputs(self.output_file)

    @property
    def commands(self) -> list[WorkflowCommand]:
        return [command for line in self.lines if (command := command_of(line))]

    def annotations(self, kind: str) -> list[WorkflowCommand]:
        """``error``, ``warning`` or ``notice``."""
        return [command for command in self.commands if command.name == kind]

    @property
    def masks(self) -> list[str]:
        return [command.data for command in self.commands if command.name == "add-mask"]

    @property
    def shown(self) -> str:
        """The log as a reader sees it: without the commands that the runner swallows, and masked."""
        lines: list[str] = []
        masks: list[str] = []
        for line in self.lines:
            command = command_of(line)
            if command and command.name == "add-mask":
                # The runner registers the whole value, and each of its lines.
                masks += filter(None, [command.data, *command.data.splitlines()])
                continue
            for mask in sorted(masks, key=len, reverse=True):
                line = line.replace(mask, "***")
            lines.append(line)
        return "\n".join(lines)


class Step:
    """The action's step in a workspace: its inputs are ``INPUT_…`` variables, its command line is empty."""

    def __init__(self, simulator: Simulator, folder: Path) -> None:
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        self.output, self.summary = folder / "output", folder / "summary"
        self._command = Command(simulator, self.workspace, one_stream=True)
        self._command.environ |= {
            "CI": "true",
            "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": str(self.workspace),
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "PHALA_CLOUD_API_KEY": None,
            "PHALA_CLOUD_API_PREFIX": None,
        }
        self.inputs = {
            "mode": "update",
            "cvm": "my-app",
            "api-key": simulator.cloud.api_key,
            "api-url": simulator.url,
        }
        self.write = self._command.write

    def variables(
        self, inputs: Mapping[str, str | None], environ: Mapping[str, str | None] | None = None
    ) -> dict[str, str]:
        """The environment of a step: its inputs by their names in a workflow, and what ``env:`` adds."""
        given = {**self.inputs, **{name.replace("_", "-"): value for name, value in inputs.items()}}
        named = {f"INPUT_{name.upper()}": value for name, value in given.items() if value is not None}
        return self._command.variables({**named, **(environ or {})})

    def __call__(self, *, environ: Mapping[str, str | None] | None = None, **inputs: str | None) -> Done:
        """The step in this process; inputs as keywords, ``_`` for ``-``."""
        return self._run(self._command(environ=self.variables(inputs, environ)))

    def apart(
        self,
        *,
        environ: Mapping[str, str | None] | None = None,
        under: tuple[str, ...] = (),
        **inputs: str | None,
    ) -> Done:
        """The step as the image runs it, ``python -I entrypoint.py``; ``under`` is what to run that with."""
        variables = self.variables(inputs, environ)
        python = (*under, sys.executable, "-IB", str(ENTRYPOINT))
        return self._run(self._command.apart(environ=variables, python=python))

    def _run(self, outcome: Outcome) -> Done:
        output, summary = (path.read_text() if path.is_file() else "" for path in (self.output, self.summary))
        for path in (self.output, self.summary):
            path.unlink(missing_ok=True)
        return Done(outcome.code, outcome.stdout, output, summary)
