"""Stories of the CIs: each is recognised, gets outputs where it looks for them, and obeys no foreign text.

What a CI would take for a command is decided here by readers of its log, each written from that
CI's own rules and apart from the product.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from command import Command
from hypothesis import given
from hypothesis import strategies as st
from step import command_of

from phala_secrets.errors import Finding, InputError
from phala_secrets.report import Report, Table
from phala_secrets.runners import Runner, detect, in_ci
from phala_secrets.simulator import Cloud, Cvm

GITHUB = {"GITHUB_ACTIONS": "true"}
GITLAB = {"GITLAB_CI": "true"}
CIRCLECI = {"CIRCLECI": "true"}
AZURE = {"TF_BUILD": "True"}
BITBUCKET = {"BITBUCKET_BUILD_NUMBER": "17"}
BUILDKITE = {"BUILDKITE": "true"}
SHELL: dict[str, str] = {}
ALL = {
    "GitHub Actions": GITHUB,
    "GitLab CI": GITLAB,
    "CircleCI": CIRCLECI,
    "Azure Pipelines": AZURE,
    "Bitbucket Pipelines": BITBUCKET,
    "Buildkite": BUILDKITE,
    "shell": SHELL,
}
each_runner = pytest.mark.parametrize("environ", ALL.values(), ids=ALL)

# -- what each CI reads in its log ---------------------------------------------------------------


class Vso(NamedTuple):
    """A logging command of Azure Pipelines, unescaped."""

    name: str
    properties: dict[str, str]
    data: str


def vso_of(line: str) -> Vso | None:
    """What Azure's agent takes a line for: ``##vso[`` anywhere in it, up to the first ``]``."""
    match = re.search(r"##vso\[([^\]]*)\](.*)", line, re.DOTALL | re.IGNORECASE)
    if not match:
        return None

    def plain(text: str, codes: Mapping[str, str]) -> str:
        for code, character in codes.items():
            text = text.replace(code, character)
        return text.replace("%AZP25", "%")

    lines = {"%0D": "\r", "%0A": "\n"}
    every = {**lines, "%3B": ";", "%5D": "]"}
    # Whether the agent reads the other two in data as well makes no difference.
    data = plain(match[2], every)
    assert data == plain(match[2], lines)
    name, _, rest = match[1].partition(" ")
    pairs = (pair.partition("=") for pair in rest.split(";") if pair)
    return Vso(name, {key.strip(): plain(value, every) for key, _, value in pairs}, data)


def azure_commands(log: str) -> list[str]:
    """Names of the commands, formats (``##[group]``) among them."""
    names = []
    for line in log.split("\n"):
        if command := vso_of(line):
            names.append(command.name)
        elif match := re.search(r"##\[(\w+)", line):
            names.append(match[1])
    return names


def github_commands(log: str) -> list[str]:
    return [command.name for line in log.split("\n") if (command := command_of(line))]


def gitlab_commands(log: str) -> list[str]:
    """Markers of sections, and other control sequences that the log's page would follow."""
    markers = re.findall(r"section_(start|end):\d+:[a-zA-Z0-9_.-]+(?:\[.*?\])?\r\x1b\[0K", log)
    words = re.findall(r"section_(?:start|end):", log)
    assert len(words) == len(markers), "a word of a marker stands where there is none"
    rest = re.sub(r"\x1b\[0K(?:section_(?:start|end):\d+:phala_secrets_\d+\r\x1b\[0K)", "", log)
    assert "\x1b" not in rest
    return markers


def buildkite_commands(log: str) -> list[str]:
    lines = re.split(r"[\r\n]", log)
    return [line.split()[0] for line in lines if re.match(r"\s*(?:---|\+\+\+|~~~|\^\^\^)", line)]


def no_commands(_log: str) -> list[str]:
    """CircleCI, Bitbucket and a shell take no commands from a log."""
    return []


READERS: dict[str, Callable[[str], list[str]]] = {
    "GitHub Actions": github_commands,
    "GitLab CI": gitlab_commands,
    "Azure Pipelines": azure_commands,
    "Buildkite": buildkite_commands,
}

