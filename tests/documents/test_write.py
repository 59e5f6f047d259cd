"""``make docs`` writes what the documents repeat of the table; ``make lint`` finds what it would change."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "action.yml", "docs/approvals.md", "docs/inputs.md")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The pages and their writer in a folder of their own."""
    (tmp_path / "docs").mkdir()
    for page in ("docs/write.py", *PAGES):
        shutil.copy(ROOT / page, tmp_path / page)
    return tmp_path


def write(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(folder / "docs/write.py"), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("page", PAGES)
def test_a_table_edited_by_hand_is_reported_and_written_again(copy: Path, page: str) -> None:
    path = copy / page
    original = path.read_text()
    start = original.index("make docs:")
    path.write_text(original[:start] + original[start:].replace("compose", "decompose", 1))
    edited = path.read_text()
    assert edited != original
    checked = write(copy, "--check")
    assert checked.returncode == 1
    assert page in checked.stderr
    assert "run `make docs`" in checked.stderr
    assert checked.stderr.count("\n") == 1
    assert path.read_text() == edited
    assert write(copy).returncode == 0
    assert path.read_text() == original
    assert write(copy, "--check").returncode == 0


@pytest.mark.parametrize("page", PAGES)
def test_a_lost_marker_is_an_error(copy: Path, page: str) -> None:
    path = copy / page
    path.write_text(path.read_text().replace("make docs:", "made by hand:"))
    for arguments in ((), ("--check",)):
        done = write(copy, *arguments)
        assert done.returncode == 1
        assert f"error: {page} needs the markers" in done.stderr


def test_what_is_outside_of_the_markers_stays(copy: Path) -> None:
    path = copy / "action.yml"
    released = path.read_text().replace("image: Dockerfile", "image: docker://ghcr.io/x@sha256:0")
    path.write_text(released)
    assert write(copy).returncode == 0
    assert path.read_text() == released
