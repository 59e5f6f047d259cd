"""What the demonstrations of the audit share.

Every import of the product's own modules and of other test helpers is here. The test files import from here
alone, so a module that moves is a change of one file.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dotenv
from eth_account import Account

import phala_secrets
from phala_secrets import AnswerError, PhalaSecretsError, create_async_client, create_client, encrypt_env_vars
from phala_secrets.chain.calldata import prepared_digest
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.kms import Kms
from phala_secrets.simulator.wire import Answer, Request
from tests.support.command import ENTRYPOINT, ROOT, Command, Outcome
from tests.support.faults import Fault
from tests.support.faulty import FaultySimulator as Simulator
from tests.support.job import keyless
from tests.support.paper_chain import BASE_KMS, PaperChain
from tests.support.person import Person
from tests.support.step import Done, Step, command_of, read_outputs

__all__ = [
    "BASE_KMS",
    "CIS",
    "ENTRYPOINT",
    "MARK",
    "NEW_SECRET",
    "OWNERS_KEY",
    "ROOT",
    "SCRIPT",
    "TRANSACTION",
    "Answer",
    "AnswerError",
    "Cloud",
    "Command",
    "Cvm",
    "Done",
    "Fault",
    "Kms",
    "Outcome",
    "Person",
    "PhalaSecretsError",
    "Request",
    "Simulator",
    "Step",
    "World",
    "bounded",
    "change_answers",
    "command_of",
    "create_async_client",
    "create_client",
    "digest_of",
    "encrypt_env_vars",
    "escaped",
    "everything",
    "everything_of_step",
    "in_ci",
    "keyless",
    "local_server",
    "makes_mark",
    "on_chain",
    "outputs_file",
    "phala_secrets",
    "read_by_dotenv",
    "read_outputs",
    "sent",
    "updates",
]

NEW_SECRET = "a-new-value-nobody-may-see"
OWNERS_KEY = "0x" + "c0ffee" * 10 + "c0de"
TRANSACTION = "0x" + "7a" * 32

SCRIPT = "import sys\nfrom phala_secrets.__main__ import command\nsys.exit(command())\n"
"""What pip makes of our entry point."""

CIS: dict[str, dict[str, str]] = {
    "github": {"CI": "true", "GITHUB_ACTIONS": "true"},
    "gitlab": {"CI": "true", "GITLAB_CI": "true"},
    "circleci": {"CI": "true", "CIRCLECI": "true"},
    "azure": {"TF_BUILD": "True"},
    "bitbucket": {"CI": "true", "BITBUCKET_BUILD_NUMBER": "7"},
    "buildkite": {"CI": "true", "BUILDKITE": "true"},
    "shell": {},
}
"""The variables that each CI sets of itself; a shell sets none."""


def in_ci(run: Command, ci: str) -> Command:
    """The same command, as a job of that CI runs it."""
    run.environ |= CIS[ci]
    if ci == "circleci":
        run.environ["BASH_ENV"] = str(run.folder / "bash_env")
    if ci == "bitbucket":
        run.environ["BITBUCKET_PIPELINES_VARIABLES_PATH"] = str(run.folder / "variables")
    return run


def outputs_file(run: Command, ci: str) -> Path:
    """Where a later step of that CI reads the outputs; a run elsewhere than these two names ``out.env``."""
    return run.folder / {"circleci": "bash_env", "bitbucket": "variables"}.get(ci, "out.env")


def everything(outcome: Outcome, *files: Path) -> str:
    """All that a run left where somebody may read it."""
    return outcome.printed + "".join(path.read_text() for path in files if path.is_file())


def everything_of_step(done: Done) -> str:
    """The log as the runner shows it, the outputs and the summary."""
    return "\n".join((done.shown, done.output_file, done.summary))


def updates(cloud: Cloud) -> list[Request]:
    """The requests that change a CVM."""
    return [request for request in cloud.requests if request.method == "PATCH"]


def sent(cloud: Cloud) -> str:
    """All that went to Phala Cloud in clear text: paths, queries and bodies."""
    return "\n".join(f"{one.path} {one.query} {one.body.decode()}" for one in cloud.requests)


def escaped(text: str) -> str:
    r"""A text as JSON may spell it: each character as ``\uXXXX``."""
    return "".join(f"\\u{ord(character):04x}" for character in text)


def change_answers(
    cloud: Cloud,
    wanted: Callable[[Request, Answer], bool],
    *,
    headers: Mapping[str, str] | None = None,
    **body: Any,
) -> None:
    """Sets fields of the body, or headers, of each response that is wanted."""

    def tamper(request: Request, answer: Answer) -> Answer:
        if not wanted(request, answer):
            return answer
        changed = {**answer.body, **body} if body else answer.body
        return replace(answer, body=changed, headers={**answer.headers, **(headers or {})})

    cloud.tamper = tamper


def bounded(
    folder: Path,
    environ: Mapping[str, str],
    *arguments: str,
    seconds: float,
    python: tuple[str, ...] = (sys.executable, "-IB", str(ENTRYPOINT)),
) -> Outcome:
    """A run in ``folder``, in a process of its own; AssertionError when it does not end in time."""
    try:
        done = subprocess.run(
            [*python, *arguments],
            cwd=folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise AssertionError(f"the run hangs: no end within {seconds} s") from None
    return Outcome(done.returncode, done.stdout.decode(), done.stderr.decode())


@contextmanager
def local_server(respond: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """A server on loopback that does with each request what ``respond`` does; its ``HOST:PORT``."""

    class Handler(BaseHTTPRequestHandler):
        disable_nagle_algorithm = True

        def do_CONNECT(self) -> None:
            respond(self)

        do_GET = do_CONNECT  # noqa: N815 (the base class calls it so)
        do_POST = do_CONNECT  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# -- an app on chain -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class World:
    """An app whose KMS is a contract on Base: its CVM, and the chain that knows the app."""

    simulator: Simulator
    chain: PaperChain
    kms: Kms
    cvm: Cvm

    @property
    def cloud(self) -> Cloud:
        return self.simulator.cloud

    def approve(self, *compose_hashes: str) -> None:
        """The owner approves these, in this order."""
        for compose_hash in compose_hashes:
            self.chain.approved.add(compose_hash)

    def approve_elsewhere(self, compose_hash: str) -> str:
        """The owner approves with a wallet; the transaction's hash."""
        self.approve(compose_hash)
        self.cloud.approved_transactions.add(TRANSACTION)
        return TRANSACTION

    def move(self, device: str) -> None:
        """The CVM goes to another machine."""
        object.__setattr__(self.cvm.identity, "device_id", device)


