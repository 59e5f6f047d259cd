"""The job itself: from the sources to a CVM that runs with them.

Sources → CVMs → key and proof → plan → envelope → update → wait. Everything that can stop a run
does so before anything is sent. What is known is output as soon as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.inputs.sources import gather
from phala_secrets.run import approve, compose, find, prepare, reports
from phala_secrets.run.refuse import refuse_removal, refuse_several, refuse_start, warn_of_stopped
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
    """Prove the key, and no more."""
    _prove(run)
    _finish(run, "verified")


def plan(run: Run) -> None:
    """Do everything but the update, and show what it would change, even where it would be refused."""
    refuse_start(run)
    _collect(run)
    _prove(run)
    prepare.plan(run, run.targets)
    _finish(run, "planned")
    warn_of_stopped(run, run.targets)
    review(run, run.targets)
    _refuse(run)


def encrypt(run: Run) -> None:
    """Prove the key and output the ciphertext."""
    _collect(run)
    review_early(run)
    _prove(run)
    prepare.plan(run, run.targets)
    review(run, run.targets)
    _refuse(run)
    prepare.encrypt(run, run.targets)
    first = run.targets[0]
    run.output("encrypted-env", first.sealed)
    if compose_hash := first.plan.compose_hash:
        digest = approve.digest_of(first, first.plan.names, first.sealed, compose_hash)
        run.output("prepared-digest", digest)
    _finish(run, "encrypted")


def update(run: Run) -> None:
    """Put the secrets into every CVM, and wait until it runs with them."""
    refuse_start(run)
    _collect(run)
    review_early(run)
    _prove(run)
    prepare.plan(run, run.targets)
    warn_of_stopped(run, run.targets)
    review(run, run.targets)
    _refuse(run)
    prepare.encrypt(run, run.targets)
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
    if job.prepared or (job.deploy and job.deploy.keeps_secrets):
        hold_to_limits(run)
        compose.check(run)
        return
    run.environment, findings = gather(
        job.sources, environ=run.environ, root=job.root, folder=job.folder, stdin=run.stdin
    )
    run.runner.secrets.spare([*(ref.text for ref in job.cvms), job.app, job.policy.app_id, job.policy.kms])
    run.runner.mask_variables({one.name: (one.value, one.given) for one in run.environment})
    for finding in findings:
        run.tell(finding)
    hold_to_limits(run)
    compose.check(run)


def _prove(run: Run) -> None:
    """Find the CVMs and prove the key of each app."""
    with run.runner.group("The key"):
        run.runner.progress("finding the CVM and its KMS")
        run.targets, run.contracts = run.client.run(find.find(run.job))
        first = run.targets[0]
        _spare(run)
        run.output("cvm-id", first.id)
        run.output("app-id", first.app_id)
        run.runner.progress("fetching and proving the key")
        prepare.prove(run, run.targets, run.contracts)


def _spare(run: Run) -> None:
    """Have the names and ids that were looked up shown, even where a variable has the same value."""
    for one in run.targets:
        run.runner.secrets.spare((one.id, one.name, one.app_id, one.cvm.status, one.cvm.compose_hash))
        run.runner.secrets.spare((*one.cvm.device_ids, one.cvm.os_version, one.cvm.kms_address))


def _refuse(run: Run) -> None:
    """Raise what can be known to stand in the way before anything is sent."""
    if not run.job.allow_removal:
        refuse_removal(run.targets)
    refuse_several(run)
    for target in run.targets:
        target.approval = approve.prepared(run, target)
        if target.approval:
            run.output_of(target, target.approval.outputs)


def _finish(run: Run, status: str) -> None:
    run.output("status", status)
    run.runner.report(reports.told(run, status))
