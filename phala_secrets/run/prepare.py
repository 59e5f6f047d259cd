"""The steps between the sources and the update, for all CVMs of a run, or once more for one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.cloud.trust import UNKNOWN_ROOT
from phala_secrets.dstack.compose_hash import ordered
from phala_secrets.dstack.encryption import seal
from phala_secrets.dstack.ids import bare
from phala_secrets.errors import ProofError
from phala_secrets.flow import together
from phala_secrets.run import approve, compose, find, reports
from phala_secrets.run.plan import compare
from phala_secrets.run.refuse import refuse_new_removal, refuse_removal
from phala_secrets.run.review import review

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phala_secrets.cloud.records import Contract
    from phala_secrets.cloud.trust import ProvenKey
    from phala_secrets.inputs.job import Prepared
    from phala_secrets.run.context import Run, Target
    from phala_secrets.run.plan import Plan


def spare(run: Run, targets: Sequence[Target]) -> None:
    """Let names and ids from the API be shown, even if a variable has the same value."""
    for one in targets:
        run.runner.secrets.spare((one.id, one.name, one.app_id, one.cvm.status, one.cvm.compose_hash))
        run.runner.secrets.spare((*one.cvm.device_ids, one.cvm.os_version, one.cvm.kms_address))


def prove(run: Run, targets: Sequence[Target], contracts: Sequence[Contract]) -> None:
    """Prove the key of each app, and look up what each CVM has today, in as few round trips as that takes."""
    known = {target.app_id: target.key for target in targets if hasattr(target, "key")}
    run.client.run(together(find.prove(run.job, targets, contracts), find.describe(run.job, targets)))
    compose.place(run, targets)
    for target in targets:
        key = target.key
        run.runner.secrets.spare((key.kms, key.signer, key.public_key.hex(), key.kms_contract))
        outputs = {"kms": key.kms, "kms-signer": key.signer, "trust": key.trust}
        run.output_of(target, {**outputs, "public-key": key.public_key.hex()})
        if link := run.dashboard(target):
            run.output_of(target, {"dashboard-url": link})
    for app_id, key in {target.app_id: target.key for target in targets}.items():
        for finding in key.findings:
            run.tell(finding)
            if finding.message.startswith(UNKNOWN_ROOT):
                run.output("warning", finding.message)
        before = known.get(app_id)
        if run.job.mode == "status":  # which has it in its table
            continue
        if before is None or before.public_key != key.public_key or before.signer != key.signer:
            run.runner.say(reports.proof_line(run, app_id, key))


def plan(run: Run, targets: Sequence[Target]) -> None:
    """Compare the names that each CVM has today with the new ones."""
    job = run.job
    for target in targets:
        today = (target.compose.allowed_envs or ()) if target.compose else ()
        names = job.prepared.env_keys if job.prepared else ordered(today, run.environment.names)
        if target.change and target.change.keeps_secrets:
            names = today
        changes_file = target.change is not None and target.change.changes
        target.plan = compare(
            today, names, bare(target.cvm.compose_hash), target.compose, changes_file=changes_file
        )
        run.output_of(target, {"env-keys": list(target.plan.names)})
        if job.mode in ("update", "plan"):
            run.output_of(target, target.plan.outputs)


def encrypt(run: Run, targets: Sequence[Target]) -> None:
    """Encrypt to the key of each app, or take the ciphertext that was prepared."""
    prepared = run.job.prepared
    if run.job.deploy and run.job.deploy.keeps_secrets:
        return
    pairs = list(run.environment.as_dict().items())
    keys = {target.app_id: target.key for target in targets}
    sealed = {
        app_id: prepared.encrypted_env if prepared else seal(pairs, key.public_key).hex()
        for app_id, key in keys.items()
    }
    for target in targets:
        target.sealed = sealed[target.app_id]


def begin_again(run: Run, target: Target) -> None:
    """Prepare the update of one CVM from the start: another operation may have changed all of it.

    Raise ProofError where a ciphertext that was prepared no longer fits, DeliveryError where the update
    would drop a name that the first plan did not drop, or is another one than a person agreed to, and
    whatever the first time could raise.
    """
    prepared = run.job.prepared
    app_id, key, first, change = target.app_id, target.key, target.plan, target.change
    target.approval, target.asked = None, False
    contracts = run.client.run(find.find_again(run.job, target))
    spare(run, [target])
    run.output_of(target, target.outputs)
    prove(run, [target], contracts)
    plan(run, [target])
    if prepared and (target.app_id != app_id or not _fits(prepared, target, key, first)):
        raise ProofError(
            f"another operation changed {target.name!a}, so the ciphertext no longer fits it",
            hint="prepare it again",
        )
    if run.job.ask:
        from phala_secrets.run.confirm import changed

        now = (target.app_id, target.key.signer, target.plan, target.change)
        if now != (app_id, key.signer, first, change):
            raise changed(target)
    review(run, [target])
    refuse_new_removal(target, first.removed)
    if not run.job.allow_removal:
        refuse_removal([target])
    target.approval = approve.prepared(run, target)
    if target.approval:
        run.output_of(target, target.approval.outputs)
    encrypt(run, [target])


def _fits(prepared: Prepared, target: Target, key: ProvenKey, first: Plan) -> bool:
    """Return whether the key is still the one, and where a hash was approved, the app as well."""
    if target.key.public_key != key.public_key:
        return False
    now = target.plan
    same_app = (now.compose_hash or now.previous_hash) == (first.compose_hash or first.previous_hash)
    return same_app or not prepared.compose_hash
