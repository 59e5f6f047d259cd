"""Stories of runs that fail: with its summary alone, a reader knows which step it was, and what to do."""

from __future__ import annotations

import json
import re

import pytest

from phala_secrets import __version__
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from tests.support.command import Command
from tests.support.faults import Fault
from tests.support.faulty import FaultySimulator as Simulator
from tests.support.step import Step

CLOUD_URL = "https://cloud.phala.com"


def test_a_boot_that_failed_says_what_was_sent_and_where_to_look(step: Step, cvm: Cvm) -> None:
    cvm.boot_fails("no space left on device")
    done = step(env="OLD=2\nTOKEN=t0ken-value", environ={"CLOUD_URL": CLOUD_URL})
    assert done.code == 8
    operation = cvm.operations[-1].correlation_id
    page = f"{CLOUD_URL}/dashboard/cvms/{cvm.vm_uuid.replace('-', '')}"
    heading, error, remedy, sent, *rest = done.summary.split("\n\n")
    assert heading == "### Update of my-app failed (exit code 8)"
    assert "no space left on device" in error
    assert f"phala logs --serial --cvm-id {cvm.id.replace('_', '&#95;')}" in remedy
    assert sent == "What was sent replaced what my-app had. It now shows exited."
    text = "\n".join(rest)
    for told in ("+ TOKEN", "~ OLD (sent anew)", "2 variables: 1 added, 1 sent anew", operation, page):
        assert told in text
    assert done.outputs["dashboard-url"] == page
    assert done.outputs["exit-code"] == "8"
    assert "no space left on device" in done.outputs["error"]
    assert cvm.id in done.outputs["hint"]
    assert done.outputs["version"] == __version__
    assert "t0ken-value" not in done.summary


def test_containers_that_never_show_lead_to_the_serial_console(step: Step, cvm: Cvm) -> None:
    cvm.containers = None
    done = step(env="OLD=2", wait_for="containers", wait_timeout="20")
    assert done.code == 8
    assert f"<pre>phala logs --serial --cvm-id {cvm.id.replace('_', '&#95;')}</pre>" in done.summary


def test_each_finding_is_a_row_with_name_place_and_what_to_write(step: Step, cvm: Cvm) -> None:
    step.write("app.env", 'OLD=2\nCERT="one\ntwo"\n')
    done = step(env_file="app.env")
    assert done.code == 4
    assert done.summary.startswith("### Update of my-app failed (exit code 4)\n")
    (row,) = [line for line in done.summary.splitlines() if "CERT</samp>" in line]
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row)
    assert cells[:3] == [
        "<samp>CERT</samp>",
        "env-file app.env, line 2",
        "contains a newline: the guest would read another value",
    ]
    assert "base64" in cells[3]
    assert "<th" in done.summary
    assert '<th align="left" nowrap></th>' not in done.summary


def test_a_refusal_before_the_update_says_that_nothing_was_sent(
    step: Step, simulator: Simulator, cvm: Cvm
) -> None:
    simulator.faults.add(Fault("status", "PATCH", status=403, body={"detail": "Forbidden"}))
    done = step(env="OLD=2")
    assert done.code == 5
    assert "\n\nNothing was sent. The CVM is unchanged.\n\n" in done.summary
    assert "\nNothing was sent. The CVM is unchanged.\n" in done.log
    assert re.search(r"update of my-app: failed \(exit code 5\) after [\d.]+ s\n$", done.log)


def test_two_steps_can_be_told_apart_before_any_cvm_is_found(step: Step) -> None:
    first = step(cvm="one", env="NOT DOTENV")
    second = step(cvm="two, three", env="NOT DOTENV")
    assert first.summary.startswith("### Update of one failed (exit code 2)\n")
    assert second.summary.startswith("### Update of 2 CVMs failed (exit code 2)\n")


def test_a_command_line_that_is_wrong_names_the_program(step: Step) -> None:
    done = step(mode="upsert")
    assert done.code == 2
    assert re.match(r"### \w.* failed \(exit code 2\)\n", done.summary)


def test_the_plan_that_is_refused_has_its_error_and_says_it_once(step: Step, cvm: Cvm) -> None:
    done = step(mode="plan", env="NEW=3")
    assert done.code == 4
    assert done.summary.count("###") == 1
    assert done.summary.startswith(
        "### Plan for my-app: update would be refused (exit code 4)\n\n**Error:** "
    )
    assert "- OLD (would be dropped)" in done.summary


