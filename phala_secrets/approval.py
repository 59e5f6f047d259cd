"""An app whose KMS is a contract: its owner approves the compose hash that new names make.

Nothing is approved blindly. The API says which hash to approve, and an approval lets
that code run with the app's keys; so the hash is recomputed here, from an app-compose
that is today's in all but its names.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from phala_secrets import api
from phala_secrets.composehash import candidates, find_form
from phala_secrets.errors import ApprovalRequiredError, InputError, PhalaSecretsError, ProofError
from phala_secrets.identifiers import parse_app_id, parse_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from phala_secrets import chain
    from phala_secrets.answers import Precondition
    from phala_secrets.calls import Call
    from phala_secrets.client import Client
    from phala_secrets.job import Job
    from phala_secrets.runners import Runner
    from phala_secrets.secret import Secret
    from phala_secrets.targets import Target
    from phala_secrets.trust import ProvenKey


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """What has to be approved: hex without ``0x``; ``device_id`` is the machine that the CVM is on."""

    app_id: str
    chain_id: int
    compose_hash: str
    device_id: str | None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Preparation:
    """All that an approval made elsewhere takes, as outputs, and where to look at the app."""

    outputs: dict[str, Any] = field(repr=False)
    asked: Asked
    explorer: str | None


class Approver:
    """Gets one compose hash approved, or says what it takes."""

    def __init__(self, job: Job, client: Client, runner: Runner) -> None:
        self._job = job
        self._client = client
        self._runner = runner

    def settle(
        self, target: Target, key: ProvenKey, names: Sequence[str], said: Precondition
    ) -> tuple[Asked, str | None]:
        """What was asked for, and the transaction hash to commit with; None where others have to approve.

        Raises ProofError when the hash asked for is not that of this app with these names,
        ApprovalRequiredError when there is no way to approve it here.
        """
        asked = self._check(target, key, names, said)
        if self._allowed(asked):
            return asked, "already-registered"
        if self._job.prepare_only:
            return asked, None
        private_key = self._job.private_key
        if not (private_key and self._job.policy.rpc_url):
            raise ApprovalRequiredError(
                f"the names changed, so the owner of the app {asked.app_id} has to approve the compose hash "
                f"{asked.compose_hash} on chain {asked.chain_id}",
                hint="approve it here with private-key and rpc-url, or elsewhere with prepare-only: true",
            )
        return asked, self._register(asked, private_key)

    def check_approved(self, app_id: str, chain_id: int, compose_hash: str) -> bool | None:
        """Whether the contract allows a compose hash; None without an RPC to ask."""
        from phala_secrets import chain

        if not self._job.policy.rpc_url:
            return None
        return self._drive(
            chain.approvals(chain_id=chain_id, app=app_id, compose_hash=compose_hash)
        ).compose_hash

    def prepare(
        self, target: Target, key: ProvenKey, names: Sequence[str], sealed: str, asked: Asked
    ) -> Preparation:
        """The outputs of ``prepare-only``; a device is in the Safe file if ``allow-device`` names it."""
        from phala_secrets import chain

        device = asked.device_id if asked.device_id in self._job.allow_device else None
        digest = digest_of(target, key, names, sealed, asked.compose_hash, asked.device_id)
        outputs = {
            "compose-hash": asked.compose_hash,
            "device-id": asked.device_id or "",
            "chain-id": str(asked.chain_id),
            "calldata": chain.calldata_add_compose_hash(asked.compose_hash),
            "safe-transaction": chain.safe_transaction(
                asked.chain_id, asked.app_id, compose_hash=asked.compose_hash, device=device
            ),
            "encrypted-env": sealed,
            "prepared-digest": digest,
        }
        return Preparation(outputs, asked, chain.address_link(asked.chain_id, asked.app_id))

    def _check(self, target: Target, key: ProvenKey, names: Sequence[str], said: Precondition) -> Asked:
        compose_hash, device = _hex(said.compose_hash, "compose hash"), said.device_id
        app_id = _app(said.app_id)
        chain_id = key.chain_id
        if app_id != target.app_id:
            raise ProofError(
                f"Phala Cloud asks for an approval for the app {app_id}, not {target.app_id}",
                hint="approve nothing, and do not trust this API",
            )
        if not chain_id:
            raise ProofError(
                f"Phala Cloud asks for an approval on chain for {target.app_id}, which has no KMS there",
                hint="approve nothing, and ask Phala's support",
            )
        remarks = self._recompute(target, names, chain_id, compose_hash)
        device_id = _hex(device, "device id") if device else None
        return Asked(app_id, chain_id, compose_hash, device_id, tuple(remarks))

    def _recompute(self, target: Target, names: Sequence[str], chain_id: int, compose_hash: str) -> list[str]:
        if self._job.compose_hash == compose_hash:
            return [f"The compose hash {compose_hash} was approved by name (input compose-hash)."]
        present, compose = target.cvm.compose_hash or "", target.compose
        content = compose.content if compose else {}
        form = find_form(content, present) if present else None
        possible = candidates(content, names, form) if form else {}
        if compose_hash not in possible:
            expected = next(iter(possible), None)
            why = f"it is not {expected}" if expected else "today's could not be recomputed either"
            raise ProofError(
                f"Phala Cloud asks to approve the compose hash {compose_hash}, but with these names {why}",
                hint="approve nothing; if you know what that hash is of, name it as compose-hash",
            )
        approved = self.check_approved(target.app_id, chain_id, present)
        if approved is False:
            raise ProofError(
                f"today's compose hash {present} is not approved on chain {chain_id}: nothing is based on it",
                hint="approve nothing; if you know what the new hash is of, name it as compose-hash",
            )
        if approved is None:
            return [
                "That the rest of the app-compose is unchanged is Phala Cloud's word: rpc-url would check it."
            ]
        return []

    def _allowed(self, asked: Asked) -> bool:
        from phala_secrets import chain

        if not self._job.policy.rpc_url:
            return False
        today = self._drive(
            chain.approvals(
                chain_id=asked.chain_id,
                app=asked.app_id,
                compose_hash=asked.compose_hash,
                device=asked.device_id,
            )
        )
        if not today.device and asked.device_id not in self._job.allow_device:
            raise ApprovalRequiredError(
                f"the app may not run on the device {asked.device_id}, and allow-device does not name it",
                hint="if that machine is to have the app's keys, name it in allow-device",
            )
        return today.compose_hash and today.device

    def _register(self, asked: Asked, private_key: Secret) -> str:
        from phala_secrets import chain

        registered = self._drive(
            chain.register(
                chain.Sender(private_key.reveal()),
                chain_id=asked.chain_id,
                app=asked.app_id,
                compose_hash=asked.compose_hash,
                device=asked.device_id,
                allow_device=self._job.allow_device,
            )
        )
        for sent in registered.sent:
            self._runner.say(f"{sent.call}: transaction {sent.transaction_hash}")
        return registered.transaction_hash

    def _drive(self, flow: chain.Flow[T]) -> T:
        """Drives a chain's flow to its result over rpc-url, which is given wherever this is called."""
        url = self._job.policy.rpc_url or ""
        return drive(flow, lambda request: self._client.send(_once(url, request)), self._runner.progress)


