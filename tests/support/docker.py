"""``docker run`` of our image, as far as the examples use it: the command, with only what docker gives it.

Its environment is what ``--env`` names, it has no standard input without ``--interactive``, and its working
folder is not the caller's. ``SIMULATOR`` is where it meets Phala Cloud; processes that ``--detach`` leaves
behind are in ``DETACHED``, a line each.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="docker", allow_abbrev=False)
    parser.add_argument("run", choices=["run"])
    for flag in ("--rm", "--interactive", "--detach", "--read-only"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--cap-drop", choices=["ALL"], required=True)
    parser.add_argument("--security-opt", choices=["no-new-privileges"])
    parser.add_argument("--network", choices=["host"])
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--user", choices=[str(os.getuid())])
    parser.add_argument("--volume", action="append", default=[])
    parser.add_argument("image")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    assert re.fullmatch(r"ghcr\.io/phala-secrets/phala-secrets:\d+\.\d+\.\d+", options.image), options.image
    assert options.rm
    assert options.read_only
    for volume in options.volume:
        there, _, here = volume.partition(":")
        assert here == there, "the examples mount a folder under its own path"
        assert Path(there).is_dir(), there
    environ = {"PATH": "/usr/bin:/bin", "HOME": "/", "PHALA_CLOUD_API_PREFIX": os.environ["SIMULATOR"]}
    for entry in options.env:
        name, equals, value = entry.partition("=")
        if equals or name in os.environ:
            environ[name] = value if equals else os.environ[name]
    command = [sys.executable, "-m", "phala_secrets", *options.command]
    if options.detach:
        background = subprocess.Popen(
            command,
            cwd="/",
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        with Path(os.environ["DETACHED"]).open("a") as file:
            file.write(f"{background.pid}\n")
        return 0
    stdin = None if options.interactive else subprocess.DEVNULL
    return subprocess.run(command, cwd="/", env=environ, stdin=stdin, check=False).returncode


sys.exit(main())
