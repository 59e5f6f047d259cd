"""What runners make of foreign text and of secrets: nothing forged, nothing shown, everything read back.

The readers are those of ``step``: GitHub's rules, written apart from the product.
"""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import re
import select
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values
from hypothesis import example, given
from hypothesis import strategies as st

from phala_secrets.errors import ApiError, Finding, InputError, PhalaSecretsError, unmarked
from phala_secrets.inputs.table import OUTPUTS
from phala_secrets.runners import files
from phala_secrets.runners.files import (
    OutputFile,
    Value,
    append,
    as_json,
    as_text,
    in_dotenv,
    lacks,
    unwritable,
    variable,
)
from phala_secrets.runners.github import GitHub, escape_data, escape_property, heredoc
from phala_secrets.runners.report import Id, Line, Names, Report, Table
from phala_secrets.runners.secrecy import NOT_SHOWN, secret_lines
from phala_secrets.runners.text import one_line
from tests.support.step import WorkflowCommand, command_of, read_outputs

LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
nasty = st.lists(
    st.one_of(
        st.sampled_from(
            [
                *LINE_ENDS,
                "::error::",
                "::add-mask::",
                ":",
                "::",
                "##[error]",
                "##[",
                "#",
                "##vso[",
                "%",
                "%0A",
                "%25",
                " ",
                "\t",
                "\0",
                "\x1b[2J",
                "\u202e",
                "\ufeff",
                "\u200b",
                "<b>",
                "|",
                "`",
                "*",
                "&lt;",
                "@me",
                "=",
                "<<",
                "EOF",
                "é",
                "𝔘",
            ]
        ),
        st.characters(exclude_categories=["Cs"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    ),
    max_size=12,
).map("".join)


class Step:
    """A step with its log and its files in memory or a folder."""

    def __init__(self, folder: Path | None = None, *, quiet: bool = False, verbose: bool = False) -> None:
        self.output, self.summary = (folder or Path()) / "output", (folder or Path()) / "summary"
        files = {"GITHUB_OUTPUT": str(self.output), "GITHUB_STEP_SUMMARY": str(self.summary)}
        self._log = io.StringIO()
        self.runner = GitHub(
            files if folder else {},
            output_names=OUTPUTS,
            stdout=io.StringIO(),
            stderr=self._log,
            quiet=quiet,
            verbose=verbose,
        )

    @property
    def log(self) -> str:
        return self._log.getvalue()

    @property
    def commands(self) -> list[WorkflowCommand]:
        # .NET ends a line of a log at \n, \r or both.
        lines = re.split(r"[\r\n]", self.log)
        return [command for line in lines if (command := command_of(line))]


# Text


@given(nasty)
def test_foreign_text_is_one_printable_line(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    assert len(line.splitlines()) <= 1
    if text.isprintable():
        assert line == text


def test_what_cannot_be_printed_is_shown_by_its_number() -> None:
    assert one_line("a\nb\rc\td") == "a b c d"
    assert one_line("\x1b[2J\u202e\0") == "\\u001b[2J\\u202e\\u0000"


def test_a_long_line_is_cut() -> None:
    assert one_line("x" * 2000) == "x" * 2000
    assert one_line("x" * 2001) == "x" * 2000 + "…"
    assert one_line("\n" + "x" * 2000) == " " + "x" * 1999 + "…"


# Commands


@given(nasty)
def test_data_and_properties_come_back_as_they_were(text: str) -> None:
    assert "\n" not in escape_data(text)
    assert "\r" not in escape_data(text)
    name, properties, data = command_of(
        f"::error file={escape_property(text)},line=1::{escape_data(text)}"
    ) or ("", {}, "")
    assert (name, properties, data) == ("error", {"file": text, "line": "1"}, text)


@given(nasty)
@example("::error::x")
@example("  ::::error::x")
@example("a ##[error]x")
@example("###[error]x")
@example("\n::error::x")
@example("\r##[error]x")
def test_no_text_forges_a_command(text: str) -> None:
    step = Step(verbose=True)
    step.runner.say(text)
    step.runner.say(text, "good")
    step.runner.progress(text)
    step.runner.report(
        Report(text, facts=[("app", text)], tables=[Table(["a"], [[text]])], advice=[(text, text)])
    )
    assert step.commands == []


@given(nasty)
def test_no_text_leaves_the_command_that_it_is_in(text: str) -> None:
    step = Step(verbose=True)
    step.runner.trace(text)
    with step.runner.group(text):
        step.runner.tell(Finding(text, text, file=text or None, line=3))
    step.runner.fail(PhalaSecretsError(text, hint=text))
    names = [(name, sorted(properties)) for name, properties, _ in step.commands]
    place = ["file", "line", "title"] if text else ["title"]
    assert names == [
        ("debug", []),
        ("group", []),
        ("warning", place),
        ("endgroup", []),
        ("error", ["title"]),
    ]
    assert {properties.get("title", "phala-secrets") for _, properties, _ in step.commands} == {
        "phala-secrets"
    }


@given(st.lists(nasty, max_size=4))
def test_masks_are_registered_whole(values: list[str]) -> None:
    step = Step()
    step.runner.mask_variables({"A": values})
    assert step.commands == [("add-mask", {}, line) for line in secret_lines(values)]


def test_the_runner_s_escapes_are_those_of_its_source() -> None:
    assert escape_data("%\r\n:,") == "%25%0D%0A:,"
    assert escape_property("%\r\n:,") == "%25%0D%0A%3A%2C"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("::a::b", ": :a::b"),
        (" ::a::b", " : :a::b"),
        ("a::b", "a::b"),
        ("a ##[b]", "a # #[b]"),
    ],
    ids=["a command", "an indented one", "no command", "an old one"],
)
def test_only_what_starts_a_command_is_changed(text: str, shown: str) -> None:
    step = Step()
    step.runner.say(text)
    assert step.log == f"{shown}\n"


def test_an_annotation_points_at_the_line_and_says_what_to_do() -> None:
    step = Step()
    step.runner.fail(InputError("env-file .env, line 2 is bad", hint="Do better.", file="a,b:.env", line=2))
    step.runner.tell(Finding("No line", file="x"))
    step.runner.tell(Finding("No file", line=7, severity="notice"))
    assert step.commands == [
        (
            "error",
            {"file": "a,b:.env", "line": "2", "title": "phala-secrets"},
            "env-file .env, line 2 is bad\nDo better.",
        ),
        ("warning", {"file": "x", "title": "phala-secrets"}, "No line"),
        ("notice", {"title": "phala-secrets"}, "No file"),
    ]


def test_of_many_annotations_a_place_is_kept_for_the_error_that_ends_the_run() -> None:
    step = Step()
    findings = [Finding(f"error {n}", severity="error") for n in range(12)]
    step.runner.fail(InputError("last", findings=findings[:9]))
    assert [data for _, _, data in step.commands] == [f"error {n}" for n in range(9)] + ["last"]
    for finding in findings[9:]:
        step.runner.tell(finding)
    for n in range(10):
        step.runner.tell(Finding(f"warning {n}", "hint"))
    assert [data for _, _, data in step.commands[10:]] == [f"warning {n}\nhint" for n in range(9)]
    assert step.log.endswith("warning: warning 9\nhint: hint\n")
    assert "error: error 11\n" in step.log


def test_an_annotation_is_cut_before_the_runner_does() -> None:
    step = Step()
    step.runner.tell(Finding("%" * 1999, "%" * 2000))
    step.runner.tell(Finding("%" * 1999, "%" * 5000))
    short, long = (data for _, _, data in step.commands)
    assert short == "%" * 1999 + "\n" + "%" * 2000
    assert long == short


def test_a_quiet_step_has_no_groups_and_one_without_verbose_no_traces() -> None:
    step = Step(quiet=True)
    with step.runner.group("title"):
        step.runner.trace("detail")
    assert step.log == ""


def test_a_group_ends_whatever_happens_in_it() -> None:
    step = Step()
    with pytest.raises(ValueError, match="x"), step.runner.group("title"):
        raise ValueError("x")
    assert step.log == "::group::title\n::endgroup::\n"


SECRETS = [
    "tab\tseparated-hunter2",
    "x" * 3000,
    "bell\a-hunter2",
    "first-line-of-it\nsecond-line-of-it",
    "**bold**hunter2",
]


@pytest.mark.parametrize("secret", SECRETS, ids=["a tab", "a long one", "a bell", "two lines", "markup"])
def test_a_secret_in_foreign_text_is_shown_nowhere(secret: str, tmp_path: Path) -> None:
    step = Step(tmp_path, verbose=True)
    step.runner.mask([secret])
    masks = len(step.log)
    told = f"before {secret} after"
    step.runner.say(told)
    step.runner.trace(told)
    step.runner.progress(told)
    with step.runner.group(told):
        step.runner.tell(Finding(told, told, file=told, line=1))
    step.runner.fail(
        ApiError(told, status_code=400, details=[told], hint=told, suggestions=[told], links=[told])
    )
    names = [Names([Line("+", told, told, told)], told, told)]
    report = Report(told, names=names, facts=[("app", told)], tables=[Table([told], [[told]])])
    report.advice, report.glance, report.diff = [(told, told)], [told], [told]
    step.runner.report(report)
    step.runner.fail(InputError(told, hint=told, findings=[Finding(told, told, name=told)]), report)
    shown = step.log[masks:] + step.summary.read_text()
    parts = [line[n : n + 6] for line in secret.split("\n") for n in range(0, len(line) - 5, 6)]
    for part in parts:
        for form in (part, one_line(part), escape_data(part)):
            assert form not in shown
    assert NOT_SHOWN in shown


# Outputs


names = st.from_regex(r"[a-z]+(-[a-z]+)*", fullmatch=True)


@given(st.lists(st.tuples(names, nasty), max_size=4))
@example([("a", ""), ("b", "\n"), ("c", "x\ny\n"), ("d", "x\r\n"), ("e", "a<<b"), ("f", "\u2028")])
def test_outputs_are_read_back_exactly(outputs: list[tuple[str, str]]) -> None:
    text = "".join(heredoc(name, value) for name, value in outputs)
    assert read_outputs(text) == dict(outputs)


def test_no_two_delimiters_are_alike() -> None:
    delimiters = {heredoc("a", "").split("\n")[0] for _ in range(100)}
    assert len(delimiters) == 100
    assert all(re.fullmatch(r"a<<phala_[0-9a-f]{32}", delimiter) for delimiter in delimiters)


def test_outputs_are_appended_to_what_other_steps_left(tmp_path: Path) -> None:
    step = Step(tmp_path)
    step.output.write_text("before=1\n")
    step.runner.check()
    step.runner.output("cvm-id", "cvm_1")
    step.runner.output("env-keys", ["A", "É"])
    step.runner.output("allowed-envs-changed", True)
    assert read_outputs(step.output.read_text()) == {
        "before": "1",
        "cvm-id": "cvm_1",
        "env-keys": '["A","\\u00c9"]',
        "allowed-envs-changed": "true",
    }


def test_outputs_go_to_an_output_file_as_well(tmp_path: Path) -> None:
    environ = {"GITHUB_OUTPUT": str(tmp_path / "output")}
    runner = GitHub(
        environ, output_names=OUTPUTS, output_file=str(tmp_path / "outputs.env"), stderr=io.StringIO()
    )
    runner.check()
    runner.output("cvm-id", "cvm_1")
    assert read_outputs((tmp_path / "output").read_text()) == {"cvm-id": "cvm_1"}
    assert (tmp_path / "outputs.env").read_text() == "PHALA_CVM_ID=cvm_1\n"
    missing = GitHub({}, output_names=OUTPUTS, output_file=str(tmp_path), stderr=io.StringIO())
    with pytest.raises(InputError, match="output-file"):
        missing.check()


def test_an_output_that_cannot_be_written_names_the_file(tmp_path: Path) -> None:
    step = Step(tmp_path)
    step.output.mkdir()
    with pytest.raises(InputError, match=r"^\$GITHUB_OUTPUT cannot"):
        step.runner.output("cvm-id", "cvm_1")


def test_a_step_without_files_gives_its_outputs_to_nobody() -> None:
    step = Step()
    step.runner.check()
    step.runner.output("status", "running")
    step.runner.report(Report("Done"))
    assert (step.runner.outputs, step.log) == ({"status": "running"}, "Done\n")


def test_an_output_file_that_cannot_be_written_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    step = Step(tmp_path)
    step.output.mkdir()
    with pytest.raises(
        InputError, match=re.escape("$GITHUB_OUTPUT cannot be written: Is a directory")
    ) as refusal:
        step.runner.check()
    assert refusal.value.hint


def test_a_summary_that_cannot_be_written_ends_nothing(tmp_path: Path) -> None:
    step = Step(tmp_path)
    step.summary.mkdir()
    step.runner.report(Report("Done"))
    ((kind, _, message),) = step.commands
    assert (kind, message.split("\n")) == (
        "warning",
        [
            "$GITHUB_STEP_SUMMARY cannot be written: Is a directory",
            "check that the path exists and is writable, and that the disk is not full",
        ],
    )


def test_a_full_disk_is_an_input_error() -> None:
    with pytest.raises(InputError, match=r"(?m)^\$GITHUB_OUTPUT cannot be written: No space left on device$"):
        append("/dev/full", "x", "$GITHUB_OUTPUT")


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """No file gets larger than so many bytes, and what would is written in part.

    ``RLIMIT_FSIZE`` does that as well, but to pytest's own files too: ``test_steady`` has it for a whole run.
    """

    def limit(size: int) -> None:
        def write(descriptor: int, data: bytes) -> int:
            status = os.fstat(descriptor)
            appends = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND
            room = size - (status.st_size if appends else os.lseek(descriptor, 0, os.SEEK_CUR))
            if data and room <= 0:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            return really(descriptor, data[:room])

        monkeypatch.setattr(os, "write", write)

    really = os.write
    return limit


def test_a_disk_that_is_full_amid_an_output_leaves_the_others_whole(
    tmp_path: Path, small_disk: Callable[[int], None]
) -> None:
    path = tmp_path / "output"
    append(str(path), heredoc("cvm-id", "cvm_1"), "$GITHUB_OUTPUT")
    small_disk(path.stat().st_size + 20)
    with pytest.raises(InputError, match="GITHUB_OUTPUT cannot be written: File too large"):
        append(str(path), heredoc("app-id", "x" * 40), "$GITHUB_OUTPUT")
    assert read_outputs(path.read_text()) == {"cvm-id": "cvm_1"}


@pytest.mark.parametrize("keep", [True, False])
def test_a_disk_that_is_full_amid_a_dotenv_file_leaves_it_as_it_was(
    tmp_path: Path, small_disk: Callable[[int], None], keep: bool
) -> None:
    path = tmp_path / "outputs.env"
    path.write_text("VERSION=1\n")
    file = OutputFile(str(path), "output-file", keep=keep)
    file.check()
    small_disk(3)
    with pytest.raises(InputError):
        file.put("status", "failed")
    assert path.read_text() == ("VERSION=1\n" if keep else "")
    small_disk(1000)
    file.put("cvm-id", "cvm_1")
    before = path.read_text()
    small_disk(len(before) + 5)
    with pytest.raises(InputError, match="output-file cannot be written"):
        file.put("app-id", "x" * 40)
    assert path.read_text() == before


def test_a_disk_that_is_full_at_once_takes_nothing_of_a_file_that_is_kept(
    tmp_path: Path, small_disk: Callable[[int], None]
) -> None:
    path = tmp_path / "outputs.env"
    path.write_text("VERSION=1")
    file = OutputFile(str(path), "output-file", keep=True)
    small_disk(9)  # no room for the end of the line
    with pytest.raises(InputError, match="output-file cannot be written"):
        file.check()
    assert path.read_text() == "VERSION=1"


def test_a_file_that_is_not_kept_has_nothing_of_ours_where_nothing_fits(
    tmp_path: Path, small_disk: Callable[[int], None]
) -> None:
    path = tmp_path / "outputs.env"
    file = OutputFile(str(path), "output-file")
    small_disk(5)
    with pytest.raises(InputError, match="output-file cannot be written"):
        file.put("cvm-id", "cvm_1")
    assert path.read_text() == ""


def test_an_error_that_the_system_has_no_words_for_is_told_by_its_name() -> None:
    assert str(unwritable("it", PermissionError())) == "it cannot be written: PermissionError"


def test_a_file_of_outputs_is_for_its_owner(tmp_path: Path) -> None:
    append(str(tmp_path / "new"), "x\n", "it")
    append(str(tmp_path / "new"), "é\n", "it")
    assert (tmp_path / "new").read_bytes() == b"x\n\xc3\xa9\n"
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600


# The summary


class Rendered(HTMLParser):
    """The tags and the text that a browser would see in a summary's HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def summary(report: Report, tmp_path: Path) -> str:
    step = Step(tmp_path)
    step.summary.unlink(missing_ok=True)
    step.runner.report(report)
    return step.summary.read_text()


def test_a_summary_is_a_page_of_markdown(tmp_path: Path) -> None:
    report = Report(
        "Done",
        glance=["It runs."],
        names=[Names([Line("+", "A", "", "used"), Line("~", "B_LONGER", "sent anew")], "2 variables")],
        facts=[("CVM", Id("cvm_1")), ("App", "")],
        tables=[Table(["Name", "State"], [[Id("a|b"), "running"], [Id(""), ""]])],
        advice=[("Register it.", "cast send 0x1"), ("Then wait.", "")],
        links=[("The app's contract", "https://basescan.org/address/0x1")],
    )
    assert summary(report, tmp_path) == (
        "### Done\n\n"
        "It runs.\n\n"
        "2 variables\n\n```diff\n+ A                     used\n~ B_LONGER (sent anew)\n```\n\n"
        '<table>\n<tr><th align="left" nowrap>CVM</th><td nowrap><samp>cvm&#95;1</samp></td></tr>\n'
        '<tr><th align="left" nowrap>App</th><td></td></tr>\n</table>\n\n'
        "[The app&#39;s contract](https://basescan.org/address/0x1)\n\n"
        '<table>\n<tr><th align="left" nowrap>Name</th><th align="left" nowrap>State</th></tr>\n'
        "<tr><td nowrap><samp>a&#124;b</samp></td><td>running</td></tr>\n"
        "<tr><td></td><td></td></tr>\n</table>\n\n"
        "Register it.\n\n<pre>cast send 0x1</pre>\n\n"
        "Then wait.\n\n"
    )


def test_a_failure_is_in_the_summary_with_what_to_do(tmp_path: Path) -> None:
    step = Step(tmp_path)
    finding = Finding("A (env) is odd", "mend it", severity="error", name="A", place="env")
    other = Finding("not NAME=value", file="a.env", line=3, severity="error")
    report = Report("update of my-app failed (exit code 2)", good=False)
    step.runner.fail(InputError("no CVM specified", hint="give cvm", findings=[finding, other]), report)
    head = "".join(f'<th align="left" nowrap>{name}</th>' for name in HEADER)
    assert step.summary.read_text() == (
        "### update of my-app failed (exit code 2)\n\n"
        "**Error:** no CVM specified\n\n**What to do:** give cvm\n\n"
        f"<table>\n<tr>{head}</tr>\n"
        "<tr><td nowrap><samp>A</samp></td><td>env</td><td>is odd</td><td>mend it</td></tr>\n"
        "<tr><td></td><td>a.env, line 3</td><td>not NAME=value</td><td></td></tr>\n</table>\n\n"
    )


HEADER = ("Name", "Place", "Problem", "What to do")


@pytest.mark.parametrize("count", [12, 13])
def test_a_long_list_of_names_is_folded(count: int, tmp_path: Path) -> None:
    names = Names([Line("+", f"V{number}") for number in range(count)], "variables", title="my-app")
    text = summary(Report("Plan", names=[names]), tmp_path)
    assert ("<details><summary>my-app: variables</summary>\n\n```diff\n+ V0\n" in text) == (count > 12)
    assert text.count("</details>") == (count > 12)


def test_lines_to_paste_are_lines(tmp_path: Path) -> None:
    text = summary(Report("x", advice=[("Add:", "a: 1\nb: @me")]), tmp_path)
    assert text == "### x\n\nAdd:\n\n<pre>a: 1\nb&#58; <!-- -->&#64;me</pre>\n\n"


def test_names_that_stay_as_they_are_are_counted(tmp_path: Path) -> None:
    assert summary(Report("Plan", names=[Names([], "2 stay")]), tmp_path) == "### Plan\n\n2 stay\n\n"


def test_only_words_that_github_would_link_are_in_code(tmp_path: Path) -> None:
    text = summary(Report("seen by @me in deadbeef12 today"), tmp_path)
    assert text == ("### seen by <code><!-- -->&#64;me</code> in <code>deadbeef12</code> today\n\n")
    text = summary(Report("web-1 of GH-2", facts=[("CVM", Id("web-1"))]), tmp_path)
    assert text.startswith("### web-<span></span>1 of GH-<span></span>2\n\n")
    assert "<td nowrap><samp>web-<span></span>1</samp></td>" in text
    text = summary(Report("x", facts=[("app", Id("deadbeef12")), ("id", Id("web-" * 20))]), tmp_path)
    assert "<td><code>deadbeef12</code></td>" in text
    assert f"<td><samp>{'web-' * 20}</samp></td>" in text, "too long to be kept on one line"


def test_a_summary_is_written_for_a_quiet_step_too_and_behind_what_is_there(tmp_path: Path) -> None:
    step = Step(tmp_path, quiet=True)
    step.summary.write_text("before\n")
    step.runner.report(Report("Done"))
    assert step.summary.read_text() == "before\n### Done\n\n"
    assert step.log == ""


def test_what_stands_around_an_id_is_no_code(tmp_path: Path) -> None:
    text = summary(Report("accepted (1824269a-6d44), and deadbeef12."), tmp_path)
    assert "accepted (<code>1824269a-6d44</code>), and <code>deadbeef12</code>" in text.replace(
        "&#40;", "("
    ).replace("&#41;", ")")


def test_a_summary_is_no_longer_than_a_comment_may_be(tmp_path: Path) -> None:
    table = Table(["a"], [["x" * 1000]] * 1100)
    text = summary(Report("Done", tables=[table] * 4, diff=["+ y"] * 5_200), tmp_path)
    assert len(text) < 65_536
    assert text.count("<tr><td>… and 1081 more</td></tr>\n</table>") == 3
    assert text.endswith("The rest is too long to show here.\n\n")
    text = summary(Report("Done", diff=["+ y"] * 5_200), tmp_path)
    assert text.endswith("+ y\n… and 200 more lines\n```\n\n")


@given(text=nasty.filter(bool))
@example(text="a|b`c*d_e<f>&[g](h)~#@\n# x")
def test_foreign_text_is_only_text_in_a_summary(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("summary")

    def of(text: str) -> Report:
        table = Table([text], [[text], [Id(text)]])
        paste = text.replace("\n", "\r")  # several lines to paste are our own
        return Report(text, facts=[(text, text), (text, Id(text))], tables=[table], advice=[(text, paste)])

    report, plain = of(text), of("t")
    markdown = summary(report, folder)
    assert markdown.count("\n") == summary(plain, folder).count("\n")
    assert not set(Rendered(markdown).tags) - {"code", "pre", "samp", "span", "table", "tr", "th", "td"}
    line = one_line(unmarked(text))
    assert Rendered(markdown.splitlines()[0].removeprefix("### ")).text == line
    ours = r"&#\d+;|</?(code|pre|samp|span|table|tr|th|td)( align=\"left\")?( nowrap)?>|<!-- -->|^### "
    without_ours = re.sub(ours, "", markdown, flags=re.MULTILINE)
    assert not set(without_ours) & set("&<>\"'\\`*_[]|~#@")


# Dotenv


def read_dotenv(text: str) -> dict[str, str]:
    """A dotenv report by GitLab's rules: lines of NAME=value, nothing else."""
    assert text == "" or text.endswith("\n")
    pairs = [line.partition("=") for line in text.split("\n")[:-1]]
    assert all(re.fullmatch(r"[A-Z_]+", name) and equals for name, equals, _ in pairs)
    assert len({name for name, _, _ in pairs}) == len(pairs)
    return {name: value for name, _, value in pairs}


def in_words(value: str) -> str:
    """An output that is no JSON, as a dotenv line has it: one word, or quoted, with nothing to act on."""
    if re.fullmatch(r"[\w.,:/@%+=^-]*", value, re.ASCII):
        return value
    if all(character > "\x7f" or re.match(r"[\w.,:/@%+=^-]", character, re.ASCII) for character in value):
        return value
    shown = "".join(character if character.isprintable() else " " for character in value)
    return "'" + re.sub(r"""[$`\\'"]""", "?", shown) + "'"


@given(outputs=st.lists(st.tuples(names, nasty), max_size=5))
@example(outputs=[("a", "x\n")])
@example(outputs=[("a", "\n")])
@example(outputs=[("a", "x\u2028")])
@example(outputs=[("a", "x"), ("a", "")])
def test_a_dotenv_file_has_a_line_each_and_nothing_else(
    outputs: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "outputs.env"
    file = OutputFile(str(path), "output-file")
    file.check()
    for name, value in outputs:
        file.put(name, value)
    last = {variable(name): value for name, value in outputs}
    fits = {
        name: in_words(value)
        for name, value in last.items()
        if value.splitlines() == [value] and "\0" not in value
    }
    assert read_dotenv(path.read_bytes().decode()) == fits


READERS = [
    '["$(x)", "`y`", "a\\\\b", "it\'s", "#1", "é"]',
    '{"a": "${HOME} \\"b\\""}',
    '[{"n": 1}, true, null]',
]


@pytest.mark.parametrize("text", READERS)
def test_json_in_a_dotenv_line_is_the_same_json_without_what_a_reader_acts_on(text: str) -> None:
    written = in_dotenv(text)
    assert json.loads(written) == json.loads(text)
    assert not re.search(r"[$`'#!]|\\\\(?!u)", written)
    assert in_dotenv(json.loads(text)) == written
    assert dotenv_values(stream=io.StringIO(f"A={written}\n"))["A"] == written


def test_an_output_file_to_be_sourced_has_each_value_in_quotes(tmp_path: Path) -> None:
    path = tmp_path / "outputs.sh"
    file = OutputFile(str(path), "it", form="shell")
    file.check()
    wanted: dict[str, Value] = {"a": "it's $HOME\n`x`", "b": ["A", "$B"], "c": True, "d": ""}
    for name, value in wanted.items():
        assert file.put(name, value) == []
    done = subprocess.run(
        ["sh", "-c", '. "$1"; printf "%s|" "$PHALA_A" "$PHALA_B" "$PHALA_C" "$PHALA_D"', "sh", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == 'it\'s $HOME\n`x`|["A","\\u0024B"]|true||'


def test_an_output_file_may_be_json(tmp_path: Path) -> None:
    path = tmp_path / "outputs.json"
    file = OutputFile(str(path), "it", form="json")
    file.check()
    file.put("cvm-id", "cvm_1")
    file.put("env-keys", ["A"])
    assert json.loads(path.read_text()) == {"cvm_id": "cvm_1", "env_keys": ["A"]}


def test_outputs_go_through_no_link_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkout, outside = tmp_path / "checkout", tmp_path / "outside"
    checkout.mkdir()
    outside.mkdir()
    monkeypatch.chdir(checkout)
    (checkout / "link.env").symlink_to(outside / "target")
    (checkout / "folder").symlink_to(outside)
    os.mkfifo(checkout / "pipe")
    for path in ("link.env", "folder/out.env", str(checkout / "link.env"), "pipe", "./x/../link.env"):
        with pytest.raises(InputError, match=r"^output-file cannot be written: "):
            OutputFile(path, "output-file").check()
    assert list(outside.iterdir()) == []
    (checkout / "real").mkdir()
    for path in (
        "out.env",
        "real/out.env",
        "../outside/out.env",
    ):  # what leads out is the workflow's own word
        OutputFile(path, "output-file").put("status", "ok")
        assert Path(path).read_text() == "PHALA_STATUS=ok\n"
    with pytest.raises(InputError):  # nobody reads it, and nobody waits
        append(str(checkout / "pipe"), "x", "it")


def test_a_pipe_that_nobody_empties_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_PATIENCE", 0.1)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(InputError, match=r"^it cannot be written: "):
            OutputFile(str(path), "it").put("status", "x" * (1 << 20))
    finally:
        os.close(reader)


def test_a_pipe_that_somebody_reads_gets_all_outputs(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with (tmp_path / "read").open("wb") as file, subprocess.Popen(["cat", str(path)], stdout=file) as reader:
        opened = os.open(path, os.O_WRONLY)  # once it reads
        fcntl.fcntl(opened, fcntl.F_SETPIPE_SZ, 4096)  # is full again and again
        OutputFile(str(path), "it").put("status", "x" * (1 << 20))
        os.close(opened)
        assert reader.wait(30) == 0
    assert (tmp_path / "read").read_bytes() == b"PHALA_STATUS=" + b"x" * (1 << 20) + b"\n"


def test_a_full_pipe_is_waited_for_and_gets_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    read, wait = [], select.select

    def read_when_full(*waited_for: Any) -> Any:
        read.append(os.read(reader, 1 << 20))
        return wait(*waited_for)

    monkeypatch.setattr(select, "select", read_when_full)
    try:
        OutputFile(str(path), "it").put("status", "x" * (1 << 18))
        assert b"".join([*read, os.read(reader, 1 << 20)]) == b"PHALA_STATUS=" + b"x" * (1 << 18) + b"\n"
    finally:
        os.close(reader)


def test_what_only_looks_like_json_is_text() -> None:
    assert in_dotenv("[half $x") == "'[half ?x'"


def test_what_a_file_held_before_gets_an_end(tmp_path: Path) -> None:
    path = tmp_path / "bash_env"
    for before in ("export FOO=bar", "# a comment"):
        path.write_text(before)
        append(str(path), "export A=1\n", "$BASH_ENV")
        append(str(path), "export B=1\n", "$BASH_ENV")
        assert path.read_text() == f"{before}\nexport A=1\nexport B=1\n"


def test_an_output_is_text_a_flag_or_json() -> None:
    assert [as_text(value) for value in ("é", True, False, ["é"], [{"a": 1}], [])] == [
        "é",
        "true",
        "false",
        '["\\u00e9"]',
        '[{"a":1}]',
        "[]",
    ]
    assert variable("cvm-id") == "PHALA_CVM_ID"


def test_json_that_is_text_already_stays_that_json_and_other_text_is_as_it_is() -> None:
    assert as_text('{"a":"##"}') == '{"a":"\\u0023\\u0023"}'
    assert as_text("##") == "##"
    assert in_dotenv('{"a": "b c"}') == '{"a":"b c"}'
    assert in_dotenv("1e5") == "1e5"


def test_a_summary_file_is_for_the_steps_after_it_and_an_error_names_it(tmp_path: Path) -> None:
    path = tmp_path / "plan.md"
    files.overwrite(str(path), "plan", "it")
    assert path.stat().st_mode & 0o777 == 0o644
    with pytest.raises(InputError, match=r"(?m)^it cannot be written: No such file or directory$"):
        files.overwrite(str(tmp_path / "nowhere" / "plan.md"), "plan", "it")


def test_a_link_of_the_checkout_is_one_by_the_other_name_of_the_checkout_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (tmp_path / "other").symlink_to(checkout)
    (checkout / "link").symlink_to(tmp_path / "target")
    monkeypatch.chdir(checkout)
    with pytest.raises(InputError, match="contains a symbolic link of the working folder"):
        append(str(tmp_path / "other" / "link"), "x\n", "it")
    append(str(tmp_path / "other" / "file"), "x\n", "it")
    assert (checkout / "file").read_text() == "x\n"
    assert not (tmp_path / "target").exists()


def test_below_the_root_of_all_files_a_link_is_nobody_else_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    monkeypatch.chdir("/")
    append(str(tmp_path / "link"), "x\n", "it")
    assert (tmp_path / "target").read_text() == "x\n"


@given(nasty)
def test_json_is_one_line_in_which_no_runner_finds_a_command(text: str) -> None:
    line = as_json({"error": text, text: [text]})
    assert json.loads(line) == {"error": text, text: [text]}
    assert line.isascii()
    assert line.isprintable()
    assert command_of(line) is None
    assert "##" not in line


def test_what_has_no_place_in_a_dotenv_file_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "outputs.env"
    file = OutputFile(str(path), "output-file x", limit=40)
    assert file.put("cvm-id", "cvm_1") == []
    assert file.put("app-id", "a" * 24) == [lacks("output-file x", "app-id", "the limit is 40 bytes")]
    assert file.put("status", "ok") == []
    assert read_dotenv(path.read_text()) == {"PHALA_CVM_ID": "cvm_1", "PHALA_STATUS": "ok"}
    (notice,) = file.put("status", "a\nb")
    assert (notice.severity, notice.message) == (
        "notice",
        "output-file x lacks the output status: only single lines fit",
    )
    assert notice.hint
    assert file.put("status", "a\nb") == []
    assert file.put("kms", "") == []
    assert read_dotenv(path.read_text()) == {"PHALA_CVM_ID": "cvm_1"}


def test_a_file_of_another_step_that_ends_well_gets_no_blank_line(tmp_path: Path) -> None:
    path = tmp_path / "variables"
    path.write_text("OLD=1\n")
    file = OutputFile(str(path), "it", keep=True)
    file.check()
    file.put("status", "running")
    assert path.read_text() == "OLD=1\nPHALA_STATUS=running\n"


def test_half_a_character_is_replaced_in_an_output() -> None:
    assert as_text("a\ud800b") == "a?b"


def test_a_limit_is_in_bytes_and_may_be_reached(tmp_path: Path) -> None:
    path = tmp_path / "outputs.env"
    file = OutputFile(str(path), "it", limit=len("PHALA_A=éé\nPHALA_B=x\n".encode()))
    assert [*file.put("a", "éé"), *file.put("b", "x")] == []
    assert len(file.put("b", "xy")) == 1
    assert read_dotenv(path.read_text()) == {"PHALA_B": "xy"}


def test_a_kept_file_has_its_own_lines_first(tmp_path: Path) -> None:
    path = tmp_path / "variables"
    path.write_bytes(b"OLD=\xff\nLAST=no end")
    file = OutputFile(str(path), "it", keep=True)
    file.check()
    file.put("status", "failed")
    file.put("status", "running")
    assert path.read_bytes() == b"OLD=\xff\nLAST=no end\nPHALA_STATUS=running\n"
    fresh = OutputFile(str(tmp_path / "new"), "it", keep=True)
    fresh.check()
    assert not (tmp_path / "new").stat().st_mode & 0o111
    fresh.check()
    assert (tmp_path / "new").read_text() == ""


def test_a_dotenv_file_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    for keep in (False, True):
        file = OutputFile(str(tmp_path), "output-file x", keep=keep)
        with pytest.raises(InputError, match=r"(?m)^output-file x cannot be written: Is a directory$"):
            file.check()
    with pytest.raises(InputError, match="No space left on device"):
        OutputFile("/dev/full", "it").put("status", "running")
