"""The simulator's chain on paper, for a single app, which answers what a test has it say.

A real chain, with its own mind about fees and nonces, is in ``tests/anvil``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from phala_secrets.simulator import paper_chain
from phala_secrets.simulator.cvm import Cvm
from phala_secrets.simulator.paper_chain import BASE, BASE_KMS, COMPOSE_HASH_ADDED, AppContract, InOrder

__all__ = ["BASE_KMS", "COMPOSE_HASH_ADDED", "InOrder", "PaperChain"]


class PaperChain(paper_chain.PaperChain):
    """``approved``, ``devices`` and ``owner`` are of the one app. ``meddle`` has the last word on answers."""

    def __init__(self, chain_id: int = BASE, kms: str = BASE_KMS) -> None:
        self._app = AppContract()
        self.meddle: Callable[[str, Any], Any] = lambda method, answer: answer
        self.asked: list[str] = []
        super().__init__(chain_id, kms)

    def hold(self, cvm: Cvm) -> None:
        self._app.approved, self._app.devices = InOrder(), set()
        self.apps = {cvm.app_id}
        super().hold(cvm)

    def respond(self, request: dict[str, Any]) -> Any:
        self.asked.append(request["method"])
        return self.meddle(request["method"], super().respond(request))

    @property
    def apps(self) -> set[str]:
        return set(self.contracts)

    @apps.setter
    def apps(self, apps: set[str]) -> None:
        self.contracts = dict.fromkeys(apps, self._app)

    @property
    def approved(self) -> InOrder:
        return self._app.approved

    @approved.setter
    def approved(self, hashes: Iterable[str]) -> None:
        self._app.approved = hashes if isinstance(hashes, InOrder) else InOrder(hashes)

    @property
    def devices(self) -> set[str]:
        return self._app.devices

    @devices.setter
    def devices(self, devices: set[str]) -> None:
        self._app.devices = devices

    @property
    def any_device(self) -> bool:
        return self._app.any_device

    @any_device.setter
    def any_device(self, allowed: bool) -> None:
        self._app.any_device = allowed

    @property
    def owner(self) -> str:
        return self._app.owner

    @owner.setter
    def owner(self, address: str) -> None:
        self._app.owner = address