FRAGMENTS = [
    "::error::", "::add-mask::x", "::set-output name=a::b", " ::", ":", "##[", "##[error]", "##", "#",
    "##vso[", "##vso[task.setvariable variable=PATH]x", "##VSO[task.complete result=Succeeded]",
    "#\u034f#vso[", "]", ";", "%0A", "%AZP25", "\n", "\r", "\r\n", "\x1b[0K", "\x1b[2J",
    "\x1b]1338;url='x'\x07", "\u202e", "\u2028", "\x85", "\0", "section_start:1:a\r\x1b[0K",
    "section_end:1:a", "section_start:", "--- ", "+++ x", "~~~", "^^^ +++", "\t", "\ud800", "'",
    '"', "$(id)", "`id`", "; id", "\\", "${X}", "text", "naïve",
]  # fmt: skip
nasty = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=5)), max_size=6).map("".join)


def runner_of(environ: Mapping[str, str], **options: Any) -> tuple[Runner, io.StringIO, io.StringIO]:
    stdout, stderr = io.StringIO(newline=""), io.StringIO(newline="")
    return detect(environ, stdout=stdout, stderr=stderr, **options), stdout, stderr


# -- recognised ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_ci_is_recognised_by_its_own_variable(name: str) -> None:
    runner = detect(ALL[name])
    assert runner.name == name
    assert runner.environ is ALL[name]
    assert in_ci(ALL[name]) == (name != "shell")


def test_a_ci_that_is_not_known_is_one_all_the_same() -> None:
    assert in_ci({"CI": "true"})
    assert detect({"CI": "true"}).name == "shell"
    assert not in_ci({"CI": "false", "GITLAB_CI": "", "BUILDKITE": "0"})


# -- foreign text commands nothing ---------------------------------------------------------------


def tell_everything(runner: Runner, text: str) -> None:
    """Foreign text in every place where a runner prints it."""
    runner.say(text)
    runner.trace(text)
    runner.progress(text)
    runner.tell(Finding(text, text))
    runner.tell(Finding("named", text, severity="notice"))
    runner.fail(InputError(text, hint=text, file=text, line=3, findings=[Finding(text, severity="error")]))
    with runner.group(text):
        runner.say(text)
    table = Table(("name", "status"), [(text, "running")])
    runner.report(Report(text, facts=[("label", text)], tables=[table], advice=[(text, text)]))
    runner.finish()


@pytest.mark.parametrize("name", ALL)
@given(text=nasty.filter(bool))
def test_foreign_text_forges_no_command(name: str, text: str) -> None:
    read = READERS.get(name, no_commands)
    harmless, _, expected = runner_of(ALL[name], verbose=True)
    tell_everything(harmless, "x")
    runner, stdout, stderr = runner_of(ALL[name], verbose=True)
    tell_everything(runner, text)
    assert read(stderr.getvalue()) == read(expected.getvalue())
    assert len(stderr.getvalue().split("\n")) == len(expected.getvalue().split("\n"))
    assert stdout.getvalue() == ""
    own = {"\n", "\r", "\x1b"} if name == "GitLab CI" else {"\n"}
    assert {c for c in stderr.getvalue() if not c.isprintable()} <= own


@pytest.mark.parametrize(
    ("environ", "text", "shown"),
    [
        (GITLAB, "section_start:1:a section_end:2:a", "section_start :1:a section_end :2:a"),
        (BUILDKITE, "--- title", "- -- title"),
        (BUILDKITE, "a --- b", "a --- b"),
        (AZURE, "##vso[task.complete]", "# # vso[task.complete]"),
        (AZURE, "issue #1", "issue #1"),
        (CIRCLECI, "##[x] ::y:: --- z", "##[x] ::y:: --- z"),
    ],
    ids=["a section", "a header", "no header", "a logging command", "a number", "another CI's"],
)
def test_what_is_no_command_is_shown_as_it_is(environ: dict[str, str], text: str, shown: str) -> None:
    runner, _, stderr = runner_of(environ)
    runner.say(text)
    assert stderr.getvalue() == f"{shown}\n"


