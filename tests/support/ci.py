"""What runs the examples: a CI's machine on loopback, its secrets, and its shell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.server import Simulator
from tests.support.command import ROOT

EXAMPLES = ROOT / "examples"
GITHUB = {path.stem: path for path in sorted((EXAMPLES / "github").glob("*.yml"))}
VALUES = {"DATABASE_URL": "postgres://app:p4$$w0rd@db/app?a=b&c", "API_TOKEN": "t0ken with 'quotes' and #"}


@pytest.fixture
def machine(simulator: Simulator, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a CI's machine, with the image's command, docker and an agent on the path."""
    tools = tmp_path / "tools"
    tools.mkdir()
    commands = {
        "phala-secrets": f"{sys.executable} -m phala_secrets",
        "docker": f"{sys.executable} {ROOT / 'tests/support/docker.py'}",
        "gh": f"{sys.executable} {ROOT / 'tests/support/gh.py'}",
        "buildkite-agent": 'if test "$1" = annotate; then cat > "$ARTIFACTS/$3.md"; '
        'else test "$1 $2" = "artifact download" && cp -t "$4" "$ARTIFACTS/$3"; fi #',
    }
    for name, command in commands.items():
        add_tool(tools, name, f'{"" if "$" in command else "exec "}{command} "$@"')
    detached = tmp_path / "detached"
    yield {
        "PATH": f"{tools}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "CI": "true",
        "SIMULATOR": simulator.url,
        "PHALA_CLOUD_API_PREFIX": simulator.url,
        "DETACHED": str(detached),
    }
    for pid in detached.read_text().split() if detached.exists() else []:
        os.kill(int(pid), signal.SIGTERM)


@pytest.fixture
def secrets(cloud: Cloud) -> dict[str, str]:
    """What a CI keeps."""
    return {"PHALA_CLOUD_API_KEY": cloud.api_key, **VALUES}


def add_tool(folder: Path, name: str, script: str) -> None:
    """Put a command on the path: a script of sh."""
    tool = folder / name
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)


def load(name: str) -> Any:
    """Return an example, parsed."""
    return yaml.safe_load((EXAMPLES / name).read_text())


def sh(script: str, folder: Path, *environs: Mapping[str, str], shell: str = "bash -eo pipefail") -> str:
    """Runs a script as a CI does, and returns its log."""
    environ = {name: value for each in environs for name, value in each.items()}
    done = subprocess.run(
        [*shell.split(), "-c", script],
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
