"""Running the image as GitHub does, with buildah: no daemon, and no registry of images."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

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
