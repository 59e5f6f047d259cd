"""The demo, as `make demo` shows it."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.support.command import ROOT


def test_the_demo_has_three_acts() -> None:
    demo = subprocess.run(
        [sys.executable, ROOT / "examples/demo/demo.py"], capture_output=True, encoding="utf-8", check=False
    )
    assert demo.returncode == 0, demo.stderr
    refused, arrived, forged = re.split("-- Act [123] -- ", demo.stdout)[1:]
    assert "Exit code 4: my-app has API_TOKEN" in refused
    assert "All 10 arrived as given." in arrived
    assert "≠" not in arrived
    assert arrived.count("p4$$w0rd${X}") == 2
    assert re.search(r"^  attested +true$", arrived, re.MULTILINE)
    assert "Exit code 3:" in forged
    assert forged.endswith("attested (simulated TEE).\n")
    assert "would drop a variable of 'my-app': API_TOKEN" in demo.stderr
    assert "which is not in trusted-signers" in demo.stderr
    assert "p4$$w0rd" not in demo.stderr
    assert max(map(len, demo.stdout.splitlines())) <= 80
