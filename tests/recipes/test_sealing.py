"""docs/sealing.md: what is sealed on a laptop is what the CI sends, and nothing else is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from tests.support.ci import GITHUB, VALUES, load, sh
from tests.support.command import ROOT
from tests.support.workflow import Workflow

pytestmark = pytest.mark.usefixtures("time_passes")

PAGE = (ROOT / "docs/sealing.md").read_text()
(LAPTOP,) = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


class Sealed:
    """What the laptop made, and a CI that has nothing but the API key."""

    def __init__(self, machine: dict[str, str], cloud: Cloud, folder: Path) -> None:
        self._machine, self._folder = machine, folder
        self.key = {"PHALA_CLOUD_API_KEY": cloud.api_key}
        self._runs = 0

    def seal(self, dotenv: str) -> tuple[str, str]:
        """Return the ciphertext and its digest."""
        laptop = self._folder / "laptop"
        laptop.mkdir(exist_ok=True)
        (laptop / ".env").write_text(dotenv)
        shell = {name: value for name, value in self._machine.items() if name != "CI"}
        printed = sh(f"({LAPTOP}) 2> /dev/null", laptop, shell, self.key)
        names, digest = printed.splitlines()[-2:]
        assert json.loads(names) == ["DATABASE_URL", "API_TOKEN"]
        assert "hunter" not in "".join(p.read_text() for p in laptop.iterdir() if p.name != ".env")
        return (laptop / "my-app.sealed").read_text(), digest

    def send(self, ciphertext: str, digest: str) -> Workflow:
        """Run the workflow."""
        self._runs += 1
        folder = self._folder / f"run-{self._runs}"
        pins = {"SECRETS_DIGEST": digest}
        workflow = Workflow(GITHUB["sealed"], folder, self._machine, secrets=self.key, vars=pins)
        (workflow.workspace / "my-app.sealed").write_text(ciphertext)
        workflow.run()
        return workflow


@pytest.fixture
def sealed(machine: dict[str, str], cloud: Cloud, cvm: Cvm, tmp_path: Path) -> Sealed:
    return Sealed(machine, cloud, tmp_path)


GIVEN = "DATABASE_URL=postgres://u:hunter22@db/app\nAPI_TOKEN=hunter23\n"
OLD = dict.fromkeys(VALUES, "old")


def test_what_was_sealed_arrives_and_may_be_sent_again(sealed: Sealed, cvm: Cvm) -> None:
    ciphertext, digest = sealed.seal(GIVEN)
    workflow = sealed.send(ciphertext, digest)
    assert cvm.environment == {"DATABASE_URL": "postgres://u:hunter22@db/app", "API_TOKEN": "hunter23"}
    assert "hunter" not in "".join(workflow.logs)
    sealed.send(ciphertext, digest)


def test_another_ciphertext_for_the_same_names_is_refused(sealed: Sealed, cvm: Cvm) -> None:
    _, digest = sealed.seal(GIVEN)
    forged, _ = sealed.seal("DATABASE_URL=postgres://evil/app\nAPI_TOKEN=hunter24\n")
    with pytest.raises(AssertionError, match="prepared-digest"):
        sealed.send(forged, digest)
    assert cvm.environment == OLD


def test_a_digest_that_is_missing_stops_the_workflow(sealed: Sealed, cvm: Cvm) -> None:
    ciphertext, _ = sealed.seal(GIVEN)
    with pytest.raises(AssertionError):
        sealed.send(ciphertext, "")
    assert cvm.environment == OLD


def test_a_new_compose_file_takes_a_new_seal(sealed: Sealed, cvm: Cvm) -> None:
    ciphertext, digest = sealed.seal(GIVEN)
    cvm.app_compose["docker_compose_file"] += "\n# deployed anew\n"
    with pytest.raises(AssertionError, match="prepared-digest"):
        sealed.send(ciphertext, digest)
    assert cvm.environment == OLD
    sealed.send(*sealed.seal(GIVEN))


def test_the_step_on_the_page_is_that_of_the_workflow() -> None:
    (block,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    steps = load("github/sealed.yml")["jobs"]["secrets"]["steps"]
    assert yaml.safe_load(block)[0] == steps[-1]
