"""The state of a simulated Phala Cloud: its login, its KMSes and CVMs, and the requests so far."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import uuid
from collections import deque
from typing import TYPE_CHECKING, Any

from phala_secrets.simulator.composefile import DEFAULT_COMPOSE
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.generations import DEFAULT_OS
from phala_secrets.simulator.identity import Identity, Plan
from phala_secrets.simulator.kms import CENTRAL, Kms, KmsNode
from phala_secrets.simulator.limits import Limits
from phala_secrets.simulator.oidc import GitHub, Tokens
from phala_secrets.simulator.tee import Tee
from phala_secrets.simulator.wire import Answer, RefusalError, Request
from phala_secrets.simulator.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from phala_secrets.simulator.clock import Clock

_KEPT_REQUESTS = 10_000
_UUID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.IGNORECASE)
_DEPLOYER = "0x71c7656ec7ab88b098defb751b7401b5f6d8976f"


class Cloud(World):
    """A Phala Cloud. A test may change every attribute at any time. `World` has the settings.

    An update takes ``restart_seconds``. During its first third, or ``stale_seconds``, the CVM still shows
    its old status. ``seed`` makes keys and identifiers reproducible. ``rpc_urls`` are JSON-RPC endpoints
    on loopback by chain id, which hold the approvals on these chains. ``clock`` defaults to the machine's.
    """

    def __init__(
        self,
        api_key: str = "phak_simulator",
        *,
        restart_seconds: float = 0.3,
        stale_seconds: float | None = None,
        streams: bool = True,
        v1_signatures: bool = False,
        seed: bytes | None = None,
        rpc_urls: Mapping[int, str] | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(clock)
        self.api_key = api_key
        self.restart_seconds = restart_seconds
        self.stale_seconds = restart_seconds / 3 if stale_seconds is None else stale_seconds
        self.streams = streams
        self.v1_signatures = v1_signatures
        self.rpc_urls = dict(rpc_urls or {})
        self.tamper: Callable[[Request, Answer], Answer] = _as_it_is
        """Called with each response before it is sent. Its result is sent instead."""
        self.kmses: list[Kms] = []
        self.cvms: list[Cvm] = []
        self.requests: deque[Request] = deque(maxlen=_KEPT_REQUESTS)
        """The requests so far, oldest first."""
        self.limits = Limits(self)
        self._seed = seed or os.urandom(32)
        self.tee = Tee(self._derive("tee", 32), self.now)
        """The hardware of all CVMs, and the PCCS that vouches for it."""
        self.github = GitHub(self._derive("github", 32), self.now)
        """GitHub, whose tokens may replace the API key."""
        self.tokens = Tokens(self.github, self.now)
        self._app_nonce = 0
        self.add_kms(CENTRAL)

    def reset_requests(self) -> None:
        """Forget the requests so far."""
        self.requests.clear()

    def add_kms(
        self, slug: str, chain_id: int = 0, contract_address: str = CENTRAL, *, nodes: int = 1
    ) -> Kms:
        """Add a KMS contract with its own root. ``chain_id`` and ``contract_address`` put it on chain."""
        kms = Kms(
            slug,
            self._derive(f"kms {slug}", 32),
            chain_id=chain_id,
            contract_address=contract_address,
            nodes=nodes,
        )
        with self.changed:
            self.kmses.append(kms)
        return kms

    def add_cvm(
        self,
        name: str = "my-app",
        *,
        app_id: str | None = None,
        kms: str | Kms = CENTRAL,
        docker_compose_file: str = DEFAULT_COMPOSE,
        environment: Mapping[str, str] | None = None,
        allowed_envs: Sequence[str] | None = None,
        device_id: str | None = None,
        deployer_address: str = _DEPLOYER,
        app_compose: Mapping[str, Any] | None = None,
        os_version: str = DEFAULT_OS,
    ) -> Cvm:
        """Add a CVM that runs with ``environment``.

        The ``app_id`` (40 hex digits) of another CVM makes it a replica. ``allowed_envs`` defaults to the
        environment's names. ``device_id`` is its machine. ``app_compose`` adds or overrides fields of the
        app-compose. ``os_version`` selects the guest.
        """
        with self.changed:
            number = len(self.cvms) + 1
            environment = environment or {}
            plan = Plan(
                docker_compose_file=docker_compose_file,
                environment=environment,
                allowed_envs=list(environment) if allowed_envs is None else allowed_envs,
                os_version=os_version,
                more=app_compose or {},
            )
            identity = self._identify(name, number, app_id, device_id, deployer_address)
            cvm = Cvm(self, kms if isinstance(kms, Kms) else self.find_kms(kms), identity, plan)
            self.cvms.append(cvm)
            return cvm

    def find_kms(self, reference: str) -> Kms:
        """Return the KMS with a contract or node of this slug or id. Raise a 404 otherwise."""
        with self.changed:
            for kms in self.kmses:
                if kms.is_called(reference) or kms.node(reference) is not None:
                    return kms
        raise _no_kms(reference)

    def find_contract(self, reference: str) -> Kms:
        """Return the KMS contract with this slug or id. Raise a 404 otherwise, also for a node."""
        with self.changed:
            for kms in self.kmses:
                if kms.is_called(reference):
                    return kms
        raise _no_kms(reference)

    def find_node(self, reference: str) -> tuple[Kms, KmsNode]:
        """Return the node with this id or slug, and its KMS. Raise a 404 otherwise, also for a contract."""
        with self.changed:
            for kms in self.kmses:
                node = kms.node(reference)
                if node is not None:
                    return kms, node
        raise _no_kms(reference)

    def find_cvm(self, reference: str) -> Cvm:
        """Return a CVM by any id or by name. Raise a 404 if it is unknown, a 409 if it is ambiguous."""
        with self.changed:
            found = list(filter(_called(reference), self.cvms))
        if not found:
            raise RefusalError(
                404,
                f"CVM '{reference}' not found",
                "ERR-03-001",
                suggestions=["Check the CVM identifier, and the workspace of the API key"],
            )
        if len(found) > 1:
            raise RefusalError(
                409,
                f"Several CVMs are called '{reference}'",
                "ERR-03-002",
                details=[{"field": "cvm_id", "value": cvm.id, "message": cvm.name} for cvm in found],
                suggestions=["Use the CVM's id"],
            )
        return found[0]

    def cvms_of(self, app_id: str) -> list[Cvm]:
        """Return the CVMs of an app. Raise a 404 if it has none."""
        with self.changed:
            found = [cvm for cvm in self.cvms if cvm.app_id == app_id]
        if not found:
            raise RefusalError(404, "App not found")
        return found

    def next_app_ids(self, count: int) -> list[dict[str, Any]]:
        """Reserve ``count`` app ids: ``app_id`` and ``nonce`` of each."""
        with self.changed:
            nonces = range(self._app_nonce, self._app_nonce + count)
            self._app_nonce += count
        return [{"app_id": self._derive(f"next app {nonce}", 20).hex(), "nonce": nonce} for nonce in nonces]

    def admit(self, request: Request) -> None:
        """Raise a 429 or 401 if the request must be refused."""
        self.limits.take_request()
        given = request.headers.get("x-api-key")
        if given is None and request.path.endswith("/attestations"):
            return  # this route needs no key
        if given is None and "authorization" in request.headers:
            self.tokens.admit(request)
            return
        if given is None:
            raise RefusalError(401, "Not authenticated")
        if not hmac.compare_digest(given.encode(), self.api_key.encode()):
            raise RefusalError(401, "Invalid API key")

    def _identify(
        self, name: str, number: int, app_id: str | None, device_id: str | None, deployer_address: str
    ) -> Identity:
        return Identity(
            number=number,
            id=f"cvm_{self._derive(f'cvm {number}', 5).hex()}",
            name=name,
            app_id=(app_id or self._derive(f"app {number}", 20).hex()).lower(),
            vm_uuid=str(uuid.UUID(bytes=self._derive(f"uuid {number}", 16), version=4)),
            instance_id=self._derive(f"instance {number}", 20).hex(),
            device_id=device_id or self._derive("device", 32).hex(),
            deployer_address=deployer_address,
        )

    def _derive(self, purpose: str, length: int) -> bytes:
        return hmac.digest(self._seed, purpose.encode(), hashlib.sha256)[:length]


def _no_kms(reference: str) -> RefusalError:
    return RefusalError(404, f"KMS '{reference}' not found", "ERR-02-011")


def _called(reference: str) -> Callable[[Cvm], bool]:
    """Return the predicate for the CVMs that ``reference`` names."""
    kind, _, rest = reference.lower().partition("_")
    if _UUID.fullmatch(reference):
        vm_uuid = str(uuid.UUID(reference))
        return lambda cvm: cvm.vm_uuid == vm_uuid
    if kind == "app":
        return lambda cvm: cvm.app_id == rest
    if kind == "instance":
        return lambda cvm: cvm.instance_id == rest
    return lambda cvm: reference in (cvm.id, cvm.name)


def _as_it_is(_request: Request, answer: Answer) -> Answer:
    return answer
