"""A state that the API makes up is an output of ``status``, which a later step may hold in its script."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from .support import MARK, Answer, Request, Simulator, Step

STATES = [f"$(touch {MARK})", f"`touch {MARK}`", f'x"; touch {MARK}; "', f"x'; touch {MARK}; '"]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("cvms", ["my-app", "my-app, other"])
def test_a_later_step_runs_no_command_of_the_api(
    step: Step, simulator: Simulator, tmp_path: Path, state: str, cvms: str
) -> None:
    """As the runner fills ``${{ … }}`` in: into the text of the script, quoted in any way or not at all."""
    for name in ("my-app", "other"):
        simulator.cloud.add_cvm(name, environment={"OLD": "1"})

    def tamper(request: Request, answer: Answer) -> Answer:
        return Answer({**answer.body, "status": state}) if request.path.endswith("/state") else answer

    simulator.cloud.tamper = tamper
    done = step(mode="status", cvm=cvms)
    assert done.code == 0, done.log
    for value in done.outputs.values():
        for script in (f"echo {value}", f'echo "{value}"', f"echo '{value}'"):
            subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, check=False)
            assert not (tmp_path / MARK).exists(), script
