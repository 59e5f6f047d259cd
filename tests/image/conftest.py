"""Builds the image once, and runs it as GitHub does, with buildah: no daemon, and no registry of images."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCAL_BASE = "localhost/phala-secrets/python:3.13"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


def buildah(*command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    settings = {"STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot", **os.environ}
    done = subprocess.run(
        ["buildah", *command], env=settings, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL
    )
    if check and done.returncode:
        pytest.fail(f"buildah {command[0]} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}", pytrace=False)
    return done


@dataclass(frozen=True)
class Container:
    name: str
    entrypoint: tuple[str, ...]
    config: Mapping[str, object]

    @property
    def files(self) -> Path:
        return Path(buildah("mount", self.name).stdout.strip())

    def run(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        github: Path | None = None,
        user: str = "0:0",
        entrypoint: tuple[str, ...] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """What ``docker run`` would do with the image; ``github`` becomes ``/github``, as the runner lays it out."""
        options = ["--user", user]
        for name, value in (env or {}).items():
            options += ["--env", f"{name}={value}"]
        if github:
            options += ["--volume", f"{github}:/github", "--workingdir", "/github/workspace"]
        command = self.entrypoint if entrypoint is None else entrypoint
        return buildah("run", *options, self.name, "--", *command, *arguments, check=False)


def _container(image: str) -> Iterator[Container]:
    name = f"phala-secrets-{uuid.uuid4().hex[:12]}"
    buildah("from", "--name", name, "--pull-never", image)
    config = json.loads(buildah("inspect", "--type", "image", image).stdout)["OCIv1"]["config"]
    try:
        yield Container(name, tuple(config.get("Entrypoint", ())), config)
    finally:
        buildah("rm", name, check=False)


@pytest.fixture(scope="session")
def base_image() -> str:
    """The base that ``PYTHON_IMAGE`` names, or one made of Debian's packages."""
    missing = [tool for tool in ("buildah", "debootstrap") if not shutil.which(tool)]
    if missing or os.geteuid() != 0:
        pytest.fail("this takes root, buildah and debootstrap: sudo make test-image", pytrace=False)
    image = os.environ.get("PYTHON_IMAGE")
    if image:
        buildah("pull", "--quiet", image)
        return image
    settings = {**os.environ, "STORAGE_DRIVER": "vfs", "BUILDAH_ISOLATION": "chroot"}
    subprocess.run([ROOT / "tests/image/base-image", LOCAL_BASE], env=settings, check=True, timeout=600)
    return LOCAL_BASE


@pytest.fixture(scope="session")
def image(base_image: str) -> str:
    tag = "localhost/phala-secrets/action:test"
    certificates = ["--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro"] if Path(CERTIFICATES).exists() else []
    buildah("bud", "--quiet", "--build-arg", f"PYTHON_IMAGE={base_image}", *certificates, "--tag", tag, ROOT)
    return tag


@pytest.fixture(scope="session")
def base(base_image: str) -> Iterator[Container]:
    yield from _container(base_image)


@pytest.fixture
def container(image: str) -> Iterator[Container]:
    yield from _container(image)
