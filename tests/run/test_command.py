"""Stories of the command: what a person or a script gives it, what it prints, and what the guest gets."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from phala_secrets import __version__
from phala_secrets.inputs.command_line import parse
from phala_secrets.inputs.table import MODES
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.guest import boot
from tests.support.command import Command
from tests.support.faults import Fault
from tests.support.faulty import FaultySimulator as Simulator
from tests.support.step import Step

UPDATE = ("update", "--cvm", "my-app")


@pytest.fixture(autouse=True)
def dotenv(run: Command) -> Path:
    return run.write(".env", "OLD=2\nTOKEN='p4$$w0rd${X}'\n")


def asked(cloud: Cloud, method: str) -> list[str]:
    return [request.path for request in cloud.requests if request.method == method]


# -- modes -----------------------------------------------------------------------------------------


def test_update_puts_a_file_into_the_guest_and_says_what_became_of_it(run: Command, cvm: Cvm) -> None:
    done = run(*UPDATE, "--env-file", ".env")
    assert done.code == 0, done.printed
    assert cvm.environment == {"OLD": "2", "TOKEN": "p4$$w0rd${X}"}
    assert done.stdout == ""
    for told in ("my-app", cvm.app_id, cvm.kms.root_public_key, "TOKEN", cvm.operations[-1].correlation_id):
        assert told in done.stderr
    assert "my-app runs with the new environment" in done.lines
    assert re.fullmatch(r"update of my-app: running after \d+\.\d s", done.lines[-1])


def test_update_works_from_a_shell(run: Command, cvm: Cvm) -> None:
    done = run.apart(*UPDATE, "--env-file", "-", stdin=b"OLD=2\n")
    assert done.code == 0, done.printed
    assert cvm.environment == {"OLD": "2"}


def test_plan_says_what_update_would_do_and_changes_nothing(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    done = run("plan", "--cvm", "my-app", "--env-file", ".env", "--json")
    assert done.code == 0
    assert done.json["status"] == "planned"
    assert done.json["keys_added"] == ["TOKEN"]
    assert done.json["keys_removed"] == []
    assert done.json["allowed_envs_changed"] is True
    assert "Plan for my-app: update would go through (exit code 0)" in done.lines
    assert "It would restart the CVM, even if no value is new." in done.lines
    diff = [line.strip() for line in done.lines if line.startswith(("  +", "  ~", "  -"))]
    assert [line.partition("  ")[0] for line in diff] == ["+ TOKEN", "~ OLD (sent anew)"]
    assert "  2 variables: 1 to add, 1 sent anew" in done.lines
    assert not asked(cloud, "PATCH")
    assert cvm.environment == {"OLD": "1"}


def test_plan_ends_as_update_would_and_still_says_everything(run: Command, cvm: Cvm) -> None:
    done = run("plan", "--cvm", "my-app", "--secrets", "LANG", "--json")
    assert done.code == 4
    assert done.json["keys_removed"] == ["OLD"]
    assert done.json["status"] == "failed"
    assert "Plan for my-app: update would be refused (exit code 4)" in done.lines
    assert any(line.startswith("  - OLD (would be dropped)") for line in done.lines)
    assert run("plan", "--cvm", "my-app", "--secrets", "LANG", "--allow-removal").code == 0


def test_encrypt_prints_a_ciphertext_that_only_the_guest_opens(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    done = run("encrypt", "--cvm", "my-app", "--env-file", ".env")
    assert done.code == 0
    assert re.fullmatch(r"[0-9a-f]+\n", done.stdout)
    sealed, key = bytes.fromhex(done.stdout.strip()), cvm.kms.app_key(cvm.app_id)
    assert boot(sealed, key, ["OLD", "TOKEN"]) == {"OLD": "2", "TOKEN": "p4$$w0rd${X}"}
    assert not asked(cloud, "PATCH")


@pytest.mark.parametrize("mode", ["verify", "encrypt", "plan", "update"])
def test_every_mode_outputs_the_compose_hash(run: Command, cvm: Cvm, mode: str) -> None:
    before = cvm.compose_hash
    source = () if mode == "verify" else ("--env-file", ".env")
    removal = ("--allow-removal",) if mode in ("plan", "update") else ()
    outputs = run(mode, "--cvm", "my-app", *source, *removal, "--json").json
    assert (outputs["compose_hash"] == before) == (mode == "verify"), "the one that it has, or will have"
    assert re.fullmatch("[0-9a-f]{64}", outputs["compose_hash"])
    if mode == "update":
        assert outputs["compose_hash"] == cvm.compose_hash


def test_what_was_encrypted_is_sent_later_by_somebody_who_has_no_secret(run: Command, cvm: Cvm) -> None:
    sealed = run("encrypt", "--cvm", "my-app", "--env-file", ".env", "--json").json
    run.write("sealed.hex", sealed["encrypted_env"] + "\n")
    done = run(*UPDATE, "--encrypted-env-file", "sealed.hex", "--env-keys", json.dumps(sealed["env_keys"]))
    assert done.code == 0, done.printed
    assert cvm.environment == {"OLD": "2", "TOKEN": "p4$$w0rd${X}"}


def test_verify_proves_the_key_and_needs_no_source(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    done = run("verify", "--cvm", "my-app", "--json")
    assert done.code == 0
    assert done.json == {
        "version": __version__,
        "status": "verified",
        "cvm_id": cvm.id,
        "app_id": cvm.app_id,
        "kms": "phala",
        "kms_signer": cvm.kms.root_public_key,
        "trust": "api",
        "public_key": cvm.kms.app_public_key(cvm.app_id),
        "compose_hash": cvm.compose_hash,
    }
    assert len(cloud.requests) == 3


def test_list_shows_the_cvms_of_an_app(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    twin = cloud.add_cvm("my-app-2", app_id=cvm.app_id)
    done = run("list", "--app", f"0x{cvm.app_id}")
    assert done.code == 0
    assert done.stderr == ""
    header, *rows = (line.split() for line in done.stdout.splitlines())
    assert header == ["id", "name", "app_id", "status"]
    assert rows == [[each.id, each.name, cvm.app_id, "running"] for each in (cvm, twin)]
    matrix = run("list", "--app", cvm.app_id, "--json").json
    assert [row["id"] for row in matrix] == [cvm.id, twin.id]


def test_list_shows_every_cvm_of_the_workspace_without_an_app(run: Command, cloud: Cloud) -> None:
    names = [cloud.add_cvm(f"app-{number}").name for number in range(120)]
    listed = run("list")
    assert listed.code == 0, listed.printed
    assert [line.split()[1] for line in listed.stdout.splitlines()[1:]] == names
    assert [row["name"] for row in run("list", "--json").json] == names
    assert [path for path in asked(cloud, "GET") if "paginated" in path]


def test_kms_looks_up_what_there_is(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    base = cloud.add_kms("base-1", 8453, "0x" + "ab" * 20)
    listed = run("kms", "list")
    assert [line.split()[1] for line in listed.stdout.splitlines()[1:]] == ["phala", "base-1"]
    (node,) = run("kms", "nodes", "base-1", "--json").json["items"]
    assert run("kms", "info", node["id"], "--json").json["slug"] == base.nodes[0].slug
    assert run("kms", "on-chain", "base", "--json").json["chain_id"] == 8453
    key = run("kms", "pubkey", "phala", cvm.app_id, "--json").json
    assert key["public_key"] == cvm.kms.app_public_key(cvm.app_id)
    ids = run("kms", "next-app-ids", "3").stdout.splitlines()[1:]
    assert len({line.split()[0] for line in ids}) == 3
    assert len(run("kms", "next-app-ids", "--json").json["app_ids"]) == 1


def test_kms_list_has_them_all(run: Command, cloud: Cloud) -> None:
    for number in range(120):
        cloud.add_kms(f"kms-{number}", 8453, f"0x{number:040x}")
    assert len(run("kms", "list").stdout.splitlines()) == 1 + 121
    assert len(run("kms", "list", "--json").json["items"]) == 121


def test_simulate_is_a_cloud_to_try_things_on(run: Command) -> None:
    command = [sys.executable, "-m", "phala_secrets", "simulate", "--port=0", "--cvm=shop", "--key=phak_mine"]
    with subprocess.Popen(command, env=run.variables(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = ""
        while "guest" not in said:
            said += process.stdout.readline()
        exports = dict(re.findall(r"^export (\w+)=(\S+)$", said, re.MULTILINE))
        done = run("update", "--cvm=shop", "--env-file=.env", "--allow-removal", "--no-wait", environ=exports)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
    assert exports["PHALA_CLOUD_API_KEY"] == "phak_mine"
    assert done.code == 0, done.printed


# -- help ------------------------------------------------------------------------------------------


def test_the_bare_command_prints_its_help_and_does_nothing(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    run.write("phala.toml", 'name = "my-app"\nenv_file = ".env"\n')
    for person in (False, True):
        done = run(person=person)
        assert done.code == 2
        assert done.lines[0] == "usage: phala-secrets MODE [flags]"
        assert done.errors == ["error: no mode specified"]
    assert not cloud.requests
    assert run(environ={"PHALA_SECRETS_MODE": "verify"}).code == 0
    assert run(environ={"INPUT_MODE": "verify"}).code == 0


@pytest.mark.usefixtures("time_passes")
def test_a_step_without_a_mode_updates_and_a_script_of_a_workflow_does_not(
    step: Step, run: Command, cloud: Cloud, cvm: Cvm
) -> None:
    assert step.apart(mode="", env="OLD=2").code == 0
    assert cvm.environment == {"OLD": "2"}
    cloud.reset_requests()
    script = run(environ={"GITHUB_ACTIONS": "true", "PHALA_SECRETS_CVM": "my-app"})
    assert script.code == 2
    assert not cloud.requests


@pytest.mark.parametrize("mode", [*MODES, "list", "kms", "simulate", "completion"])
def test_every_help_has_an_example_that_parses_and_fits_a_terminal(mode: str, run: Command) -> None:
    done = run(mode, "--help", environ={"COLUMNS": "80"})
    _, _, after = done.stdout.partition("examples:\n")
    examples = [line.split() for line in after.split("\n\n")[0].splitlines()]
    assert examples
    for command, *arguments in examples:
        assert command == "phala-secrets"
        assert arguments[0] == mode
        written = arguments[: arguments.index(">")] if ">" in arguments else arguments
        parse(written)
    wide = [line for line in done.stdout.splitlines() if len(line) > 80 and "bash-completion" not in line]
    assert wide == []


@pytest.mark.parametrize("mode", [*MODES, "list", "simulate"])
def test_every_mode_has_its_help(mode: str, run: Command) -> None:
    for flag in ("--help", "-h"):
        done = run(mode, flag)
        assert done.code == 0
        assert done.stdout.startswith(f"usage: phala-secrets {mode}")
        assert done.stderr == ""


def test_help_comes_first_and_the_version_too(run: Command, cloud: Cloud) -> None:
    broken = {"PHALA_SECRETS_TYPO": "x", "PHALA_CLOUD_API_KEY": None}
    for arguments in (["--help"], ["-h"], ["help"], ["kms"], ["kms", "--help"], ["kms", "info", "--help"]):
        done = run(*arguments, environ=broken)
        assert done.code == 0
        assert "usage: phala-secrets" in done.stdout
    assert run("--version", environ=broken).stdout == f"phala-secrets {__version__}\n"
    assert not cloud.requests


# -- outputs ---------------------------------------------------------------------------------------


def test_json_is_one_document_with_every_output(run: Command, cvm: Cvm) -> None:
    before = cvm.compose_hash
    outputs = run(*UPDATE, "--env-file", ".env", "--json").json
    assert outputs == {
        "version": __version__,
        "status": "running",
        "approval_needed": False,
        "cvm_id": cvm.id,
        "app_id": cvm.app_id,
        "kms": "phala",
        "kms_signer": cvm.kms.root_public_key,
        "trust": "api",
        "public_key": cvm.kms.app_public_key(cvm.app_id),
        "env_keys": ["OLD", "TOKEN"],
        "keys_added": ["TOKEN"],
        "keys_removed": [],
        "allowed_envs_changed": True,
        "compose_hash": cvm.compose_hash,
        "previous_compose_hash": before,
        "correlation_id": cvm.operations[-1].correlation_id,
    }


def test_an_output_file_is_plain_dotenv(run: Command, cvm: Cvm) -> None:
    path = run.write("out.env", "what=was\nthere before\n")
    assert run(*UPDATE, "--env-file", ".env", "--output-file", "out.env").code == 0
    lines = path.read_text().splitlines()
    outputs = dict(line.split("=", 1) for line in lines)
    assert len(outputs) == len(lines)
    assert outputs["PHALA_CVM_ID"] == cvm.id
    assert outputs["PHALA_STATUS"] == "running"
    assert outputs["PHALA_ENV_KEYS"] == '["OLD","TOKEN"]'
    assert outputs["PHALA_ALLOWED_ENVS_CHANGED"] == "true"
    assert all(re.fullmatch(r"PHALA_[A-Z_]+", name) for name in outputs)


def test_what_is_known_when_a_run_fails_is_output_all_the_same(run: Command, cvm: Cvm) -> None:
    cvm.boot_fails("no space left on device")
    done = run(*UPDATE, "--env-file", ".env", "--json", "--output-file", "out.env")
    assert done.code == 8
    assert done.json["status"] == "failed"
    assert done.json["correlation_id"] == cvm.operations[-1].correlation_id
    assert "no space left on device" in done.errors[-1]
    assert done.json["correlation_id"] in done.errors[-1]
    assert "PHALA_STATUS=failed\n" in (run.folder / "out.env").read_text()


def test_quiet_says_nothing_unless_something_is_wrong(run: Command, cvm: Cvm) -> None:
    done = run(*UPDATE, "--env-file", ".env", "--quiet")
    assert (done.code, done.printed) == (0, "")
    failed = run("update", "--cvm", "no-app", "--env-file", ".env", "--quiet")
    assert [line.split(":")[0] for line in failed.lines] == ["error", "hint"]


def test_quiet_still_warns(run: Command, cvm: Cvm) -> None:
    run.write("twice.env", "OLD=2\nOLD=3\n")
    done = run(*UPDATE, "--env-file", "twice.env", "--quiet")
    assert [line.split(":")[0] for line in done.lines] == ["warning", "hint"]
    assert cvm.environment == {"OLD": "3"}


def test_quiet_encrypt_is_for_pipes(run: Command, cvm: Cvm) -> None:
    done = run("encrypt", "--cvm", "my-app", "--env-file", ".env", "--quiet")
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


def test_verbose_has_a_line_for_each_request_with_what_support_asks_for(
    run: Command, cloud: Cloud, cvm: Cvm
) -> None:
    for given in ({}, {"RUNNER_DEBUG": "1"}):
        cloud.reset_requests()
        flags = () if given else ("--verbose",)
        done = run(*UPDATE, "--env-file", ".env", *flags, environ=given)
        traced = [line for line in done.lines if re.match("(GET|PATCH) .*→", line)]
        assert len(traced) == len(cloud.requests)
        for request in cloud.requests:
            (line,) = [line for line in traced if request.request_id in line]
            assert f"{request.method} {request.path} → {request.status} in " in line


def test_a_log_has_no_colours_and_no_spinner(run: Command, cvm: Cvm) -> None:
    assert "\x1b" not in run(*UPDATE, "--env-file", ".env").printed


def test_not_waiting_leaves_the_cvm_to_itself(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    cvm.restart_seconds = 60
    done = run(*UPDATE, "--env-file", ".env", "--no-wait", "--json")
    assert done.code == 0
    assert done.json["status"] == "in_progress"
    assert not [path for path in asked(cloud, "GET") if path.endswith("/state")]


def test_waiting_ends_when_its_time_is_up(run: Command, cvm: Cvm) -> None:
    cvm.restart_seconds = 60
    done = run(*UPDATE, "--env-file", ".env", "--wait-timeout", "1", "--json")
    assert done.code == 8
    assert done.json["status"] == "failed"
    assert "not running after 1 s" in done.errors[-1]
    assert "wait-timeout" in done.hints[-1]


def test_a_reader_that_goes_away_ends_it_quietly(run: Command, cloud: Cloud) -> None:
    for number in range(100):
        cloud.add_kms(f"kms-{number}", 8453, f"0x{number:040x}")
    python = f"{sys.executable} -m phala_secrets kms list --json"
    shell = run.apart("-c", f"{python} | true; {python} >&-; true", python=("sh",))
    assert "Traceback" not in shell.stderr
    assert "internal error in" not in shell.stderr


# -- the three ways in -----------------------------------------------------------------------------


def named_cvm(done_json: dict[str, str], *cvms: Cvm) -> str:
    return next(cvm.name for cvm in cvms if cvm.id == done_json["cvm_id"])


def test_a_flag_wins_over_an_input_over_a_variable(run: Command, cloud: Cloud) -> None:
    cvms = [cloud.add_cvm(name) for name in ("flag", "input", "shell-input", "variable", "toml")]
    run.write("phala.toml", 'name = "toml"')
    ways = {"INPUT_CVM": "input", "PHALA_SECRETS_CVM": "variable"}

    def picked(*flags: str, **environ: str) -> str:
        return named_cvm(run("verify", "--json", *flags, environ=environ).json, *cvms)

    assert picked("--cvm", "flag", **ways) == "flag"
    assert picked(**ways) == "input"
    assert picked(PHALA_SECRETS_CVM="variable") == "variable"
    assert picked() == "toml"
    assert picked("--cvm", "", **{**ways, "INPUT_CVM": " \n"}) == "variable", "empty is not given"


def test_an_input_has_githubs_name_or_one_that_a_shell_can_set(run: Command, cvm: Cvm) -> None:
    for name in ("INPUT_ENV-FILE", "INPUT_ENV_FILE", "PHALA_SECRETS_ENV_FILE"):
        run.write("this.env", f"OLD={name}\n")
        done = run(*UPDATE, environ={name: "this.env"})
        assert done.code == 0, done.printed
        assert cvm.environment == {"OLD": name}
    run.write("that.env", "OLD=that\n")
    both = {"INPUT_ENV-FILE": "that.env", "INPUT_ENV_FILE": "this.env", "PHALA_SECRETS_ENV_FILE": "no.env"}
    assert run(*UPDATE, environ=both).code == 0
    assert cvm.environment == {"OLD": "that"}


def test_a_boolean_is_a_flag_its_opposite_or_a_word(run: Command, cvm: Cvm) -> None:
    def status(*flags: str, **environ: str) -> str:
        return str(run(*UPDATE, "--env-file", ".env", "--json", *flags, environ=environ).json["status"])

    assert status() == "running"
    assert status("--no-wait") == "in_progress"
    cvm.wait()
    assert status("--wait", INPUT_WAIT="false") == "running"
    assert status(PHALA_SECRETS_WAIT="FALSE") == "in_progress"


def test_sources_add_up_the_strongest_last(run: Command, cvm: Cvm) -> None:
    for number in (1, 2):
        run.write(f"{number}.env", "".join(f"{name}=file{number}\n" for name in "ABCDE"[number - 1 :]))
    run.write("c.txt", "files")
    environ = {
        "INPUT_ENV": "C=env\nD=env\nE=env",
        "INPUT_SECRETS-JSON": json.dumps({"E": "json", "F": "json", "G": "not included"}),
        "INPUT_SECRETS-INCLUDE": "E,F",
        "STEP_F": "secrets",
    }
    sources = ("--env-file=1.env", "--env-file=2.env", "--files=D=c.txt", "--secrets=F=STEP_F")
    done = run(*UPDATE, *sources, "--allow-removal", environ=environ)
    assert done.code == 0, done.printed
    assert cvm.environment == {
        "A": "file1", "B": "file2", "C": "env", "D": "files", "E": "json", "F": "secrets"
    }  # fmt: skip


def test_what_the_guest_could_not_take_goes_as_base64(run: Command, cvm: Cvm) -> None:
    pem = "-----BEGIN KEY-----\nAAAA\n-----END KEY-----\n"
    run.write("key.pem", pem)
    refused = run(*UPDATE, "--files", "OLD=key.pem")
    assert refused.code == 4
    assert "OLD" in refused.hints[0]
    assert "base64" in refused.hints[0]
    assert run(*UPDATE, "--files", "OLD=key.pem", "--base64", "OLD").code == 0
    assert cvm.environment == {"OLD": "LS0tLS1CRUdJTiBLRVktLS0tLQpBQUFBCi0tLS0tRU5EIEtFWS0tLS0tCg=="}


def test_guest_check_can_be_softened(run: Command, cvm: Cvm) -> None:
    run.write("odd.env", 'OLD="a\nb"\n')
    warned = run(*UPDATE, "--env-file", "odd.env", "--guest-check", "warn")
    assert warned.code == 0
    assert any(line.startswith("warning: odd.env:1: OLD") for line in warned.lines)
    assert cvm.environment == {"OLD": "a\\nb"}, "as the guest reads it"
    silent = run(*UPDATE, "--env-file", "odd.env", "--guest-check", "off")
    assert silent.code == 0
    assert "warning" not in silent.stderr


@pytest.mark.parametrize("flag", ["--allow-removal=all", "--allow-removal all"])
def test_all_variables_are_removed_only_by_that_word(run: Command, cvm: Cvm, flag: str) -> None:
    run.write("empty.env", "")
    assert run(*UPDATE, "--env-file", "empty.env", "--allow-removal").code == 2
    assert cvm.environment == {"OLD": "1"}
    done = run(*UPDATE, "--env-file", "empty.env", *flag.split())
    assert done.code == 0, done.printed
    assert cvm.environment == {}


def test_a_removal_is_a_flag_its_opposite_or_a_word(run: Command, cvm: Cvm) -> None:
    arguments = ("plan", "--cvm", "my-app", "--secrets", "LANG")
    allowed: dict[str, str | None] = {"PHALA_SECRETS_ALLOW_REMOVAL": "True"}
    assert run(*arguments).code == 4
    assert run(*arguments, environ=allowed).code == 0
    assert run(*arguments, "--no-allow-removal", environ=allowed).code == 4
    assert run(*arguments, "--allow-removal").code == 0
    assert run(*arguments, "--allow-removal=false").code == 4
    assert run(*arguments, "--no-allow-removal=all").code == 2


# -- who, and where --------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["id", "uuid", "app_id", "instance_id", "name"])
def test_phala_toml_names_the_cvm_and_its_file(key: str, run: Command, cloud: Cloud, cvm: Cvm) -> None:
    cloud.add_cvm("another")
    values = {
        "id": cvm.id,
        "uuid": cvm.vm_uuid,
        "app_id": cvm.app_id,
        "instance_id": f"instance_{cvm.instance_id}",
        "name": cvm.name,
    }
    weaker = list(values)[list(values).index(key) + 1 :]
    text = f'env_file = ".env"\n{key} = "{values[key]}"\n' + "".join(
        f'{name} = "another"\n' for name in weaker
    )
    run.write("phala.toml", text)
    done = run("update")
    assert done.code == 0, done.printed
    assert cvm.environment == {"OLD": "2", "TOKEN": "p4$$w0rd${X}"}


def test_the_file_of_phala_toml_is_no_source_beside_another(run: Command, cvm: Cvm) -> None:
    run.write("phala.toml", 'name = "my-app"\nenv_file = ".env"\n')
    assert run("update", "--secrets", "OLD=LANG").code == 0
    assert cvm.environment == {"OLD": "C.UTF-8"}


def test_the_file_of_phala_toml_is_a_persons_source_for_a_cvm_that_is_named_too(
    run: Command, cloud: Cloud, cvm: Cvm
) -> None:
    run.write("phala.toml", 'name = "another"\nenv_file = ".env"\n')
    assert run("update", "--cvm", "my-app").code == 2
    assert not cloud.requests
    done = run("update", "--cvm", "my-app", "--yes", person=True)
    assert done.code == 0, done.printed
    assert cvm.environment == {"OLD": "2", "TOKEN": "p4$$w0rd${X}"}


def test_phala_toml_may_have_several_files(run: Command, cvm: Cvm) -> None:
    run.write("more.env", "TOKEN=of-more\n")
    run.write("phala.toml", 'name = "my-app"\nenv_file = [".env", "more.env"]\n')
    done = run("update")
    assert done.code == 0, done.printed
    assert cvm.environment == {"OLD": "2", "TOKEN": "of-more"}


def test_in_ci_a_source_that_is_empty_is_no_file_of_the_checkout(
    run: Command, cloud: Cloud, cvm: Cvm
) -> None:
    run.write("phala.toml", 'name = "my-dev"\nenv_file = ".env"\n')
    done = run("update", "--cvm", "my-app", environ={"CI": "true", "PHALA_SECRETS_ENV": ""})
    assert done.code == 2
    assert "no source specified" in done.errors[0]
    assert not cloud.requests


def test_the_file_of_phala_toml_is_no_source_beside_a_ciphertext(run: Command, cvm: Cvm) -> None:
    run.write("phala.toml", 'name = "my-app"\nenv_file = ".env"\n')
    sealed = run("encrypt", "--secrets", "OLD=LANG").stdout
    run.write("sealed", sealed)
    done = run("update", "--encrypted-env-file", "sealed", "--env-keys", '["OLD"]')
    assert done.code == 0, done.printed
    assert cvm.environment == {"OLD": "C.UTF-8"}


def test_what_is_not_looked_for_in_phala_toml_is_not_read(run: Command, cvm: Cvm) -> None:
    run.write("phala.toml", "name = my-app")
    assert run("update", "--cvm", "my-app", "--env-file", ".env").code == 0


def test_every_way_to_name_a_cvm_leads_to_it(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    cloud.add_cvm("another")
    uuid = cvm.vm_uuid
    names = [cvm.name, cvm.id, uuid, uuid.replace("-", ""), uuid.upper(), f"instance_{cvm.instance_id}"]
    for name in (*names, cvm.app_id, f"0x{cvm.app_id}", f"app_{cvm.app_id}", f" {cvm.name} "):
        done = run("verify", "--cvm", name, "--json")
        assert done.code == 0, (name, done.printed)
        assert done.json["cvm_id"] == cvm.id


def login(run: Command, cloud: Cloud, simulator: Simulator) -> dict[str, str | None]:
    """The official CLI's login in the home folder, with a second profile that is of no use."""
    good = {"token": cloud.api_key, "api_prefix": simulator.url}
    profiles = {"work": good, "old": {"token": "phak_old", "api_prefix": simulator.url}}
    content = {"schema_version": 1, "current_profile": "work", "profiles": profiles}
    run.write("../folder-home/.phala-cloud/credentials.json", json.dumps(content))
    return {"PHALA_CLOUD_API_KEY": None, "PHALA_CLOUD_API_PREFIX": None}


