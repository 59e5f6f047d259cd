"""How the others are asked: the official SDKs, an independent implementation, and the official command."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phala_secrets.simulator.server import Simulator

HERE = Path(__file__).parent
NODE = shutil.which("node") or "node is missing: make test-interop"
SDK_PYTHON = HERE.parents[1] / ".venv-interop/bin/python"
COMMAND = HERE / "node_modules/phala/dist/index.js"

Question = Sequence[Any]
"""A function of theirs, and its arguments."""


def _ask(command: Sequence[str | Path], questions: Sequence[Question]) -> list[Any]:
    text = json.dumps(questions)
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    answers: list[Any] = json.loads(done.stdout)
    return answers


def npm(*questions: Question) -> list[Any]:
    """The SDKs of npm, all questions at once."""
    return _ask([NODE, HERE / "official.cjs"], questions)


def pypi(*questions: Question) -> list[Any]:
    """The SDK of PyPI."""
    return _ask([SDK_PYTHON, HERE / "official.py"], questions)


def independent(*questions: Question) -> list[Any]:
    """OpenSSL and noble, by way of node."""
    return _ask([NODE, HERE / "independent.cjs"], questions)


class OfficialCommand:
    """The official command, in a home of its own, for one simulator. Calling it returns what it printed."""

    def __init__(self, simulator: Simulator, home: Path) -> None:
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "CI": "true",
            "PHALA_CLOUD_API_PREFIX": simulator.url,
            "PHALA_CLOUD_API_KEY": simulator.cloud.api_key,
        }
        self._home = home

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            [NODE, COMMAND, *arguments],
            cwd=self._home,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout
