"""What `from phala_secrets import …` gives: these names, these promises, and no cost until they are used."""

from __future__ import annotations

import ast
import inspect
import pydoc
import re
import subprocess
import sys
import traceback
from pathlib import Path

import pydantic
import pytest

import phala_secrets
from phala_secrets import errors
from phala_secrets.cloud import models
from phala_secrets.cloud.connection import Connection

ROOT = Path(__file__).parents[1]

FUNCTIONS = {
    "create_async_client",
    "create_client",
    "encrypt_env_vars",
    "get_compose_hash",
    "verify_attestation",
    "verify_env_encrypt_public_key",
}
METHODS = {
    "get_app_cvms",
    "get_app_env_encrypt_pub_key",
    "get_cvm_attestation",
    "get_cvm_compose_file",
    "get_cvm_containers",
    "get_cvm_info",
    "get_cvm_list",
    "get_cvm_operations",
    "get_cvm_state",
    "get_kms_contract",
    "get_kms_info",
    "get_kms_list",
    "get_kms_on_chain_detail",
    "list_kms_contract_nodes",
    "list_kms_contracts",
    "next_app_ids",
    "patch_cvm",
    "start_cvm",
    "update_cvm_envs",
    "wait_for_cvm",
    "watch_cvm_state",
}
CLIENTS = (phala_secrets.Client, phala_secrets.AsyncClient)


def test_all_is_pinned() -> None:
    """A name that goes breaks somebody's code; one that comes is a promise."""
    of_errors = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }
    of_models = {
        name
        for name, value in vars(models).items()
        if inspect.isclass(value)
        and issubclass(value, pydantic.BaseModel)
        and value.__module__ == "phala_secrets.cloud.models"
        and name != "Wire"
        and not name.startswith("_")
    }
    assert len(of_errors) == 19
    assert len(of_models) == 33
    more = {"Client", "AsyncClient", "EnvEncryptPublicKey", "Finding", "UpdateResult"}
    more |= {"Attestation", "Link", "PatchResult"}
    assert set(phala_secrets.__all__) == FUNCTIONS | of_errors | of_models | more
    assert phala_secrets.__all__ == sorted(phala_secrets.__all__)


def test_each_name_is_there_and_listed() -> None:
    for name in phala_secrets.__all__:
        assert getattr(phala_secrets, name) is not None
    assert set(phala_secrets.__all__) <= set(dir(phala_secrets))
    with pytest.raises(AttributeError, match="create_klient"):
        getattr(phala_secrets, "create_klient")  # noqa: B009 (a checker knows that it is not there)


def test_type_checkers_see_what_runs_see() -> None:
    tree = ast.parse((ROOT / "phala_secrets/__init__.py").read_text())
    seen = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("phala_secrets.")
        for alias in node.names
    }
    assert set(seen) == set(phala_secrets.__all__)
    for name, module in seen.items():
        assert getattr(sys.modules[module], name) is getattr(phala_secrets, name)


def test_the_methods_are_pinned_and_alike_in_both_clients() -> None:
    for client in CLIENTS:
        public = {name for name in set(dir(client)) - set(dir(Connection)) if not name.startswith("_")}
        assert public == METHODS | {"close", "send", "run", "stream"}
    for name in METHODS:
        sync, awaited = (inspect.signature(getattr(client, name)) for client in CLIENTS)
        assert sync.parameters == awaited.parameters


def test_models_and_errors_say_what_they_are() -> None:
    for name in phala_secrets.__all__:
        if not name.endswith("Result"):  # a union has no docstring
            assert vars(getattr(phala_secrets, name)).get("__doc__") or name in FUNCTIONS, name


@pytest.mark.parametrize("name", phala_secrets.__all__)
def test_help_shows_annotations_without_quotes(name: str) -> None:
    text = pydoc.plain(pydoc.render_doc(getattr(phala_secrets, name)))
    own = re.split("inherited from (?:pydantic|builtins)", text)[0].replace("(**data: 'Any') -> 'None'", "")
    assert [line for line in own.splitlines() if re.search(r"(\w: |-> )'", line) and "__" not in line] == []


def test_tracebacks_show_the_hint() -> None:
    error = errors.InputError("no API key", hint=f"set {errors.untrusted('KEY')}")
    assert traceback.format_exception_only(error)[1:] == ["hint: set KEY\n"]
    within = error.saying("my-app: no API key")
    assert traceback.format_exception_only(within)[1:] == ["hint: set KEY\n"]
    other = within.saying("other", hint="look")
    assert traceback.format_exception_only(other)[1:] == ["hint: look\n"]
    assert traceback.format_exception_only(error)[1:] == ["hint: set KEY\n"]
    assert len(traceback.format_exception_only(error.saying("other", hint=""))) == 1


def test_importing_costs_nothing_until_a_name_is_used() -> None:
    script = (
        "import sys, phala_secrets\n"
        "assert not {'httpx', 'pydantic', 'phala_secrets.cloud.client'} & set(sys.modules)\n"
        "from phala_secrets import create_client, encrypt_env_vars, InputError\n"
        "create_client('key', 'http://127.0.0.1:1')\n"
        "assert not {'pydantic', 'cryptography', 'eth_account', 'yaml'} & set(sys.modules)\n"
        "from phala_secrets import *\n"
        "assert KmsInfo\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)