@contextmanager
def on_chain(
    simulator: Simulator, *, signing: bool = False, before: Iterable[str] = (), **cvm: Any
) -> Iterator[World]:
    """A CVM called my-app of an app on chain, which has approved its present app-compose.

    With ``signing`` the service looks approvals up on that chain; otherwise it takes `TRANSACTION`.
    """
    cloud = simulator.cloud
    with PaperChain() as chain:
        if signing:
            cloud.rpc_urls = {8453: chain.url}
        kms = cloud.add_kms("base-1", 8453, BASE_KMS)
        world = World(
            simulator, chain, kms, cloud.add_cvm("my-app", kms=kms, **{"environment": {"OLD": "1"}, **cvm})
        )
        chain.root = kms.root_public_key
        chain.apps = {world.cvm.app_id}
        chain.owner = Account.from_key(OWNERS_KEY).address.lower()
        chain.devices = {world.cvm.device_id}
        world.approve(*before, world.cvm.compose_hash)
        yield world


def digest_of(outputs: Mapping[str, str]) -> str:
    """The digest as the documentation defines it, over what was output."""
    return prepared_digest(
        app_id=outputs["app-id"],
        cvm_id=outputs["cvm-id"],
        chain_id=int(outputs["chain-id"]),
        device_ids=outputs["device-id"].split(),
        public_key=outputs["public-key"],
        env_keys=json.loads(outputs["env-keys"]),
        compose_hash=outputs["compose-hash"],
        encrypted_env=outputs["encrypted-env"],
    )


# -- a command that must not run -------------------------------------------------------------------

MARK = "a-command-ran"
"""The file that foreign text would make, were it taken for a command."""


def makes_mark(path: Path, folder: Path) -> bool:
    """Whether `MARK` is made in ``folder`` when a shell sources the file."""
    subprocess.run(
        ["bash", "-c", 'set -a; . "$1"', "bash", str(path)],
        cwd=folder,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        check=False,
    )
    return (folder / MARK).exists()


def read_by_dotenv(text: str) -> dict[str, str | None]:
    """The variables of a file as python-dotenv fills them in, with this process's own."""
    return dict(dotenv.dotenv_values(stream=io.StringIO(text), interpolate=True))
