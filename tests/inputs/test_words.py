"""Hints in the words of the place, and the word that was meant."""

from __future__ import annotations

import pytest

from phala_secrets.inputs.words import in_flags, meant, nearest
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from tests.support.command import Command
from tests.support.faults import Fault
from tests.support.faulty import FaultySimulator as Simulator
from tests.support.step import Step

SPOKEN = {
    "set allow-removal: true": "set --allow-removal",
    "set `allow-removal: all`": "set --allow-removal=all",
    "start: true starts it": "--start starts it",
    "set start: true, or start it": "set --start, or start it",
    "leave out `wait: false`": "leave out --no-wait",
    "use mode: update": "use phala-secrets update",
    "go on with `mode: wait`": "go on with phala-secrets wait",
    "pass `cvm`, or `app`": "pass --cvm, or --app",
    "set guest-check: warn to send": "set --guest-check warn to send",
    "raise wait-timeout": "raise --wait-timeout",
    "set private-key and rpc-url to": "set PRIVATE_KEY and --rpc-url to",
    "pass the hash: compose-hash: 0xab12": "pass the hash: --compose-hash 0xab12",
    "with compose-hash: it is new": "with --compose-hash: it is new",
    "pass `compose-file: a b.yml`": "pass --compose-file a b.yml",
    # What is no input, or may be somebody's file, stays as it is.
    "no secrets: wait for the start": "no secrets: wait for the start",
    "write `image: ${IMAGE}`, or `name`": "write `image: ${IMAGE}`, or `name`",
    "check 'my-env-file' and ./env-file": "check 'my-env-file' and ./env-file",
    "see compose-file.yml and --env-file": "see compose-file.yml and --env-file",
    "phala-secrets kms list shows them": "phala-secrets kms list shows them",
}


@pytest.mark.parametrize("text", SPOKEN)
def test_a_hint_speaks_flags(text: str) -> None:
    assert in_flags(text) == SPOKEN[text]


def test_the_nearest_word_is_meant_and_a_prefix_says_nothing() -> None:
    assert nearest("udpate", ["update", "plan"]) == "update"
    assert meant("deploy", ["update"], "use update") == "use update"
    assert meant("--env-flie", ["env-file", "env"], "", prefix="--") == "did you mean --env-file?"
    assert meant("--qqq", ["at"], "see help", prefix="--") == "see help"


def test_a_hint_names_inputs_on_github_and_flags_elsewhere(run: Command, step: Step, cvm: Cvm) -> None:
    run.write(".env", "NEW=2\n")
    arguments = ("update", "--cvm", "my-app", "--env-file", ".env")
    assert "set --allow-removal" in run(*arguments).hints[-1]
    assert "set allow-removal: true" in step(env="NEW=2").annotations("error")[-1].data
    for ci in ("GITLAB_CI", "TF_BUILD"):
        assert "set --allow-removal" in run(*arguments, environ={ci: "true"}).printed


def test_what_a_server_says_in_a_hint_is_left_as_it_is(run: Command, cvm: Cvm, simulator: Simulator) -> None:
    body = {"error_code": "ERR-09-001", "message": "no", "suggestions": ["set `allow-removal: true`"]}
    simulator.faults.add(Fault("status", "GET", "/cvms/my-app", status=403, body=body))
    done = run("verify", "--cvm", "my-app")
    assert "set `allow-removal: true`" in done.hints[-1]


def test_unknown_values_of_a_choice_get_the_nearest(run: Command, cloud: Cloud) -> None:
    for flag, typed, meant_ in (("--require-trust", "pined", "pinned"), ("--guest-check", "worn", "warn")):
        done = run("plan", "--cvm", "my-app", "--secrets", "LANG", flag, typed)
        assert done.code == 2
        assert done.hints == [f"hint: did you mean {meant_}?"]
    assert not cloud.requests


def test_a_step_with_a_mistyped_input_is_told_which_was_meant(step: Step) -> None:
    done = step(environ={"INPUT_ENV-FLIE": ".env"})
    assert done.code == 2
    assert done.annotations("error")[0].data.splitlines() == [
        "unknown input 'env-flie'",
        "did you mean env-file?",
    ]


# -- a CVM that is not there -----------------------------------------------------------------------


def test_an_unknown_cvm_gets_near_names(run: Command, cloud: Cloud, cvm: Cvm) -> None:
    for number in range(120):
        cloud.add_cvm(f"other-{number}")
    cloud.add_cvm("shop-prod")
    done = run("verify", "--cvm", "my-ap,shop-pord")
    assert done.code == 5
    (hint,) = done.hints
    assert hint.startswith("hint: did you mean my-app or shop-prod? ")
    assert "phala-secrets list shows every CVM" in hint


def test_an_unknown_cvm_without_a_near_name_points_to_list(run: Command, cvm: Cvm) -> None:
    done = run("verify", "--cvm", "zzz")
    assert done.code == 5
    assert "check the name or id" in done.hints[0]
    assert "phala-secrets list shows every CVM" in done.hints[0]


def test_where_the_list_is_refused_the_first_error_stands(
    run: Command, cvm: Cvm, simulator: Simulator
) -> None:
    simulator.faults.add(Fault("status", "GET", "/cvms/paginated", status=500, times=None))
    done = run("verify", "--cvm", "my-ap")
    assert done.code == 5
    assert "'my-ap' not found" in done.errors[0]


def test_a_near_name_is_no_command_of_the_log(step: Step, cloud: Cloud) -> None:
    cloud.add_cvm("my-app\n::add-mask::x")
    done = step(mode="verify", cvm="my-app ::add-mask::y")
    assert done.code == 5
    assert not [mask for mask in done.masks if mask in ("x", "y")]
    assert [one.name for one in done.commands].count("error") == 1


def test_several_cvms_are_split_at_commas(run: Command, cloud: Cloud) -> None:
    for name in ("a", "b"):
        cloud.add_cvm(name, environment={"OLD": "1"})
    done = run("verify", "--cvm", "a,b", "--json")
    assert done.code == 0
    assert "2 CVMs" in done.stderr
