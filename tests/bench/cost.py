"""What it takes from a bare runner to an accepted update: bytes fetched, files written, memory.

The official CLI as its action installs it, by npm, against our image and our wheel. Node.js, Python and a
container engine are on the runner already. Ratios of one run are what counts: ``make cost``, as root.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.server import Simulator
from tests.bench.bench import cvm_with, environ_for, write_env
from tests.bench.meter import Meter
from tests.image.container import SETTINGS, added_layers, build, buildah

ROOT = Path(__file__).parents[2]
LOCAL_BASE = "localhost/phala-secrets/python:3.13"
TAG = "localhost/phala-secrets/action:cost"
MEGABYTE = 1_000_000


@dataclass
class Cost:
    """Bytes over the network, bytes and files on the disk, and the peak memory of the update in MiB."""

    name: str
    fetched: int
    written: int
    files: int
    memory: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.name:<24}{self.fetched / MEGABYTE:7.1f} MB fetched {self.written / MEGABYTE:7.1f} MB "
            f"in {self.files:6} files {self.memory:6.1f} MiB of memory"
        )

    def of(self, other: Cost) -> str:
        """The ratios: ours of theirs."""
        pairs = (
            (self.fetched, other.fetched),
            (self.written, other.written),
            (self.files, other.files),
            (self.memory, other.memory),
        )
        return " | ".join(f"{ours / theirs:.2f}" for ours, theirs in pairs)


def on_disk(*folders: Path) -> tuple[int, int]:
    """Bytes and number of the files in these folders."""
    files = [
        path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()
    ]
    return sum(path.stat().st_size for path in files), len(files)


LAUNCHER = (
    "import os, sys\n"
    "_, status, usage = os.wait4(os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ), 0)\n"
    "open(sys.argv[1], 'w').write(str(usage.ru_maxrss))\n"
    "sys.exit(os.waitstatus_to_exitcode(status))"
)
"""A process starts with its parent's peak as its own, so a small one has to start what is measured."""


def peak(command: list[str], folder: Path, environ: Mapping[str, str]) -> float:
    """Run a command to its end; give the peak of its memory in MiB."""
    launcher = [sys.executable, "-ISc", LAUNCHER, str(folder / "peak"), *command]
    done = subprocess.run(
        launcher, cwd=folder, env=dict(environ), capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        sys.exit(f"{command[0]} failed with {done.returncode}:\n{done.stdout + done.stderr}")
    return int((folder / "peak").read_text()) / 1024


def with_npm(folder: Path) -> tuple[Cost, list[str]]:
    """The official CLI, with the cache that npm keeps."""
    version = json.loads((ROOT / "tests/bench/package.json").read_text())["dependencies"]["phala"]
    prefix, cache = folder / "npm", folder / "npm-cache"
    command = ["npm", "install", "--global", "--no-audit", "--no-fund", f"phala@{version}"]
    with Meter() as meter:
        options = ["--prefix", str(prefix), "--cache", str(cache), "--https-proxy", meter.url]
        subprocess.run([*command, *options], check=True, capture_output=True, timeout=600)
    cost = Cost("the official CLI, by npm", meter.fetched, *on_disk(prefix, cache))
    return cost, [str(prefix / "bin/phala"), "envs", "update", "my-app", "-e", ".env"]


def with_pip(folder: Path) -> tuple[Cost, list[str]]:
    """Our wheel, as ``pip install`` has it, without the extras."""
    venv = folder / "venv"
    (ours,) = (ROOT / "dist").glob("*.whl")
    pins = re.findall(
        r"^([a-z][\w.-]*==[^\s;]+)", (ROOT / "requirements/image.txt").read_text(), re.MULTILINE
    )
    (folder / "constraints.txt").write_text("\n".join(pins))
    subprocess.run([sys.executable, "-m", "venv", venv], check=True, timeout=120)
    before, count = on_disk(venv)
    with Meter() as meter:
        options = ["--no-cache-dir", "--proxy", meter.url, "--constraint", str(folder / "constraints.txt")]
        command = [str(venv / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*command, *options, str(ours)], check=True, capture_output=True, timeout=600)
    written, files = on_disk(venv)
    cost = Cost("ours, by pip", meter.fetched + ours.stat().st_size, written - before, files - count)
    return cost, [
        str(venv / "bin/phala-secrets"),
        "update",
        "--cvm",
        "my-app",
        "--env-file",
        ".env",
        "--no-wait",
    ]


@contextmanager
def with_image(folder: Path) -> Iterator[tuple[Cost, Cost, Path]]:
    """Our image, with its base and over it, and the folder of its files."""
    base = os.environ.get("PYTHON_IMAGE")
    if base:
        buildah("pull", "--quiet", base)
    else:
        base = LOCAL_BASE
        subprocess.run([ROOT / "tests/image/base-image", base], env=SETTINGS, check=True, timeout=600)
    build(TAG, base, ROOT)
    ours = sum(layer.size for layer in added_layers(TAG, base, folder / "oci"))
    fetched = sum(path.stat().st_size for path in (folder / "oci/blobs/sha256").iterdir())
    names = [buildah("from", "--pull-never", image).stdout.strip() for image in (base, TAG)]
    try:
        below, whole = (on_disk(Path(buildah("mount", name).stdout.strip())) for name in names)
        cost = Cost("ours, the image", fetched, *whole)
        over = Cost("… over its base", ours, whole[0] - below[0], whole[1] - below[1])
        yield cost, over, Path(buildah("mount", names[1]).stdout.strip())
    finally:
        for name in names:
            buildah("rm", name, check=False)
        buildah("rmi", TAG, check=False)


def main() -> int:
    with tempfile.TemporaryDirectory() as name, Simulator(Cloud(restart_seconds=0.0)) as simulator:
        folder = Path(name)
        cvm = cvm_with(simulator.cloud, 30)
        write_env(folder, 30, 40)
        environ = environ_for(simulator)
        cli, update = with_npm(folder)
        wheel, ours = with_pip(folder)
        for cost, command in ((cli, update), (wheel, ours)):
            cost.memory = peak(command, folder, environ)
            cvm.finish()
        with with_image(folder) as (image, over, files):
            (files / "srv/.env").write_text((folder / ".env").read_text())
            python = "/opt/phala-secrets/bin/python"
            command = ["chroot", str(files), python, "-IB", "/opt/phala-secrets/entrypoint.py", *ours[1:]]
            command[command.index(".env")] = "/srv/.env"
            subprocess.run(["mount", "--bind", "/proc", files / "proc"], check=True)
            try:
                image.memory = over.memory = peak(command, folder, environ)
            finally:
                subprocess.run(["umount", files / "proc"], check=True)
    print("From a bare runner to an accepted update:")
    print(*(f"  {cost}" for cost in (cli, image, over, wheel)), sep="\n")
    print("Of the CLI's: bytes fetched | bytes written | files | memory")
    print(*(f"  {cost.name:<24}{cost.of(cli)}" for cost in (image, over, wheel)), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
