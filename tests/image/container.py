"""Running the image as GitHub does, with buildah: no daemon, and no registry of images."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
SETTINGS = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot", **os.environ}


def buildah(*command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run buildah; unless ``check`` is off, a failure of it fails the test."""
    done = subprocess.run(
        ["buildah", *command],
        env=SETTINGS,
        capture_output=True,
        text=True,
        timeout=600,
        stdin=subprocess.DEVNULL,
    )
    if check and done.returncode:
        said = done.stdout[-4000:] + done.stderr[-4000:]
        pytest.fail(f"buildah {command[0]} failed:\n{said}", pytrace=False)
    return done


EPOCH = "1580601600"
"""2020-02-02, as in release.yml and in the wheel: a layer changes when its content does."""


@dataclass(frozen=True)
class Layer:
    """A layer as a registry keeps it, compressed."""

    digest: str
    size: int


def build(tag: str, base: str, context: Path, *options: str) -> None:
    """Build the Dockerfile of ``context``, a layer for each of its steps."""
    # The build trusts what this machine trusts: it may be behind a proxy with a root certificate of its own.
    given = ["--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"] if Path(CERTIFICATES).exists() else []
    given += ["--layers", "--timestamp", EPOCH, "--build-arg", f"PYTHON_IMAGE={base}", *options]
    buildah("bud", "--quiet", *given, "--tag", tag, context)


def added_layers(image: str, base: str, folder: Path) -> list[Layer]:
    """The layers that ``image`` has over its base, the lowest first."""
    buildah("push", "--quiet", image, f"oci:{folder}:image")

    def blob(digest: str) -> Any:
        return json.loads((folder / "blobs/sha256" / digest.removeprefix("sha256:")).read_text())

    index = json.loads((folder / "index.json").read_text())
    layers = blob(index["manifests"][0]["digest"])["layers"]
    below = json.loads(buildah("inspect", "--type", "image", base).stdout)["OCIv1"]["rootfs"]["diff_ids"]
    return [Layer(layer["digest"], layer["size"]) for layer in layers[len(below) :]]


@dataclass(frozen=True)
class Container:
    """A container of the image: made, and run as often as one likes."""

    name: str
    entrypoint: tuple[str, ...]
    labels: Mapping[str, str]

    @property
    def files(self) -> Path:
        """Its root folder, on this machine."""
        return Path(buildah("mount", self.name).stdout.strip())

    def run(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        github: Path | None = None,
        user: str = "0:0",
        entrypoint: tuple[str, ...] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """What ``docker run`` would do; ``github`` becomes ``/github``, as the runner lays it out.

        Anybody but root runs with ``--cap-drop=ALL``.
        """
        options = ["--user", user] if user == "0:0" else ["--user", user, "--cap-drop", "all"]
        for name, value in (env or {}).items():
            options += ["--env", f"{name}={value}"]
        if github:
            options += ["--volume", f"{github}:/github", "--workingdir", "/github/workspace"]
        command = self.entrypoint if entrypoint is None else entrypoint
        return buildah("run", *options, self.name, "--", *command, *arguments, check=False)