def _once(url: str, request: Any) -> Call[Any]:
    """What sends a transaction is repeated by the flow alone, which knows what became of it."""
    return api.rpc(url, request, repeatable=request.method != "eth_sendRawTransaction")


def drive(flow: chain.Flow[T], ask: Callable[[Any], Any], tell: Callable[[str], None]) -> T:
    """Drives a flow of RPC requests and pauses to its result; failures are thrown into it."""
    from phala_secrets.chain import Sleep

    try:
        step = next(flow)
        while True:
            try:
                answer = None
                if isinstance(step, Sleep):
                    tell(step.message)
                    time.sleep(step.seconds)
                else:
                    answer = ask(step)
            except PhalaSecretsError as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as stop:
        result: T = stop.value
        return result


def digest_of(
    target: Target, key: ProvenKey, names: Sequence[str], sealed: str, compose_hash: str, device: str | None
) -> str:
    """The digest over all that an approval is for."""
    from phala_secrets import chain

    return chain.prepared_digest(
        app_id=target.app_id,
        cvm_id=target.cvm.id,
        chain_id=key.chain_id or 0,
        device_id=device,
        public_key=key.public_key.hex(),
        env_keys=names,
        compose_hash=compose_hash,
        encrypted_env=sealed,
    )


def check_prepared(job: Job, approver: Approver, target: Target, key: ProvenKey) -> str | None:
    """The transaction hash to commit a prepared ciphertext with, or None where no approval was named.

    Raises ProofError when it is not what ``prepared-digest`` was given out for, and
    ApprovalRequiredError when the contract does not allow the hash yet.
    """
    prepared = job.prepared
    if not prepared:
        return None
    if prepared.digest:
        device = target.cvm.device_id
        now = digest_of(
            target,
            key,
            prepared.env_keys,
            prepared.encrypted_env,
            prepared.compose_hash or "",
            _hex(device, "device id") if device else None,
        )
        if now != prepared.digest:
            raise ProofError(
                f"prepared-digest is {prepared.digest}, but what is here has {now}",
                hint="app, CVM, chain, device, key, names, hash or ciphertext is another: prepare it again",
            )
    if not prepared.compose_hash:
        return None
    approved = approver.check_approved(target.app_id, key.chain_id or 0, prepared.compose_hash)
    if approved is False:
        raise ApprovalRequiredError(
            f"the compose hash {prepared.compose_hash} is not approved on chain {key.chain_id} yet",
            hint="run again when the transaction is confirmed",
        )
    if prepared.transaction_hash:
        return prepared.transaction_hash
    if approved:
        return "already-registered"
    raise InputError(
        "compose-hash is given without transaction-hash",
        hint="give it too, or rpc-url to look for the approval",
    )


def _hex(text: str, what: str) -> str:
    try:
        return parse_hash(text, what)
    except InputError as error:
        raise ProofError(f"Phala Cloud's answer: {error.message}", hint="approve nothing") from None


def _app(text: str) -> str:
    try:
        return parse_app_id(text)
    except InputError as error:
        raise ProofError(f"Phala Cloud's answer: {error.message}", hint="approve nothing") from None
