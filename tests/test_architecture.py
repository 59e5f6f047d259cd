"""What holds of the repository as a whole: its map, its dependencies, what has no place in its files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "phala_secrets"
NOT_NAMED_ALIKE = {
    "dotenv": "python-dotenv",
    "sha3": "safe-pysha3",
    "yaml": "pyyaml",
    "pydantic_core": "pydantic",
}
LOCKS = ("lock", "image", "dev", "attack", "release", "uv")
MODULES = sorted(PACKAGE.rglob("*.py"))


FLOORS = (
    {"__main__"},
    {"run"},
    {"inputs"},
    {"cloud"},
    {"chain"},
    {"dstack", "runners", "simulator"},
    {"flow"},
    {"errors"},
)
"""The rule: a package imports from floors below its own alone. The root's `__init__` is the front door."""
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
LONGEST = 400
ENTRIES = 12


def dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {dotted(path) for path in MODULES}


@cache
def imports(path: Path) -> list[str]:
    """Every module that a file imports, wherever in the file; ours without the package's name."""
    return list(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it leads"
            origin = (node.module or "").removeprefix("phala_secrets").lstrip(".")
            if node.module and not node.module.startswith("phala_secrets"):
                yield node.module
                continue
            for alias in node.names:
                nested = f"{origin}.{alias.name}".lstrip(".")
                yield nested if nested in NAMES else origin


def test_the_root_of_the_package_can_be_read_at_a_glance() -> None:
    entries = {path.name for path in PACKAGE.iterdir()} - {"__pycache__"}
    assert len(entries) <= ENTRIES, entries
    assert {entry.partition(".")[0] for entry in entries} - {"__init__", "py"} == set(FLOOR)


@pytest.mark.parametrize("path", [path for path in MODULES if path.parent != PACKAGE], ids=dotted)
def test_packages_import_in_one_direction(path: Path) -> None:
    here = dotted(path)
    floor = FLOOR[here.partition(".")[0]]
    for there in imports(path):
        package = there.partition(".")[0]
        if package in FLOOR and package != here.partition(".")[0]:
            assert FLOOR[package] > floor, f"{here} imports {there}, which is not below it"


ROOMS = {"dcap_qvl": {"dstack.quote"}}
"""What costs to load, and the one module that may."""


@pytest.mark.parametrize("name", ROOMS)
def test_what_costs_to_load_has_one_room(name: str) -> None:
    assert {dotted(path) for path in MODULES if name in imports(path)} == ROOMS[name]
    for path in MODULES:
        top = ast.parse(path.read_text()).body
        named = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
        assert name not in named, f"{path} loads {name} as soon as it is imported"


def test_no_cycle_inside_a_package() -> None:
    inner = [path for path in MODULES if path.parent != PACKAGE]
    below = {dotted(path): {name for name in imports(path) if name in NAMES} for path in inner}
    list(TopologicalSorter(below).static_order())  # raises CycleError


@pytest.mark.parametrize("path", [path for path in MODULES if path.name != "client.py"], ids=dotted)
def test_a_module_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LONGEST


def test_inner_packages_import_nothing() -> None:
    for path in PACKAGE.glob("*/__init__.py"):
        assert imports(path) == [], path


def tracked_texts() -> Iterator[tuple[str, str]]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and b"\0" not in (data := path.read_bytes()):
            yield name, data.decode(errors="replace")


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], *extras["attest"], *extras["chain"]]
    declared = {re.split(r"[<>=]", requirement)[0] for requirement in requirements}
    roots = {name.split(".")[0] for path in MODULES for name in imports(path)}
    foreign = roots - set(sys.stdlib_module_names) - set(FLOOR) - {""}
    assert {NOT_NAMED_ALIKE.get(name, name.replace("_", "-")) for name in foreign} == declared


def test_the_lock_has_a_hash_for_all_and_every_dependency_a_reason() -> None:
    reasons = (ROOT / "requirements/README.md").read_text()
    for lock in LOCKS:
        text = (ROOT / f"requirements/{lock}.txt").read_text()
        pins = re.findall(r"^([a-z][\w.-]*)==\S+.*\\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
        assert pins == re.findall(r"^([a-z][\w.-]*)", text, re.MULTILINE)
        if lock == "image":
            assert [name for name in pins if f"`{name}`" not in reasons] == []


@pytest.mark.parametrize("name", LOCKS[1:])
def test_each_list_is_taken_out_of_the_one_lock(name: str) -> None:
    pin = re.compile(r"^[a-z][\w.-]*==[^\s;]+", re.MULTILINE)
    lock, taken = (
        set(pin.findall((ROOT / f"requirements/{file}.txt").read_text())) for file in ("lock", name)
    )
    assert taken <= lock


def test_every_action_is_pinned_by_commit_and_named_by_version() -> None:
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        for used in re.findall(r"^\s*(?:- )?uses: (.+)$", workflow.read_text(), re.MULTILINE):
            if (workflow.name, used) == ("update.yml", "phala-secrets/phala-secrets@v0"):
                continue  # which a release pins
            assert used.startswith("./") or re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", used), used


def test_jobs_have_no_permission_that_they_do_not_name() -> None:
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        content = yaml.safe_load(workflow.read_text())
        assert content["permissions"] == {}, workflow.name
        for name, job in content["jobs"].items():
            assert job["permissions"].get("contents") in {"read", "write"}, f"{workflow.name}: {name}"


def test_a_release_finds_the_line_that_it_pins() -> None:
    assert re.findall(r"^  image: Dockerfile$", (ROOT / "action.yml").read_text(), re.MULTILINE)


def test_the_image_takes_nothing_without_a_hash_and_a_release_says_what_is_in_it() -> None:
    installs = re.findall(r"pip .*?install .*?(?=\nCOPY)", (ROOT / "Dockerfile").read_text(), re.DOTALL)
    assert len(installs) == 1
    assert {"--require-hashes", "--only-binary", "--no-deps"} <= set(installs[0].split())
    release = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    steps = [step for job in release["jobs"].values() for step in job.get("steps", [])]
    (build,) = [step["with"] for step in steps if "build-push-action" in step.get("uses", "")]
    assert build["sbom"]
    assert build["provenance"] == "mode=max"
    assert any("actions/attest@" in step.get("uses", "") for step in steps)


def test_files_name_no_machine_and_no_registry() -> None:
    machine = re.compile("|".join([r"/wo" + r"rk/", r"/ro" + r"ot/", r"/tmp/re" + r"f\b"]))
    registry = re.compile(r"py" + r"pi\.org|python" + r"hosted|np" + r"mjs|crates" + r"\.io")
    found = [name for name, text in tracked_texts() if machine.search(text) or registry.search(text)]
    assert found == []
