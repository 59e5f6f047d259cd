"""What holds of the repository as a whole: its map, its dependencies, what has no place in its files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
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
LOCKS = ("image", "dev", "attack")
MODULES = sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """The room of the map that a module belongs to: its own name, or that of its folder."""
    return module.split(".")[1] if "." in module else module


def rooms_with(pattern: str) -> set[str]:
    """The rooms whose text has this."""
    return {room(dotted(path)) for path in MODULES if re.search(pattern, path.read_text())}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, by its full name, wherever in the file that is."""
    package = dotted(path) if path.name == "__init__.py" else dotted(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                nested = f"{origin}.{alias.name}"
                yield nested if nested in {dotted(module) for module in MODULES} else origin


def the_map() -> dict[str, int]:
    """The level of each room in the map of CONTRIBUTING.md."""
    rows = re.findall(r"^\| (\d+) \| `(\w+)/?` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    return {name: int(level) for level, name in rows}


def tracked_texts() -> Iterator[tuple[str, str]]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and b"\0" not in (data := path.read_bytes()):
            yield name, data.decode(errors="replace")


def test_the_map_shows_every_module() -> None:
    assert {room(dotted(path)) for path in MODULES} - {"phala_secrets"} == set(the_map())


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_arrows_point_down_the_map(path: Path) -> None:
    levels, here = the_map(), room(dotted(path))
    for imported in imports(path):
        if not imported.startswith("phala_secrets."):
            continue
        there = room(imported)
        if there == here:
            continue
        if here == "simulator":
            assert there in {"errors", "models"}, f"the simulator is a second opinion, and imports {there}"
        elif here != "phala_secrets":
            assert levels[there] < levels[here], f"{here} imports {there}, which is not below it"


def test_nothing_but_the_command_line_imports_the_simulator() -> None:
    importers = {dotted(path) for path in MODULES if any(room(name) == "simulator" for name in imports(path))}
    assert {name for name in importers if room(name) != "simulator"} <= {"phala_secrets.cli"}


@pytest.mark.parametrize(
    ("library", "rooms"),
    [
        ("httpx", {"client", "connection", "streams"}),
        ("httpx_sse", {"client"}),
        ("eth_account", {"chain"}),
        ("cryptography", {"envelope", "simulator"}),
        ("subprocess", set[str]()),
        ("tempfile", set[str]()),
        ("pickle", set[str]()),
    ],
)
def test_a_library_stays_in_its_room(library: str, rooms: set[str]) -> None:
    for path in MODULES:
        if library in {name.split(".")[0] for name in imports(path)}:
            assert room(dotted(path)) in rooms, path


def test_the_environment_is_read_where_inputs_are() -> None:
    assert rooms_with(r"\bos\.(environ|getenv)") <= {"cli", "inputs", "runners", "connection"}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = [*project["dependencies"], *project["optional-dependencies"]["chain"]]
    declared = {re.split(r"[<>=]", requirement)[0] for requirement in requirements}
    roots = {name.split(".")[0] for path in MODULES for name in imports(path)}
    foreign = roots - set(sys.stdlib_module_names) - {"phala_secrets"}
    assert {NOT_NAMED_ALIKE.get(name, name.replace("_", "-")) for name in foreign} == declared


def test_the_lock_has_a_hash_for_all_and_every_dependency_a_reason() -> None:
    reasons = (ROOT / "requirements/README.md").read_text()
    for lock in LOCKS:
        text = (ROOT / f"requirements/{lock}.txt").read_text()
        pins = re.findall(r"^([a-z][\w.-]*)==\S+.*\\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
        assert pins == re.findall(r"^([a-z][\w.-]*)", text, re.MULTILINE)
        if lock == "image":
            assert [name for name in pins if f"`{name}`" not in reasons] == []


def test_the_development_lock_agrees_with_that_of_the_image() -> None:
    pin = re.compile(r"^[a-z][\w.-]*==[^\s;]+", re.MULTILINE)
    locks = ((ROOT / f"requirements/{lock}.txt").read_text() for lock in ("image", "dev"))
    image, dev = (set(pin.findall(lock)) for lock in locks)
    assert image <= dev


def test_every_action_is_pinned_by_commit_and_named_by_version() -> None:
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        for used in re.findall(r"^\s*(?:- )?uses: (.+)$", workflow.read_text(), re.MULTILINE):
            assert used.startswith("./") or re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", used), used


def test_jobs_have_no_permission_that_they_do_not_name() -> None:
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        content = yaml.safe_load(workflow.read_text())
        assert content["permissions"] == {}, workflow.name
        for name, job in content["jobs"].items():
            assert job["permissions"].get("contents") in {"read", "write"}, f"{workflow.name}: {name}"


def test_a_release_finds_the_lines_that_it_pins() -> None:
    assert re.findall(r"^ARG PYTHON_IMAGE=\S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert re.findall(r"^  image: Dockerfile$", (ROOT / "action.yml").read_text(), re.MULTILINE)


def test_the_image_takes_nothing_without_a_hash_and_a_release_says_what_is_in_it() -> None:
    installs = re.findall(r"pip .*?install .*?(?=\nCOPY)", (ROOT / "Dockerfile").read_text(), re.DOTALL)
    assert len(installs) == 1
    assert {"--require-hashes", "--only-binary", "--no-deps"} <= set(installs[0].split())
    release = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    steps = [step for job in release["jobs"].values() for step in job.get("steps", [])]
    (build,) = [step["with"] for step in steps if "build-push-action" in step.get("uses", "")]
    assert build["sbom"] is True
    assert build["provenance"] == "mode=max"
    assert any("attest-build-provenance" in step.get("uses", "") for step in steps)


def test_the_entrypoint_is_only_that() -> None:
    statements = ast.parse((ROOT / "entrypoint.py").read_text()).body
    assert [type(statement) for statement in statements] == [ast.ImportFrom, ast.Expr]


def test_files_name_no_machine_and_no_registry() -> None:
    machine = re.compile("|".join([r"/wo" + r"rk/", r"/ro" + r"ot/", r"/tmp/re" + r"f\b"]))
    registry = re.compile(r"py" + r"pi\.org|python" + r"hosted|np" + r"mjs|crates" + r"\.io")
    found = [name for name, text in tracked_texts() if machine.search(text) or registry.search(text)]
    assert found == []
