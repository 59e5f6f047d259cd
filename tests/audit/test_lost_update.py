"""Finding 3: a run whose update was lost must not call another operation its own."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from .support import Answer, Cloud, Cvm, Fault, Request, Simulator, Step, updates

pytestmark = pytest.mark.usefixtures("clock")  # the outcome is looked up for half a minute
KINDS = ["restart", "update_envs"]


def lose_the_update(simulator: Simulator, kind: str) -> None:
    """The first update never arrives, and somebody else's operation of that kind ends meanwhile."""
    cloud = simulator.cloud
    simulator.faults.add(Fault("reset_before", "PATCH", "/envs"))

    def meanwhile(request: Request, answer: Answer) -> Answer:
        if not (request.path.endswith("/operations") and updates(cloud)):
            return answer
        operation = {
            "correlation_id": f"of-somebody-else-{request.path.split('/')[2]}",
            "operation_type": kind,
            "target_state": "running",
            "triggered_by": 77,
            "status": "completed",
        }
        return replace(answer, body={**answer.body, "items": [operation, *answer.body["items"]]})

    cloud.tamper = meanwhile


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wait", ["true", "false"])
def test_a_lost_update_is_not_called_delivered(
    step: Step, simulator: Simulator, cvm: Cvm, kind: str, wait: str
) -> None:
    """A restart in the dashboard, or another run's update, ends ours with exit 0 and "Delivered"."""
    lose_the_update(simulator, kind)
    done = step(env="OLD=the-rotated-secret", wait=wait)
    delivered = cvm.wait().environment == {"OLD": "the-rotated-secret"}  # it may have been sent again
    assert done.code == (0 if delivered else 6), done.log
    assert done.outputs["status"] == (
        "failed" if not delivered else "running" if wait == "true" else "in_progress"
    )
    assert delivered or "runs with the new environment" not in done.summary


@pytest.mark.parametrize("kind", KINDS)
def test_a_lost_update_in_a_fleet_is_not_called_delivered(
    step: Step, simulator: Simulator, cloud: Cloud, cvm: Cvm, kind: str
) -> None:
    """In ``results`` the CVM that got nothing has the status ``running``."""
    cloud.add_cvm("my-app-2", app_id=cvm.app_id, environment={"OLD": "1"})
    lose_the_update(simulator, kind)
    done = step(cvm=None, app=cvm.app_id, env="OLD=the-rotated-secret")
    delivered = cvm.wait().environment == {"OLD": "the-rotated-secret"}  # it may have been sent again
    assert done.code == (0 if delivered else 6), done.log
    first = json.loads(done.outputs["results"])[0]
    assert first["status"] == ("running" if delivered else "failed")