def test_a_person_who_is_logged_in_needs_no_key(
    run: Command, cloud: Cloud, simulator: Simulator, cvm: Cvm
) -> None:
    out = login(run, cloud, simulator)
    assert run("verify", "--cvm", "my-app", environ=out, person=True).code == 0
    assert run("kms", "list", environ=out, person=True).code == 0
    elsewhere = {
        **out,
        "HOME": "/nowhere",
        "PHALA_CLOUD_DIR": str(run.folder.parent / "folder-home/.phala-cloud"),
    }
    assert run("verify", "--cvm", "my-app", environ=elsewhere, person=True).code == 0
    assert run("verify", "--cvm", "my-app", environ={**out, "HOME": "/nowhere"}, person=True).code == 2


def test_a_login_is_not_for_ci(run: Command, cloud: Cloud, simulator: Simulator, cvm: Cvm) -> None:
    out = login(run, cloud, simulator)
    assert run("verify", "--cvm", "my-app", environ=out).code == 2  # no terminal: an unknown CI
    for ci in ({"CI": "true"}, {"CI": "1"}, {"GITHUB_ACTIONS": "true"}, {"JENKINS_URL": "http://j/"}):
        done = run("verify", "--cvm", "my-app", environ={**out, **ci}, person=True)
        assert done.code == 2
        assert "no API key" in done.printed
    assert not cloud.requests


