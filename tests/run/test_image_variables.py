"""The image's base sets GPG_KEY, PYTHON_VERSION and PYTHON_SHA256 for itself. None is the user's."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from phala_secrets.simulator.cvm import Cvm
from tests.audit.support import bounded
from tests.support.command import ROOT, Outcome
from tests.support.step import Step

BASE = {"GPG_KEY": "7169605F62C751356D054A26A821E680E5FA6305", "PYTHON_VERSION": "3.13.9"}
"""What the official image of Python sets."""


@pytest.fixture
def image(tmp_path: Path) -> tuple[str, ...]:
    """An interpreter with a prefix of its own, as the image has it, on a base with these variables."""
    prefix = tmp_path / "opt"
    packages = prefix / f"lib/python3.{sys.version_info.minor}/site-packages"
    packages.mkdir(parents=True)
    (packages / "here.pth").write_text(f"{ROOT}\n{sysconfig.get_path('purelib')}\n")
    (prefix / "bin").mkdir()
    python = prefix / "bin/python"
    python.symlink_to(Path(sys.executable).resolve())
    (prefix / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    record = re.search(r"\{ (env \| grep .*) > /opt/phala-secrets/(\S+)", (ROOT / "Dockerfile").read_text())
    assert record
    written = subprocess.run(
        ["sh", "-c", record[1]], env={**BASE, "PATH": "/usr/bin:/bin"}, capture_output=True, check=True
    )
    (prefix / record[2]).write_bytes(written.stdout)
    return (str(python), "-IB", str(ROOT / "entrypoint.py"))


def run_in_image(image: tuple[str, ...], step: Step, **environ: str) -> Outcome:
    """A step that sends OLD and GPG_KEY, on a base with its variables."""
    variables = step.variables({"secrets": "OLD,GPG_KEY", "wait": "false"}, {**BASE, "OLD": "2", **environ})
    return bounded(step.workspace, variables, seconds=20, python=image)


def test_what_the_base_sets_is_never_sent(step: Step, cvm: Cvm, image: tuple[str, ...]) -> None:
    """A secret GPG_KEY that the step does not set would be the key that signed Python."""
    done = run_in_image(image, step)
    assert done.code == 2, done.printed
    assert "entry 2" in done.printed
    assert cvm.environment == {"OLD": "1"}


def test_what_the_user_sets_under_such_a_name_is_sent(step: Step, cvm: Cvm, image: tuple[str, ...]) -> None:
    done = run_in_image(image, step, GPG_KEY="of-the-user")
    assert done.code == 0, done.printed
    assert cvm.wait().environment == {"OLD": "2", "GPG_KEY": "of-the-user"}
