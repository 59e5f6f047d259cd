"""What differs between the generations of dstack's guest: one row each.

From dstack at the tags v0.5.3 to v0.5.11 and of 2026-08: ``parse_env_file.rs`` for what is escaped, and the
launcher, ``app-compose.sh``, for the names that it overwrites.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# The values that bash 5.2 gives to its own names from outside. None: it does not pass them on.
_BASH: dict[str, str | None] = {
    "IFS": " \t\n",
    "PWD": "/dstack",
    "OLDPWD": None,
    "SHLVL": "0",
    "_": "/usr/bin/docker",
    "UID": "0",
    "EUID": "0",
    "PPID": None,
    "RANDOM": None,
    "SRANDOM": None,
    "LINENO": "1",
    "OPTIND": "1",
    "OPTERR": "1",
    "EPOCHSECONDS": "1790000000",
    "EPOCHREALTIME": "1790000000.000000",
    "HISTCMD": None,
    "COMP_WORDBREAKS": None,
    "PS1": None,
    "PS2": None,
    "PS4": "+ ",
}
_LAUNCHER: dict[str, str | None] = {
    "HOST_SHARED_DIR": "/dstack/.host-shared",
    "SYS_CONFIG_FILE": "/dstack/.host-shared/.sys-config.json",
    "CFG_PCCS_URL": "",
}


@dataclass(frozen=True, slots=True)
class Generation:
    """How one generation of the guest passes variables on.

    ``overwritten`` maps the names that do not arrive unchanged to what arrives. None is nothing.
    ``systemd`` is the version that reads the file. ``escapes_backslash`` and ``quotes_any_space`` describe
    the writer of that file.
    """

    overwritten: Mapping[str, str | None]
    systemd: int
    escapes_backslash: bool = False
    quotes_any_space: bool = False


V0_5 = Generation({**_BASH, **_LAUNCHER, "RUNNER": "docker-compose"}, systemd=255)
V0_6 = Generation(
    {**_BASH, **_LAUNCHER, "ACTION": "start", "runner": "docker-compose", "snapshotter": ""},
    systemd=259,
    escapes_backslash=True,
    quotes_any_space=True,
)

DEFAULT_OS = "0.5.8"
OS_VERSIONS: dict[str, Generation] = {**{f"0.5.{patch}": V0_5 for patch in range(3, 12)}, "0.6.0": V0_6}
"""The generation by ``os.version`` of a CVM."""
