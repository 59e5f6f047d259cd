"""The job itself: from the sources to a CVM that runs with them.

Sources → CVMs → key and proof → plan → envelope → update → wait. Everything that can stop a run
does so before anything is sent. What is known is output as soon as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.cloud.trust import UNKNOWN_ROOT
from phala_secrets.dstack.compose_hash import ordered
from phala_secrets.dstack.encryption import seal
from phala_secrets.dstack.ids import bare
from phala_secrets.flow import together
from phala_secrets.inputs.sources import gather
from phala_secrets.run import approve, find, reports
from phala_secrets.run.plan import compare
from phala_secrets.run.refuse import refuse_removal, refuse_several
from phala_secrets.run.review import hold_to_limits, review, review_early
from phala_secrets.run.update import update_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from phala_secrets.run.context import Run


def inject(run: Run) -> None:
    """Do the whole job. Raise the error that ends it; the outputs have the rest."""
    run.runner.check()
    MODES[run.job.mode](run)


def verify(run: Run) -> None:
    """Prove the key, and where that is asked for attest the CVM."""
    _prove(run)
    if run.job.attest:
        from phala_secrets.run import attest

        attest.now(run)
    failed = [target.error for target in run.targets if target.error]
    _finish(run, "failed" if failed else "verified")
    if failed:
        raise failed[0]


def plan(run: Run) -> None:
    """Do everything but the update, and show what it would change, even where it would be refused."""
    _pass_attest_over(run)
    _collect(run)
    _prove(run)
    _compare(run)
    _finish(run, "planned")
    review(run)
    _refuse(run)


def encrypt(run: Run) -> None:
    """Prove the key and output the ciphertext."""
    _pass_attest_over(run)
    _collect(run)
    review_early(run)
    _prove(run)
    _compare(run)
    review(run)
    _refuse(run)
    _seal(run)
    first = run.targets[0]
    run.output("encrypted-env", first.sealed)
    if compose_hash := first.plan.compose_hash:
        digest = approve.digest_of(first, first.plan.names, first.sealed, compose_hash)
        run.output("prepared-digest", digest)
    _finish(run, "encrypted")


def update(run: Run) -> None:
    """Put the secrets into every CVM, and wait until it runs with them."""
    _collect(run)
    review_early(run)
    _prove(run)
    _compare(run)
    review(run)
    _refuse(run)
    _seal(run)
    if run.job.attest:
        from phala_secrets.run import attest

        attest.before(run)
    update_all(run)


MODES: dict[str, Callable[[Run], None]] = {
    "update": update,
    "plan": plan,
    "encrypt": encrypt,
    "verify": verify,
}


# -- the steps -------------------------------------------------------------------------------------


def _collect(run: Run) -> None:
    """Read the sources, mask every value, and hold them to the limits of the guest."""
    job = run.job
    if job.prepared:
        hold_to_limits(run)
        return
    run.environment, findings = gather(
        job.sources, environ=run.environ, root=job.root, folder=job.folder, stdin=run.stdin
    )
    run.runner.secrets.spare([*(ref.text for ref in job.cvms), job.app, job.policy.app_id, job.policy.kms])
    run.runner.mask_variables({one.name: (one.value, one.given) for one in run.environment})
    for finding in findings:
        run.tell(finding)
    hold_to_limits(run)


def _pass_attest_over(run: Run) -> None:
    if run.job.attest:
        from phala_secrets.run import attest

        attest.passed_over(run)


def _prove(run: Run) -> None:
    """Find the CVMs and prove the key of each app, in as few round trips as that takes."""
    with run.runner.group("The key"):
        run.runner.progress("finding the CVM and its KMS")
        run.targets, run.contracts = run.client.run(find.find(run.job))
        first = run.targets[0]
        _spare(run)
        run.output("cvm-id", first.id)
        run.output("app-id", first.app_id)
        run.runner.progress("fetching and proving the key")
        run.client.run(
            together(find.prove(run.job, run.targets, run.contracts), find.describe(run.job, run.targets))
        )
        _spare_key(run)
        run.output("kms", first.key.kms)
        run.output("kms-signer", first.key.signer)
        run.output("trust", first.key.trust)
        run.output("public-key", first.key.public_key.hex())
        for key in run.keys.values():
            for finding in key.findings:
                run.tell(finding)
                if finding.message.startswith(UNKNOWN_ROOT):
                    run.output("warning", finding.message)
            run.runner.say(reports.proof_line(key))


def _spare(run: Run) -> None:
    """Have the names and ids that were looked up shown, even where a variable has the same value."""
    for one in run.targets:
        run.runner.secrets.spare((one.id, one.name, one.app_id, one.cvm.status, one.cvm.compose_hash))
        run.runner.secrets.spare((*one.cvm.device_ids, one.cvm.os_version, one.cvm.kms_address))


def _spare_key(run: Run) -> None:
    for key in run.keys.values():
        run.runner.secrets.spare((key.kms, key.signer, key.public_key.hex(), key.kms_contract))


def _compare(run: Run) -> None:
    """Compare the names that each CVM has today with the new ones."""
    job = run.job
    for target in run.targets:
        today = (target.compose.allowed_envs or ()) if target.compose else ()
        names = job.prepared.env_keys if job.prepared else ordered(today, run.environment.names)
        target.plan = compare(today, names, bare(target.cvm.compose_hash), target.compose)
    first = run.targets[0].plan
    run.output("env-keys", list(first.names))
    if job.mode in ("update", "plan"):
        run.output("keys-added", list(first.added))
        run.output("keys-removed", list(first.removed))
        run.output("allowed-envs-changed", first.changes_names)
        run.output("previous-compose-hash", first.previous_hash)
        run.output("compose-hash", first.compose_hash)


def _refuse(run: Run) -> None:
    """Raise what can be known to stand in the way before anything is sent."""
    if not run.job.allow_removal:
        refuse_removal(run.targets)
    refuse_several(run)
    for target in run.targets:
        target.approval = approve.prepared(run, target)
        if target.approval:
            run.output_of(target, target.approval.outputs)


def _seal(run: Run) -> None:
    """Encrypt to the key of each app, or take the ciphertext that was prepared."""
    prepared = run.job.prepared
    pairs = list(run.environment.as_dict().items())
    sealed = {
        app_id: prepared.encrypted_env if prepared else seal(pairs, key.public_key).hex()
        for app_id, key in run.keys.items()
    }
    for target in run.targets:
        target.sealed = sealed[target.app_id]


def _finish(run: Run, status: str) -> None:
    run.output("status", status)
    run.runner.report(reports.told(run, status))
