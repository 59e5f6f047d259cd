"""Without an API key the service picks the workspace: one that trusts the repository, which anybody's may."""

from __future__ import annotations

import pytest

from .support import Simulator, Step, keyless


@pytest.mark.parametrize("mode", ["plan", "update", "encrypt"])
def test_a_name_alone_may_be_that_of_a_strangers_cvm(step: Step, simulator: Simulator, mode: str) -> None:
    """Its key is signed by the published root as well, so no level of trust tells the two apart."""
    cloud = simulator.cloud
    cloud.tokens.trusted["octo-org/octo-app"] = ["stranger"]
    cloud.tokens.workspace = "stranger"
    cvm = cloud.add_cvm("my-app")
    del step.inputs["api-key"]
    environ = {**keyless(simulator), "TOKEN": "a-new-value-nobody-may-see"}

    def warned(**inputs: str) -> bool:
        done = step(environ=environ, mode=mode, secrets="TOKEN", **inputs)
        assert done.code == 0, done.log
        return any(
            "any workspace that trusts this repository" in one.data for one in done.annotations("warning")
        )

    assert warned()
    assert not warned(app_id=cvm.app_id)
    assert not warned(cvm=cvm.app_id)
    assert not warned(workspace="stranger")
    refused = step(environ=environ, mode=mode, secrets="TOKEN", workspace="octo")
    assert refused.code == 5
