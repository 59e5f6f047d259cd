"""Finding 18: what CircleCI's ``$BASH_ENV`` held before is left as it was."""

from __future__ import annotations

import os
import subprocess

import pytest

from .support import Command, Cvm, in_ci, outputs_file


@pytest.mark.parametrize(
    ("before", "foo"),
    [
        pytest.param("export FOO=bar\n", "bar", id="a line that ends"),
        pytest.param("export FOO=bar", "bar", id="a line that does not end"),
        pytest.param("# a comment", "unset", id="a comment that does not end"),
    ],
)
def test_bash_env_keeps_what_it_held(run: Command, cvm: Cvm, before: str, foo: str) -> None:
    """Another step's variable becomes ``barexport``, or ours vanish in a comment."""
    in_ci(run, "circleci")
    path = outputs_file(run, "circleci")
    path.write_text(before)
    outcome = run("update", "--cvm", "my-app", "--secrets", "OLD", "--no-wait", environ={"OLD": "2"})
    assert outcome.code == 0, outcome.printed
    later = subprocess.run(
        ["bash", "-c", 'echo "${FOO-unset} $PHALA_CVM_ID"'],
        env={"BASH_ENV": str(path), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert later.stdout.split() == [foo, cvm.id]