@pytest.mark.parametrize("name", ALL)
@given(text=nasty)
def test_json_is_one_line_that_holds_no_command(name: str, text: str) -> None:
    runner, stdout, _ = runner_of(ALL[name], json_output=True)
    rows = [{"name": text, "error": text}]
    runner.output("cvm-id", text)
    runner.output("results", rows)
    runner.finish()
    printed = stdout.getvalue()
    assert json.loads(printed) == {"cvm_id": text, "results": rows}
    assert printed.isascii()
    assert printed.count("\n") == 1
    assert github_commands(printed) == azure_commands(printed) == []


# -- Azure ---------------------------------------------------------------------------------------


@given(text=nasty)
def test_azure_gets_an_output_whatever_is_in_it(text: str) -> None:
    runner, _, stderr = runner_of(AZURE)
    runner.output("cvm-id", text)
    line, end = stderr.getvalue().split("\n")
    assert end == ""
    command = vso_of(line)
    assert command
    assert command.name == "task.setvariable"
    assert command.properties == {"variable": "PHALA_CVM_ID", "isOutput": "true"}
    assert command.data == text.encode(errors="replace").decode()


def test_azure_masks_line_by_line_and_before_all_else() -> None:
    runner, _, stderr = runner_of(AZURE)
    runner.mask(["first line\nsecond; line]\r\nabc\n", "100%"])
    commands = [vso_of(line) for line in stderr.getvalue().splitlines()]
    assert commands == [
        Vso("task.setsecret", {}, "first line"),
        Vso("task.setsecret", {}, "second; line]"),
        Vso("task.setsecret", {}, "100%"),
    ]


def test_azure_shows_a_problem_with_its_file_and_line() -> None:
    runner, _, stderr = runner_of(AZURE)
    runner.tell(Finding("A is odd", "mend it", file="a;b].env", line=3))
    runner.fail(InputError("no equals sign", hint="add one", file="a.env", line=7))
    warning, error = (vso_of(line) for line in stderr.getvalue().splitlines())
    assert warning == Vso(
        "task.logissue",
        {"type": "warning", "sourcepath": "a;b].env", "linenumber": "3"},
        "A is odd (hint: mend it)",
    )
    assert error
    assert error.properties == {"type": "error", "sourcepath": "a.env", "linenumber": "7"}


@pytest.mark.parametrize(
    ("finding", "printed"),
    [
        (Finding("odd"), "##vso[task.logissue type=warning;]odd"),
        (Finding("odd", line=3), "##vso[task.logissue type=warning;]odd"),
        (Finding("odd", file="a.env"), "##vso[task.logissue type=warning;sourcepath=a.env;]odd"),
        (
            Finding("by the way", "read on", "a.env", 3, severity="notice"),
            "notice: a.env:3: by the way\nhint: read on",
        ),
    ],
)
def test_azure_shows_what_there_is(finding: Finding, printed: str) -> None:
    runner, _, stderr = runner_of(AZURE)
    runner.tell(finding)
    assert stderr.getvalue() == f"{printed}\n"


def test_a_file_s_name_gives_no_secret_away() -> None:
    for environ in ALL.values():
        runner, _, stderr = runner_of(environ)
        runner.mask(["s3cr3t-value"])
        masked = stderr.getvalue()
        runner.tell(Finding("odd", file="certs/s3cr3t-value.pem", line=1))
        assert "certs/***.pem" in stderr.getvalue()
        assert "s3cr3t-value" not in stderr.getvalue().removeprefix(masked)


# -- CircleCI ------------------------------------------------------------------------------------


