"""An app whose KMS is a contract: its owner approves the compose hash that new names make.

Nothing is approved blindly. The API says which hash to approve, and an approval lets
that code run with the app's keys; so the hash is recomputed here, from an app-compose
that is today's in all but its names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from phala_secrets.cloud import requests
from phala_secrets.dstack.ids import parse_app_id, parse_hash
from phala_secrets.errors import ApprovalRequiredError, Finding, InputError, ProofError
from phala_secrets.flow import Pause, mapped
from phala_secrets.run.context import Approval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from phala_secrets.chain import register
    from phala_secrets.cloud.records import Precondition
    from phala_secrets.flow import Flow
    from phala_secrets.inputs.job import Prepared
    from phala_secrets.run.context import Run, Target


T = TypeVar("T")

_APPROVE_NOTHING = "approve nothing; if you know what that hash is of, name it as compose-hash"


@dataclass(frozen=True, slots=True)
class Asked:
    """What has to be approved: hex without ``0x``; ``device_id`` is the machine that the CVM is on.

    ``hash_allowed`` and ``device_allowed`` are what the contract says, None where no RPC was asked.
    """

    app_id: str
    chain_id: int
    compose_hash: str
    device_id: str | None
    hash_allowed: bool | None
    device_allowed: bool | None
    remarks: tuple[str, ...] = ()

    @property
    def approved(self) -> bool:
        """Whether there is nothing left to approve."""
        return bool(self.hash_allowed and self.device_allowed)

    @property
    def missing(self) -> str:
        """What is left to approve, in words."""
        missing = [] if self.hash_allowed else [f"the compose hash {self.compose_hash}"]
        missing += [f"the device {self.device_id}"] if self.device_allowed is False else []
        return " and ".join(missing)

    @property
    def outputs(self) -> dict[str, str]:
        """What was asked for, as outputs."""
        return {
            "compose-hash": self.compose_hash,
            "device-id": self.device_id or "",
            "chain-id": str(self.chain_id),
        }


@dataclass(frozen=True, slots=True)
class Preparation:
    """All that an approval made elsewhere takes, as outputs; the device that is added; where to look."""

    outputs: dict[str, Any] = field(repr=False)
    asked: Asked
    device: str | None
    explorer: str | None


def obtain(run: Run, target: Target, said: Precondition) -> Approval | Preparation:
    """Return the approval that the API asks for; with ``prepare-only`` all that others need to give it.

    What is known is output as soon as it is, each transaction before it is sent. Raise ProofError
    when it is not this app with these names, ApprovalRequiredError when there is no way to approve
    here, and what signing and sending raises.
    """
    asked = _check(run, target, said)
    run.output_of(target, asked.outputs)
    if run.job.prepare_only and not asked.approved:
        preparation = _prepare(run, target, asked)
        run.output_of(target, preparation.outputs)
        return preparation
    for remark in asked.remarks:
        run.runner.say(remark)
    approval = Approval(asked.compose_hash, _settle(run, target, asked))
    run.output_of(target, approval.outputs)
    return approval


def prepared(run: Run, target: Target) -> Approval | None:
    """Return the approval that came with a prepared ciphertext, if one did.

    Raise ProofError when it is not what ``prepared-digest`` was given out for, and
    ApprovalRequiredError when the contract does not allow it yet.
    """
    given, key = run.job.prepared, target.key
    if not given or not given.compose_hash:
        return None
    from phala_secrets.chain import register

    if not key.chain_id:
        raise ProofError(
            f"compose-hash is given, but Phala Cloud says that {target.app_id} has no KMS on chain",
            hint="an app without takes no approval: if it is one, leave compose-hash out",
        )
    if given.digest:
        _check_digest(target, given)
    else:
        run.runner.tell(
            Finding(
                "prepared-digest is not given, so nothing shows that this is the ciphertext approved",
                "anyone can make another for the same key: give the digest that prepare-only gave out",
            )
        )
    device = _device_of(target)
    today = _approvals(run, target.app_id, key.chain_id, given.compose_hash, device)
    if today and not (today.compose_hash and today.device):
        what = f"device {device}" if today.compose_hash else f"compose hash {given.compose_hash}"
        raise ApprovalRequiredError(
            f"the {what} is not approved on chain {key.chain_id} yet",
            hint="run again with the same inputs when the owner's transaction is confirmed",
        )
    transaction = given.transaction_hash or (today and register.ALREADY_REGISTERED)
    if not transaction:
        raise InputError(
            "compose-hash is given without transaction-hash",
            hint="give it too, or rpc-url to look for the approval",
        )
    return Approval(given.compose_hash, transaction)


def _check(run: Run, target: Target, said: Precondition) -> Asked:
    """What the API asks to approve, after seeing that it is this app with these names."""
    compose_hash = _hex(said.compose_hash, "compose hash")
    key, here = target.key, _device_of(target)
    device_id = _hex(said.device_id, "device id") if said.device_id else here
    app_id = _hex(said.app_id, "app id", parse_app_id)
    if app_id != target.app_id:
        raise ProofError(
            f"Phala Cloud asks for an approval for the app {app_id}, not {target.app_id}",
            hint="approve nothing, and do not trust this API",
        )
    if not key.chain_id:
        raise ProofError(
            f"Phala Cloud asks for an approval on chain for {target.app_id}, which has no KMS there",
            hint="approve nothing, and ask Phala's support",
        )
    remarks = _recompute(run, target, key.chain_id, compose_hash)
    if device_id != here:
        where = here or "one that it does not name"
        remarks.append(f"Phala Cloud asks for the device {device_id}, but has the CVM on {where}.")
    today = _approvals(run, app_id, key.chain_id, compose_hash, device_id)
    return Asked(
        app_id,
        key.chain_id,
        compose_hash,
        device_id,
        hash_allowed=today.compose_hash if today else None,
        device_allowed=today.device if today else None,
        remarks=tuple(remarks),
    )


def _settle(run: Run, target: Target, asked: Asked) -> str:
    """Return the transaction hash to commit with. Each is output before it is sent."""
    from phala_secrets.chain import register

    if asked.approved:
        return register.ALREADY_REGISTERED
    if not (run.job.private_key and run.job.policy.rpc_url):
        raise ApprovalRequiredError(
            f"the names changed, so the owner of the app {asked.app_id} has to approve "
            f"{asked.missing} on chain {asked.chain_id} first",
            hint="approve it here: private-key and rpc-url, both; "
            "or elsewhere: prepare-only: true outputs all that it takes",
        )
    with run.approving:
        return _register(run, target, asked)


def _prepare(run: Run, target: Target, asked: Asked) -> Preparation:
    """The outputs of ``prepare-only``.

    The file for a Safe adds the device where ``allow-device`` names it, unless it is allowed already.
    """
    from phala_secrets.chain import handover, networks

    device = asked.device_id if asked.device_id in run.job.allow_device else None
    device = None if asked.device_allowed else device
    if asked.device_allowed is False and not device:
        run.runner.tell(
            Finding(
                f"the app may not run on the device {asked.device_id}, and allow-device does not name it",
                "what is prepared does not add it: until the owner does, the update will be refused",
            )
        )
    outputs = {
        "calldata": handover.calldata_add_compose_hash(asked.compose_hash),
        "safe-transaction": handover.safe_transaction(
            asked.chain_id, asked.app_id, compose_hash=asked.compose_hash, device=device
        ),
        "encrypted-env": target.sealed,
        "prepared-digest": _digest(target, target.plan.names, target.sealed, asked.compose_hash),
    }
    return Preparation(outputs, asked, device, networks.address_link(asked.chain_id, asked.app_id))


def _recompute(run: Run, target: Target, chain_id: int, compose_hash: str) -> list[str]:
    """ProofError unless it is the hash of today's app-compose with these names; what that rests on."""
    from phala_secrets.dstack.compose_hash import candidates, find_form

    known = run.job.prepared and run.job.prepared.compose_hash
    if known and known != compose_hash:
        raise ProofError(
            f"Phala Cloud asks to approve the compose hash {compose_hash}, but {known} was prepared",
            hint="the app has changed since: prepare it again",
        )
    if not known and run.job.compose_hash == compose_hash:
        return [f"The compose hash {compose_hash} is approved by name (compose-hash), not recomputed."]
    present = (target.cvm.compose_hash or "").lower().removeprefix("0x")
    content = target.compose.content if target.compose else {}
    form = find_form(content, present) if present else None
    if not form:
        raise ProofError(
            f"Phala Cloud asks to approve the compose hash {compose_hash}, which cannot be checked: "
            f"today's app-compose does not hash to today's compose hash {present[:80] or '(none)'!a}",
            hint=_APPROVE_NOTHING,
        )
    possible = candidates(content, target.plan.names, form)
    if compose_hash not in possible:
        expected = next(hash_ for hash_, order in possible.items() if order == "as sent")
        raise ProofError(
            f"Phala Cloud asks to approve the compose hash {compose_hash}, "
            f"but today's app-compose with these names has {expected}",
            hint=_APPROVE_NOTHING,
        )
    today = _approvals(run, target.app_id, chain_id, present)
    if today is None:
        return [f"That today's compose hash {present} is approved is Phala Cloud's word: rpc-url checks it."]
    if not today.compose_hash:
        raise ProofError(
            f"today's compose hash {present} is not approved on chain {chain_id}, so {compose_hash}, "
            "which Phala Cloud asks to approve, rests on nothing",
            hint=_APPROVE_NOTHING,
        )
    return []


