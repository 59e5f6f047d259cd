"""The generations of dstack's guest: one row for each, chosen by the OS version of the CVM.

To add one, append a row to ``GENERATIONS``:

- ``overwritten``: the variables that the launcher assigns (``app-compose.sh``: every ``NAME=``);
- ``acting``: those that it reads, or that change what it calls;
- ``handovers``: each writer (``parse_env_file.rs``) that images of this generation have, with
  their systemd (``systemctl --version`` in the guest).

A row whose writer or launcher is unknown in part lists every possibility: a value has to arrive
under each handover, and a name has to be free in each list. The simulator has a model of its own:
add the generation to ``simulator/generations.py`` first.

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
"""What bash has values of its own for, beside all names that begin with BASH."""

COMPOSE_OWN = frozenset(
    ("COMPOSE_FILE", "COMPOSE_PATH_SEPARATOR", "COMPOSE_ENV_FILES", "COMPOSE_PROJECT_NAME")
)
"""What Compose itself reads to decide what it runs: an app cannot have these under another name."""

_ACTING = COMPOSE_OWN | {
    *("PATH", "HOME", "ENV", "BASH_ENV", "SHELLOPTS", "LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT"),
    *("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"),
    "DOCKER_API_VERSION",
}
"""What acts on bash and on the programs that every launcher calls."""


class Generation(NamedTuple):
    """What one generation of guests does with names and values."""

    version: str
    """The OS version, up to and without the patch level."""
    overwritten: frozenset[str]
    acting: frozenset[str]
    handovers: tuple[Handover, ...]

    def acts(self, name: str) -> bool:
        """Return whether a variable of this name changes what the launcher, or a program it calls, does."""
        return name in self.acting

    def overwrites(self, name: str) -> bool:
        """Return whether the launcher, or bash under it, has a value of its own for this name."""
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
"""Every generation that is known, the oldest first."""

STRICTEST = Generation(
    "any",
    frozenset().union(*(row.overwritten for row in GENERATIONS)),
    frozenset().union(*(row.acting for row in GENERATIONS)),
    tuple(dict.fromkeys(handover for row in GENERATIONS for handover in row.handovers)),
)
"""What has to hold where the generation is not known: what passes here passes in each of them."""

CERTAIN = Generation(
    "every",
    frozenset.intersection(*(row.overwritten for row in GENERATIONS)),
    frozenset.intersection(*(row.acting for row in GENERATIONS)),
    GENERATIONS[-1].handovers[-1:],
)
"""What can be refused before the CVM is known: what fails here fails in each of them.

The newest writer is the one that carries most.
"""

_VERSION = re.compile(r"v?([0-9]+\.[0-9]+)(?![0-9])")


def generation_of(os_version: str | None) -> Generation:
    """Return the generation of a CVM with this OS version (``os.version``), else ``STRICTEST``.

    Args:
        os_version: as the API has it, ``0.5.8`` for example; None or empty if it is not known.
    """
    version = _VERSION.match(os_version or "")
    known = {row.version: row for row in GENERATIONS}
    return known.get(version[1], STRICTEST) if version else STRICTEST


def unknown_generation(os_version: str | None) -> Finding | None:
    """Return the notice for an OS version that no row has; None where it is known, or not stated at all."""
    if not os_version or generation_of(os_version) is not STRICTEST:
        return None
    shown = os_version if re.fullmatch(r"[\w.+-]{1,40}", os_version, re.ASCII) else "of the CVM"
    return Finding(
        f"The OS version {shown} is unknown to this release: the strictest rules of all known ones apply",
        "Update phala-secrets. Until then, set `guest-check: warn` if a refusal does not fit this version.",
        severity="notice",
    )