def sourced(shell: list[str], file: Path) -> dict[str, str]:
    """The exported variables of a shell that has sourced a file."""
    done = subprocess.run(
        [*shell, '. "$1" && exec env -0', "sh", str(file)],
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    pairs = (entry.partition("=") for entry in done.stdout.decode().split("\0"))
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_circleci_sources_each_output_as_it_was(shell: str, tmp_path: Path) -> None:
    texts = [*FRAGMENTS, "".join(FRAGMENTS), "it's; touch forged", "'\n'", "-n"]
    file = tmp_path / "bash_env"
    file.write_text("export BEFORE=1\n")
    runner, _, _ = runner_of({**CIRCLECI, "BASH_ENV": str(file)})
    runner.check()
    for number, text in enumerate(texts):
        runner.output(f"cvm-{number}", text)
    variables = sourced([shell, "-c"], file)
    for number, text in enumerate(texts):
        expected = text.replace("\0", "").encode(errors="replace").decode()
        assert variables[f"PHALA_CVM_{number}"] == expected
    assert variables["BEFORE"] == "1"
    assert "\0" not in file.read_text()
    assert not (tmp_path / "forged").exists()


def test_an_output_that_no_variable_can_hold_is_left_out_and_told(tmp_path: Path) -> None:
    file = tmp_path / "bash_env"
    for environ, where in (({**CIRCLECI, "BASH_ENV": str(file)}, "$BASH_ENV"), (AZURE, "this step")):
        runner, _, stderr = runner_of(environ)
        runner.output("encrypted-env", "a" * 131_050)
        runner.output("encrypted-env", "b" * 131_100)
        written = file.read_text() if environ is not AZURE else stderr.getvalue()
        assert "aaa" in written
        assert "bbb" not in written
        assert f"{where} lacks the output encrypted-env: it is longer than" in stderr.getvalue()
    assert sourced(["bash", "-c"], file)["PHALA_ENCRYPTED_ENV"].startswith("aaa")


# -- GitLab and Bitbucket ------------------------------------------------------------------------


def test_gitlabs_report_keeps_to_its_five_kibibytes(tmp_path: Path) -> None:
    file = tmp_path / "report.env"
    runner, _, stderr = runner_of(GITLAB, output_file=str(file))
    runner.check()
    runner.output("cvm-id", "cvm_1")
    runner.output("env-keys", [f"NAME_{number}" for number in range(300)])
    runner.output("encrypted-env", "ab" * 4000)
    runner.output("encrypted-env", "cd" * 4000)
    runner.output("safe-transaction", '{\n  "version": "1.0"\n}')
    runner.output("device-id", "")
    runner.output("status", "precondition_required")
    lines = file.read_text().splitlines()
    assert [line.partition("=")[0] for line in lines] == ["PHALA_CVM_ID", "PHALA_ENV_KEYS", "PHALA_STATUS"]
    assert len(file.read_bytes()) <= 5 * 1024
    assert [line for line in stderr.getvalue().splitlines() if not line.startswith("hint: ")] == [
        f"warning: output-file {str(file)!a} lacks the output encrypted-env: it may have 5120 bytes",
        f"notice: output-file {str(file)!a} lacks the output safe-transaction: it takes single lines",
    ]


@given(values=st.lists(nasty, max_size=6))
def test_a_dotenv_file_has_a_line_for_each_output_and_nothing_else(values: list[str]) -> None:
    with_lines = {}
    with TemporaryDirectory() as folder:
        path = Path(folder, "outputs.env")
        runner, _, _ = runner_of(GITLAB, output_file=str(path))
        runner.check()
        for number, value in enumerate(values):
            runner.output(f"cvm-{number}", value)
            if value and not re.search("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029\0]", value):
                with_lines[f"PHALA_CVM_{number}"] = value.encode(errors="replace").decode()
        lines = path.read_text().split("\n")
        assert lines.pop() == ""
        pairs = (line.partition("=") for line in lines)
        assert {name: value for name, _, value in pairs} == with_lines


def test_bitbuckets_file_keeps_what_it_held(tmp_path: Path) -> None:
    file = tmp_path / "variables"
    file.write_text("VERSION=1.2.3")
    runner, _, stderr = runner_of({**BITBUCKET, "BITBUCKET_PIPELINES_VARIABLES_PATH": str(file)})
    runner.check()
    runner.output("status", "in_progress")
    runner.output("encrypted-env", "a" * 131_100)
    runner.output("status", "running")
    assert file.read_text() == "VERSION=1.2.3\nPHALA_STATUS=running\n"
    assert "lacks the output encrypted-env: it may have 131072 bytes" in stderr.getvalue()


@each_runner
def test_outputs_are_in_the_output_file_whatever_the_ci(environ: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "outputs.env"
    runner, _, _ = runner_of(environ, output_file=str(file))
    runner.check()
    runner.output("status", "running")
    assert file.read_text() == "PHALA_STATUS=running\n"


def test_once_the_update_is_on_its_way_an_output_that_is_lost_is_only_told(tmp_path: Path) -> None:
    file = tmp_path / "outputs.env"
    runner, _, stderr = runner_of(SHELL, output_file=str(file))
    runner.output("cvm-id", "cvm_1")
    file.unlink()
    file.mkdir()
    with pytest.raises(InputError, match="Is a directory"):
        runner.output("app-id", "ab")
    file.rmdir()
    runner.no_way_back()
    file.mkdir()
    runner.output("status", "running")
    assert "Is a directory; the output status is missing there" in stderr.getvalue()
    assert runner.outputs["status"] == runner.last_status() == "running"


@each_runner
def test_a_ci_that_names_no_file_gets_none(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runner, _, _ = runner_of(environ)
    runner.check()
    runner.output("status", "running")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        (CIRCLECI, "BASH_ENV"),
        (BITBUCKET, "BITBUCKET_PIPELINES_VARIABLES_PATH"),
        (GITHUB, "GITHUB_OUTPUT"),
    ],
)
def test_a_file_that_cannot_be_written_stops_a_run_before_it_sends(
    environ: dict[str, str], variable: str, run: Command, cloud: Cloud, cvm: Cvm
) -> None:
    run.write(".env", "OLD=2")
    done = run(
        "update", "--cvm", "my-app", "--env-file", ".env", environ={**environ, variable: "/nowhere/file"}
    )
    assert done.code == 2
    assert f"${variable} cannot be written: No such file or directory" in done.printed
    assert cvm.environment == {"OLD": "1"}
    assert not cloud.requests


# -- groups --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "begins", "ends"),
    [
        (GITHUB, "::group::", "::endgroup::"),
        (GITLAB, "\x1b[0Ksection_start:", "\r\x1b[0K"),
        (AZURE, "##[group]", "##[endgroup]"),
        (BUILDKITE, "+++ ", "inside"),
    ],
)
def test_a_group_is_what_the_ci_can_fold(environ: dict[str, str], begins: str, ends: str) -> None:
    runner, _, stderr = runner_of(environ)
    with runner.group("the title"):
        runner.say("inside")
    first, *_, last = stderr.getvalue().rstrip("\n").split("\n")
    assert first.startswith(begins)
    assert first.endswith("the title")
    assert last.endswith(ends)


