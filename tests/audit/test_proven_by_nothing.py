"""``status`` says "proven" of what somebody else than the API vouches for, and of nothing else."""

from __future__ import annotations

from typing import Any

from .support import Answer, Done, Request, Simulator, Step, on_chain


def known(done: Done, what: str) -> str:
    """How a line of the table is known, and what it says."""
    assert done.code == 0, done.log
    (line,) = (line for line in done.lines if line.startswith(f"  {what}  "))
    return line.strip().removeprefix(what).strip()


def without_devices(body: Any) -> Any:
    if isinstance(body, dict):
        return {name: without_devices(part) for name, part in body.items() if "device" not in name}
    return [without_devices(part) for part in body] if isinstance(body, list) else body


def test_an_approval_of_no_device_is_not_proven(step: Step, simulator: Simulator) -> None:
    """An API that leaves the machine out had the contract asked about none, and all of none were allowed."""
    with on_chain(simulator, signing=True) as world:
        assert known(step(mode="status", rpc_url=world.chain.url), "approval").startswith("proven")

        def tamper(_request: Request, answer: Answer) -> Answer:
            return Answer(without_devices(answer.body), answer.status)

        simulator.cloud.tamper = tamper
        told = known(step(mode="status", rpc_url=world.chain.url), "approval")
        assert told.startswith("API's word")
        assert "no device is shown" in told


def test_an_app_is_not_proven_by_a_root_that_is_not(step: Step, simulator: Simulator) -> None:
    """The id is the user's own word; that its key is the app's rests on the root alone."""
    cvm = simulator.cloud.add_cvm("my-app")
    assert known(step(mode="status", cvm=cvm.app_id), "app").startswith("API's word")
    pinned = step(mode="status", cvm=cvm.app_id, trusted_signers=cvm.kms.root_public_key)
    assert known(pinned, "app").startswith("proven")
