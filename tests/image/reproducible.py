"""Two builds of the image have the same layers: ``make reproducible``."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.image.conftest import ROOT
from tests.image.container import added_layers, build, buildah


def checkout(folder: Path) -> Path:
    """What git tracks, as another clone has it: later, and under another umask."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, path)
        path.chmod(0o775 if os.access(ROOT / name, os.X_OK) else 0o664)
        path.parent.chmod(0o775)
        os.utime(path, (2_000_000_000, 2_000_000_000))
    return folder


def test_two_builds_give_the_same_layers(base_image: str, tmp_path: Path) -> None:
    built = []
    for name, context in (("first", ROOT), ("second", checkout(tmp_path / "checkout"))):
        tag = f"localhost/phala-secrets/reproducible:{name}"
        build(tag, base_image, context, "--no-cache")
        try:
            built.append(added_layers(tag, base_image, tmp_path / name))
        finally:
            buildah("rmi", tag, check=False)
    print(*(f"{layer.digest} {layer.size}" for layer in built[0]), sep="\n")
    assert built[0] == built[1]