@each_runner
def test_without_verbose_nothing_is_traced(environ: dict[str, str]) -> None:
    runner, stdout, stderr = runner_of(environ)
    runner.trace("a request")
    assert stdout.getvalue() + stderr.getvalue() == ""


@each_runner
def test_quiet_prints_neither_groups_nor_lines(environ: dict[str, str]) -> None:
    runner, stdout, stderr = runner_of(environ, quiet=True)
    with runner.group("the title"):
        runner.say("inside")
        runner.progress("waiting")
    runner.report(Report("done"))
    runner.tell(Finding("by the way", severity="notice"))
    assert stdout.getvalue() + stderr.getvalue() == ""


# -- a person at a terminal -----------------------------------------------------------------------


class Terminal:
    """A terminal's two ends: a runner's standard error, and what a person sees."""

    def __init__(self, columns: int = 80) -> None:
        self._person, self.descriptor = pty.openpty()
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream = os.fdopen(self.descriptor, "w", newline="")
        self.seen = ""

    def shows(self, text: str) -> bool:
        """Whether a text comes up within a while."""
        while text not in self.seen and select.select([self._person], [], [], 5)[0]:
            self.seen += os.read(self._person, 65536).decode()
        return text in self.seen

    def close(self) -> None:
        self.stream.close()
        os.close(self._person)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


