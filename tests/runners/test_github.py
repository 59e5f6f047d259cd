"""Stories of a step in a workflow: what GitHub's runner makes of what it leaves."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from phala_secrets import __version__
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.wire import Answer, Request
from tests.support.command import ENTRYPOINT
from tests.support.faults import Fault
from tests.support.faulty import FaultySimulator as Simulator
from tests.support.step import Done, Step, command_of, read_outputs

OURS = {"add-mask", "group", "endgroup", "error", "warning", "notice", "debug"}
FORGERY = (
    "::add-mask::FORGED\n::error file=FORGED::FORGED\r##[add-mask]FORGED\n"
    "  ::set-output name=status::FORGED\n"
    "##[error]FORGED %0A::stop-commands::FORGED\u2028::warning::FORGED\x85::notice::FORGED"
    "\x1b[2K\v::error::FORGED"
)


def test_secrets_of_the_step_reach_the_guest(step: Step, cvm: Cvm) -> None:
    done = step(secrets="OLD, TOKEN=MY_TOKEN", environ={"OLD": "2", "MY_TOKEN": "t0ken-with-ümlaut"})
    assert done.code == 0, done.log
    assert cvm.environment == {"OLD": "2", "TOKEN": "t0ken-with-ümlaut"}


def test_so_they_do_in_the_image(step: Step, cvm: Cvm) -> None:
    done = step.apart(secrets="OLD", environ={"OLD": "2"})
    assert done.code == 0, done.log
    assert cvm.environment == {"OLD": "2"}


def test_all_secrets_of_a_workflow_with_those_that_are_wanted(step: Step, cvm: Cvm) -> None:
    secrets = {
        "APP_A": "a-value",
        "APP_B": "b\"'$value",
        "DEPLOY_KEY": "not-for-the-app",
        "github_token": "ghs_x",
    }
    done = step(secrets_json=json.dumps(secrets, indent=2), secrets_include="APP_*", allow_removal="true")
    assert done.code == 0, done.log
    assert cvm.environment == {"APP_A": "a-value", "APP_B": "b\"'$value"}


# -- masks -----------------------------------------------------------------------------------------


def test_masks_come_before_all_else_and_line_by_line(step: Step, cvm: Cvm) -> None:
    values = {
        "PEM": "-----BEGIN KEY-----\nMIIEvQ\n\n{\n-----END KEY-----\n",
        "CRLF": "first line\r\nsecond line\r\n",
        "PERCENT": "100%0A::error::50%25",
        "COLONS": "::add-mask::nested-value",
        "SHORT": "abc",
        "OLD": "p4$$w0rd",
    }
    done = step(secrets=",".join(values), environ=values, guest_check="warn", base64="PEM,CRLF")
    assert done.code == 0, done.log
    first_other = next(i for i, line in enumerate(done.lines) if not line.startswith("::add-mask::"))
    assert not [line for line in done.lines[first_other:] if "add-mask" in line]
    assert {"100%0A::error::50%25", "::add-mask::nested-value", "p4$$w0rd"} <= set(done.masks)
    assert all(len(mask) >= 4 and "\n" not in mask and "\r" not in mask for mask in done.masks)
    assert len(done.masks) == len(set(done.masks))


def test_keys_are_masked_even_when_the_run_ends_at_once(step: Step) -> None:
    done = step(private_key="hunter2-is-no-key", env="A=1")
    assert done.code == 2
    assert set(done.masks) == {step.inputs["api-key"], "hunter2-is-no-key"}
    assert done.lines.index("::add-mask::hunter2-is-no-key") < 2


def test_masks_of_a_thousand_variables_are_a_line_each(step: Step, cvm: Cvm) -> None:
    step.write("app.env", "".join(f"V{n}=value-{n}-{'x' * 200}\n" for n in range(1000)))
    done = step(env_file="app.env", allow_removal="true", mode="plan")
    assert done.code == 0, done.log[-2000:]
    assert len(done.masks) == 1001
    assert len(done.lines) < 1001 + 1100


# -- annotations -----------------------------------------------------------------------------------


def test_an_annotation_points_at_the_line(step: Step, cloud: Cloud) -> None:
    step.write("config/app.env", "A=1\n\nTOKEN\n")
    done = step(env_file="config/app.env")
    assert done.code == 2
    (error,) = done.annotations("error")
    assert error.properties["file"] == "config/app.env"
    assert error.properties["line"] == "3"
    assert error.data.splitlines()[0] == "env-file config/app.env, line 3 is not NAME=value"
    assert len(error.data.splitlines()) == 2
    assert done.outputs == {
        "status": "failed",
        "error": error.data.splitlines()[0],
        "hint": error.data.splitlines()[1],
        "exit-code": "2",
        "version": __version__,
    }


def test_a_warning_does_too(step: Step, cvm: Cvm) -> None:
    step.write("app.env", "OLD=1\nB=1\nOLD=2\n")
    done = step(env_file="app.env")
    assert done.code == 0
    (warning,) = done.annotations("warning")
    assert (warning.properties["file"], warning.properties["line"]) == ("app.env", "3")
    assert "(line 1 and line 3)" in warning.data


def test_of_many_problems_ten_are_annotated_the_last_among_them_and_all_are_told(step: Step) -> None:
    step.write("app.env", "".join(f'V{n}="a\nb"\n' for n in range(40)))
    done = step(env_file="app.env")
    assert done.code == 4
    errors = done.annotations("error")
    assert len(errors) == 10
    assert errors[-1].data.startswith("40 variables would not reach the guest as written")
    for n in range(40):
        assert any(f"V{n} (env-file app.env, line {2 * n + 1})" in line for line in done.lines)


def test_the_log_is_in_groups_that_end(step: Step, cvm: Cvm, simulator: Simulator) -> None:
    for _ in range(2):
        done = step(env="OLD=2")
        names = [command.name for command in done.commands if command.name.endswith("group")]
        assert names
        assert names == ["group", "endgroup"] * (len(names) // 2)
        simulator.faults.add(Fault("status", "PATCH", status=403))
    assert done.code == 5
    assert max(i for i, line in enumerate(done.lines) if line == "::endgroup::") < next(
        i for i, line in enumerate(done.lines) if line.startswith("::error")
    )


def test_debug_logging_is_for_the_runner_to_fold(step: Step, cloud: Cloud, cvm: Cvm) -> None:
    done = step(env="OLD=2", environ={"RUNNER_DEBUG": "1"})
    debug = done.annotations("debug")
    assert len(debug) == len(cloud.requests)
    assert all(request.request_id in done.log for request in cloud.requests)


# -- outputs and summary ---------------------------------------------------------------------------


def test_outputs_are_what_the_next_step_reads(step: Step, cvm: Cvm) -> None:
    before = cvm.compose_hash
    done = step(env="OLD=2\nTOKEN=t0ken-value")
    assert done.outputs == {
        "version": __version__,
        "status": "running",
        "approval-needed": "false",
        "cvm-id": cvm.id,
        "app-id": cvm.app_id,
        "kms": "phala",
        "kms-signer": cvm.kms.root_public_key,
        "trust": "api",
        "public-key": cvm.kms.app_public_key(cvm.app_id),
        "env-keys": '["OLD","TOKEN"]',
        "keys-added": '["TOKEN"]',
        "keys-removed": "[]",
        "allowed-envs-changed": "true",
        "compose-hash": cvm.compose_hash,
        "previous-compose-hash": before,
        "correlation-id": cvm.operations[-1].correlation_id,
    }


def test_a_ciphertext_is_an_output_and_nothing_in_the_log(step: Step, cvm: Cvm) -> None:
    sealed = step(mode="encrypt", env="OLD=2").outputs
    done = step(encrypted_env=sealed["encrypted-env"], env_keys=sealed["env-keys"])
    assert done.code == 0, done.log
    assert sealed["encrypted-env"] not in done.log
    assert cvm.environment == {"OLD": "2"}


def test_the_summary_has_names_and_counts_and_what_to_do(step: Step, cvm: Cvm) -> None:
    done = step(env="OLD=2\nTOKEN=t0ken-value")
    assert done.summary.startswith("### my-app runs with the new environment\n")
    assert "2 variables: 1 added, 1 sent anew" in done.summary
    for told in ("my-app", cvm.app_id, cvm.kms.root_public_key, "+ TOKEN", f"app-id: {cvm.app_id}"):
        assert told in done.summary
    assert "t0ken-value" not in done.summary


def test_the_summary_of_a_failed_step_says_why(step: Step, cloud: Cloud) -> None:
    done = step(cvm="no-app", env="OLD=2")
    assert done.code == 5
    assert done.summary.startswith("### Update of no-app failed (exit code 5)\n")
    assert "not found" in done.summary
    assert "check the name or id" in done.summary


@pytest.mark.usefixtures("time_passes")
def test_the_correlation_id_is_output_as_soon_as_it_is_known(step: Step, cvm: Cvm) -> None:
    cvm.restart_seconds = 60
    command = [sys.executable, "-IB", str(ENTRYPOINT)]
    environ = step.variables({"env": "OLD=2"})
    with subprocess.Popen(
        command, env=environ, cwd=step.workspace, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout
        for line in process.stdout:
            if "update accepted" in line:
                break
        outputs = read_outputs(step.output.read_text())
        process.send_signal(signal.SIGTERM)
        log = process.stdout.read()
        assert process.wait(timeout=20) == 130
    assert outputs["status"] == "in_progress"
    assert outputs["correlation-id"] == cvm.operations[-1].correlation_id
    after = read_outputs(step.output.read_text())
    assert (after["status"], after["exit-code"]) == ("interrupted", "130")
    assert after["correlation-id"] == outputs["correlation-id"]
    assert "was accepted for my-app" in log


# Root may write whatever it likes, so these are what nobody may.
UNWRITABLE = {
    "a folder": "{folder}",
    "in no folder": "{folder}/no/output",
    "read-only": "/proc/sys/kernel/ostype",
}


@pytest.mark.parametrize("path", UNWRITABLE.values(), ids=UNWRITABLE.keys())
def test_outputs_that_could_not_be_written_stop_the_run_before_it_begins(
    path: str, step: Step, cloud: Cloud, cvm: Cvm
) -> None:
    done = step(env="OLD=2", environ={"GITHUB_OUTPUT": path.format(folder=step.workspace)})
    assert done.code == 2
    assert "$GITHUB_OUTPUT cannot be written" in done.annotations("error")[-1].data
    assert not cloud.requests


def test_a_full_disk_under_the_outputs_stops_the_run_before_the_update(
    step: Step, cloud: Cloud, cvm: Cvm
) -> None:
    done = step(env="OLD=2", environ={"GITHUB_OUTPUT": "/dev/full"})
    assert done.code == 2
    assert "$GITHUB_OUTPUT cannot be written: No space left on device" in done.annotations("error")[-1].data
    assert not [request for request in cloud.requests if request.method == "PATCH"]


def test_a_disk_that_is_full_after_the_update_does_not_hide_that_it_happened(
    step: Step, cloud: Cloud, cvm: Cvm
) -> None:
    def fill(request: Request, answer: Answer) -> Answer:
        if request.method == "PATCH":
            step.output.unlink()
            step.output.symlink_to("/dev/full")
        return answer

    cloud.tamper = fill
    done = step(env="OLD=2")
    assert done.code == 0, done.log
    assert cvm.environment == {"OLD": "2"}
    assert any(
        "the output correlation-id is missing there" in each.data for each in done.annotations("warning")
    )
    assert cvm.operations[-1].correlation_id in done.log


@pytest.mark.parametrize("path", [*UNWRITABLE.values(), "/dev/full"], ids=[*UNWRITABLE.keys(), "full"])
def test_a_summary_that_cannot_be_written_is_no_reason_to_fail(path: str, step: Step, cvm: Cvm) -> None:
    done = step(env="OLD=2", environ={"GITHUB_STEP_SUMMARY": path.format(folder=step.workspace)})
    assert done.code == 0, done.log
    assert cvm.environment == {"OLD": "2"}
    assert any("$GITHUB_STEP_SUMMARY" in each.data for each in done.annotations("warning"))


def test_a_step_without_such_files_does_its_job(step: Step, cvm: Cvm) -> None:
    done = step(env="OLD=2", environ={"GITHUB_OUTPUT": None, "GITHUB_STEP_SUMMARY": None})
    assert done.code == 0
    assert cvm.environment == {"OLD": "2"}


# -- forgeries -------------------------------------------------------------------------------------


def assert_nothing_is_forged(done: Done) -> None:
    """The runner finds our commands alone: a forgery is only ever text in one of them."""
    for command in done.commands:
        assert command.name in OURS, command
        assert "FORGED" not in "".join(command.properties.values()), command
        if command.name == "add-mask":
            assert "FORGED" not in command.data
    assert set(done.outputs) <= {
        "status", "cvm-id", "app-id", "kms", "kms-signer", "trust", "public-key", "env-keys", "keys-added",
        "keys-removed", "allowed-envs-changed", "compose-hash", "previous-compose-hash", "correlation-id",
        "approval-needed", "error", "hint", "exit-code", "version",
    }  # fmt: skip
    assert done.outputs["status"] != "FORGED"
    for character in ("\x1b", "\v", "\u2028", "\x85", "\r"):
        assert character not in done.log.replace("\r\n", "\n")
    assert "\n::" not in done.summary
    assert "<script" not in done.summary


def test_the_forgery_would_be_one() -> None:
    forged = [command_of(line) for line in FORGERY.replace("\r", "\n").split("\n")]
    assert [command and command.name for command in forged] == [
        "add-mask", "error", "add-mask", "set-output", "error"
    ]  # fmt: skip


def poisoned(value: Any, at: str, name: str = "") -> Any:
    """An answer in which the forgery stands behind each text that is called ``at``, however deep."""
    if isinstance(value, dict):
        return {key: poisoned(inner, at, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [poisoned(inner, at, name) for inner in value]
    return f"{value}{FORGERY}<script>" if isinstance(value, str) and name == at else value


FIELDS = [
    "id", "name", "status", "app_id", "slug", "label", "k256_pubkey", "contract_address", "public_key",
    "signature", "encrypted_env_pubkey", "allowed_envs", "docker_compose_file", "compose_hash",
    "correlation_id", "message", "boot_progress", "boot_error", "error_message", "kms_type",
]  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_no_answer_forges_a_command(field: str, step: Step, cloud: Cloud, cvm: Cvm) -> None:
    def poison(request: Request, answer: Answer) -> Answer:
        return Answer(poisoned(answer.body, field), answer.status, answer.headers)

    cloud.tamper = poison
    if field in ("boot_error", "error_message"):
        cvm.boot_fails("no space")
    more = {"RUNNER_DEBUG": "1"}
    done = step(env="OLD=2\nTOKEN=value-of-token", allow_removal="true", wait_timeout="1", environ=more)
    assert "internal error in" not in done.log
    assert_nothing_is_forged(done)


ERRORS: dict[str, Callable[[], Fault]] = {
    "detail": lambda: Fault("status", status=403, body={"detail": FORGERY}),
    "detail rows": lambda: Fault(
        "status", status=422, body={"detail": [{"loc": ["body", FORGERY], "msg": FORGERY, "type": FORGERY}]}
    ),
    "structured": lambda: Fault(
        "status",
        status=403,
        body={
            "error_code": FORGERY,
            "message": FORGERY,
            "request_id": FORGERY,
            "details": [{"field": FORGERY, "value": FORGERY, "message": FORGERY}],
            "suggestions": [FORGERY] * 3,
            "links": [FORGERY],
        },
    ),
    "a redirect": lambda: Fault("redirect", location="https://evil.example/::error::FORGED##[error]FORGED"),
    "a header": lambda: Fault(
        "status", status=403, headers={"X-Request-ID": "##[error]FORGED ::error::FORGED"}, body={}
    ),
    "a type": lambda: Fault(
        "status", status=200, headers={"Content-Type": "##[error]FORGED ::error::FORGED"}, body=b"<html>"
    ),
    "text": lambda: Fault("status", status=403, body=FORGERY.encode()),
    "odd shapes": lambda: Fault(
        "status", status=403, body={"message": {"a": FORGERY}, "suggestions": {"b": 1}, "details": FORGERY}
    ),
    "odd rows": lambda: Fault("status", status=422, body={"detail": [{"loc": 5, "msg": [FORGERY]}, FORGERY]}),
}


# Of a 200 that is no answer to an update, the outcome is looked up: a story of its own.
@pytest.mark.parametrize(
    ("fault", "method"),
    [
        (ERRORS[name], method)
        for name in ERRORS
        for method in ("GET", "PATCH")
        if (name, method) != ("a type", "PATCH")
    ],
)
def test_no_refusal_forges_a_command(
    fault: Callable[[], Fault], method: str, step: Step, simulator: Simulator, cvm: Cvm
) -> None:
    spoilt = fault()
    spoilt.method = method
    simulator.faults.add(spoilt)
    done = step(env="OLD=2", environ={"RUNNER_DEBUG": "1"})
    assert done.code in (5, 6), done.log
    assert len(done.annotations("error")) == 1
    assert_nothing_is_forged(done)


@pytest.mark.parametrize(
    "name",
    [
        "::error::FORGED.env",
        "##[error]FORGED.env",
        "a,line=7,title=FORGED.env",
        "%0A::error::FORGED",
        "a b::c.env",
    ],
)
@pytest.mark.parametrize("content", [None, "TOKEN\n", "OLD=1\nOLD=2\n", 'OLD="a\nb"\n'])
def test_no_file_name_forges_a_command(name: str, content: str | None, step: Step, cvm: Cvm) -> None:
    if content is not None:
        step.write(name, content)
    done = step(env_file=name)
    for annotation in (*done.annotations("error"), *done.annotations("warning")):
        assert set(annotation.properties) <= {"file", "line", "title"}
        assert annotation.properties["title"] == "phala-secrets"
        assert annotation.properties.get("file", name) == name
    assert {command.name for command in done.commands} <= OURS


@pytest.mark.parametrize(
    "input_name",
    [
        "cvm",
        "app",
        "app-id",
        "kms",
        "api-url",
        "guest-check",
        "wait",
        "secrets",
        "files",
        "env",
        "secrets-include",
        "trusted-signers",
        "kms-contract",
        "allow-device",
        "env-keys",
        "timeout",
    ],
)
def test_no_input_forges_a_command(input_name: str, step: Step, cvm: Cvm) -> None:
    given: dict[str, Any] = {"env": "OLD=2", input_name.replace("-", "_"): FORGERY.replace("\n", " ") + "=1"}
    done = step(**given)
    assert done.code != 0
    assert "internal error in" not in done.log
    assert {command.name for command in done.commands} <= OURS
    assert len(done.annotations("error")) <= 1
    assert not [command for command in done.commands if "FORGED" in "".join(command.properties.values())]


def test_a_variable_that_is_called_like_a_command_is_only_text(step: Step, cvm: Cvm) -> None:
    step.write("app.env", "::error::FORGED=1\n")
    done = step(env_file="app.env")
    assert done.code == 2
    assert len(done.annotations("error")) == 1
    assert "FORGED" not in done.log


# -- the workspace ---------------------------------------------------------------------------------


def test_paths_start_from_the_workspace(step: Step, cvm: Cvm) -> None:
    step.write("deploy/app.env", "OLD=2\n")
    step.write("deploy/cert.pem", "one line")
    done = step(env_file="./deploy/app.env", files="CERT=deploy/cert.pem")
    assert done.code == 0, done.log
    assert cvm.environment == {"OLD": "2", "CERT": "one line"}


def test_nothing_but_the_runners_files_is_written(step: Step, cvm: Cvm, tmp_path: Path) -> None:
    step.write("app.env", "OLD=2\n")

    def files() -> set[str]:
        return {str(path) for path in tmp_path.rglob("*") if path.is_file()}

    before = files()
    done = step.apart(env_file="app.env", environ={"TMPDIR": str(tmp_path)})
    assert done.code == 0
    assert files() - before <= {str(step.output), str(step.summary)}


def test_what_base64_encodes_is_masked_as_well(step: Step, cvm: Cvm) -> None:
    step.write("key.pem", "-----BEGIN KEY-----\nc2VjcmV0LWxpbmU\n")
    done = step(files="TLS_KEY=key.pem", base64="TLS_KEY", allow_removal="true")
    assert done.code == 0, done.log
    assert {"c2VjcmV0LWxpbmU", "LS0tLS1CRUdJTiBLRVktLS0tLQpjMlZqY21WMExXeHBibVUK"} <= set(done.masks)
