"""What a run knows of itself: whether anything may have been sent, and what that changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from phala_secrets.errors import InputError
from phala_secrets.run.context import Run
from tests.runners.test_rooms import SHELL, runner_of


def test_an_output_that_is_lost_once_something_was_sent_is_only_told(tmp_path: Path) -> None:
    file = tmp_path / "outputs.env"
    runner, _, stderr = runner_of(SHELL, output_file=str(file))
    run = Run(cast("Any", None), cast("Any", None), runner, {})
    run.output("cvm-id", "cvm_1")
    file.unlink()
    file.mkdir()
    with pytest.raises(InputError, match="Is a directory"):
        run.output("app-id", "ab")
    assert not run.sent
    run.transaction = "0x" + "ab" * 32
    assert run.sent
    run.output("status", "running")
    assert "Is a directory; the output status is missing there" in stderr.getvalue()
    assert runner.outputs["status"] == runner.last_status() == "running"
