"""The audit's remark on releases: name what builds by digest, and release what was tested.

Broken before: the emulator, BuildKit and the scanner were taken by tag, in the job that may push and sign.
The image was built anew for the release, on a base that was looked up then.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = ("Dockerfile", ".github/tools/Dockerfile")
JOBS = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())["jobs"]
DIGEST = re.compile(r"[a-z0-9./-]+:[A-Za-z0-9._-]+@sha256:[0-9a-f]{64}")


def step(job: str, action: str) -> dict[str, Any]:
    """What a job gives to its one step with this action."""
    (found,) = [step for step in JOBS[job]["steps"] if step.get("uses", "").startswith(f"{action}@")]
    given: dict[str, Any] = found["with"]
    return given


@pytest.mark.parametrize("name", FILES)
def test_each_image_that_builds_is_named_by_digest(name: str) -> None:
    text = (ROOT / name).read_text()
    images = dict(re.findall(r"^FROM (\S+)(?: AS (\w+))?$", text, re.MULTILINE))
    own = {"${PYTHON_IMAGE}"}  # the stage `base`, unless a test names another
    assert [image for image in images if image not in own and not DIGEST.fullmatch(image)] == []
    # Without such a line the frontend is BuildKit's own, and is pinned with it.
    assert "syntax=" not in text
    assert re.findall(r"^(?:ARG PYTHON_IMAGE=(.*))$", text, re.MULTILINE) in ([], ["base"])


def test_a_release_builds_with_those_images_alone() -> None:
    found = "${{ steps.tools.outputs.%s }}"
    assert step("image", "docker/setup-qemu-action")["image"] == found % "qemu"
    assert step("image", "docker/setup-buildx-action")["driver-opts"] == f"image={found % 'buildkit'}"
    assert step("image", "docker/build-push-action")["sbom"] == f"generator={found % 'sbom'}"
    for name, job in JOBS.items():
        assert not job.keys() & {"container", "services"}, name
        commands = "\n".join(step.get("run", "") for step in job.get("steps", []))
        assert not re.search(r"docker (run|pull|build )", commands), name


@pytest.mark.parametrize("stage", ["base", "buildkit", "qemu", "sbom"])
def test_a_tag_ends_the_release(stage: str, tmp_path: Path) -> None:
    for name in (".ci/image", *FILES):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    command = [str(tmp_path / ".ci/image"), stage]
    pinned = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
    assert DIGEST.fullmatch(pinned.strip())
    for path in (tmp_path / name for name in FILES):
        path.write_text(re.sub(r"@sha256:[0-9a-f]{64}", "", path.read_text()))
    refused = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"'{stage}' is not named by digest" in refused.stderr


def test_what_is_released_is_the_image_that_was_tested() -> None:
    builds = [step for job in JOBS.values() for step in job.get("steps", []) if "build-push" in str(step)]
    assert len(builds) == 1
    built = step("image", "docker/build-push-action")
    # Nobody can take it by a name until it is tested.
    assert "tags" not in built
    assert "push-by-digest=true" in built["outputs"]
    assert JOBS["image"]["outputs"] == {"digest": "${{ steps.build.outputs.digest }}"}
    handed = "${{ needs.image.outputs.digest }}"
    users = {
        name
        for name, job in JOBS.items()
        if handed in str(job.get("steps")) or "DIGEST" in str(job.get("steps"))
    }
    assert users == {"image-test", "publish-image", "publish"}
    assert 'TESTED_IMAGE="$IMAGE@$DIGEST"' in JOBS["image-test"]["steps"][-1]["run"]
    assert step("publish-image", "actions/attest")["subject-digest"] == handed
    for job in ("publish-image", "publish-wheel"):
        assert "image-test" in JOBS[job]["needs"], job
    assert {"publish-image", "publish-wheel"} <= set(JOBS["publish"]["needs"])


def test_the_wheel_that_is_published_is_the_one_that_was_tested() -> None:
    assert step("wheel", "actions/upload-artifact")["path"] == "dist/"
    for job in ("publish-wheel", "publish"):
        assert step(job, "actions/download-artifact") == {"name": "wheel", "path": "dist/"}
        assert not re.search(r"make (wheel|test)", str(JOBS[job]["steps"]))
