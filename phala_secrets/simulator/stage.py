"""The stage of `phala-secrets simulate`: CVMs, their problems, and a chain."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING, Self, TypeVar

from btclib_secp256k1 import keys
from sha3 import keccak_256

from phala_secrets.errors import InputError
from phala_secrets.simulator import lies
from phala_secrets.simulator.cloud import Cloud
from phala_secrets.simulator.kms import CENTRAL
from phala_secrets.simulator.paper_chain import BASE, BASE_KMS, PaperChain
from phala_secrets.simulator.server import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable

    from phala_secrets.simulator.clock import Clock

T = TypeVar("T")

SEED = b"phala-secrets simulate"
"""Keys and ids are the same every time, so that a workflow can pin them."""

OWNERS_KEY = keccak_256(b"the owner of every simulated app").hexdigest()
"""The private key of the apps' owner. It is public, so it must never own anything real."""

SERVICES = ("web", "worker")
_SAMPLE = {"GREETING": "hello from before"}
_VARIABLES = (
    *("GREETING", "DATABASE_URL", "API_TOKEN", "API_SECRET", "SETTINGS", "TOWNS", "SHELL_WORDS", "TABBED"),
    *("EMPTY", "EXPORTED", "TLS_KEY"),
)
"""The CVMs of the demo and of the pages in docs/."""

COMPOSE = "services:\n" + "".join(
    f"  {service}:\n    image: ghcr.io/my-org/{service}@sha256:{digit * 64}\n    environment:\n"
    + "".join(f"      {name}: ${{{name}:-}}\n" for name in _VARIABLES)
    for service, digit in zip(SERVICES, "ab", strict=True)
)
"""The compose file of each CVM."""


@dataclass(frozen=True, slots=True)
class Stage:
    """The settings. ``lie`` is one of `lies.LIES`, ``crash`` names services of `COMPOSE`."""

    port: int = 8010
    api_key: str = "phak_simulator"
    cvms: tuple[str, ...] = ("my-app",)
    replicas: int = 1
    boot_seconds: float = 3.0
    boot_error: str = ""
    busy: float = 0.0
    stopped: bool = False
    crash: tuple[str, ...] = ()
    on_chain: bool = False
    lie: str = ""


class Scene:
    """A stage that is reachable within ``with``. ``chain`` is None without ``on_chain``."""

    def __init__(self, stage: Stage, clock: Clock | None = None) -> None:
        self.cloud = Cloud(stage.api_key, restart_seconds=stage.boot_seconds, seed=SEED, clock=clock)
        self.chain = (
            _bound(lambda port: PaperChain(port=port), stage.port and stage.port + 1)
            if stage.on_chain
            else None
        )
        kms = self.cloud.add_kms("base", BASE, BASE_KMS) if stage.on_chain else CENTRAL
        for name in stage.cvms:
            app_id = None
            for number in range(1, stage.replicas + 1):
                app_id = self.cloud.add_cvm(
                    name if number == 1 else f"{name}-{number}",
                    app_id=app_id,
                    kms=kms,
                    docker_compose_file=COMPOSE,
                    environment=_SAMPLE,
                    deployer_address=owner(),
                ).app_id
        first = self.cloud.cvms[0]
        self.pins = {"APP_ID": first.app_id, "KMS_ROOT": first.kms.root_public_key}
        """The pins of the first CVM, from an honest API."""
        self.roots = {one.slug: one.root_public_key for one in self.cloud.kmses}
        """The root of each KMS, by slug, from an honest API."""
        self.which = f"--cvm {quote(first.name)}" if stage.replicas == 1 else f"--app {first.app_id}"
        """How a command names the first CVM, or all of its app."""
        self._register()
        self._trouble(stage)
        if stage.lie:
            lies.tell(self.cloud, stage.lie)
        self.simulator = _bound(lambda port: Simulator(self.cloud, port), stage.port)
        self._open = ExitStack()

    def _register(self) -> None:
        """Put the apps on the chain."""
        if self.chain is None:
            return
        self.cloud.rpc_urls[BASE] = self.chain.url
        for cvm in self.cloud.cvms:
            self.chain.hold(cvm)
        for contract in self.chain.contracts.values():
            contract.owner = owner()

    def _trouble(self, stage: Stage) -> None:
        """Give each CVM the problem that the stage requests."""
        for cvm in self.cloud.cvms:
            if stage.boot_error:
                cvm.boot_fails(stage.boot_error)
            for container, service in zip(cvm.containers or (), SERVICES, strict=True):
                if service in stage.crash:
                    container.condition, container.exit_code = "restarting", 1
            if stage.stopped:
                cvm.stop()
            if stage.busy:
                cvm.begin_operation("resize", stage.busy, by="somebody else", effect="none")

    def __enter__(self) -> Self:
        self._open.enter_context(self.simulator)
        if self.chain is not None:
            self._open.enter_context(self.chain)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()


def owner() -> str:
    """Return the address (``0x``) of the owner of every app."""
    point = keys.pubkey_from_prvkey(bytes.fromhex(OWNERS_KEY), compressed=False)
    return f"0x{keccak_256(point[1:]).digest()[-20:].hex()}"


def _bound(make: Callable[[int], T], port: int) -> T:
    try:
        return make(port)
    except OSError as error:
        message = f"cannot listen on port {port}: {error.strerror}"
        raise InputError(message, hint="choose another port, or 0 for a free one") from error
