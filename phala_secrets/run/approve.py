"""Approve a compose hash with the app owner's key, or prepare what others need to approve it.

The run approves nothing blindly: ``asked`` recomputes what the API asks for, and shows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from phala_secrets.errors import ApprovalRefusedError, ApprovalRequiredError, Finding, InputError, ProofError
from phala_secrets.run.asked import Asked, approvals, check, code, over_rpc, recompute, show
from phala_secrets.run.context import Approval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phala_secrets.cloud.records import Precondition
    from phala_secrets.inputs.job import Prepared
    from phala_secrets.run.context import Run, Target


T = TypeVar("T")


class Preparation(NamedTuple):
    """The outputs for an approval elsewhere, the devices that it adds, and the link to the contract."""

    outputs: dict[str, Any]
    asked: Asked
    devices: tuple[str, ...]
    explorer: str | None

    def __repr__(self) -> str:
        return f"Preparation({self.asked})"


def obtain(run: Run, target: Target, said: Precondition) -> Approval | Preparation:
    """Return the approval that the API asks for, or with ``prepare-only`` all that others need to give it.

    Output what is known at once, and each transaction before it is sent.

    Raises:
        ProofError: The API asks for another app or other names.
        ApprovalRequiredError: There is no way to approve here.
    """
    try:
        asked = check(run, target, said)
    except ProofError:
        run.output_of(target, {"compose-hash": ""})  # nobody is handed a hash that was refused
        raise
    run.output_of(target, asked.outputs)
    if run.job.prepare_only and not asked.approved:
        preparation = _prepare(run, target, asked)
        run.output_of(target, preparation.outputs)
        if run.job.prepared_file:
            _write(run, target, asked)
        return preparation
    for remark in asked.remarks:
        run.runner.say(remark)
    approval = Approval(asked.compose_hash, _settle(run, target, asked))
    run.output_of(target, approval.outputs)
    return approval


def prepared(run: Run, target: Target) -> Approval | None:
    """Return the approval that came with a prepared ciphertext, or None.

    Raises:
        ProofError: ``prepared-digest`` is of something else.
        ApprovalRequiredError: The contract does not allow it yet.
    """
    given, key = run.job.prepared, target.key
    if not given:
        return None
    if given.compose_hash and not key.chain_id:
        raise ProofError(
            f"compose-hash is set, but Phala Cloud says that {target.app_id} has no Onchain KMS",
            hint="leave compose-hash out if the app has a Cloud KMS, which needs no approval",
        )
    if given.digest:
        _check_digest(target, given)
    if not given.compose_hash or not key.chain_id:
        return None
    from phala_secrets.chain import register

    _check_file(target, given)
    if not given.digest:
        run.tell(
            Finding(
                "without prepared-digest, nothing shows that this is the approved ciphertext",
                "pass the digest from prepare-only: anyone can encrypt to the same key",
            )
        )
    devices = target.cvm.device_ids
    today = approvals(run, target.app_id, key.chain_id, given.compose_hash, devices)
    if today and not (today.compose_hash and devices and not today.missing_devices):
        what = f"compose hash {given.compose_hash}"
        if today.compose_hash:
            what = f"device {', '.join(today.missing_devices) or '(Phala Cloud names none)'}"
        raise ApprovalRequiredError(
            f"the {what} is not approved on chain {key.chain_id} yet",
            hint="run again with the same inputs when the owner's transaction is confirmed",
        )
    transaction = given.transaction_hash or (today and register.ALREADY_REGISTERED)
    if not transaction:
        raise InputError(
            "compose-hash is set without transaction-hash",
            hint="pass transaction-hash too, or rpc-url to look for the approval",
        )
    return Approval(given.compose_hash, transaction)


def again(run: Run, target: Target, refused: ApprovalRefusedError) -> Approval:
    """Approve again, because the service wants a transaction of its own.

    Check the same as before a first approval. Raise the refusal if there is no key to sign with.
    """
    approval, key = target.approval, target.key
    if not (run.job.private_key and run.job.policy.rpc_url and approval and key.chain_id):
        raise refused.saying(
            f"{refused.marked}; it wants the transaction of the earlier approval",
            hint="pass that transaction as transaction-hash, or set private-key and rpc-url to approve again",
        )
    recompute(run, target, key.chain_id, approval.compose_hash)
    asked = Asked(
        target.app_id, key.chain_id, approval.compose_hash, target.cvm.device_ids, False, (), code(target)
    )
    show(run, asked)
    with run.approving:
        transaction = _register(run, target, asked, once_more=True)
    run.output_of(target, {"transaction-hash": transaction})
    return Approval(approval.compose_hash, transaction)


def digest_of(target: Target, names: Sequence[str], sealed: str, compose_hash: str) -> str:
    """Return the digest over all that an approval is for, with the devices that the CVM may be on."""
    return _digest(target, names, sealed, compose_hash, target.cvm.device_ids)


# -- giving it, or preparing it --------------------------------------------------------------------


def _settle(run: Run, target: Target, asked: Asked) -> str:
    """Return the transaction hash to commit with. Each is output before it is sent."""
    from phala_secrets.chain import register

    if asked.approved:
        return register.ALREADY_REGISTERED
    if not (run.job.private_key and run.job.policy.rpc_url):
        raise ApprovalRequiredError(
            f"the compose hash changes, so the owner of the app {asked.app_id} has to approve "
            f"{asked.missing} on chain {asked.chain_id} first",
            hint="set private-key and rpc-url to approve it here, or prepare-only: true to do it elsewhere",
        )
    with run.approving:
        return _register(run, target, asked)


def _prepare(run: Run, target: Target, asked: Asked) -> Preparation:
    """Return the outputs of ``prepare-only``.

    The file for a Safe adds a device where ``allow-device`` names it, unless it is allowed already.
    """
    from phala_secrets.chain import calldata, networks

    unknown = asked.missing_devices is None
    open_ = asked.devices if unknown else asked.missing_devices or ()
    devices = tuple(device for device in open_ if device in run.job.allow_device)
    for device in () if unknown else open_:
        if device not in devices:
            run.tell(
                Finding(
                    f"the app may not run on the device {device}, and allow-device does not name it",
                    "name it in allow-device, or have the owner add it: until then the update is refused",
                )
            )
    outputs = {
        "calldata": calldata.add_compose_hash(asked.compose_hash),
        "safe-transaction": calldata.safe_transaction(
            asked.chain_id, asked.app_id, compose_hash=asked.compose_hash, devices=devices
        ),
        "encrypted-env": target.sealed,
        "prepared-digest": _digest(
            target, target.plan.names, target.sealed, asked.compose_hash, asked.devices
        ),
    }
    return Preparation(outputs, asked, devices, networks.address_link(asked.chain_id, asked.app_id))


def _register(run: Run, target: Target, asked: Asked, *, once_more: bool = False) -> str:
    from phala_secrets.chain import networks, owner, register

    key = run.job.private_key
    approving = register.register(
        owner.Sender(key.reveal() if key else ""),
        chain_id=asked.chain_id,
        app=asked.app_id,
        compose_hash=asked.compose_hash,
        devices=asked.devices,
        allow_device=run.job.allow_device,
        patience=run.job.wait_timeout,
        again=once_more,
    )
    registered = run.client.run(over_rpc(run, approving, target))
    for sent in registered.sent:
        link = networks.transaction_link(asked.chain_id, sent.transaction_hash)
        run.runner.say(f"{sent.call} is confirmed: {link or f'transaction {sent.transaction_hash}'}")
    return registered.transaction_hash


def _digest(
    target: Target, names: Sequence[str], sealed: str, compose_hash: str, devices: Sequence[str]
) -> str:
    from phala_secrets.chain import calldata

    return calldata.prepared_digest(
        app_id=target.app_id,
        cvm_id=target.id,
        chain_id=target.key.chain_id or 0,
        device_ids=devices,
        public_key=target.key.public_key.hex(),
        env_keys=names,
        compose_hash=compose_hash,
        encrypted_env=sealed,
        docker_compose_file=target.change.text if target.change else None,
    )


def _write(run: Run, target: Target, asked: Asked) -> None:
    """Write all that the second half needs into one file."""
    from phala_secrets.dstack.environment import Origin
    from phala_secrets.inputs.files import Files
    from phala_secrets.inputs.prepared_file import PreparedFile

    job, change = run.job, target.change
    prepared_file = PreparedFile(
        app_id=target.app_id,
        cvm_id=target.id,
        chain_id=asked.chain_id,
        device_ids=asked.devices,
        public_key=target.key.public_key.hex(),
        env_keys=target.plan.names,
        compose_hash=asked.compose_hash,
        encrypted_env=target.sealed,
        docker_compose_file=change.text if change else None,
    )
    origin = Origin("prepared-file", job.prepared_file)
    Files(job.folder, job.root).write(job.prepared_file, prepared_file.text(), origin)


def _check_file(target: Target, given: Prepared) -> None:
    """Raise ProofError where a prepared-file is for another CVM, or the app has changed since."""
    from phala_secrets.dstack.compose_hash import candidates

    if not given.whole:
        return
    of_file = (given.whole.app_id, given.whole.cvm_id, given.whole.chain_id, given.whole.public_key)
    if of_file != (target.app_id, target.id, target.key.chain_id, target.key.public_key.hex()):
        raise ProofError(
            f"prepared-file is for {given.whole.cvm_id} of the app {given.whole.app_id} and its key then, "
            f"not for {target.id} of {target.app_id} and its key now",
            hint="prepare it again for this CVM",
        )
    compose = target.compose
    if compose and compose.form:
        possible = candidates(compose.content, given.env_keys, compose.form)
        if given.compose_hash not in possible:
            raise ProofError(
                f"the prepared compose hash is {given.compose_hash}, but today's app-compose gives "
                f"{next(iter(possible))}",
                hint="prepare it again: the app has changed since",
            )


def _check_digest(target: Target, given: Prepared) -> None:
    compose_hash = given.compose_hash or target.plan.compose_hash
    now = digest_of(target, given.env_keys, given.encrypted_env, compose_hash)
    if now == given.digest:
        return
    hint = "prepare it again: app, CVM, chain, device, key, names, compose hash or ciphertext differs"
    if not target.cvm.device_ids:
        hint += " (Phala Cloud does not say which device the CVM is on)"
    raise ProofError(f"prepared-digest is {given.digest}, but this run has {now}", hint=hint)
