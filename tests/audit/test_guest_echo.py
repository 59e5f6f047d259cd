"""Finding 4: what a guest says may quote a value, in any spelling, and must not be shown then."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote

import pytest

from .support import Cloud, Command, Cvm, Step, everything, everything_of_step, in_ci, outputs_file

VALUE = "pg://u:p@ss w0rd&<é>#1"
SPELLINGS = {
    "JSON of Go and of .NET": json.dumps(VALUE)[1:-1]
    .replace("&", "\\u0026")
    .replace("<", "\\u003c")
    .replace(">", "\\u003e"),
    "JSON with upper-case hex": json.dumps(VALUE)[1:-1].replace("\\u00e9", "\\u00E9"),
    "percent-encoded": quote(VALUE, safe=""),
    "HTML": html.escape(VALUE),
    "base64": base64.b64encode(VALUE.encode()).decode(),
    "hex": VALUE.encode().hex(),
    "octal": VALUE.replace("é", "\\303\\251"),
    "bytes of Python": str(VALUE.encode())[2:-1],
    "cut short": VALUE[:-3],
}


@pytest.fixture(autouse=True)
def no_restart(cloud: Cloud) -> None:
    """A guest fails at once, since it is its last words that count here."""
    cloud.restart_seconds = cloud.stale_seconds = 0.0
    cloud.streams = False


def update(run: Command, *more: str) -> tuple[str, ...]:
    return ("update", "--cvm", "my-app", "--env-file", ".env", "--guest-check", "off", *more)


@pytest.mark.parametrize("value", ["hunter2", "s3cr3t"])
@pytest.mark.parametrize("ci", ["gitlab", "circleci", "bitbucket", "buildkite", "shell"])
def test_a_short_value_that_the_guest_quotes_is_not_shown(
    run: Command, cvm: Cvm, ci: str, value: str
) -> None:
    """The log has the password, in CIs that mask nothing by themselves."""
    run.write(".env", f"OLD={value}\n")
    cvm.boot_fails(f"web: password authentication failed for OLD={value}")
    in_ci(run, ci)
    more = () if ci in ("circleci", "bitbucket") else ("--output-file", "out.env")
    outcome = run(*update(run, *more))
    assert outcome.code == 8, outcome.printed
    assert value not in everything(outcome, outputs_file(run, ci))


def test_a_short_value_that_the_guest_quotes_is_not_in_the_json(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    """``results`` of ``--json`` have the password."""
    cloud.add_cvm("my-app-2", app_id=cvm.app_id, environment={"OLD": "1"}).boot_fails("OLD=hunter2 refused")
    run.write(".env", "OLD=hunter2\n")
    outcome = run("update", "--app", cvm.app_id, "--env-file", ".env", "--json")
    assert outcome.code == 8, outcome.printed
    assert len(outcome.json["results"]) == 2
    assert "hunter2" not in outcome.stdout


def test_a_short_value_that_the_guest_quotes_is_not_in_the_summary(step: Step, cvm: Cvm) -> None:
    """The summary has the password: GitHub's mask covers the log alone."""
    cvm.boot_fails("OLD=hunter2 refused")
    done = step(env="OLD=hunter2")
    assert done.code == 8, done.log
    assert done.summary
    assert "hunter2" not in everything_of_step(done)


def test_a_short_value_that_the_guest_quotes_is_not_in_results(step: Step, cloud: Cloud, cvm: Cvm) -> None:
    """``results`` in ``$GITHUB_OUTPUT`` has the password."""
    cloud.add_cvm("my-app-2", app_id=cvm.app_id, environment={"OLD": "1"}).boot_fails("OLD=hunter2 refused")
    done = step(cvm=None, app=cvm.app_id, env="OLD=hunter2")
    assert done.code == 8, done.log
    assert done.outputs["results"]
    assert "hunter2" not in done.output_file


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_value_that_the_guest_quotes_in_another_spelling_is_not_shown(
    run: Command, cvm: Cvm, spelling: str
) -> None:
    """The log has the value, as the program in the guest wrote it."""
    run.write(".env", f"OLD='{VALUE}'\n")
    cvm.boot_fails(f"invalid setting {SPELLINGS[spelling]} of web")
    outcome = in_ci(run, "gitlab")(*update(run))
    assert outcome.code == 8, outcome.printed
    assert SPELLINGS[spelling] not in outcome.printed


def test_a_value_that_the_guest_quotes_as_it_is_is_not_shown(run: Command, cvm: Cvm) -> None:
    """What the other spellings are measured by: this one holds today."""
    run.write(".env", f"OLD='{VALUE}'\n")
    cvm.boot_fails(f"invalid setting {VALUE} of web")
    outcome = in_ci(run, "gitlab")(*update(run))
    assert outcome.code == 8, outcome.printed
    assert VALUE not in outcome.printed
