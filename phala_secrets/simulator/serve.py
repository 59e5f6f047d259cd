"""The simulator in the foreground, for people."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, TextIO

from phala_secrets.simulator.measured_boot import os_measurements
from phala_secrets.simulator.stage import OWNERS_KEY, Scene, Stage

if TYPE_CHECKING:
    from phala_secrets.simulator.paper_chain import PaperChain

_SHOWN = 160
"""Characters of a path in the line of a request."""


def serve(stage: Stage, out: TextIO | None = None) -> None:
    """Run a simulator until interrupted. Print its usage and each request to ``out`` (standard output)."""
    out = out or sys.stdout

    def say(text: str) -> None:
        out.write(text + "\n")
        out.flush()

    def trace(method: str, path: str, status: int, seconds: float) -> None:
        with suppress(OSError):  # no reader: serve the request anyway
            say(f"{_shown(method):<6}{_shown(path)}  {status}  {seconds * 1000:.0f} ms")

    def trace_rpc(method: str) -> None:
        with suppress(OSError):
            say(f"RPC   {_shown(method)}")

    with Scene(stage) as ready, TemporaryDirectory(prefix="phala-secrets-") as folder:
        root = Path(folder) / "attestation-root.pem"
        root.write_text(ready.cloud.tee.root_pem)
        say(describe(ready, str(root)))
        ready.simulator.trace = trace
        if ready.chain is not None:
            ready.chain.trace = trace_rpc
        try:
            ready.simulator.wait()
        except KeyboardInterrupt:
            say("")


def describe(ready: Scene, root: str = "") -> str:
    """Return the usage of a stage, with variables, pins and a command to paste.

    ``root`` is a file with the root of its quotes. Without it, leave out attestation.
    """
    cloud, simulator = ready.cloud, ready.simulator
    lines = [
        "A simulated Phala Cloud. Nothing leaves this machine. Press Ctrl-C to stop it.",
        "",
        f"export PHALA_CLOUD_API_PREFIX={simulator.url}",
        f"export PHALA_CLOUD_API_KEY={quote(cloud.api_key)}",
        *(_attestation(ready, root) if root else ()),
        *(_chain(ready.chain) if ready.chain else ()),
        *(f"export {name}={value}" for name, value in ready.pins.items()),
        "",
        *(f"trusted-signers: 0x{root_key}  # {slug}" for slug, root_key in ready.roots.items()),
    ]
    for cvm in cloud.cvms:
        lines += [
            "",
            f"CVM {cvm.name}",
            f"  id      {cvm.id}",
            f"  app id  {cvm.app_id}",
            f"  guest   {simulator.origin}/_simulator/cvms/{cvm.id}",
        ]
    lines += [
        "",
        "Paste the lines that begin with export into another terminal, then this one:",
        "",
        f"  GREETING=hello phala-secrets update {ready.which} --secrets GREETING",
        "",
        "Requests:",
    ]
    return "\n".join(lines)


def _chain(chain: PaperChain) -> list[str]:
    """Return the variables that point a run at the chain, with the owner's key."""
    return [f"export ETH_RPC_URL={chain.url}", f"export OWNERS_KEY=0x{OWNERS_KEY}"]


def _attestation(ready: Scene, root: str) -> list[str]:
    """Return the variables that point a run at the simulated TEE."""
    cloud = ready.cloud
    measured = dict.fromkeys(os_measurements(cvm) for cvm in cloud.cvms)
    authorities = dict.fromkeys(cvm.kms.ca_public_key for cvm in cloud.cvms)
    return [
        f"export PHALA_SECRETS_PCCS_URL={ready.simulator.origin}",
        f"export PHALA_SECRETS_ATTESTATION_ROOT={quote(root)}",
        f"export PHALA_SECRETS_TRUSTED_OS={quote(chr(10).join(measured))}",
        f"export PHALA_SECRETS_TRUSTED_KMS_CA={quote(chr(10).join(authorities))}",
    ]


def _shown(text: str) -> str:
    """Return untrusted text of a client, escaped for one line."""
    return ascii(text)[1:-1][:_SHOWN]
