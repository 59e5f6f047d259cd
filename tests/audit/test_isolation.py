"""Finding 19: without the image, too, no code of the checkout runs, and no core is dumped."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from .support import ENTRYPOINT, ROOT, SCRIPT, Command, Cvm, bounded

pytestmark = pytest.mark.usefixtures("time_passes")

TROJAN = (
    "import os; print('code of the checkout has', os.environ['PHALA_CLOUD_API_KEY']); raise SystemExit(9)"
)


@pytest.mark.parametrize("module", ["httpx", "dotenv"])
def test_python_m_runs_no_code_of_the_checkout(run: Command, cvm: Cvm, module: str) -> None:
    """``python -m phala_secrets`` imports a file of the checkout, which has the API key."""
    run.write(f"{module}.py", TROJAN)
    environ = {**run.variables(), "PYTHONPATH": str(ROOT), "OLD": "2"}
    python = (sys.executable, "-B", "-m", "phala_secrets")
    arguments = ("update", "--cvm", "my-app", "--secrets", "OLD", "--no-wait")
    outcome = bounded(run.folder, environ, *arguments, seconds=20, python=python)
    assert "code of the checkout" not in outcome.printed
    assert outcome.code == 0, outcome.printed


def test_the_script_of_pip_runs_no_code_of_the_checkout(run: Command, cvm: Cvm) -> None:
    """With ``PYTHONPATH=.``, as many a project sets it, a file of the checkout has the API key."""
    run.write("httpx.py", TROJAN)
    script = run.write("../bin/phala-secrets", SCRIPT)
    environ = {**run.variables(), "PYTHONPATH": f".{os.pathsep}{ROOT}"}
    python = (sys.executable, "-B", str(script))
    outcome = bounded(run.folder, environ, "verify", "--cvm", "my-app", seconds=20, python=python)
    assert "code of the checkout" not in outcome.printed
    assert outcome.code == 0, outcome.printed


REPORT = f"""
import ctypes, os, resource, runpy, sys
def report(code):
    dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)  # PR_GET_DUMPABLE
    os.write(1, b"no core" if not dumpable or resource.getrlimit(resource.RLIMIT_CORE)[0] == 1 else b"core")
    os.kill(os.getpid(), 9)
os._exit = report
sys.argv[0] = {str(ENTRYPOINT)!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_no_core_is_dumped_where_the_hard_limit_is_zero(run: Command, cvm: Cvm) -> None:
    """With ``docker run --ulimit core=0`` the limit stays 0. For pipes core(5) heeds 1, and not 0."""
    under = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--") if os.geteuid() == 0 else ()
    limited = ("bash", "-c", 'ulimit -c 0; exec "$@"', "bash", *under)
    done = subprocess.run(
        [*limited, sys.executable, "-IB", "-c", REPORT, "verify", "--cvm", "my-app"],
        cwd=run.folder,
        env=run.variables(),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert "Key proven" in done.stderr + done.stdout, done.stderr
    assert done.stdout.endswith("no core")
