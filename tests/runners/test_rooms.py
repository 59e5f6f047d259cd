"""Stories of the CIs: each is recognised, gets outputs where it looks for them, and obeys no foreign text.

What a CI would take for a command is decided here by readers of its log, each written from that
CI's own rules and apart from the product.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
import stat
import subprocess
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phala_secrets.errors import Finding, InputError
from phala_secrets.inputs.table import OUTPUTS
from phala_secrets.runners import azure
from phala_secrets.runners.base import Runner
from phala_secrets.runners.detect import _ROOMS, detect, in_ci
from phala_secrets.runners.report import Line, Names, Report, Table
from tests.runners.test_text import in_words
from tests.support.step import command_of

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


def runner_of(
    environ: Mapping[str, str], *, output_names: Collection[str] = OUTPUTS, **options: Any
) -> tuple[Runner, io.StringIO, io.StringIO]:
    stdout, stderr = io.StringIO(newline=""), io.StringIO(newline="")
    return detect(environ, output_names=output_names, stdout=stdout, stderr=stderr, **options), stdout, stderr


# -- recognised ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_a_ci_is_recognised_by_its_own_variable(name: str) -> None:
    runner = detect(ALL[name], output_names=OUTPUTS)
    assert runner.name == name
    assert runner.environ is ALL[name]
    assert in_ci(ALL[name]) == (name != "shell")


def test_every_ci_that_is_recognised_is_tested_here() -> None:
    assert {variable for environ in ALL.values() for variable in environ} == {*_ROOMS}


def test_an_unknown_ci_counts_as_ci() -> None:
    assert in_ci({"CI": "true"})
    assert detect({"CI": "true"}, output_names=OUTPUTS).name == "shell"
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
    names = [Names([Line("+", text, text, text)], text, text)]
    paste = text.replace("\n", "\r")  # several lines to paste are our own
    report = Report(text, names=names, facts=[("label", text)], tables=[table], advice=[(text, paste)])
    report.glance = [text]
    runner.report(report)
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
        (AZURE, "##vso[task.complete]", "# #vso[task.complete]"),
        (AZURE, "issue #1", "issue #1"),
        (CIRCLECI, "##[x] ::y:: --- z", "# #[x] ::y:: --- z"),
        (CIRCLECI, "::x:: y", ": :x:: y"),
    ],
    ids=["a section", "a header", "no header", "a logging command", "a number", "another CI's", "GitHub's"],
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


@given(text=nasty.filter(lambda text: text[:1] not in ("[", "{")))  # JSON is written for scripts
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


def test_azure_s_escapes_are_those_of_its_source() -> None:
    assert azure.escape_data("%\r\n;]") == "%AZP25%0D%0A;]"
    assert azure.escape_property("%\r\n;]") == "%AZP25%0D%0A%3B%5D"


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
        assert "odd" in stderr.getvalue()
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
    names = [f"cvm-{number}" for number in range(len(texts))]
    runner, _, _ = runner_of({**CIRCLECI, "BASH_ENV": str(file)}, output_names=names)
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


def test_a_file_of_circleci_that_cannot_be_written_is_named() -> None:
    runner, _, _ = runner_of({**CIRCLECI, "BASH_ENV": "/nowhere/file"})
    with pytest.raises(InputError, match=r"(?m)^\$BASH_ENV cannot be written: No such file or directory$"):
        runner.check()


def test_an_output_that_no_variable_can_hold_is_left_out_and_told(tmp_path: Path) -> None:
    file = tmp_path / "bash_env"
    for environ, where in (({**CIRCLECI, "BASH_ENV": str(file)}, "$BASH_ENV"), (AZURE, "this step")):
        runner, _, stderr = runner_of(environ)
        runner.output("encrypted-env", "a" * 131_050)
        runner.output("encrypted-env", "b" * 131_100)
        written = file.read_text() if environ is not AZURE else stderr.getvalue()
        assert "aaa" in written
        assert "bbb" not in written
        assert f"{where} lacks the output encrypted-env: it is too long for" in stderr.getvalue()
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
        f"warning: output-file {str(file)!a} lacks the output encrypted-env: the limit is 5120 bytes",
        f"notice: output-file {str(file)!a} lacks the output safe-transaction: only single lines fit",
    ]


@given(values=st.lists(nasty, max_size=6))
def test_a_dotenv_file_has_a_line_for_each_output_and_nothing_else(values: list[str]) -> None:
    with_lines = {}
    with TemporaryDirectory() as folder:
        path = Path(folder, "outputs.env")
        names = [f"cvm-{number}" for number in range(len(values))]
        runner, _, _ = runner_of(GITLAB, output_names=names, output_file=str(path))
        runner.check()
        for number, value in enumerate(values):
            runner.output(f"cvm-{number}", value)
            if value and not re.search("[\n\r\v\f\x1c-\x1e\x85\u2028\u2029\0]", value):
                with_lines[f"PHALA_CVM_{number}"] = in_words(value.encode(errors="replace").decode())
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
    told = "$BITBUCKET_PIPELINES_VARIABLES_PATH lacks the output encrypted-env: the limit is 131072 bytes"
    assert told in stderr.getvalue()


@each_runner
def test_an_output_that_is_not_in_the_table_cannot_be_written(environ: dict[str, str]) -> None:
    runner, stdout, stderr = runner_of(environ, json_output=True)
    with pytest.raises(ValueError, match="unknown output 'typo'"):
        runner.output("typo", "x")
    runner.finish()
    assert (stdout.getvalue(), stderr.getvalue()) == ("{}\n", "")


@each_runner
def test_outputs_are_in_the_output_file_whatever_the_ci(environ: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "outputs.env"
    runner, _, _ = runner_of(environ, output_file=str(file))
    runner.check()
    runner.output("status", "running")
    assert file.read_text() == "PHALA_STATUS=running\n"


def test_an_output_that_cannot_be_written_is_an_error_until_it_can(tmp_path: Path) -> None:
    file = tmp_path / "outputs.env"
    runner, _, _ = runner_of(SHELL, output_file=str(file))
    runner.output("cvm-id", "cvm_1")
    file.unlink()
    file.mkdir()
    with pytest.raises(InputError, match="Is a directory"):
        runner.output("app-id", "ab")
    file.rmdir()
    runner.output("status", "running")
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


def test_an_output_may_be_as_long_as_a_variable_and_not_a_byte_longer(tmp_path: Path) -> None:
    file = tmp_path / "bash_env"
    runner, _, stderr = runner_of({**CIRCLECI, "BASH_ENV": str(file)})
    name = "PHALA_CVM_ID="
    runner.output("cvm-id", "a" * (128 * 1024 - 1 - len(name)))  # and a NUL at its end
    assert stderr.getvalue() == ""
    runner.output("cvm-id", "b" * (128 * 1024 - len(name)))
    assert "bbb" not in file.read_text()


def test_outputs_are_for_every_step_of_the_job(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        runner, _, _ = runner_of(SHELL, output_file=str(tmp_path / "outputs.env"))
        runner.check()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "outputs.env").stat().st_mode) == 0o666


# -- in a log -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finding", "line"),
    [
        (Finding("odd", file="a.env", line=3), "warning: a.env:3: odd"),
        (Finding("odd", file="a.env"), "warning: a.env: odd"),
        (Finding("a.env is odd", file="a.env"), "warning: a.env is odd"),
        (Finding("odd", line=3), "warning: odd"),
    ],
)
def test_a_problem_says_where_it_is_once(finding: Finding, line: str) -> None:
    runner, _, stderr = runner_of(SHELL)
    runner.tell(finding)
    assert stderr.getvalue() == f"{line}\n"


def test_a_failure_says_what_to_do() -> None:
    runner, _, stderr = runner_of(SHELL)
    assert runner.last_status() == "failed"
    runner.fail(InputError("no CVM specified", hint="give cvm", file="phala.toml", line=2))
    assert stderr.getvalue() == "error: phala.toml:2: no CVM specified\nhint: give cvm\n"


def test_a_report_is_aligned() -> None:
    runner, _, stderr = runner_of(SHELL)
    table = Table(("CVM", "status"), [("web-1", "running"), ("a", "")])
    runner.report(Report("Done", facts=[("app", "ab"), ("KMS root", "02")], tables=[table]))
    assert stderr.getvalue() == (
        "Done\n  app       ab\n  KMS root  02\n  CVM    status\n  web-1  running\n  a\n"
    )


def test_what_no_annotation_is_left_for_says_its_place_all_the_same() -> None:
    runner, _, stderr = runner_of(GITHUB)
    for _ in range(10):
        runner.tell(Finding("odd", "mend it", file="a.env", line=3))
    assert stderr.getvalue().endswith("warning: a.env:3: odd\nhint: mend it\n")


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
        runner.paused("trying again")
        runner.paused()
    runner.report(Report("done", names=[Names([Line("+", "A")], "1 variable")]))
    runner.tell(Finding("by the way", severity="notice"))
    assert stdout.getvalue() + stderr.getvalue() == ""


def test_quiet_leaves_the_diff_of_a_plan() -> None:
    runner, _, stderr = runner_of(SHELL, quiet=True)
    names = Names([Line("+", "A", note="used"), Line("-", "LONG", "would be dropped", "used")], "1 variable")
    runner.report(Report("Plan", names=[names], names_asked_for=True, facts=[("app", "a")]))
    assert stderr.getvalue() == (
        "  + A                        used\n  - LONG (would be dropped)  used\n  1 variable\n"
    )


@each_runner
def test_a_fleet_in_a_log_has_a_line_for_each_cvm_when_it_is_done(environ: dict[str, str]) -> None:
    runner, _, stderr = runner_of(environ)
    runner.progress("web-1: restarting", cvm="web-1")
    runner.progress("", cvm="web-1")
    assert stderr.getvalue() == ""


# -- a summary where Azure shows one --------------------------------------------------------------


def uploaded(folder: Path, *reports: Report, fails: bool = False, **options: Any) -> str:
    """What Azure's agent shows of a run: each file that it is told to upload, and that it finds."""
    environ = {**AZURE, "AGENT_TEMPDIRECTORY": str(folder)}
    runner, _, log = runner_of(environ, **options)
    runner.mask_variables({"TOKEN": ["s3cr3t-value"]})
    for report in reports:
        runner.report(report)
    if fails:
        runner.fail(InputError("it is wrong", hint="mend it"), Report("Failed", good=False))
    runner.finish()
    commands = [command for line in log.getvalue().split("\n") if (command := vso_of(line))]
    paths = [Path(command.data) for command in commands if command.name == "task.uploadsummary"]
    assert all(path.is_absolute() and path.parent == folder and path.suffix == ".md" for path in paths)
    assert sorted(folder.iterdir()) == paths
    return "".join(path.read_text() for path in paths)


