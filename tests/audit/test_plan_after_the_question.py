"""What a person agreed to at the terminal is what is sent, however long another operation was in the way."""

from __future__ import annotations

import pytest

from .support import Answer, Command, Person, Request, Simulator, updates

pytestmark = pytest.mark.usefixtures("time_passes")

BEFORE = "services:\n  web:\n    image: nginx@sha256:" + "ab" * 32 + "\n    environment:\n      OLD: ${OLD}\n"
OURS = BEFORE + "    init: true\n"
THEIRS = BEFORE + "    read_only: true\n"


@pytest.mark.parametrize("theirs", [THEIRS, BEFORE])
def test_what_another_operation_deployed_is_not_undone_by_an_older_yes(
    run: Command, simulator: Simulator, theirs: str
) -> None:
    """It was sent with a diff that nobody saw: the line that the other one had added went."""
    cvm = simulator.cloud.add_cvm("my-app", docker_compose_file=BEFORE, environment={"OLD": "1"})

    agreed: list[str] = []

    def deployed_just_now(request: Request, answer: Answer) -> Answer:
        """Behind the look at the CVM that follows the answer, and before the update."""
        if agreed and request.method == "GET":
            agreed.clear()
            cvm.app_compose = {**cvm.app_compose, "docker_compose_file": theirs}
            cvm.begin_operation("update_cvm", 0.5, effect="none")
        return answer

    simulator.cloud.tamper = deployed_just_now
    run.write(".env", "OLD=2\n")
    run.write("docker-compose.yml", OURS)
    update = ("update", "--cvm", "my-app", "--env-file", ".env", "--compose-file", "docker-compose.yml")
    with Person(run, *update) as person:
        assert person.sees("[y/N]"), person.seen
        agreed.append("y")
        person.types("y")
        code = person.code()
    if theirs == BEFORE:  # it changed nothing that the plan shows
        assert code == 0, person.seen
        return
    assert code == 4, person.seen
    assert "another operation changed 'my-app' after its plan was shown" in person.seen
    assert len(updates(simulator.cloud)) == 1