def test_a_person_sees_what_is_waited_for_and_no_more_of_it_afterwards(terminal: Terminal) -> None:
    runner = Runner({"TERM": "xterm"}, stderr=terminal.stream)
    runner.progress("finding the CVM")
    assert terminal.shows("⠋ finding the CVM")
    runner.progress("waiting\x1b[2J")
    assert terminal.shows("waiting\\u001b[2J")
    runner.say("done", "good")
    assert terminal.shows("\r\x1b[J\x1b[32mdone\x1b[0m\r\n")
    runner.progress("one more")
    runner.finish()
    runner.finish()
    assert terminal.shows("\r\x1b[J")


def test_of_a_fleet_a_person_sees_a_line_for_each_that_is_under_way(terminal: Terminal) -> None:
    runner = Runner({"TERM": "xterm"}, stderr=terminal.stream)
    runner.progress("the update")
    for number in range(20):
        runner.progress(f"web-{number}: restarting", cvm=f"web-{number}")
    assert terminal.shows("web-15: restarting\r\n  and 4 more")
    assert "the update" not in terminal.seen
    assert terminal.shows("\r\x1b[16A\x1b[J"), "back to the first line"
    for number in range(20):
        runner.progress("", cvm=f"web-{number}")
    runner.say("over")
    assert terminal.shows("\x1b[Jover\r\n")


def test_a_line_is_no_wider_than_the_terminal() -> None:
    terminal = Terminal(columns=20)
    runner = Runner({"TERM": "xterm"}, stderr=terminal.stream)
    runner.progress("x" * 50 + "END")
    assert terminal.shows("⠙ " + "x" * 17)
    runner.finish()
    assert not re.search("x{18}", terminal.seen)
    terminal.close()


