"""How fast, and how much memory: ours against the official CLI and SDK, side by side in one run.

Whole processes, one after another in turns, on the simulator. Of each the fastest run counts. Ratios are what
counts: a figure in milliseconds is of this machine alone.

Usage: bench.py [ROUNDS]  (see ``make bench``)
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.measured_boot import os_measurements
from phala_secrets.simulator.server import Simulator

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OURS = str(ROOT / ".venv-bench/bin/python")
SDK = str(ROOT / ".venv-sdk/bin/python")
CLI = str(HERE / "node_modules/phala/dist/index.js")
DEFAULT = (OURS, "-IB", str(ROOT / "entrypoint.py"), "update", "--cvm", "my-app", "--env-file", ".env")
UPDATE = (*DEFAULT, "--no-wait")
DEPLOY = ("deploy", "--json", "--cvm-id", "my-app", "-c", "docker-compose.yml", "-e", ".env")
"""What phala-deploy-action runs, once it has installed the command."""
IMPORTS = (
    "import httpx, pydantic, dotenv;"
    "from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey;"
    "from cryptography.hazmat.primitives.ciphers.aead import AESGCM"
)


@dataclass
class Contender:
    """A command, and what its runs took: seconds, those of a processor, and KiB."""

    name: str
    command: tuple[str, ...]
    seconds: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    def run(self, folder: Path, environ: dict[str, str]) -> None:
        """Once, as a process of its own; stops the benchmark where it fails."""
        began = time.perf_counter()
        with (folder / "log").open("w+") as log:
            process = subprocess.Popen(self.command, cwd=folder, env=environ, stdout=log, stderr=log)
            _, status, usage = os.wait4(process.pid, 0)
            took = time.perf_counter() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                log.seek(0)
                sys.exit(f"{self.name} failed with {process.returncode}:\n{log.read()}")
        self.seconds.append(took)
        self.busy.append(usage.ru_utime + usage.ru_stime)
        self.memory.append(usage.ru_maxrss)

    @property
    def time(self) -> float:
        """The shortest in seconds: what else the machine does only adds to it."""
        return min(self.seconds)

    @property
    def work(self) -> float:
        """The least that a processor was busy, in seconds: pauses do not count."""
        return min(self.busy)

    @property
    def peak(self) -> float:
        """The median peak in MiB."""
        return statistics.median(self.memory) / 1024


def environ_for(simulator: Simulator) -> dict[str, str]:
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {
        **keep,
        "PHALA_CLOUD_API_PREFIX": simulator.url,
        "PHALA_CLOUD_API_KEY": simulator.cloud.api_key,
        "PHALA_DISABLE_UPDATE_CHECK": "1",
        "CI": "true",
    }


def cvm_with(cloud: Cloud, count: int) -> Cvm:
    names = [f"VARIABLE_{n}" for n in range(count)]
    services = "services:\n  app:\n    image: busybox\n    environment:\n"
    compose = services + "".join(f"      {name}: ${{{name}}}\n" for name in names)
    return cloud.add_cvm("my-app", environment=dict.fromkeys(names, "old"), docker_compose_file=compose)


def write_env(folder: Path, count: int, size: int) -> None:
    lines = (f"VARIABLE_{n}={'x' * size}\n" for n in range(count))
    (folder / ".env").write_text("".join(lines))


def verdict(what: str, value: float, limit: float) -> bool:
    good = value <= limit
    print(f"  {'ok  ' if good else 'OVER'}  {what}: {value:.2f} (at most {limit:.2f})")
    return good


def against_the_others(rounds: int) -> list[bool]:
    contenders = {
        "ours": Contender("ours, --no-wait", UPDATE),
        "waiting": Contender("ours, with the wait", DEFAULT),
        "cli": Contender("the official CLI", ("node", CLI, "envs", "update", "my-app", "-e", ".env")),
        "action": Contender("what its action runs", ("node", CLI, *DEPLOY)),
        "sdk": Contender("the SDK script", (SDK, str(HERE / "sdk_update.py"), "my-app", ".env")),
        "imports": Contender("imports alone", (OURS, "-IB", "-c", IMPORTS)),
    }
    with tempfile.TemporaryDirectory() as name, Simulator(Cloud(restart_seconds=0.0)) as simulator:
        folder = Path(name)
        cvm = cvm_with(simulator.cloud, 30)
        write_env(folder, 30, 40)
        (folder / "docker-compose.yml").write_text(str(cvm.app_compose["docker_compose_file"]))
        environ = environ_for(simulator)
        for turn in range(rounds + 1):
            for contender in contenders.values():
                contender.run(folder, environ)
                cvm.finish()
            if not turn:  # the first warms the caches
                for contender in contenders.values():
                    contender.seconds.clear()
                    contender.busy.clear()
                    contender.memory.clear()
    ours, waiting, cli, _, sdk, imports = contenders.values()
    print(f"One update of 30 variables, {rounds} rounds:")
    for contender in contenders.values():
        print(f"        {contender.name:<20}{contender.time * 1000:6.0f} ms  {contender.peak:5.1f} MiB")
    return [
        verdict("time, of the CLI's", ours.time / cli.time, 0.20),
        verdict("time, of the SDK script's", ours.time / sdk.time, 0.40),
        verdict("time, of the imports'", ours.time / imports.time, 1.5),
        verdict("memory, of the CLI's", ours.peak / cli.peak, 0.28),
        verdict("memory, of the SDK script's", ours.peak / sdk.peak, 0.8),
        verdict("memory with the wait, of the CLI's", waiting.peak / cli.peak, 0.28),
        verdict("memory with the wait, of the SDK script's", waiting.peak / sdk.peak, 0.8),
        verdict("processor time with the wait, of that without it", waiting.work / ours.work, 1.25),
    ]


def round_trips() -> list[bool]:
    latency = 0.15
    with (
        tempfile.TemporaryDirectory() as name,
        Simulator(Cloud(restart_seconds=0.0), latency=latency) as simulator,
    ):
        cvm_with(simulator.cloud, 30)
        write_env(Path(name), 30, 40)
        Contender("ours", UPDATE).run(Path(name), environ_for(simulator))
        requests = simulator.cloud.requests
        accepted = next(request for request in requests if request.method == "PATCH")
        before = [request for request in requests if request.started <= accepted.started]
        took = accepted.ended - min(request.started for request in before)
        connections = len({request.connection for request in before})
    print(f"At {latency * 1000:.0f} ms a request ({len(before)} requests, {connections} connections):")
    return [verdict("round trips one after another, until the update is accepted", took / latency, 3.5)]


def many_variables(rounds: int) -> list[bool]:
    fastest = []
    for count in (1, 1000):
        contender = Contender("ours", UPDATE)
        with tempfile.TemporaryDirectory() as name, Simulator(Cloud(restart_seconds=0.0)) as simulator:
            cvm = cvm_with(simulator.cloud, count)
            write_env(Path(name), count, 90)  # sealed, 1,000 of them are just under the 262,144 digits
            for _ in range(rounds):
                contender.run(Path(name), environ_for(simulator))
                cvm.finish()
        fastest.append(contender.time)
    print("1,000 variables of 90 bytes, as many as an update carries:")
    return [verdict("seconds more than one variable takes", fastest[1] - fastest[0], 0.6)]


def parsing() -> list[bool]:
    code = (
        "import time; from phala_secrets.inputs.sources import Sources, gather\n"
        "t = time.perf_counter(); gather(Sources(env_files=('.env',)), environ={})\n"
        "print(time.perf_counter() - t)"
    )
    line = "NAME_%04d='quoted value" + 300 * "x" + "' # and a comment\n"
    seconds: dict[int, list[float]] = {2**19: [], 2**20: []}
    with tempfile.TemporaryDirectory() as name:
        for _ in range(5):
            for size, taken in seconds.items():
                text = "".join(line % n for n in range(size // len(line % 0)))
                (Path(name) / ".env").write_text(text)
                run = subprocess.run([OURS, "-IB", "-c", code], cwd=name, capture_output=True, check=True)
                taken.append(float(run.stdout))
    half, whole = map(min, seconds.values())
    print(f"Parsing a .env of 1 MiB ({whole * 1000:.0f} ms):")
    return [verdict("times as long as half of it", whole / half, 2.6)]


def waiting() -> list[bool]:
    print("Waiting, from the end of the operation to the end of the step:")
    with tempfile.TemporaryDirectory() as name, Simulator(Cloud(restart_seconds=7.0)) as simulator:
        cvm_with(simulator.cloud, 1)
        write_env(Path(name), 1, 10)
        began = time.time()
        Contender("ours", DEFAULT).run(Path(name), environ_for(simulator))
        late = (time.time() - began) - 7.0
    return [verdict("seconds, the start of the step included", late, 6.0)]


def attesting(rounds: int) -> list[bool]:
    """What evidence costs a processor: read twice, with the modules and the collateral that it takes."""
    with tempfile.TemporaryDirectory() as name, Simulator(Cloud(restart_seconds=0.0)) as simulator:
        folder = Path(name)
        cvm = cvm_with(simulator.cloud, 30)
        write_env(folder, 30, 40)
        (folder / "root.pem").write_text(simulator.cloud.tee.root_pem)
        environ = environ_for(simulator) | {
            "PHALA_SECRETS_PCCS_URL": simulator.origin,
            "PHALA_SECRETS_ATTESTATION_ROOT": "root.pem",
            "PHALA_SECRETS_TRUSTED_OS": os_measurements(cvm),
            "PHALA_SECRETS_TRUSTED_KMS_CA": cvm.kms.ca_public_key,
        }
        plain, attested = (
            Contender("plain", DEFAULT),
            Contender("attested", (*DEFAULT, "--attest", "require")),
        )
        for _ in range(rounds):
            for contender in (plain, attested):
                contender.run(folder, environ)
                cvm.finish()
    print("Attested, beside the same update that is not:")
    return [verdict("seconds of a processor more", attested.work - plain.work, 0.3)]


def fleet() -> list[bool]:
    """400 CVMs, 64 at a time: seven waves of a restart each are ideal, and memory does not grow with them."""
    took: dict[int, float] = {}
    peak: dict[int, float] = {}
    for size in (64, 400):
        with tempfile.TemporaryDirectory() as name, Simulator(Cloud(restart_seconds=5.0)) as simulator:
            first = simulator.cloud.add_cvm("web", environment={"OLD": "1"})
            for number in range(1, size):
                simulator.cloud.add_cvm(f"web-{number}", app_id=first.app_id, environment={"OLD": "1"})
            (Path(name) / ".env").write_text("OLD=2\n")
            command = (*DEFAULT[:4], "--app", first.app_id, "--env-file", ".env", "--max-parallel", "64")
            contender = Contender("fleet", command)
            contender.run(Path(name), environ_for(simulator))
            took[size], peak[size] = contender.time, contender.peak
    print(f"A fleet of 400 at 64 ({took[400]:.0f} s, {peak[400]:.0f} MiB; of 64 {peak[64]:.0f} MiB):")
    return [
        verdict("time, of seven restarts of 5 s", took[400] / 35, 1.6),
        verdict("memory, of that for 64", peak[400] / peak[64], 1.25),
    ]


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    results = [
        *against_the_others(rounds),
        *round_trips(),
        *many_variables(max(3, rounds // 3)),
        *parsing(),
        *waiting(),
        *attesting(max(3, rounds // 3)),
        *fleet(),
    ]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
