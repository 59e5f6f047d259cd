"""The job itself: from the sources to a CVM that runs with them.

Sources → CVMs → key and proof → plan → envelope → update → wait. Everything that can stop a run
does so before anything is sent. What is known is output as soon as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets import __version__
from phala_secrets.inputs.sources import gather
from phala_secrets.run import approve, compose, find, fleet, prepare, reports
from phala_secrets.run.refuse import (
    refuse_removal,
    refuse_several,
    refuse_start,
    warn_of_stopped,
    warn_of_workspace,
)
from phala_secrets.run.review import hold_to_limits, review, review_early
from phala_secrets.run.update import update_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from phala_secrets.errors import PhalaSecretsError
    from phala_secrets.run.context import Run


def inject(run: Run) -> None:
    """Do the whole job. Raise the error that ends it; the outputs have the rest."""
    run.runner.check()
    if run.job.app or len(run.job.cvms) > 1:
        fleet.keep_memory_flat()
    MODES[run.job.mode](run)


def verify(run: Run) -> None:
    """Prove the key, and attest the CVM if asked to."""
    _prove(run)
    if run.job.attest:
        from phala_secrets.run import attest

        attest.now(run)
    failed = [target.error for target in run.targets if target.error]
    _finish(run, "failed" if failed else "verified", failed[0] if failed else None)
    if failed:
        raise failed[0]


def plan(run: Run) -> None:
    """Do everything but the update, and show what it would change, even where it would be refused."""
    from phala_secrets.run import foresee

    refuse_start(run)
    _pass_attest_over(run)
    _collect(run)
    _prove(run)
    prepare.plan(run, run.targets)
    refused = foresee.refusal(run, lambda: _look_ahead(run))
    run.output("status", "planned")
    run.report(foresee.planned(run, refused), refused)
    if refused:
        raise refused


def encrypt(run: Run) -> None:
    """Prove the key and output the ciphertext."""
    _pass_attest_over(run)
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
        run.output("compose-hash", compose_hash)
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
    if run.job.ask:
        from phala_secrets.run import confirm

        confirm.confirm(run)
    prepare.encrypt(run, run.targets)
    if run.job.attest:
        from phala_secrets.run import attest

        attest.check(run)
    update_all(run)


def status(run: Run) -> None:
    """Report what each CVM has today, and how each fact is known."""
    from phala_secrets.run import status as today

    _prove(run)
    if run.job.attest:
        from phala_secrets.run import attest

        attest.now(run)
    today.report(run)


def wait(run: Run) -> None:
    """Follow the operation in progress to its end."""
    from phala_secrets.run import attach

    attach.follow(run)


MODES: dict[str, Callable[[Run], None]] = {
    "update": update,
    "plan": plan,
    "encrypt": encrypt,
    "verify": verify,
    "status": status,
    "wait": wait,
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


def _pass_attest_over(run: Run) -> None:
    if run.job.attest:
        from phala_secrets.run import attest

        attest.passed_over(run)


def _prove(run: Run) -> None:
    """Find the CVMs and prove the key of each app."""
    with run.runner.group("The key"):
        run.runner.progress("finding the CVM and its KMS")
        run.targets, run.contracts = run.client.run(find.find(run.job))
        warn_of_workspace(run)
        first = run.targets[0]
        prepare.spare(run, run.targets)
        run.output("version", __version__)
        run.output_of(first, first.outputs)
        run.runner.progress("fetching and proving the key")
        prepare.prove(run, run.targets, run.contracts)


def _refuse(run: Run) -> None:
    """Raise any error that is known before anything is sent."""
    if not run.job.allow_removal:
        refuse_removal(run.targets)
    refuse_several(run)
    for target in run.targets:
        target.approval = approve.prepared(run, target)
        if target.approval:
            run.output_of(target, target.approval.outputs)


def _look_ahead(run: Run) -> None:
    warn_of_stopped(run, run.targets)
    review(run, run.targets)
    _refuse(run)


def _finish(run: Run, status: str, error: PhalaSecretsError | None = None) -> None:
    run.output("status", status)
    run.report(reports.proven(run, status), error)
