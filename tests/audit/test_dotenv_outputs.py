"""Finding 6: text of the API in an output file is text to whoever reads the file, and no command."""

from __future__ import annotations

import pytest

from .support import (
    MARK,
    Cloud,
    Command,
    Cvm,
    in_ci,
    makes_mark,
    outputs_file,
    read_by_dotenv,
)

CI_NAMES = ["shell", "gitlab", "bitbucket"]


def add_names(cvm: Cvm, *names: str) -> None:
    """The API says that the CVM has these variables as well, and with a compose hash to match."""
    cvm.app_compose = {**cvm.app_compose, "allowed_envs": ["OLD", *names]}


def update(run: Command, ci: str, *more: str) -> str:
    """What a run in that CI wrote for the steps after it."""
    in_ci(run, ci)
    where = () if ci == "bitbucket" else ("--output-file", "out.env")
    run("update", "--secrets", "OLD", "--allow-removal", "--no-wait", *where, *more, environ={"OLD": "2"})
    path = outputs_file(run, ci)
    return path.read_text() if path.is_file() else ""


@pytest.mark.parametrize("name", [f"$(touch {MARK})", f"`touch {MARK}`"])
@pytest.mark.parametrize("ci", CI_NAMES)
def test_a_name_in_dotenv_outputs_is_no_command(
    run: Command, cloud: Cloud, cvm: Cvm, ci: str, name: str
) -> None:
    """``keys-removed`` has the API's command, which a shell runs that sources the file."""
    add_names(cvm, name)
    update(run, ci, "--cvm", "my-app")
    assert not makes_mark(outputs_file(run, ci), run.folder)


@pytest.mark.parametrize("ci", CI_NAMES)
def test_the_name_of_a_cvm_in_dotenv_outputs_is_no_command(
    run: Command, cloud: Cloud, cvm: Cvm, ci: str
) -> None:
    """``results`` of a fleet have names of CVMs."""
    cloud.add_cvm(f"$(touch {MARK})", app_id=cvm.app_id, environment={"OLD": "1"})
    update(run, ci, "--app", cvm.app_id)
    assert not makes_mark(outputs_file(run, ci), run.folder)


@pytest.mark.parametrize("ci", CI_NAMES)
def test_a_name_in_dotenv_outputs_is_not_interpolated(
    run: Command, cloud: Cloud, cvm: Cvm, ci: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """python-dotenv, like Compose, puts the reader's API key where the API wrote ``${…}``."""
    add_names(cvm, "${PHALA_CLOUD_API_KEY}")
    written = update(run, ci, "--cvm", "my-app")
    monkeypatch.setenv("PHALA_CLOUD_API_KEY", cloud.api_key)
    assert cloud.api_key not in str(read_by_dotenv(written))
