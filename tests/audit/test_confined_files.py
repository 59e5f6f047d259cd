"""Finding 10: what the checkout decides stays inside it, in every CI, and no file makes a run wait."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from .support import (
    ENTRYPOINT,
    Cloud,
    Command,
    Cvm,
    Outcome,
    Simulator,
    Step,
    bounded,
    in_ci,
    on_chain,
    updates,
)

pytestmark = pytest.mark.usefixtures("time_passes")

SECONDS = 3.0
"""How long a run may take that would otherwise wait for ever; one that ends takes half a second."""


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the checkout."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "hex").write_text("ab" * 100)
    (folder / ".env").write_text("OLD=from-outside\n")
    (folder / "phala.toml").write_text('name = "my-app"\nenv_file = "x.env"\n')
    return folder


def is_refused(outcome: Outcome, cloud: Cloud, what: str) -> bool:
    """Whether the run names the input, and sent nothing."""
    return outcome.code == 2 and what in outcome.printed and not updates(cloud)


# -- links and paths -------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["link", "absolute path"])
def test_encrypted_env_file_outside_of_the_workspace_is_refused(
    step: Step, cvm: Cvm, cloud: Cloud, outside: Path, way: str
) -> None:
    """Its hex is sent, and is an output."""
    (step.workspace / "c.hex").symlink_to(outside / "hex")
    path = "c.hex" if way == "link" else str(outside / "hex")
    done = step(encrypted_env_file=path, env_keys='["OLD"]', wait="false")
    assert done.code == 2, done.log
    assert "encrypted-env-file" in done.log
    assert not updates(cloud)


@pytest.mark.parametrize("name", ["compose_file", "prepared_file"])
@pytest.mark.parametrize("way", ["link", "absolute path"])
def test_what_is_deployed_comes_from_the_workspace(
    step: Step, cvm: Cvm, cloud: Cloud, outside: Path, name: str, way: str
) -> None:
    """A compose file is public once it is deployed."""
    (step.workspace / "c.yml").symlink_to(outside / ".env")
    path = "c.yml" if way == "link" else str(outside / ".env")
    given: dict[str, Any] = {"env": "OLD=2"} if name == "compose_file" else {"prepared_digest": "none"}
    done = step(**{name: path, **given})
    assert done.code == 2, done.log
    assert "is outside the workspace" in done.log
    assert "from-outside" not in done.log
    assert not updates(cloud)


def test_phala_toml_that_links_out_of_the_workspace_is_refused(
    step: Step, cvm: Cvm, cloud: Cloud, outside: Path
) -> None:
    """A file from outside says which CVM gets the secrets, and from where."""
    (step.workspace / "phala.toml").symlink_to(outside / "phala.toml")
    step.write("x.env", "OLD=2\n")
    done = step(cvm=None, wait="false")
    assert done.code == 2, done.log
    assert "phala.toml" in done.log
    assert not updates(cloud)


@pytest.mark.parametrize("ci", ["gitlab", "circleci", "azure", "bitbucket", "buildkite"])
def test_env_file_that_links_out_of_the_checkout_is_refused_in_every_ci(
    run: Command, cvm: Cvm, cloud: Cloud, outside: Path, ci: str
) -> None:
    """The file is read and sent."""
    (run.folder / ".env").symlink_to(outside / ".env")
    outcome = in_ci(run, ci)("update", "--cvm", "my-app", "--env-file", ".env", "--no-wait")
    assert is_refused(outcome, cloud, "env-file"), outcome.printed


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        pytest.param("env-file", ["--env-file", "../outside/.env"], id="env-file, a relative path"),
        pytest.param("env-file", ["--env-file", "linked/.env"], id="env-file, a folder that is a link"),
        pytest.param("files", ["--files", "OLD=linked/hex"], id="files"),
        pytest.param(
            "encrypted-env-file",
            ["--encrypted-env-file", "linked/hex", "--env-keys", '["OLD"]'],
            id="encrypted-env-file",
        ),
    ],
)
def test_a_file_outside_of_the_checkout_is_refused_in_gitlab(
    run: Command, cvm: Cvm, cloud: Cloud, outside: Path, name: str, arguments: list[str]
) -> None:
    """The file is read and sent: the checkout decides where a relative path leads."""
    (run.folder / "linked").symlink_to(outside)
    outcome = in_ci(run, "gitlab")("update", "--cvm", "my-app", "--no-wait", *arguments)
    assert is_refused(outcome, cloud, name), outcome.printed


def test_env_file_of_phala_toml_outside_of_the_checkout_is_refused_in_gitlab(
    run: Command, cvm: Cvm, cloud: Cloud, outside: Path
) -> None:
    """A pull request's ``phala.toml`` names a file of the machine, which is read and sent."""
    run.write("phala.toml", 'name = "my-app"\nenv_file = "../outside/.env"\n')
    outcome = in_ci(run, "gitlab")("update", "--no-wait")
    assert is_refused(outcome, cloud, "env_file"), outcome.printed


@pytest.mark.parametrize("environ", [{"GITHUB_ACTIONS": "True"}, {"GITHUB_WORKSPACE": ""}], ids=str)
def test_the_workspace_holds_however_github_names_it(
    step: Step, cvm: Cvm, cloud: Cloud, outside: Path, environ: dict[str, str]
) -> None:
    """With the variable written so, a link out of the workspace is read and sent."""
    (step.workspace / ".env").symlink_to(outside / ".env")
    done = step(env_file=".env", wait="false", environ=environ)
    assert done.code == 2, done.log
    assert "env-file" in done.log
    assert not updates(cloud)


