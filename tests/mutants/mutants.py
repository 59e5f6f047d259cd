"""Breaks the modules named in ``[tool.mutmut]`` in small ways, and fails where no test does.

A mutant that lives is explained in ``explained.toml``, or changes only the wording of a message, its
capitals or ``XX`` around it: tests hold what an error says, and not every word of it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
_LITERAL = re.compile(r'"((?:[^"\\]|\\.)*)"')


def check_ids() -> None:
    """Every test can be asked for by its id: where pytest finds none, mutmut takes a mutant for killed."""
    configured = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text())["tool"]["mutmut"]
    collect = [sys.executable, "-m", "pytest", "--collect-only", "-q"]
    selection = configured["pytest_add_cli_args_test_selection"]
    listed = subprocess.run([*collect, *selection], capture_output=True, text=True, check=True).stdout
    ids = [line for line in listed.splitlines() if "::" in line]
    subprocess.run([*collect, *ids], stdout=subprocess.DEVNULL, check=True)


def survivors() -> Iterator[tuple[str, str]]:
    """The function and the change of each mutant that no test noticed, as ``- old + new``."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    command = [sys.executable, "-m", "mutmut", "results"]
    results = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for name in re.findall(r"^ +(\S+): (?:survived|no tests|suspicious)$", results, re.MULTILINE):
        diff = get_diff_for_mutant(name)
        lines = (re.sub(r"\s+", " ", line) for line in diff.splitlines() if re.match(r"[-+](?![-+])", line))
        function = re.sub(r"\bx[_ǁ]|__mutmut_\d+$", "", name.removeprefix("phala_secrets.")).replace("ǁ", ".")
        yield function, " ".join(lines)


def is_wording(change: str) -> bool:
    """Whether only a sentence changed: a literal of more than one word."""
    old, _, new = change.removeprefix("- ").partition(" + ")
    if _LITERAL.sub('""', old) != _LITERAL.sub('""', new):
        return False
    pairs = [
        pair for pair in zip(_LITERAL.findall(old), _LITERAL.findall(new), strict=True) if len({*pair}) > 1
    ]
    return all(" " in was and was.casefold() == now.replace("XX", "").casefold() for was, now in pairs)


def main() -> int:
    check_ids()
    explained = tomllib.loads((HERE / "explained.toml").read_text())
    progress = None if sys.stdout.isatty() else subprocess.DEVNULL
    subprocess.run([sys.executable, "-m", "mutmut", "run"], check=True, stdout=progress)
    living = {(function, change) for function, change in survivors() if not is_wording(change)}
    known = {(function, change) for function, changes in explained.items() for change in changes}
    for function, change in sorted(living - known):
        print(f"{function}: no test fails with\n    {change}", file=sys.stderr)
    for function, change in sorted(known - living):
        print(f"{function}: explained, but no longer there\n    {change}", file=sys.stderr)
    print(f"{len(living)} mutants live, {len(living & known)} of them explained")
    return living != known


if __name__ == "__main__":
    sys.exit(main())
