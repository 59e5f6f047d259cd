"""What a pull request can write into a checkout, and an API into a response, is read in bounded time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from .support import Answer, Cloud, Command, Cvm, Outcome, Request, bounded, updates

pytestmark = pytest.mark.usefixtures("time_passes")

MIB = 1024 * 1024
SECONDS = 20.0
"""How long a run may take: each of these took minutes, or all memory. One of them takes a second or two."""

FEW_GIGABYTES = "import resource; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
PROGRAM = FEW_GIGABYTES + "import sys\nfrom phala_secrets.__main__ import command\nsys.exit(command())\n"


def limited(run: Command, tmp_path: Path, *arguments: str, environ: dict[str, str] | None = None) -> Outcome:
    """A run in a process of its own, which has 3 GB."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    python = (sys.executable, str(program))
    return bounded(run.folder, run.variables(environ), *arguments, seconds=SECONDS, python=python)


@pytest.mark.parametrize("text", ["${" + "A" * MIB, "${A" * (MIB // 3)], ids=["one name", "many names"])
def test_a_reference_that_never_ends_is_read_at_once(
    run: Command, tmp_path: Path, cvm: Cvm, cloud: Cloud, text: str
) -> None:
    run.write(".env", f"OLD={text[: MIB - 10]}")
    done = limited(run, tmp_path, "update", "--cvm", "my-app", "--env-file", ".env")
    assert done.code == 4, done.printed
    assert not updates(cloud)


@pytest.mark.parametrize(
    "text",
    ["a." * 100_000 + "a = 1\n", "[" + "a." * 30_000 + "a]\n", "a = {" + "a." * 30_000 + "a = 1}\n"],
    ids=["key", "table", "inline table"],
)
def test_a_key_of_many_parts_in_phala_toml_is_refused(
    run: Command, tmp_path: Path, cloud: Cloud, cvm: Cvm, text: str
) -> None:
    """The library takes memory for the square of the parts: 40 GB for 200 KB."""
    run.write("phala.toml", text)
    done = limited(run, tmp_path, "update", environ={"PHALA_SECRETS_ENV": "OLD=2"})
    assert done.code == 2, done.printed
    assert "phala.toml" in done.errors[0]


def test_a_compose_file_of_many_lines_is_searched_in_no_time(
    run: Command, tmp_path: Path, cvm: Cvm, cloud: Cloud
) -> None:
    run.write("docker-compose.yml", "services:\n  a:\n    image: a\n" + "#\n" * 100_000)
    secrets = "\n".join(f"NAME_{number}=value-{number}-nobody-may-see" for number in range(500))
    arguments = ("plan", "--cvm", "my-app", "--compose-file", "docker-compose.yml", "--allow-removal")
    done = limited(run, tmp_path, *arguments, environ={"PHALA_SECRETS_ENV": secrets})
    assert done.code == 0, done.printed


def test_an_app_compose_that_no_guest_takes_is_not_hashed(
    run: Command, tmp_path: Path, cvm: Cvm, cloud: Cloud
) -> None:
    """Millions of numbers take minutes to be written in each form."""
    numbers: list[Any] = [0] * 4_000_000

    def tamper(request: Request, answer: Answer) -> Answer:
        return Answer({**answer.body, "x": numbers}) if request.path.endswith("/compose_file") else answer

    cloud.tamper = tamper
    done = limited(run, tmp_path, "plan", "--cvm", "my-app", environ={"PHALA_SECRETS_ENV": "OLD=2"})
    assert done.code == 6, done.printed
    assert "not an app-compose" in done.errors[0]