def test_a_project_says_which_login_it_is_for(
    run: Command, cloud: Cloud, simulator: Simulator, cvm: Cvm
) -> None:
    out = login(run, cloud, simulator)
    run.write("phala.toml", 'name = "my-app"\nprofile = "old"\n')
    assert run("verify", environ=out, person=True).code == 5
    assert run("verify", "--cvm", "my-app", environ=out, person=True).code == 5
    assert run("kms", "list", environ=out, person=True).code == 5
    run.write("phala.toml", 'name = "my-app"\nprofile = "no-such"\n')
    assert run("verify", environ=out, person=True).code == 2


def test_a_key_that_is_given_wins_over_a_login(
    run: Command, cloud: Cloud, simulator: Simulator, cvm: Cvm
) -> None:
    out = login(run, cloud, simulator)
    given = {**out, "PHALA_CLOUD_API_KEY": "phak_wrong", "PHALA_CLOUD_API_PREFIX": simulator.url}
    assert run("verify", "--cvm", "my-app", environ=given, person=True).code == 5


def test_the_key_may_be_in_a_file(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    run.write("api.key", f"{cloud.api_key}\n")
    nothing = {"PHALA_CLOUD_API_KEY": None}
    assert run("verify", "--cvm", "my-app", "--api-key-file", "api.key", environ=nothing).code == 0
    wrong = {"PHALA_CLOUD_API_KEY": "phak_wrong"}
    assert run("verify", "--cvm", "my-app", "--api-key-file", "api.key", environ=wrong).code == 0


def test_requests_say_who_is_asking(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    run(*UPDATE, "--env-file", ".env")
    assert {request.headers["user-agent"] for request in cloud.requests} == {f"phala-secrets/{__version__}"}
    assert {request.headers["x-api-key"] for request in cloud.requests} == {cloud.api_key}


# -- ends ------------------------------------------------------------------------------------------


def test_a_refusal_is_told_with_what_support_needs(run: Command, simulator: Simulator, cvm: Cvm) -> None:
    body = {
        "error_code": "ERR-09-001",
        "message": "The workspace is suspended",
        "suggestions": ["Pay the bill"],
    }
    simulator.faults.add(Fault("status", "PATCH", status=403, body=body))
    done = run(*UPDATE, "--env-file", ".env", "--json")
    assert done.code == 5
    assert done.json["status"] == "failed"
    for part in ("The workspace is suspended", "ERR-09-001", "HTTP 403"):
        assert part in done.errors[-1]
    assert "Pay the bill" in done.hints[-1]
    assert cvm.environment == {"OLD": "1"}


@pytest.mark.usefixtures("time_passes")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_says_how_far_it_got(number: signal.Signals, run: Command, cvm: Cvm) -> None:
    cvm.restart_seconds = 60
    command = [sys.executable, "-m", "phala_secrets", *UPDATE, "--env-file", ".env", "--json"]
    process = subprocess.Popen(
        command,
        cwd=run.folder,
        env=run.variables(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    lines = []
    for line in process.stderr:
        lines.append(line)
        if "update accepted" in line:
            process.send_signal(number)
            break
    stdout, rest = process.communicate(timeout=20)
    assert process.returncode == 130, "".join(lines) + rest
    assert "interrupted: the update was accepted for my-app" in rest
    assert "Traceback" not in rest
    outputs = json.loads(stdout)
    assert (outputs["status"], outputs["exit_code"]) == ("interrupted", 130)
    assert outputs["correlation_id"] == cvm.operations[-1].correlation_id


@pytest.mark.parametrize(
    ("arguments", "tail"),
    [
        ("--help", ">/dev/full"),
        ("kms list", ">&-"),
        ("kms list", ">/dev/full 2>&1"),
        *(("update --cvm my-app --env-file .env", tail) for tail in ("2>&-", "2>/dev/full", "<&- >&- 2>&-")),
    ],
)
def test_streams_that_take_nothing_bring_no_traceback(
    arguments: str, tail: str, run: Command, cvm: Cvm
) -> None:
    done = run.apart("-c", f"{sys.executable} -m phala_secrets {arguments} {tail}", python=("sh",))
    assert "Traceback" not in done.printed
    assert "Exception ignored" not in done.printed
    assert "internal error in" not in done.printed


def test_a_full_disk_under_standard_output_is_told(run: Command, cvm: Cvm) -> None:
    command = f"{sys.executable} -m phala_secrets update --cvm my-app --env-file .env --json >/dev/full"
    done = run.apart("-c", command, python=("sh",))
    assert done.code == 130
    assert done.errors == ["error: cannot write to standard output: No space left on device"]


def test_a_name_that_the_terminal_cannot_show_is_shown_escaped(run: Command, cloud: Cloud) -> None:
    cvm = cloud.add_cvm("käse")
    done = run.apart("list", "--app", cvm.app_id, environ={"PYTHONIOENCODING": "ascii"})
    assert done.code == 0
    assert "k\\xe4se" in done.stdout
