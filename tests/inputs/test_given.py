"""Inputs as text: where each comes from, and how it is read."""

from __future__ import annotations

import subprocess
import sys

import pytest

from phala_secrets.errors import InputError
from phala_secrets.inputs.given import read

AZURE = {"TF_BUILD": "True"}
GITHUB = {"GITHUB_ACTIONS": "true"}


@pytest.mark.parametrize("name", ["DB_URL", "my.variable", "Build.SourceVersion"])
def test_a_variable_that_azure_does_not_know_is_not_given(name: str) -> None:
    """Azure leaves ``$(NAME)`` as this literal text where the variable is not defined."""
    environ = {"PHALA_SECRETS_CVM": f"$({name})", "PHALA_CLOUD_API_KEY": f"$({name})"}
    given = read({"rpc-url": f"$({name})"}, {**environ, **AZURE})
    assert (given.text("cvm"), given.text("api-key"), given.text("rpc-url")) == ("", "", "")
    assert read({}, environ).text("cvm") == f"$({name})"


def test_a_protection_that_azure_does_not_know_is_empty() -> None:
    environ = {"PHALA_SECRETS_TRUSTED_SIGNERS": "$(PHALA_ROOT)", **AZURE}
    with pytest.raises(InputError, match="PHALA_SECRETS_TRUSTED_SIGNERS is empty"):
        read({}, environ)


def test_a_value_of_azure_with_a_reference_within_is_taken_as_it_is() -> None:
    assert read({}, {"PHALA_SECRETS_CVM": "app-$(NAME)", **AZURE}).text("cvm") == "app-$(NAME)"


def test_a_protection_may_be_empty_where_a_stronger_way_has_it() -> None:
    given = read({"app-id": "ab" * 20}, {"PHALA_SECRETS_APP_ID": ""})
    assert given.lines("app-id") == ("ab" * 20,)


def test_an_empty_protection_of_a_workflow_looks_like_none() -> None:
    assert read({}, {"INPUT_APP-ID": "", **GITHUB}).text("app-id") == ""


@pytest.mark.parametrize("name", ["INPUT_ARGS", "INPUT_ENTRYPOINT"])
def test_githubs_own_inputs_are_no_mistake(name: str) -> None:
    read({}, {name: "x", **GITHUB})


def test_an_unknown_input_variable_counts_only_on_github() -> None:
    read({}, {"INPUT_SOMETHING": "x"})


@pytest.mark.parametrize("secrets", ["ETH_RPC_URL", "A,\nETH_RPC_URL", "RPC=ETH_RPC_URL", " ETH_RPC_URL "])
@pytest.mark.parametrize("way", ["flag", "INPUT_SECRETS", "PHALA_SECRETS_SECRETS"])
def test_what_secrets_hands_on_is_no_input(secrets: str, way: str) -> None:
    flags = {"secrets": secrets} if way == "flag" else {}
    environ = {"ETH_RPC_URL": "https://of-the-app", **({} if flags else {way: secrets})}
    given = read(flags, environ)
    assert given.text("rpc-url") == ""
    assert given.withheld == {"rpc-url"}
    assert read({**flags, "rpc-url": "https://of-the-run"}, environ).withheld == frozenset()


@pytest.mark.parametrize("cvm", ["a,b", "a\nb", "a, b,", "a\r\nb"])
def test_several_are_split_at_commas_and_lines(cvm: str) -> None:
    assert read({"cvm": cvm}, {}).lines("cvm") == ("a", "b")


@pytest.mark.parametrize("text", ["[a, b]", '["a"]', "- a\n- b", "['a', 'b']"])
@pytest.mark.parametrize("name", ["cvm", "secrets", "base64", "env-file", "trusted-signers"])
def test_a_list_of_yaml_or_json_is_explained(name: str, text: str) -> None:
    with pytest.raises(InputError) as refused:
        read({name: text}, {}).lines(name)
    assert str(refused.value) == f"{name} is a YAML or JSON list, not text"
    assert "line breaks" in refused.value.hint


@pytest.mark.parametrize("glob", ["[AB]_*", "[AB],[CD]", "TLS_[0-9]"])
def test_a_glob_with_brackets_is_no_list(glob: str) -> None:
    assert read({"base64": glob}, {}).lines("base64") == tuple(glob.split(","))


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1h", 3600), ("0010m", 600)]
)
def test_a_time_may_have_its_unit(text: str, seconds: int) -> None:
    assert read({"wait-timeout": text}, {}).number("wait-timeout") == seconds


@pytest.mark.parametrize("text", ["0m", "25h", "10 m", "1.5h", "m", "10d", "-1m", "1h30m", "٣m"])
def test_an_invalid_duration_is_refused(text: str) -> None:
    with pytest.raises(InputError) as refused:
        read({"wait-timeout": text}, {}).number("wait-timeout")
    assert "10m" in refused.value.hint


def test_a_number_has_no_unit() -> None:
    with pytest.raises(InputError):
        read({"timeout": "30s"}, {}).number("timeout")


DEEP = """
import os, sys
from phala_secrets.errors import InputError
from phala_secrets.inputs.given import read
from phala_secrets.inputs.job import read_job
from pathlib import Path
sys.setrecursionlimit(100_000)  # as importing eth_account does
deep = "[" * 500_000
os.makedirs("cli", exist_ok=True)
Path("cli/credentials.json").write_text(deep)
for flags in (
    {"secrets-json": '{"A": ' + deep, "secrets-include": "*"},
    {"encrypted-env": "c0" * 80, "env-keys": deep},
    {"env-file": ".env", "login": ""},
):
    environ = {} if "login" in flags else {"PHALA_CLOUD_API_KEY": "phak_x"}
    environ["PHALA_CLOUD_DIR"] = "cli"
    if "login" in flags:
        sys.stdin.isatty = sys.stderr.isatty = lambda: True
    try:
        job = read_job("update", read({"cvm": "a", **flags}, environ), environ, Path())
        from phala_secrets.inputs.sources import gather
        gather(job.sources, environ=environ)
    except InputError as error:
        print(error)
"""


def test_deep_json_is_an_error_in_every_input(tmp_path: object) -> None:
    """With the recursion limit that eth_account sets, decoding it overflows the stack of Python 3.11."""
    done = subprocess.run(
        [sys.executable, "-c", DEEP], cwd=str(tmp_path), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.splitlines() == [
        "`secrets-json` is not readable JSON",
        "env-keys is not a JSON list of names",
        "the official CLI's login cannot be read",
    ]