def test_azure_shows_the_summary_as_a_file_of_the_agents_folder(tmp_path: Path) -> None:
    report = Report("Done", facts=[("CVM", "my-app")])
    assert uploaded(tmp_path, report).startswith("### Done\n")


def test_azure_shows_it_for_a_quiet_run_too_and_once_with_the_error_at_the_end(tmp_path: Path) -> None:
    text = uploaded(tmp_path, Report("Plan"), fails=True, quiet=True)
    assert (
        text.index("### Plan") < text.index("### Failed") < text.index("it is wrong") < text.index("mend it")
    )


@pytest.mark.parametrize("name", ["GitHub Actions", "Azure Pipelines"])
def test_a_summary_file_gets_what_the_ci_s_own_page_gets(name: str, tmp_path: Path) -> None:
    runner, _, _ = runner_of(ALL[name], summary_file=str(tmp_path / "summary.md"))
    runner.report(Report("Done"))
    assert (tmp_path / "summary.md").read_text().startswith("### Done\n")


def test_two_steps_of_azure_have_a_summary_each(tmp_path: Path) -> None:
    for title in ("First", "Second"):
        folder = tmp_path / title
        folder.mkdir()
        uploaded(folder, Report(title))
    names = {path.name for path in tmp_path.glob("*/*.md")}
    assert len(names) == 2


