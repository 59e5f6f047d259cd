"""Three acts on a simulated CVM: a plan is refused, an update arrives, a forged key is refused.

The command runs as the image runs it, in a process of its own. What was given is read by python-dotenv,
what arrived is told by the simulator's guest: neither is the command's own word. It prints no value;
these are samples, so they are printed here.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from base64 import b64encode
from collections.abc import Mapping
from io import TextIOWrapper
from itertools import zip_longest
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from dotenv import dotenv_values

from phala_secrets.simulator import lies
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.measured_boot import os_measurements
from phala_secrets.simulator.server import Simulator

if TYPE_CHECKING:
    from phala_secrets.simulator.cvm import Cvm

HERE = Path(__file__).parent
PLAN = "plan --cvm my-app --env-file .env"
SOURCES = """--cvm my-app --env-file .env --secrets API_TOKEN \\
    --files TLS_KEY=tls.key --base64 TLS_KEY"""
UPDATE = f"update {SOURCES} --attest require --json"
PINNED = f'update {SOURCES} --trusted-signers "$KMS_ROOT"'
REFUSED, ARRIVED, FORGED = 4, 0, 3  # exit codes
NAME, VALUE, OUTPUT = 13, 31, 56  # columns, of 80
TOKEN = {"API_TOKEN": "t0ken from the job's environment"}


def main() -> int:
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    with tempfile.TemporaryDirectory() as folder, Simulator(Cloud(restart_seconds=1.5)) as simulator:
        given = write_sources(Path(folder))
        cvm = add_cvm(simulator.cloud, given)
        say(f"A simulated Phala Cloud at {simulator.url} has the CVM {cvm.name}.")

        act(1, "A plan that would lose a variable is refused.")
        first = command(PLAN, simulator, folder)
        say(f"Exit code {first.returncode}: my-app has API_TOKEN, and .env does not. Nothing was sent.")

        act(2, "The update arrives, and what runs is attested.")
        second = command(UPDATE, simulator, folder)
        if second.returncode != ARRIVED:
            return second.returncode
        received = cvm.wait().environment or {}
        arrived = compare(given, received)
        outputs(json.loads(second.stdout))

        act(3, "The API hands out a forged key, signed by a root of its own.")
        root = json.loads(second.stdout)["kms_signer"]
        lies.tell(simulator.cloud, "forged-key")
        third = command(PINNED, simulator, folder, KMS_ROOT=root)
        say(f"Exit code {third.returncode}: the pin is the root of act 2. Nothing was encrypted.")

        unchanged = cvm.wait().environment == received
    done = [first.returncode, third.returncode] == [REFUSED, FORGED] and arrived and unchanged
    say("", "The CVM runs what act 2 gave it, attested (simulated TEE)." if done else "Not as it should be.")
    return not done


def act(number: int, title: str) -> None:
    say("", f"-- Act {number} -- {title}", "")


def compare(given: Mapping[str, str], received: Mapping[str, str]) -> bool:
    """Shows both side by side; whether they are the same."""
    names = list({**given, **received})
    rule = "-" * VALUE
    say("", *beside("", "given", "", "received by the guest"), *beside("-" * NAME, rule, "", rule))
    for name in names:
        left, right = given.get(name), received.get(name)
        say(*beside(name, left, "=" if left == right else "≠", right))
    different = [name for name in names if given.get(name) != received.get(name)]
    say("", f"Not the same: {', '.join(different)}" if different else f"All {len(given)} arrived as given.")
    say("TLS_KEY has several lines, which no guest can carry: hence --base64.")
    return not different


def outputs(written: Mapping[str, object]) -> None:
    """Shows what a later step sees."""
    say("", "What a later step sees:")
    for name, value in written.items():
        text = value if isinstance(value, str) else json.dumps(value)
        say(f"  {name.replace('_', '-'):<22}{text if len(text) <= OUTPUT else text[: OUTPUT - 1] + '…'}")


def write_sources(folder: Path) -> dict[str, str]:
    """Writes ``.env`` and a fresh private key; what the guest is to receive of them, by name."""
    (folder / ".env").write_bytes((HERE / "sample.env").read_bytes())
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "tls.key").write_bytes(pem)
    dotenv = {name: value or "" for name, value in dotenv_values(folder / ".env", interpolate=False).items()}
    return dotenv | TOKEN | {"TLS_KEY": b64encode(pem).decode()}


def add_cvm(cloud: Cloud, names: Mapping[str, str]) -> Cvm:
    """A CVM whose compose file hands these variables on, and which has two of them so far."""
    compose = {"services": {"web": {"image": "nginx", "environment": list(names)}}}
    return cloud.add_cvm(
        "my-app",
        docker_compose_file=yaml.safe_dump(compose),
        environment={"GREETING": "hello from before", "API_TOKEN": "an old token"},
    )


def command(
    words: str, simulator: Simulator, folder: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs the command as a shell with these variables does, its log to standard error as always."""
    say(f"$ phala-secrets {words}")
    environ = {name: os.environ[name] for name in ("TERM", "NO_COLOR") if name in os.environ}
    environ |= {"PHALA_CLOUD_API_PREFIX": simulator.url, "PHALA_CLOUD_API_KEY": simulator.cloud.api_key}
    environ |= TOKEN | attestation(simulator, Path(folder))
    arguments = [Template(word).substitute(variables) for word in shlex.split(words.replace("\\\n", ""))]
    return subprocess.run(
        [sys.executable, "-IB", HERE.parents[1] / "entrypoint.py", *arguments],
        cwd=folder,
        env=environ,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )


def attestation(simulator: Simulator, folder: Path) -> dict[str, str]:
    """What points the run at the simulated TEE, as ``phala-secrets simulate`` prints it."""
    (root := folder / "attestation-root.pem").write_text(simulator.cloud.tee.root_pem)
    (cvm,) = simulator.cloud.cvms
    return {
        "PHALA_SECRETS_PCCS_URL": simulator.origin,
        "PHALA_SECRETS_ATTESTATION_ROOT": str(root),
        "PHALA_SECRETS_TRUSTED_OS": os_measurements(cvm),
        "PHALA_SECRETS_TRUSTED_KMS_CA": cvm.kms.ca_public_key,
    }


def beside(name: str, left: str | None, sign: str, right: str | None) -> list[str]:
    """One variable, its two values in two columns, in as many lines as they take."""
    rows = zip_longest([name], wrapped(left), [sign], wrapped(right), fillvalue="")
    return [f"{a:<{NAME}} {b:<{VALUE}} {c:<1} {d}".rstrip() for a, b, c, d in rows]


def wrapped(value: str | None) -> list[str]:
    """A value in lines of the column's width, what cannot be printed as Python writes it."""
    if value is None:
        return ["(not there)"]
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in value)
    return [text[at : at + VALUE] for at in range(0, len(text), VALUE)] or ["(empty)"]


def say(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