def test_a_fleet_shows_who_was_reached_and_who_was_not(run: Command, cloud: Cloud) -> None:
    first = cloud.add_cvm("web-1", environment={"OLD": "1"})
    others = [cloud.add_cvm(f"web-{n}", app_id=first.app_id, environment={"OLD": "1"}) for n in (2, 3)]
    others[0].boot_fails("no disk")
    run.write(".env", "OLD=2\n")
    arguments = ("update", "--app", first.app_id, "--env-file", ".env", "--summary-file", "summary.md")
    done = run(*arguments, "--json")
    assert done.code == 8
    summary = (run.folder / "summary.md").read_text()
    assert summary.startswith("### Update of web-<span></span>1 and 2 more of its app failed (exit code 8)\n")
    assert "The update was sent to 2 of 3 CVMs. The other one is unchanged." in summary
    assert "web-<span></span>3</samp></td><td>failed</td><td></td><td>not reached</td>" in summary
    assert [row["exit_code"] for row in done.json["results"]] == [0, 8, None]
    assert (done.json["exit_code"], done.json["version"]) == (8, __version__)
    assert "no disk" in done.json["error"]
    assert done.json["hint"]


def test_the_dashboard_is_not_that_of_another_api(run: Command, cvm: Cvm) -> None:
    run.write(".env", "OLD=2\n")
    arguments = ("update", "--cvm", "my-app", "--env-file", ".env", "--json")
    assert "dashboard_url" not in run(*arguments).json
    odd = {"CLOUD_URL": "https://evil.example/)[x](y"}
    assert "dashboard_url" not in run(*arguments, environ=odd).json


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_a_summary_is_written_anew_by_each_run(run: Command, cvm: Cvm, quiet: list[str]) -> None:
    run.write(".env", "OLD=2\n")
    run.write("summary.md", "of another run\n")
    arguments = ("update", "--cvm", "my-app", "--env-file", ".env", "--summary-file", "summary.md")
    assert run(*arguments, *quiet).code == 0
    summary = (run.folder / "summary.md").read_text()
    assert summary.startswith("### my-app runs with the new environment\n\n1 variable: 1 sent anew\n\n")


def test_a_summary_that_cannot_be_written_stops_the_run_before_it_begins(
    run: Command, cloud: Cloud, cvm: Cvm
) -> None:
    run.write(".env", "OLD=2\n")
    arguments = ("update", "--cvm", "my-app", "--env-file", ".env", "--summary-file", "/no/such/folder/x")
    done = run(*arguments)
    assert done.code == 2
    assert "summary-file '/no/such/folder/x' cannot be written" in done.errors[0]
    assert not cloud.requests


def test_foreign_text_in_a_summary_file_mentions_nobody(run: Command, cvm: Cvm) -> None:
    cvm.boot_fails(
        "ask @octocat, see https://evil.example/x ![](http://evil.example/i.png) #1 `@me` <img src=x>"
    )
    run.write(".env", "OLD=2\n")
    arguments = ("update", "--cvm", "my-app", "--env-file", ".env", "--summary-file", "summary.md")
    assert run(*arguments).code == 8
    summary = (run.folder / "summary.md").read_text()
    assert "octocat" in summary
    for live in ("@octocat", "@me", "https://evil", "http://evil", "![", "<img", " #1"):
        assert live not in summary, live


def test_the_error_is_an_output_even_where_a_value_is_a_word_of_it(step: Step, cvm: Cvm) -> None:
    done = step(env="NEW=update\nVERB=would")
    assert done.code == 4
    assert done.outputs["error"] == "the update would drop a variable of ’my-app’: OLD"
    assert not done.annotations("warning")


def test_a_value_that_the_guest_repeats_is_in_no_output(step: Step, cvm: Cvm) -> None:
    cvm.boot_fails("cannot log in with t0ken-value")
    done = step(env="OLD=2\nTOKEN=t0ken-value")
    assert done.code == 8
    assert "t0ken-value" not in done.output_file + done.summary
    assert "the update failed: " in done.outputs["error"]


def test_json_has_the_error_of_a_run_that_failed_early(run: Command) -> None:
    done = run("update", "--cvm", "my-app", "--json")
    assert done.code == 2
    assert done.json == {
        "status": "failed",
        "error": done.errors[0].removeprefix("error: "),
        "hint": done.hints[0].removeprefix("hint: ").replace(";", ","),
        "exit_code": 2,
        "version": __version__,
    }
    assert json.loads(done.stdout)