def test_azure_gets_no_summary_where_there_is_nothing_to_say(tmp_path: Path) -> None:
    assert uploaded(tmp_path) == ""


@pytest.mark.parametrize("folder", [None, "", ".", "nowhere", "/nowhere/at/all", "/dev/null"])
def test_azure_is_told_of_no_file_that_the_agent_would_not_find(folder: str | None) -> None:
    """A container has a folder of the agent only where the step mounts it; a missing file fails the step."""
    environ = AZURE if folder is None else {**AZURE, "AGENT_TEMPDIRECTORY": folder}
    runner, _, log = runner_of(environ)
    runner.report(Report("Done"))
    runner.finish()
    assert "uploadsummary" not in log.getvalue()


def test_a_summary_that_azures_folder_does_not_take_is_no_reason_to_fail(tmp_path: Path) -> None:
    runner, _, log = runner_of({**AZURE, "AGENT_TEMPDIRECTORY": str(tmp_path)})
    runner.report(Report("Done"))
    refusal = InputError("it cannot be written", hint="look")
    with mock.patch.object(azure, "overwrite", side_effect=refusal) as overwrite:
        runner.finish()
    assert overwrite.call_args.args[-1] == "the summary in AGENT_TEMPDIRECTORY"
    assert "uploadsummary" not in log.getvalue()
    assert "##vso[task.logissue type=warning;]it cannot be written (hint: look)" in log.getvalue()


@given(nasty)
def test_no_text_in_azures_summary_is_markup_or_a_command(text: str) -> None:
    with TemporaryDirectory() as folder:
        report = Report(text, facts=[(text, text)], tables=[Table((text,), [(text,)])], advice=[(text, "")])
        shown = uploaded(Path(folder), report)
    assert not re.search(r"<(?!/?(?:table|tr|th|td|code|samp|pre|details|summary)\b|!-- -->)", shown)
    assert "##vso" not in shown
    assert "]1338" not in shown


def test_a_secret_is_not_in_azures_summary(tmp_path: Path) -> None:
    for text in ("s3cr3t-value", "s3cr3t%2Dvalue", base64.b64encode(b"s3cr3t-value").decode()):
        folder = tmp_path / str(len(text))
        folder.mkdir(exist_ok=True)
        shown = uploaded(folder, Report("Done", facts=[("guest", text)], advice=[(f"see {text}", text)]))
        assert text not in shown
        assert "not shown" in shown
        for path in folder.iterdir():
            path.unlink()


def test_azures_summary_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(azure, "_SUMMARY_BYTES", 40)
    text = uploaded(tmp_path, Report("First"), Report("Long " * 20), Report("Last"))
    assert text == "### First\n\n### Last\n\n"