SWAP = f"""
import os, runpy, sys
def swap(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".env") and os.path.isdir("spare"):
        os.rename("d", "was"), os.rename("spare", "d")
sys.addaudithook(swap)
sys.argv[0] = {str(ENTRYPOINT)!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""The command, and a folder on the way that becomes a link in the moment before the file is opened."""


def test_a_folder_that_becomes_a_link_before_the_open_is_not_followed(
    step: Step, cvm: Cvm, outside: Path
) -> None:
    """The file outside is read and sent: the check was of what the path meant before."""
    step.write("d/.env", "OLD=inside\n")
    (step.workspace / "spare").symlink_to(outside)
    environ = step.variables({"env_file": "d/.env", "wait": "false"})
    bounded(step.workspace, environ, seconds=20, python=(sys.executable, "-IB", "-c", SWAP))
    assert cvm.wait().environment != {"OLD": "from-outside"}


# -- pipes and devices -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pipe", "link to a device"])
def test_encrypted_env_file_that_never_ends_is_refused(
    run: Command, cvm: Cvm, cloud: Cloud, kind: str
) -> None:
    """The run hangs until the job's own limit: git can hold a link to ``/dev/ptmx``."""
    path = run.folder / "c.hex"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/ptmx")
    in_ci(run, "gitlab")
    arguments = ("update", "--cvm", "my-app", "--no-wait", "--encrypted-env-file", "c.hex")
    outcome = bounded(run.folder, run.variables(), *arguments, "--env-keys", '["OLD"]', seconds=SECONDS)
    assert is_refused(outcome, cloud, "encrypted-env-file"), outcome.printed


def test_output_file_that_is_a_pipe_is_refused(run: Command, cvm: Cvm, cloud: Cloud) -> None:
    """The run hangs until somebody reads the pipe."""
    os.mkfifo(run.folder / "out.env")
    in_ci(run, "gitlab").environ["OLD"] = "2"
    arguments = ("update", "--cvm", "my-app", "--no-wait", "--secrets", "OLD", "--output-file", "out.env")
    outcome = bounded(run.folder, run.variables(), *arguments, seconds=SECONDS)
    assert is_refused(outcome, cloud, "output-file"), outcome.printed


def test_output_file_that_links_out_of_the_checkout_is_refused(
    run: Command, cvm: Cvm, cloud: Cloud, outside: Path
) -> None:
    """What the link leads to is overwritten with our outputs."""
    (outside / "precious").write_text("precious\n")
    (run.folder / "out.env").symlink_to(outside / "precious")
    arguments = ("update", "--cvm", "my-app", "--no-wait", "--secrets", "OLD", "--output-file", "out.env")
    outcome = in_ci(run, "gitlab")(*arguments, environ={"OLD": "2"})
    assert (outside / "precious").read_text() == "precious\n"
    assert is_refused(outcome, cloud, "output-file"), outcome.printed


# -- what later came: evidence and prepared files ---------------------------------------------------


@pytest.mark.parametrize("name", ["evidence-file", "attestation-root"])
def test_evidence_in_a_pipe_makes_no_run_wait(run: Command, cvm: Cvm, cloud: Cloud, name: str) -> None:
    os.mkfifo(run.folder / "pipe")
    of = () if name == "evidence-file" else ("--cvm", "my-app")
    done = bounded(run.folder, run.variables(), "verify", *of, f"--{name}", "pipe", seconds=SECONDS)
    assert is_refused(done, cloud, f"{name} is not a regular file")


def test_an_evidence_file_that_links_out_of_the_checkout_is_refused(
    run: Command, cloud: Cloud, outside: Path
) -> None:
    (run.folder / "kept.json").symlink_to(outside / "hex")
    done = in_ci(run, "gitlab")("verify", "--evidence-file", "kept.json")
    assert is_refused(done, cloud, "evidence-file is outside the checkout")


@pytest.mark.parametrize("absolute", [False, True])
def test_a_prepared_file_is_written_through_no_link_of_the_checkout(
    step: Step, simulator: Simulator, absolute: bool
) -> None:
    """A pull request would choose which file of the checkout a later step finds changed."""
    victim = step.write("docker-compose.yml", "precious")
    (step.workspace / "prepared.json").symlink_to("docker-compose.yml")
    with on_chain(simulator):
        path = str(step.workspace / "prepared.json") if absolute else "prepared.json"
        done = step(env="OLD=2\nNEW=3", prepare_only="true", prepared_file=path)
    assert done.code == 2, done.log
    assert "a symbolic link of the working folder" in done.annotations("error")[0].data
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("flag", ["--output-file", "--evidence-file"])
def test_no_link_is_followed_where_the_working_folder_has_another_name(
    run: Command, simulator: Simulator, cvm: Cvm, tmp_path: Path, flag: str
) -> None:
    """As ``/tmp`` on macOS, or a workspace behind a link: its absolute path is none of the real one."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "alias").symlink_to(run.folder)
    (run.folder / "out").symlink_to(victim)
    run.write(".env", "OLD=2\n")
    root = run.write("root.pem", simulator.cloud.tee.root_pem)
    attest = ("--attest", "warn", "--attestation-root", str(root), "--pccs-url", simulator.origin)
    arguments = ("--cvm", "my-app", "--env-file", ".env", *attest, flag, str(tmp_path / "alias" / "out"))
    run("update", *arguments)
    assert victim.read_text() == "precious"
