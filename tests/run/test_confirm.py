"""A person at the terminal is asked before an update, and nobody else is."""

from __future__ import annotations

import os
import pty
import termios

import pytest

from phala_secrets.run import confirm
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from tests.support.command import Command
from tests.support.person import Person

pytestmark = pytest.mark.usefixtures("time_passes")

UPDATE = ("update", "--cvm", "my-app", "--env-file", ".env")
QUESTION = "Update and restart my-app? [y/N] "


@pytest.fixture(autouse=True)
def dotenv(run: Command) -> None:
    run.write(".env", "OLD=2\nNEW=a-value-nobody-may-see\n")


def sent(cloud: Cloud) -> list[str]:
    return [request.path for request in cloud.requests if request.method != "GET"]


@pytest.mark.parametrize("answer", ["y", "Y", "yes", " YES "])
def test_a_person_sees_the_plan_and_says_yes(run: Command, cloud: Cloud, cvm: Cvm, answer: str) -> None:
    with Person(run, *UPDATE) as person:
        assert person.sees(QUESTION), person.seen
        assert "NEW" in person.seen
        assert not sent(cloud)
        person.types(answer)
        assert person.code() == 0, person.seen
    assert (cvm.environment or {})["OLD"] == "2"
    assert "a-value-nobody-may-see" not in person.seen


@pytest.mark.parametrize("answer", ["", "n", "no", "what?", "yep"])
def test_anything_else_is_no(run: Command, cloud: Cloud, cvm: Cvm, answer: str) -> None:
    with Person(run, *UPDATE) as person:
        assert person.sees(QUESTION), person.seen
        person.types(answer)
        assert person.code() == 130
        assert "error: not confirmed, so nothing was sent" in person.seen
    assert not sent(cloud)


def test_ctrl_c_at_the_question_sends_nothing(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    with Person(run, *UPDATE) as person:
        assert person.sees(QUESTION), person.seen
        person.presses_ctrl_c()
        assert person.code() == 130
        assert "interrupted before anything was sent" in person.seen
    assert not sent(cloud)


def test_input_typed_before_the_question_is_ignored(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    with Person(run, *UPDATE) as person:
        person.types("y")
        assert person.sees(QUESTION), person.seen
        assert not sent(cloud)
        person.types("n")
        assert person.code() == 130


def test_a_cvm_that_changes_meanwhile_is_not_updated_by_the_old_plan(
    run: Command, cloud: Cloud, cvm: Cvm
) -> None:
    with Person(run, *UPDATE) as person:
        assert person.sees(QUESTION), person.seen
        cvm.app_compose = {**cvm.app_compose, "allowed_envs": ["OLD", "OTHER"]}
        person.types("y")
        assert person.code() == 4
        assert "another operation changed 'my-app'" in person.seen
    assert not sent(cloud)


@pytest.mark.parametrize("flag", ["--yes", "--json", "--quiet"])
def test_yes_json_and_quiet_skip_the_question(run: Command, cvm: Cvm, flag: str) -> None:
    with Person(run, *UPDATE, flag) as person:
        assert person.code() == 0, person.seen
        assert "[y/N]" not in person.seen


def test_the_other_modes_do_not_ask(run: Command, cvm: Cvm) -> None:
    for mode in ("plan", "encrypt"):
        with Person(run, mode, *UPDATE[1:]) as person:
            assert person.code() == 0, person.seen
            assert "[y/N]" not in person.seen


def test_a_pipe_or_ci_skips_the_question(run: Command, cvm: Cvm) -> None:
    assert run(*UPDATE).code == 0
    assert run(*UPDATE, person=True, environ={"CI": "true"}).code == 0


def test_without_a_terminal_to_ask_at_nothing_is_sent(
    run: Command, cloud: Cloud, cvm: Cvm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confirm, "TERMINAL", "/nowhere/tty")
    done = run(*UPDATE, person=True)
    assert done.code == 2
    assert "cannot open" in done.errors[0]
    assert done.hints[-1] == "hint: pass --yes"
    assert not sent(cloud)


def test_nobody_is_waited_for_forever(
    run: Command, cloud: Cloud, cvm: Cvm, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, terminal = pty.openpty()
    monkeypatch.setattr(confirm, "TERMINAL", os.ttyname(terminal))
    monkeypatch.setattr(confirm, "PATIENCE", 0.0)
    done = run(*UPDATE, person=True)
    assert done.code == 130
    assert done.errors == ["error: no answer, so nothing was sent"]
    assert "--yes" in done.hints[-1]
    assert not sent(cloud)
    termios.tcflush(terminal, termios.TCIOFLUSH)
    os.close(person)
    os.close(terminal)
