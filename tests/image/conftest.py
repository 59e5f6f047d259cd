"""The image, built once on the base that PYTHON_IMAGE names, or on one made of Debian's packages.

If TESTED_IMAGE is set, that image is tested as it is: a release tests what it has built.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.container import SETTINGS, Container, build, buildah

ROOT = Path(__file__).parents[2]
LOCAL_BASE = "localhost/phala-secrets/python:3.13"


def _container(image: str) -> Iterator[Container]:
    name = f"phala-secrets-{uuid.uuid4().hex[:12]}"
    buildah("from", "--name", name, "--pull-never", image)
    config = json.loads(buildah("inspect", "--type", "image", image).stdout)["OCIv1"]["config"]
    try:
        yield Container(name, tuple(config.get("Entrypoint", ())), config.get("Labels") or {})
    finally:
        buildah("rm", name, check=False)


FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> list[str]:
    """Lines that are printed at the end: what was measured, and is no matter of right or wrong."""
    return request.config.stash.setdefault(FIGURES, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if figures := config.stash.get(FIGURES, None):
        terminalreporter.section("measured")
        for line in figures:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def base_image() -> str:
    missing = [tool for tool in ("buildah", "debootstrap") if not shutil.which(tool)]
    if missing or os.geteuid() != 0:
        pytest.fail("this takes root, buildah and debootstrap: sudo make test-image", pytrace=False)
    image = os.environ.get("PYTHON_IMAGE")
    if image:
        buildah("pull", "--quiet", image)
        return image
    subprocess.run([ROOT / "tests/image/base-image", LOCAL_BASE], env=SETTINGS, check=True, timeout=600)
    return LOCAL_BASE


@pytest.fixture(scope="session")
def image(base_image: str) -> Iterator[str]:
    if built := os.environ.get("TESTED_IMAGE"):
        buildah("pull", "--quiet", built)
        yield built
        return
    tag = "localhost/phala-secrets/action:test"
    build(tag, base_image, ROOT)
    yield tag
    buildah("rmi", tag, check=False)


@pytest.fixture(scope="session")
def base(base_image: str) -> Iterator[Container]:
    yield from _container(base_image)


@pytest.fixture
def container(image: str) -> Iterator[Container]:
    yield from _container(image)
