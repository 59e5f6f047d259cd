"""Stories of a person at a terminal: what is waited for is shown while it lasts, and leaves nothing."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import select
import struct
import termios
import time
from collections.abc import Iterator

import pytest

from phala_secrets import flow
from phala_secrets.errors import Finding, InputError
from phala_secrets.inputs.table import OUTPUTS
from phala_secrets.runners.base import Runner
from phala_secrets.runners.detect import detect
from phala_secrets.runners.live import Doing
from phala_secrets.runners.report import Line, Names, Report


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
    runner = Runner({"TERM": "xterm"}, output_names=OUTPUTS, stderr=terminal.stream)
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
    runner = Runner({"TERM": "xterm"}, output_names=OUTPUTS, stderr=terminal.stream)
    runner.progress("the update")
    for number in range(20):
        runner.progress(f"web-{number}: restarting", cvm=f"web-{number}")
    assert terminal.shows("web-15: restarting\r\n  and 4 more")
    assert "the update" not in terminal.seen
    assert terminal.shows("\r\x1b[16A\x1b[J"), "back to the first line"
    for number in range(19):
        runner.progress("", cvm=f"web-{number}")
    runner.say("web-18: running")
    assert terminal.shows("web-18: running\r\n"), "a line above"
    assert terminal.shows("web-19: restarting"), "the others are still there"
    runner.progress("", cvm="web-19")
    runner.say("over")
    assert terminal.shows("\x1b[Jover\r\n")


def test_what_was_under_way_is_gone_when_a_run_fails(terminal: Terminal) -> None:
    runner = Runner({"TERM": "xterm"}, output_names=OUTPUTS, stderr=terminal.stream)
    runner.progress("web-1: restarting", cvm="web-1")
    assert terminal.shows("web-1: restarting")
    runner.fail(InputError("no disk", hint="free some"))
    runner.finish()
    assert terminal.shows("hint: free some\r\n")
    assert "web-1" not in terminal.seen.partition("error: no disk")[2]


def test_a_wait_has_a_clock_and_its_limit(terminal: Terminal) -> None:
    runner = Runner({"TERM": "xterm"}, output_names=OUTPUTS, stderr=terminal.stream)
    began = flow.clock.monotonic() - 42
    runner.progress("my-app  restarting · booting", change=True, doing=Doing("", began, 600))
    assert terminal.shows("⠋ my-app  restarting · booting  0:42 of 10:00")
    runner.paused()
    runner.finish()


def test_a_diff_is_in_colours_and_long_sentences_are_wrapped(terminal: Terminal) -> None:
    runner = Runner({"TERM": "xterm"}, output_names=OUTPUTS, stderr=terminal.stream)
    names = [Names([Line("+", "A", note="used"), Line("~", "B", "sent anew"), Line("-", "C")], "3 variables")]
    runner.report(Report("Plan", good=False, names=names, glance=["word " * 30]))
    assert terminal.shows("\x1b[31;1mPlan\x1b[0m\r\n" + "word " * 15 + "word\r\n")
    assert terminal.shows("  \x1b[32m+ A\x1b[0m              \x1b[2mused\x1b[0m\r\n")
    assert terminal.shows("  \x1b[36m~ B (sent anew)\x1b[0m\r\n  \x1b[31;1m- C\x1b[0m\r\n  3 variables\r\n")


def test_no_line_that_is_wrapped_begins_a_command(terminal: Terminal) -> None:
    runner = Runner({"TERM": "xterm"}, output_names=OUTPUTS, stderr=terminal.stream)
    runner.say("x" * 70 + " ::error::forged and more of it")
    assert terminal.shows("x\r\n: :error::forged and more of it\r\n")


def test_a_line_is_no_wider_than_the_terminal() -> None:
    terminal = Terminal(columns=20)
    runner = Runner({"TERM": "xterm"}, output_names=OUTPUTS, stderr=terminal.stream)
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
    runner = Runner({}, output_names=OUTPUTS, stderr=stream)
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
    runner = detect(environ, output_names=OUTPUTS, stderr=terminal.stream)
    runner.progress("waiting")
    runner.tell(Finding("odd"))
    assert terminal.shows(printed)
    assert printed.startswith("\x1b") == ("\x1b[33m" in terminal.seen)


def test_what_is_traced_is_pale(terminal: Terminal) -> None:
    runner = Runner({"TERM": "xterm"}, output_names=OUTPUTS, stderr=terminal.stream, verbose=True)
    runner.trace("GET /kms")
    assert terminal.shows("\x1b[2mGET /kms\x1b[0m\r\n")
