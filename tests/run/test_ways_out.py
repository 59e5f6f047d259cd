"""What a run shows where values, credentials and bugs are in the way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from phala_secrets.cloud import progress
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from tests.support.command import Command
from tests.support.step import Step


def test_a_value_that_is_the_name_of_the_cvm_hides_nothing(step: Step, cvm: Cvm) -> None:
    done = step(env="OLD=my-app")
    assert done.code == 0, done.log
    assert done.outputs["cvm-id"] == cvm.id
    assert "my-app" not in done.masks
    assert any("my-app: " in line for line in done.lines)


def test_settings_are_not_masked(step: Step, cvm: Cvm) -> None:
    done = step(
        env="OLD=hunter2\nREGION=eu-west-1\nFLAG=true\nPORT=8080", no_mask="REG*", allow_removal="true"
    )
    assert done.code == 0, done.log
    assert set(done.masks) == {step.inputs["api-key"], "hunter2"}


@pytest.mark.parametrize("glob", ["*", "**", "?*"])
def test_no_mask_cannot_name_everything(step: Step, glob: str) -> None:
    done = step(env="OLD=hunter2", no_mask=glob)
    assert done.code == 2
    assert "no-mask names every variable" in done.annotations("error")[0].data


@pytest.mark.parametrize("form", ["dotenv", "shell", "json"])
def test_an_output_file_has_its_format(run: Command, cvm: Cvm, form: str) -> None:
    where = ("--output-file", "out", "--output-format", form)
    done = run("update", "--cvm", "my-app", "--secrets", "OLD", *where, "--json", environ={"OLD": "2"})
    assert done.code == 0, done.stderr
    text = (run.folder / "out").read_text()
    if form == "json":
        assert json.loads(text) == done.json
    else:
        quote = "'" if form == "shell" else ""
        assert f"PHALA_CVM_ID={quote}{cvm.id}{quote}\n" in text


def test_a_bug_after_the_update_says_how_far_the_run_had_got(
    run: Command, cvm: Cvm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stumble(_: Any) -> None:
        raise RuntimeError("hunter2")

    monkeypatch.setattr(progress, "operations", stumble)
    done = run("update", "--cvm", "my-app", "--secrets", "OLD", environ={"OLD": "2"})
    assert done.code == 1
    assert "internal error in phala-secrets" in done.stderr
    assert f"the update of my-app was accepted ({cvm.operations[0].correlation_id})" in done.stderr
    assert "hunter2" not in done.printed


def test_a_bug_about_one_cvm_leaves_the_others(
    run: Command, cloud: Cloud, cvm: Cvm, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = cloud.add_cvm("my-app-2", app_id=cvm.app_id, environment={"OLD": "1"})
    really = progress.operations

    def stumble(cvm_id: str) -> Any:
        if cvm_id == cvm.id:
            raise RuntimeError
        return really(cvm_id)

    monkeypatch.setattr(progress, "operations", stumble)
    done = run(
        *("update", "--app", cvm.app_id, "--secrets", "OLD", "--no-fail-fast", "--json"), environ={"OLD": "2"}
    )
    assert done.code == 1
    rows = {row["cvm-id"]: row for row in done.json["results"]}
    assert rows[cvm.id]["exit-code"] == 1
    assert "was accepted" in rows[cvm.id]["error"]
    assert rows[second.id]["status"] == "running"
    assert second.wait().environment == {"OLD": "2"}
