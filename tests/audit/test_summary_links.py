"""Finding 15: foreign text in the summary is no link, not even one that GitHub makes by itself."""

from __future__ import annotations

import pytest

from .support import Cvm, Fault, Simulator, Step


@pytest.mark.parametrize(
    ("text", "links"),
    [
        pytest.param("https://evil.example/login", ["https://evil.example"], id="https"),
        pytest.param("http://evil.example/login", ["http://evil.example"], id="http"),
        pytest.param("www.evil.example", ["www.evil"], id="www"),
        # GitHub decodes the entity of an @ before it looks for addresses: something has to stand in between.
        pytest.param("help@evil.example", ["help@evil", "help&#64;evil", "help&#x40;evil"], id="mail"),
        pytest.param("xmpp:help@evil.example", ["xmpp:help@evil", "help&#64;evil"], id="xmpp"),
    ],
)
def test_foreign_text_in_the_summary_is_no_link(
    step: Step, simulator: Simulator, cvm: Cvm, text: str, links: list[str]
) -> None:
    """An error of the API leads whoever reads the job's summary to a page of its choice."""
    body = {"message": f"Session expired, sign in: {text}"}
    simulator.faults.add(Fault("status", "PATCH", status=400, body=body))
    done = step(env="OLD=2")
    assert done.code == 5, done.log
    assert "Session expired" in done.summary
    for link in links:
        assert link not in done.summary