def _approvals(
    run: Run, app_id: str, chain_id: int, compose_hash: str, device: str | None = None
) -> register.Approvals | None:
    """What the app's contract allows; None without an RPC to ask."""
    from phala_secrets.chain import register

    if not run.job.policy.rpc_url:
        return None
    return run.client.run(
        _over_rpc(
            run, register.approvals(chain_id=chain_id, app=app_id, compose_hash=compose_hash, device=device)
        )
    )


def _register(run: Run, target: Target, asked: Asked) -> str:
    from phala_secrets.chain import networks, owner, register

    key = run.job.private_key
    approving = register.register(
        owner.Sender(key.reveal() if key else ""),
        chain_id=asked.chain_id,
        app=asked.app_id,
        compose_hash=asked.compose_hash,
        device=asked.device_id,
        allow_device=run.job.allow_device,
        patience=run.job.wait_timeout,
    )
    registered = run.client.run(_over_rpc(run, approving, target))
    for sent in registered.sent:
        link = networks.transaction_link(asked.chain_id, sent.transaction_hash)
        run.runner.say(f"{sent.call} is confirmed: {link or f'transaction {sent.transaction_hash}'}")
    return registered.transaction_hash


def _over_rpc(run: Run, asked: Flow[T], target: Target | None = None) -> Flow[T]:
    """Send a chain's flow over rpc-url, which is given wherever this is called.

    A transaction is noted, and output, before it is sent.
    """
    url = run.job.policy.rpc_url or ""

    def change(step: Any) -> Any:
        if not isinstance(step, Pause):  # what sends a transaction is repeated by the flow alone
            return requests.rpc(url, step, repeatable=step.method != "eth_sendRawTransaction")
        if target and step.transaction not in ("", run.transaction):
            run.transaction = step.transaction
            run.output_of(target, {"transaction-hash": step.transaction})
        return step

    return mapped(asked, change)


