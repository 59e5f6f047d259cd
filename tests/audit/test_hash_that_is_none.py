"""A compose hash becomes an output, and outputs become parts of scripts: it is a hash, or refused."""

from __future__ import annotations

import pytest

from .support import Cloud, Cvm, Step, change_answers, updates

COMMAND = '"; touch a-command-ran; "'


@pytest.mark.parametrize("text", [COMMAND, "$(touch a-command-ran)", "[" * 1000, "ab", "ab" * 33])
def test_an_invalid_compose_hash_is_no_output(step: Step, cvm: Cvm, cloud: Cloud, text: str) -> None:
    """``run: echo "${{ steps.update.outputs.previous-compose-hash }}"`` would run it."""
    change_answers(
        cloud,
        lambda request, _: request.method == "GET" and request.path == "/cvms/my-app",
        compose_hash=text,
    )
    done = step(env="OLD=2")
    assert done.code == 6, done.log
    assert "invalid compose_hash" in done.annotations("error")[0].data
    assert not done.outputs.get("previous-compose-hash")
    sentences = {"error", "hint"}
    assert not [name for name, output in done.outputs.items() if text in output and name not in sentences]
    assert not set("".join(done.outputs[name] for name in sentences)) & set("'\"`;$\\&|<>()")
    assert not updates(cloud)
