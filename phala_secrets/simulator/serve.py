"""The simulator in the foreground, for people."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TextIO

from phala_secrets.errors import InputError
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.measured_boot import os_measurements
from phala_secrets.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SAMPLE = {"GREETING": "hello from before"}


def serve(
    port: int,
    api_key: str,
    cvms: Sequence[str],
    *,
    out: TextIO | None = None,
    restart_seconds: float = 3.0,
    v1_signatures: bool = False,
    seed: bytes | None = b"phala-secrets simulate",
) -> None:
    """Run a simulator on ``port`` (0: a free one) until interrupted, and tell on ``out`` how to use it.

    ``out`` is standard output unless given.

    ``cvms`` are the names of the CVMs that it has. With the same ``seed`` keys and ids are the same
    every time, so that a workflow can pin them; ``None`` takes new ones.
    """
    out = out or sys.stdout
    cloud = Cloud(api_key, restart_seconds=restart_seconds, v1_signatures=v1_signatures, seed=seed)
    for name in cvms:
        cloud.add_cvm(name, environment=_SAMPLE)
    try:
        simulator = Simulator(cloud, port)
    except OSError as error:
        message = f"cannot listen on port {port}: {error.strerror}"
        raise InputError(message, hint="choose another one, or 0 for one that is free") from error
    with simulator, TemporaryDirectory(prefix="phala-secrets-") as folder:
        root = Path(folder) / "attestation-root.pem"
        root.write_text(cloud.tee.root_pem)
        out.write(describe(simulator, str(root)))
        out.flush()
        try:
            simulator.wait()
        except KeyboardInterrupt:
            out.write("\n")


def describe(simulator: Simulator, root: str = "") -> str:
    """How to use a running simulator; the lines of variables and pins can be pasted.

    ``root`` is a file with the root of its quotes; without one, nothing is said of attestation.
    """
    cloud = simulator.cloud
    lines = [
        "A simulated Phala Cloud. Nothing leaves this machine; Ctrl-C stops it.",
        "",
        f"export PHALA_CLOUD_API_PREFIX={simulator.url}",
        f"export PHALA_CLOUD_API_KEY={cloud.api_key}",
        *(_attestation(simulator, root) if root else ()),
        "",
        *(f"trusted-signers: 0x{kms.root_public_key}  # {kms.slug}" for kms in cloud.kmses),
    ]
    for cvm in cloud.cvms:
        lines += [
            "",
            f"CVM {cvm.name}",
            f"  id      {cvm.id}",
            f"  app id  {cvm.app_id}",
            f"  guest   {simulator.origin}/_simulator/cvms/{cvm.id}",
        ]
    return "\n".join((*lines, ""))


def _attestation(simulator: Simulator, root: str) -> list[str]:
    """What points a run at the simulated TEE."""
    cloud = simulator.cloud
    measured = dict.fromkeys(os_measurements(cvm) for cvm in cloud.cvms)
    authorities = dict.fromkeys(kms.ca_public_key for kms in cloud.kmses)
    return [
        f"export PHALA_SECRETS_PCCS_URL={simulator.origin}",
        f"export PHALA_SECRETS_ATTESTATION_ROOT={root}",
        f"export PHALA_SECRETS_TRUSTED_OS={_lines(measured)}",
        f"export PHALA_SECRETS_TRUSTED_KMS_CA={_lines(authorities)}",
    ]


def _lines(values: Iterable[str]) -> str:
    joined = "\n".join(values)
    return f"'{joined}'" if "\n" in joined else joined