def _digest(target: Target, names: Sequence[str], sealed: str, compose_hash: str) -> str:
    """The digest over all that an approval is for; the device is where the CVM is, both times."""
    from phala_secrets.chain import handover

    return handover.prepared_digest(
        app_id=target.app_id,
        cvm_id=target.id,
        chain_id=target.key.chain_id or 0,
        device_id=_device_of(target),
        public_key=target.key.public_key.hex(),
        env_keys=names,
        compose_hash=compose_hash,
        encrypted_env=sealed,
    )


def _check_digest(target: Target, prepared: Prepared) -> None:
    now = _digest(target, prepared.env_keys, prepared.encrypted_env, prepared.compose_hash or "")
    if now == prepared.digest:
        return
    hint = "app, CVM, chain, device, key, names, compose hash or ciphertext is another: prepare it again"
    if not _device_of(target):
        hint += " (Phala Cloud does not say which device the CVM is on now)"
    raise ProofError(f"prepared-digest is {prepared.digest}, but what is here has {now}", hint=hint)


def _device_of(target: Target) -> str | None:
    """Return the machine that the CVM is on: 32 bytes of hex, or None where the API does not say."""
    return next(iter(target.cvm.device_ids), None)


def _hex(text: str, what: str, parse: Callable[[str, str], str] = parse_hash) -> str:
    try:
        return parse(text, what)
    except InputError as error:
        raise ProofError(f"Phala Cloud's answer: {error.message}", hint="approve nothing") from None
