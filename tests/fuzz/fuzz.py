"""Fuzzes every target for its share of FUZZ_SECONDS (60 in all), or those that are named, guided by coverage.

What is found beyond the corpus is kept in ``.cache/fuzz``, so that the next run goes on from there. A
crash ends the run; its input is in ``.cache/fuzz/TARGET-crash-…``, and belongs into the corpus.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache" / "fuzz"
LONGEST = 4096
"""Bytes of an input: what is to be found is found in short ones, and sooner."""


def fuzz(name: str, arguments: list[str]) -> None:
    """In a process of its own, since libFuzzer ends it."""
    import atheris

    sys.path.insert(0, str(HERE.parents[1]))
    with atheris.instrument_imports(include=["phala_secrets", "dotenv", "httpx_sse"]):
        from tests.fuzz.targets import TARGETS
    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


def main(names: list[str]) -> int:
    corpora = sorted(path for path in (HERE / "corpus").iterdir() if not names or path.name in names)
    seconds = max(1, int(os.environ.get("FUZZ_SECONDS", "60")) // len(corpora))
    for corpus in corpora:
        name = corpus.name
        found = CACHE / name
        found.mkdir(parents=True, exist_ok=True)
        options = [
            f"-max_total_time={seconds}",
            f"-max_len={LONGEST}",
            f"-artifact_prefix={CACHE}/{name}-",
            "-timeout=10",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
            "-verbosity=0",
        ]
        command = [sys.executable, __file__, "--target", name, *options, str(found), str(corpus)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = done.stderr.splitlines() + done.stdout.splitlines()
        if done.returncode:
            print(*lines, f"{name}: failed; the input is in {CACHE}", sep="\n", file=sys.stderr)
            return 1
        runs = next((line.split()[-1] for line in lines if "number_of_executed_units" in line), "?")
        print(f"{name:8} {runs:>8} inputs in {seconds} s")
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--target"]:
        fuzz(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main(sys.argv[1:]))
