"""What keeps the project alive: the map, assumptions, Dependabot, issue forms, the weekly run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from phala_secrets.inputs.simulate_flags import FLAGS
from phala_secrets.inputs.table import WORDS
from tests.support.command import ROOT

FORMS = [path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"]
ROWS = re.findall(
    r"^\| (.+?) \| (.+?) \| (.+?) \|$", (ROOT / "docs/maintaining.md").read_text(), re.MULTILINE
)[1:]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def load(path: str | Path) -> Any:
    return yaml.safe_load((ROOT / path).read_text())


@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("dependabot", [ROOT / ".github/dependabot.yml"]),
        ("github-issue-forms", FORMS),
        ("github-issue-config", [ROOT / ".github/ISSUE_TEMPLATE/config.yml"]),
        ("github-workflows", [*(ROOT / ".github/workflows").glob("*.yml")]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_it_is_what_github_asks_for(schema: str, paths: list[Path]) -> None:
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run([*checker, *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_assumption_names_code_that_there_is() -> None:
    assert len(ROWS) >= 20
    for assumption, code, _ in ROWS:
        places = re.findall(r"`([\w/]+\.py)`(?:: ((?:`\w+`(?:, )?)+))?", code)
        assert places, assumption
        for path, names in places:
            text = (ROOT / "phala_secrets" / path).read_text()
            for name in re.findall(r"`(\w+)`", names):
                assert re.search(rf"^(?:def )?{name}\b", text, re.MULTILINE), f"{assumption}: {path}: {name}"


def test_the_map_has_every_target_of_make() -> None:
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    listed = re.findall(r"^    make ([a-z-]+) ", CONTRIBUTING, re.MULTILINE)
    assert sorted(listed) == sorted({*targets} - {"help"})


def test_the_map_has_every_door() -> None:
    product = ROOT / "phala_secrets"
    folders = {f"{path.parent.name}/" for path in product.glob("*/__init__.py")}
    doors = re.findall(r"^\| `([\w./]+)` \|", CONTRIBUTING, re.MULTILINE)
    assert {*doors} == folders | {"flow.py", "errors.py"}
    arrow = re.search(r"^    __main__ → (.*)$", CONTRIBUTING, re.MULTILINE)
    assert arrow
    assert {name.rstrip("/").removesuffix(".py") for name in doors} == {*re.findall(r"\w+", arrow[1])}


def test_the_map_names_files_that_there_are() -> None:
    def place(path: str) -> Path:
        return inner if (inner := ROOT / "phala_secrets" / path).exists() else ROOT / path

    for path in re.findall(r"`((?:\w+/)+(?:[\w.]+)?)`", CONTRIBUTING):
        assert "NAME" in path or place(path).exists(), path
    for name, path in re.findall(r"`(\w+)` (?:in|of) `([\w/]+\.py)`", CONTRIBUTING):
        assert re.search(rf"^(?:class )?{name}\b", place(path).read_text(), re.MULTILINE), f"{path}: {name}"


def kept() -> set[tuple[str, str]]:
    """Every folder that Dependabot looks into, with what it looks for."""
    return {
        (update["package-ecosystem"], str(path.relative_to(ROOT)))
        for update in load(".github/dependabot.yml")["updates"]
        for folder in update.get("directories") or [update["directory"]]
        for path in (ROOT.glob(folder.strip("/")) if folder.strip("/") else [ROOT])
    }


def test_every_update_waits_a_week() -> None:
    updates = load(".github/dependabot.yml")["updates"]
    assert {update["package-ecosystem"] for update in updates} == {"github-actions", "docker", "pip", "npm"}
    for update in updates:
        assert update["cooldown"]["default-days"] >= 7, update


def test_every_lock_is_kept() -> None:
    npm = {("npm", str(path.parent.relative_to(ROOT))) for path in ROOT.glob("tests/*/package-lock.json")}
    images = {("docker", "."), ("docker", ".github/tools")}
    assert npm | images | {("pip", "requirements"), ("pip", "tests/interop")} <= kept()


def test_a_form_asks_for_version_and_exit_code_and_for_no_value() -> None:
    bug = {field["id"]: field for field in load(".github/ISSUE_TEMPLATE/bug.yml")["body"] if "id" in field}
    assert "--version" in bug["version"]["attributes"]["description"]
    for name in ("version", "exit-code"):
        assert bug[name]["validations"]["required"], name
    assert bug["no-values"]["attributes"]["options"][0]["required"]
    for form in FORMS:
        labels = [field["attributes"].get("label", "") for field in load(form)["body"]]
        assert not re.search(r"\.env|api.key|token|secret's", " ".join(labels), re.IGNORECASE), form.name
        assert "no value" in form.read_text().lower() or "never paste a value" in form.read_text().lower()


def test_the_weekly_run_makes_what_can_be_made() -> None:
    runs = " ".join(
        step.get("run", "")
        for job in load(".github/workflows/weekly.yml")["jobs"].values()
        for step in job["steps"]
    )
    made = {target for run in re.findall(r"make ([a-z -]+)", runs) for target in run.split()}
    assert {"test-interop", "mutants", "examples", "verify-known-root", "reproducible"} <= made


def test_the_readme_repeats_the_times_that_were_measured() -> None:
    measured = (ROOT / "docs/performance.md").read_text()
    row = r"^\| one update: .*? / the CLI / its action's command / .* \| (\d+) / (\d+) / (\d+) / "
    (times,) = re.findall(row, measured, re.MULTILINE)
    readme = (ROOT / "README.md").read_text()
    assert re.findall(r"^\| time .*? \| (\d+) ms \| (\d+) ms \| (\d+) ms \|", readme, re.MULTILINE) == [times]


def test_the_readme_tells_what_simulate_can_be_given() -> None:
    readme = (ROOT / "README.md").read_text()
    named = {
        name
        for row in re.findall(r"^\| (`--.*?) \|", readme, re.MULTILINE)
        for name in re.findall(r"--([a-z-]+)", row)
    }
    assert named == {row.name for row in FLAGS} - {"port", "key", "cvm"}


def test_the_readme_names_each_word_of_the_command() -> None:
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(r"`phala-secrets (\w+)", readme))
    assert {*WORDS, "completion"} <= named