class NoDescriptor(io.StringIO):
    """What a notebook or an editor has for a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_of_unknown_width_is_taken_for_a_small_one() -> None:
    stream = NoDescriptor()
    runner = Runner({}, stderr=stream)
    runner.progress("x" * 100)
    for _ in range(500):
        if "x" in stream.getvalue():
            break
        time.sleep(0.01)
    runner.finish()
    assert re.findall("x+", stream.getvalue())[0] == "x" * 77


@pytest.mark.parametrize(
    ("environ", "printed"),
    [
        ({"TERM": "xterm"}, "\x1b[33mwarning: odd\x1b[0m\r\n"),
        ({"TERM": "xterm", "NO_COLOR": "1"}, "warning: odd\r\n"),
        ({"TERM": "dumb"}, "waiting\r\nwarning: odd\r\n"),
        ({"TERM": "xterm", "GITLAB_CI": "true"}, "waiting\r\nwarning: odd\r\n"),
    ],
    ids=["colours", "no colours", "a dumb terminal", "a CI with a terminal"],
)
def test_a_terminal_gets_what_it_can_show(environ: dict[str, str], printed: str, terminal: Terminal) -> None:
    runner = detect(environ, stderr=terminal.stream)
    runner.progress("waiting")
    runner.tell(Finding("odd"))
    assert terminal.shows(printed)
    assert printed.startswith("\x1b") == ("\x1b[33m" in terminal.seen)


@each_runner
def test_a_fleet_in_a_log_has_a_line_for_each_cvm_when_it_is_done(environ: dict[str, str]) -> None:
    runner, _, stderr = runner_of(environ)
    runner.progress("web-1: restarting", cvm="web-1")
    runner.progress("", cvm="web-1")
    assert stderr.getvalue() == ""


# -- whole runs ----------------------------------------------------------------------------------


@each_runner
def test_json_is_alone_on_standard_output(environ: dict[str, str], run: Command, cvm: Cvm) -> None:
    run.write(".env", "OLD=2\nTOKEN=t0ken-value")
    done = run("update", "--cvm", "my-app", "--env-file", ".env", "--json", environ=environ)
    assert done.code == 0, done.stderr
    assert done.json["status"] == "running"
    assert done.json["cvm_id"] == cvm.id
    assert done.json["keys_added"] == ["TOKEN"]
    assert "update accepted" in done.stderr
    assert cvm.environment == {"OLD": "2", "TOKEN": "t0ken-value"}


@each_runner
def test_a_ciphertext_is_alone_on_standard_output(environ: dict[str, str], run: Command, cvm: Cvm) -> None:
    run.write(".env", "OLD=2")
    done = run("encrypt", "--cvm", "my-app", "--env-file", ".env", environ=environ)
    assert done.code == 0, done.stderr
    assert re.fullmatch(r"[0-9a-f]{100,}\n", done.stdout)
    assert "key" in done.stderr


@each_runner
def test_a_refusal_leaves_standard_output_empty(environ: dict[str, str], run: Command, cvm: Cvm) -> None:
    done = run("update", "--cvm", "my-app", "--env-file", "missing.env", environ=environ)
    assert done.code == 2
    assert done.stdout == ""
    assert "missing.env" in done.stderr


@each_runner
def test_verbose_tells_of_each_request_and_of_no_value(
    environ: dict[str, str], run: Command, cloud: Cloud, cvm: Cvm
) -> None:
    run.write(".env", "OLD=canary-value")
    arguments = ("update", "--cvm", "my-app", "--env-file", ".env", "--no-wait")
    plain = run(*arguments, environ=environ)
    assert "PATCH" not in plain.stderr
    cvm.wait()
    for done in (
        run(*arguments, "--verbose", environ=environ),
        run(*arguments, environ={**environ, "RUNNER_DEBUG": "1"}),
    ):
        assert re.search(r"PATCH /\S+/envs.*\b202\b", done.stderr), done.stderr
        shown = [line for line in done.stderr.splitlines() if "mask" not in line and "setsecret" not in line]
        assert not any("canary-value" in line or cloud.api_key in line for line in shown)


@each_runner
def test_quiet_is_quiet_when_all_goes_well(environ: dict[str, str], run: Command, cvm: Cvm) -> None:
    run.write(".env", "OLD=2")
    pinned = ("--app-id", cvm.app_id, "--trusted-signers", cvm.kms.root_public_key)
    done = run("update", "--cvm", "my-app", "--env-file", ".env", *pinned, "--quiet", environ=environ)
    assert done.code == 0
    commands = ("::add-mask::", "##vso[task.setsecret]", "##vso[task.setvariable ")
    assert [line for line in done.printed.splitlines() if not line.startswith(commands)] == []


def test_outputs_are_where_each_ci_looks_for_them(run: Command, cvm: Cvm, tmp_path: Path) -> None:
    run.write(".env", "OLD=2\nQUOTED='it is $HOME'")
    arguments = ("update", "--cvm", "my-app", "--env-file", ".env")
    bash_env, variables, report = (tmp_path / name for name in ("bash_env", "variables", "report"))

    assert run(*arguments, environ={**CIRCLECI, "BASH_ENV": str(bash_env)}).code == 0
    assert sourced(["sh", "-c"], bash_env)["PHALA_STATUS"] == "running"
    assert json.loads(sourced(["bash", "-c"], bash_env)["PHALA_ENV_KEYS"]) == ["OLD", "QUOTED"]

    place = {"BITBUCKET_PIPELINES_VARIABLES_PATH": str(variables)}
    assert run(*arguments, environ={**BITBUCKET, **place}).code == 0
    assert f"PHALA_CVM_ID={cvm.id}\n" in variables.read_text()

    assert run(*arguments, "--output-file", str(report), environ=GITLAB).code == 0
    assert 'PHALA_ENV_KEYS=["OLD","QUOTED"]\n' in report.read_text()
    assert "PHALA_STATUS=running\n" in report.read_text()

    lines = run(*arguments, environ=AZURE).stderr.splitlines()
    commands = [command for line in lines if (command := vso_of(line))]
    outputs = {each.properties["variable"]: each.data for each in commands if "variable" in each.properties}
    assert outputs["PHALA_STATUS"] == "running"
    assert json.loads(outputs["PHALA_ENV_KEYS"]) == ["OLD", "QUOTED"]
    masks = [index for index, each in enumerate(commands) if each.name == "task.setsecret"]
    others = [index for index, each in enumerate(commands) if each.name != "task.setsecret"]
    assert max(masks) < min(others)
