"""What the start of a step costs in the image, with nothing of it in memory and with all of it.

The command is run in the container's files without a container around it, whose price is the engine's.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.server import Simulator
from tests.image.container import Container

ROUNDS = 7
MEGABYTE = 1_000_000


class Run(NamedTuple):
    seconds: float
    read: int
    """Bytes that came from the disk."""


def in_files(files: Path, *command: str, environ: dict[str, str]) -> Run:
    began = time.perf_counter()
    environ = {"PATH": os.environ["PATH"], **environ}
    process = subprocess.Popen(["chroot", files, *command], env=environ, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return Run(took, usage.ru_inblock * 512)


@contextmanager
def proc(files: Path) -> Iterator[None]:
    """With /proc, as in every container: it tells where an open file is."""
    subprocess.run(["mount", "--bind", "/proc", files / "proc"], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", files / "proc"], check=True)


def forget(files: Path) -> None:
    """Nothing of these files stays in memory, as on a machine that has just fetched the image."""
    os.sync()
    for path in (path for part in ("opt", "usr") for path in (files / part).rglob("*")):
        if path.is_file() and not path.is_symlink():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def median(runs: list[Run]) -> Run:
    return Run(
        statistics.median(run.seconds for run in runs), statistics.median_low(run.read for run in runs)
    )


def test_the_start_of_a_step_is_measured(container: Container, figures: list[str]) -> None:
    files = container.files
    (files / "srv/app.env").write_text("TOKEN=s3cr3t-value\n")
    python = container.entrypoint[0]
    given = ("--cvm", "my-app", "--env-file", "/srv/app.env", "--no-wait")
    cold, warm, bare_cold, bare_warm = [], [], [], []
    with Simulator(Cloud(restart_seconds=0.0)) as simulator, proc(files):
        cvm = simulator.cloud.add_cvm("my-app", environment={"TOKEN": "old"})
        environ = {"PHALA_CLOUD_API_PREFIX": simulator.url, "PHALA_CLOUD_API_KEY": simulator.cloud.api_key}

        def update() -> Run:
            run = in_files(files, *container.entrypoint, "update", *given, environ=environ)
            cvm.finish()
            assert cvm.environment == {"TOKEN": "s3cr3t-value"}
            return run

        for _ in range(ROUNDS):
            forget(files)
            bare_cold.append(in_files(files, python, "-IBc", "", environ={}))
            bare_warm.append(in_files(files, python, "-IBc", "", environ={}))
            forget(files)
            cold.append(update())
            warm.append(update())
    assert min(run.read for run in cold) > MEGABYTE, "it was not cold: the files were in memory"
    for name, runs, bare in (("first", cold, bare_cold), ("another", warm, bare_warm)):
        run = median(runs)
        figures.append(
            f"{name} update in the container: {run.seconds * 1000:.0f} ms, "
            f"{run.read / MEGABYTE:.1f} MB from the disk "
            f"(an empty Python: {median(bare).seconds * 1000:.0f} ms)"
        )
