"""The image: what is in it, what it weighs, and that a job cannot make it run anything else."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import phala_secrets
from tests.image.container import Container, added_layers

MEGABYTE = 1_000_000


def everything(root: Path) -> dict[str, os.stat_result]:
    found = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = Path(folder, name)
            found[str(path.relative_to(root))] = path.lstat()
    return found


def added(base: Container, container: Container) -> dict[str, os.stat_result]:
    """What the image has that its base has not, or has otherwise."""
    before = everything(base.files)
    return {
        path: now
        for path, now in everything(container.files).items()
        if path not in before or (before[path].st_size, before[path].st_mtime) != (now.st_size, now.st_mtime)
    }


def test_it_adds_at_most_70_mb_to_its_base(base: Container, container: Container, figures: list[str]) -> None:
    files = [now for now in added(base, container).values() if stat.S_ISREG(now.st_mode)]
    total = sum(max(now.st_size, now.st_blocks * 512) for now in files)
    figures.append(f"the image, over its base: {total / MEGABYTE:.1f} MB")
    assert total <= 70 * MEGABYTE


def test_a_registry_sends_at_most_20_mb_over_its_base(
    image: str, base_image: str, tmp_path: Path, figures: list[str]
) -> None:
    """And the libraries are a layer of their own, so that an update of ours is 1 MB."""
    layers = added_layers(image, base_image, tmp_path / "oci")
    total = sum(layer.size for layer in layers)
    sizes = ", ".join(f"{layer.size / MEGABYTE:.2f}" for layer in layers)
    figures.append(f"compressed: {total / MEGABYTE:.2f} MB ({sizes})")
    assert total <= 20 * MEGABYTE
    assert layers[-1].size <= MEGABYTE


def test_it_adds_no_installer_and_no_compiler(base: Container, container: Container) -> None:
    unwanted = re.compile(r"(^|/)(pip|ensurepip|setuptools|wheel|gcc|cc|clang|ld|make|git|curl|wget)[\d.]*$")
    assert [path for path in added(base, container) if unwanted.search(path)] == []
    for module in ("pip", "ensurepip"):
        done = container.run("-m", module, "--version", entrypoint=("python",))
        assert done.returncode != 0, done.stdout


def test_nobody_but_root_can_change_what_it_runs(base: Container, container: Container) -> None:
    loose = stat.S_IWGRP | stat.S_IWOTH | stat.S_ISUID | stat.S_ISGID
    for path, now in added(base, container).items():
        if not stat.S_ISLNK(now.st_mode):
            assert now.st_uid == 0, path
            assert not now.st_mode & loose, path


def test_every_module_is_compiled_already(container: Container) -> None:
    packages = next(container.files.glob("opt/phala-secrets/lib/python3*/site-packages"))
    for source in packages.rglob("*.py"):
        assert list(source.parent.glob(f"__pycache__/{source.stem}.*.pyc")), source


def test_the_entrypoint_is_isolated_and_no_shell(container: Container) -> None:
    python, options, script = container.entrypoint
    assert python.startswith("/")
    assert options == "-IB"
    assert script.endswith("/entrypoint.py")
    shebang = (container.files / script[1:]).read_text().partition("\n")[0]
    assert shebang == f"#!{python} {options}"


def test_it_says_what_it_is(container: Container) -> None:
    labels = container.labels
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.source"].startswith("https://github.com/")
    done = container.run("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert phala_secrets.__version__ in done.stdout
    assert container.run("--version", entrypoint=("phala-secrets",)).stdout == done.stdout


def test_it_runs_as_anybody_and_writes_nothing(container: Container) -> None:
    before = everything(container.files)
    for user, env in (("0:0", {}), ("12345:12345", {"HOME": "/nonexistent"})):
        done = container.run("--version", user=user, env=env)
        assert (done.returncode, done.stderr) == (0, "")
    after = everything(container.files)
    ours = ("opt", "usr", "home", "root", "tmp", "var")
    changed = {
        path
        for path in before.keys() | after.keys()
        if path.startswith(ours)
        and (path not in before or path not in after or before[path].st_mtime != after[path].st_mtime)
    }
    assert changed == set()
