"""Stories of a step in a workflow: what GitHub's runner makes of what it leaves."""

from __future__ import annotations

from step import Step

from phala_secrets.simulator import Cvm


def test_secrets_of_the_step_reach_the_guest(step: Step, cvm: Cvm) -> None:
    done = step(secrets="OLD, TOKEN=MY_TOKEN", environ={"OLD": "2", "MY_TOKEN": "t0ken-with-ümlaut"})
    assert done.code == 0, done.log
    assert cvm.environment == {"OLD": "2", "TOKEN": "t0ken-with-ümlaut"}
    assert done.outputs["status"] == "running"


def test_so_they_do_in_the_image(step: Step, cvm: Cvm) -> None:
    done = step.apart(secrets="OLD", environ={"OLD": "2"})
    assert done.code == 0, done.log
    assert cvm.environment == {"OLD": "2"}
