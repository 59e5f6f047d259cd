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
    from collections.abc import Mapping

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
    """Return the usage of a stage, with variables, pins and commands to paste.

    ``root`` is a file with the root of its quotes. Without it, leave out attestation.
    """
    cloud, simulator = ready.cloud, ready.simulator
    guests = [f"{simulator.origin}/_simulator/cvms/{cvm.id}" for cvm in cloud.cvms]
    lines = [
        "A simulated Phala Cloud. Nothing leaves this machine. Press Ctrl-C to stop it.",
        "",
        "Paste these two lines into another terminal:",
        "",
        f"export PHALA_CLOUD_API_PREFIX={simulator.url}",
        f"export PHALA_CLOUD_API_KEY={quote(cloud.api_key)}",
        "",
        "Then send a value, and see it arrive:",
        "",
        "  export GREETING=hello",
        f"  phala-secrets plan {ready.which} --secrets GREETING",
        f"  phala-secrets update {ready.which} --secrets GREETING --yes",
        f"  phala-secrets status {ready.which}",
        f"  curl {guests[0]}",
        *_exports("pins", ready.pins),
        *_exports("attest", _attestation(ready, root) if root else {}),
        *_exports("the chain", _chain(ready.chain) if ready.chain else {}),
        "",
        *(f"trusted-signers: 0x{root_key}  # {slug}" for slug, root_key in ready.roots.items()),
    ]
    for cvm, guest in zip(cloud.cvms, guests, strict=True):
        lines += [
            "",
            f"CVM {cvm.name}",
            f"  id      {cvm.id}",
            f"  app id  {cvm.app_id}",
            f"  guest   {guest}",
        ]
    return "\n".join([*lines, "", "Requests, as they come:"])


def _exports(purpose: str, variables: Mapping[str, str]) -> list[str]:
    """Return the lines to paste for one purpose, if there are any."""
    lines = [f"export {name}={quote(value)}" for name, value in variables.items()]
    return ["", f"for {purpose}:", *lines] if lines else []


def _chain(chain: PaperChain) -> dict[str, str]:
    """Return the variables that point a run at the chain, with the owner's key."""
    return {"ETH_RPC_URL": chain.url, "OWNERS_KEY": f"0x{OWNERS_KEY}"}


def _attestation(ready: Scene, root: str) -> dict[str, str]:
    """Return the variables that point a run at the simulated TEE."""
    cloud = ready.cloud
    measured = dict.fromkeys(os_measurements(cvm) for cvm in cloud.cvms)
    authorities = dict.fromkeys(cvm.kms.ca_public_key for cvm in cloud.cvms)
    return {
        "PHALA_SECRETS_PCCS_URL": ready.simulator.origin,
        "PHALA_SECRETS_ATTESTATION_ROOT": root,
        "PHALA_SECRETS_TRUSTED_OS": "\n".join(measured),
        "PHALA_SECRETS_TRUSTED_KMS_CA": "\n".join(authorities),
    }


def _shown(text: str) -> str:
    """Return untrusted text of a client, escaped for one line."""
    return ascii(text)[1:-1][:_SHOWN]
