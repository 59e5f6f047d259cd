"""The generations of dstack's guest, one row each. The OS version of the CVM selects the row.

To add one, append a row to ``GENERATIONS``:

- ``overwritten``: the variables that the launcher assigns (``app-compose.sh``: every ``NAME=``);
- ``acting``: those that it reads, or that affect the programs it calls;
- ``handovers``: each writer (``parse_env_file.rs``) in images of this generation, with
  their systemd (``systemctl --version`` in the guest).

If the writer or launcher is partly unknown, the row lists every possibility: a value must arrive by
each handover, and a name must be free in each list. The simulator has its own model: add the
generation to ``simulator/generations.py`` first.

Sources: dstack, ``basefiles/app-compose.sh`` (v0.5.3 to v0.5.11) and
``os/common/rootfs/app-compose.sh`` (0.6); bash(1), "Shell Variables", which the tests ask bash
about; the variables of dynamic linker, Docker and Compose.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from phala_secrets.dstack.env_file import EVERY_ESCAPE, NO_BACKSLASH, Handover
from phala_secrets.errors import Finding

_BASH = frozenset(
    (
        *("_", "COMP_WORDBREAKS", "EPOCHREALTIME", "EPOCHSECONDS", "EUID", "HISTCMD", "IFS", "LINENO"),
        *("OLDPWD", "OPTERR", "OPTIND", "PPID", "PS1", "PS2", "PS4", "PWD", "RANDOM", "SHLVL", "SRANDOM"),
        "UID",
    )
)
"""Names for which bash has its own values, besides all that begin with BASH."""

COMPOSE_OWN = frozenset(
    ("COMPOSE_FILE", "COMPOSE_PATH_SEPARATOR", "COMPOSE_ENV_FILES", "COMPOSE_PROJECT_NAME")
)
"""Names that tell Compose what to run. An app cannot get them under another name."""

_ACTING = COMPOSE_OWN | {
    *("PATH", "HOME", "ENV", "BASH_ENV", "SHELLOPTS", "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT"),
    *("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"),
    "DOCKER_API_VERSION",
}
"""Names that affect bash or the programs that every launcher calls."""


class Generation(NamedTuple):
    """How one generation of guests treats names and values."""

    version: str
    """The OS version without the patch level."""
    overwritten: frozenset[str]
    acting: frozenset[str]
    handovers: tuple[Handover, ...]
    by_any: bool = False
    """Whether a value only has to arrive by one of the handovers, because it is unknown which it will be."""

    def acts(self, name: str) -> bool:
        """Return whether a variable of this name affects the launcher or a program that it calls."""
        return name in self.acting

    def overwrites(self, name: str) -> bool:
        """Return whether the launcher or its bash has its own value for this name."""
        return name in self.overwritten or (name.startswith("BASH") and not self.acts(name))


def _row(version: str, *, overwritten: str, acting: str = "", handovers: tuple[Handover, ...]) -> Generation:
    return Generation(version, _BASH.union(overwritten.split()), _ACTING.union(acting.split()), handovers)


GENERATIONS = (
    _row(
        "0.5",
        overwritten="RUNNER HOST_SHARED_DIR SYS_CONFIG_FILE CFG_PCCS_URL",
        handovers=(Handover(NO_BACKSLASH, systemd=255),),
    ),
    _row(
        "0.6",
        overwritten="ACTION runner snapshotter HOST_SHARED_DIR SYS_CONFIG_FILE CFG_PCCS_URL",
        acting="APP_COMPOSE_FILE NERDCTL_NAMESPACE COMPOSE_RUNTIME_FILE",
        handovers=(Handover(NO_BACKSLASH, systemd=259), Handover(EVERY_ESCAPE, systemd=259)),
    ),
)
"""Every known generation, oldest first."""

STRICTEST = Generation(
    "any",
    frozenset().union(*(row.overwritten for row in GENERATIONS)),
    frozenset().union(*(row.acting for row in GENERATIONS)),
    tuple(dict.fromkeys(handover for row in GENERATIONS for handover in row.handovers)),
)
"""The rules for an unknown generation: what passes here passes in each of them."""

CERTAIN = Generation(
    "every",
    frozenset.intersection(*(row.overwritten for row in GENERATIONS)),
    frozenset.intersection(*(row.acting for row in GENERATIONS)),
    STRICTEST.handovers,
    by_any=True,
)
"""The rules before the CVM is known: what fails here fails in each of them."""

_VERSION = re.compile(r"v?([0-9]+\.[0-9]+)(?![0-9])")


def generation_of(os_version: str | None) -> Generation:
    """Return the generation for an OS version (``os.version``), or ``STRICTEST`` if it is unknown.

    Args:
        os_version: from the API, for example ``0.5.8``. None or empty if it is unknown.
    """
    version = _VERSION.match(os_version or "")
    known = {row.version: row for row in GENERATIONS}
    return known.get(version[1], STRICTEST) if version else STRICTEST


def unknown_generation(os_version: str | None) -> Finding | None:
    """Return the notice for an OS version without a row. Return None if it is known or not stated."""
    if not os_version or generation_of(os_version) is not STRICTEST:
        return None
    shown = os_version if re.fullmatch(r"[\w.+-]{1,40}", os_version, re.ASCII) else "of the CVM"
    return Finding(
        f"This release does not know the OS version {shown} and applies the strictest known rules",
        "Update phala-secrets. Until then, set `guest-check: warn` if a refusal does not fit this version.",
        severity="notice",
    )
