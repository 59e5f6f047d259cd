"""The job itself: from the sources to a CVM that runs with them.

Sources → CVMs → key and proof → plan → envelope → update → wait. Everything that can
stop a run does so before anything is sent; what is known is output as soon as it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from phala_secrets import answers, guest, plan, summary, targets
from phala_secrets.answers import Accepted
from phala_secrets.approval import Approver
from phala_secrets.calls import together
from phala_secrets.envelope import seal
from phala_secrets.environment import Environment
from phala_secrets.errors import (
    ApprovalRefusedError,
    CancelledError,
    DeliveryError,
    Finding,
    InputError,
    PhalaSecretsError,
)
from phala_secrets.rollout import Row, deliver, each
from phala_secrets.sources import gather

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from phala_secrets.answers import Precondition
    from phala_secrets.client import Client
    from phala_secrets.job import Job
    from phala_secrets.runners import Runner
    from phala_secrets.targets import Found
    from phala_secrets.trust import ProvenKey


class Injection:
    """One run of a job, step by step; ``rows`` is what became of each CVM so far."""

    def __init__(
        self,
        job: Job,
        client: Client,
        runner: Runner,
        environ: Mapping[str, str],
        stdin: Callable[[], bytes] | None = None,
    ) -> None:
        self._job = job
        self._client = client
        self._runner = runner
        self._environ = environ
        self._stdin = stdin
        self._approver = Approver(job, client, runner)
        self.rows: list[Row] = []

    def run(self) -> None:
        """The whole job. Raises the error that ends it; the outputs have the rest."""
        self._runner.check()
        environment = self._collect()
        names = self._names(environment)
        with self._runner.group("The key"):
            found, keys = self._prove()
        if self._job.mode == "verify":
            self._finish("verified", found, keys, [])
            return
        plans = self._plan(found, names)
        if self._job.mode == "plan":
            self._finish("planned", found, keys, plans)
            self._refuse(environment, plans)
            return
        if self._job.mode == "update":
            plan.refuse_removal([] if self._job.allow_removal else plans)
        sealed = self._seal(environment, keys)
        if self._job.mode == "encrypt":
            self._runner.output("encrypted-env", next(iter(sealed.values())))
            self._finish("encrypted", found, keys, plans)
            return
        self._update(plans, keys, sealed)

    # -- the steps -------------------------------------------------------------------------------

    def _collect(self) -> Environment:
        """Reads the sources, masks every value, and checks what the guest would make of them."""
        job = self._job
        if job.prepared or job.mode == "verify":
            return Environment()
        environment, findings = gather(
            job.sources, environ=self._environ, root=job.root, folder=job.folder, stdin=self._stdin
        )
        self._runner.mask(environment.secrets())
        for finding in findings:
            self._runner.tell(finding)
        guest.check_limits(environment)
        if job.mode != "plan":
            self._review(environment)
        return environment

    def _review(self, environment: Environment) -> None:
        """What would not arrive as given stops the run, or is only told, as ``guest-check`` says."""
        findings = guest.review(environment) if self._job.guest_check != "off" else []
        wrong = [finding for finding in findings if finding.severity == "error"]
        if wrong and self._job.guest_check == "error":
            count = f"{len(wrong)} variables" if len(wrong) > 1 else "a variable"
            raise DeliveryError(
                f"the guest would not get {count} as given",
                hint="see each of them above; guest-check: warn sends them all the same",
                findings=findings,
            )
        for finding in [*findings, *guest.registry_hints(environment.names)]:
            self._runner.tell(
                replace(finding, severity="warning") if finding.severity == "error" else finding
            )

    def _names(self, environment: Environment) -> tuple[str, ...]:
        return self._job.prepared.env_keys if self._job.prepared else tuple(environment.names)

    def _prove(self) -> tuple[Found, dict[str, ProvenKey]]:
        """Finds the CVMs and proves the key of their app, in as few round trips as that takes."""
        self._runner.progress("finding the CVM and its KMS")
        found = self._client.run(targets.find(self._job))
        first = found.targets[0]
        self._runner.output("cvm-id", first.cvm.id)
        self._runner.output("app-id", first.app_id)
        self._runner.progress("fetching and proving the key")
        keys, described = self._client.run(
            together(targets.prove(self._job, found), targets.describe(self._job, found.targets))
        )
        key = keys[first.app_id]
        self._runner.output("kms", key.kms)
        self._runner.output("kms-signer", key.signer)
        self._runner.output("trust", key.trust)
        self._runner.output("public-key", key.public_key.hex())
        for proven in keys.values():
            for finding in proven.findings:
                self._runner.tell(finding)
            self._runner.say(summary.proof_line(proven))
        return replace(found, targets=described), keys

    def _plan(self, found: Found, names: Sequence[str]) -> list[plan.Plan]:
        """Compares today's names with the new ones, and tells what the compose file says of them."""
        self._runner.output("env-keys", list(names))
        plans = [plan.compare(target, names) for target in found.targets]
        if self._job.mode in ("update", "plan"):
            self._runner.output("keys-added", list(plans[0].added))
            self._runner.output("keys-removed", list(plans[0].removed))
            self._runner.output("allowed-envs-changed", plans[0].changes_names)
        told: set[Finding] = set()
        for finding in (finding for each_plan in plans for finding in each_plan.findings):
            if finding not in told:
                self._runner.tell(finding)
                told.add(finding)
        return plans

    def _refuse(self, environment: Environment, plans: Sequence[plan.Plan]) -> None:
        """What ``update`` would have refused."""
        self._review(environment)
        plan.refuse_removal([] if self._job.allow_removal else plans)

    def _seal(self, environment: Environment, keys: Mapping[str, ProvenKey]) -> dict[str, str]:
        """The ciphertext (hex) for each app, by app id."""
        if self._job.prepared:
            return dict.fromkeys(keys, self._job.prepared.encrypted_env)
        pairs = [(variable.name, variable.value) for variable in environment]
        return {app_id: seal(pairs, key.public_key).hex() for app_id, key in keys.items()}

    def _update(
        self, plans: Sequence[plan.Plan], keys: Mapping[str, ProvenKey], sealed: Mapping[str, str]
    ) -> None:
        """Updates every CVM, waits for each, and says what became of them."""
        job = self._job
        self._refuse_several(plans, keys)
        self.rows = [Row(each_plan.target) for each_plan in plans]
        by_row = {id(row): each_plan for row, each_plan in zip(self.rows, plans, strict=True)}

        def work(row: Row) -> None:
            target = row.target
            try:
                self._update_one(row, by_row[id(row)], keys[target.app_id], sealed[target.app_id])
            except PhalaSecretsError:
                self._done(row, "failed")
                raise
            done = sum(each_row.stage == "over" for each_row in self.rows)
            self._done(row, f"{row.status} ({done} of {len(self.rows)})")

        try:
            with self._runner.group("The update"):
                each(self.rows, work, at_once=job.max_parallel, fail_fast=job.fail_fast)
        finally:
            self._tell_rows()
        self._look_for_newcomers(plans)
        self._close(plans, keys)

    def _refuse_several(self, plans: Sequence[plan.Plan], keys: Mapping[str, ProvenKey]) -> None:
        """A ciphertext is for one app's key, and what is prepared for one CVM, which its digest names."""
        job, count = self._job, len(plans)
        if job.prepared and len(keys) > 1:
            raise InputError(
                f"encrypted-env is for the key of one app, but these CVMs are of {len(keys)}",
                hint="give the CVMs of that app alone",
            )
        by_approval = job.prepare_only or (job.prepared and job.prepared.compose_hash)
        if count > 1 and by_approval and any(key.chain_id for key in keys.values()):
            raise InputError(
                f"an approval is prepared, and committed, for one CVM: {count} are given",
                hint="run once for each, as a matrix over the CVMs does",
            )

    def _update_one(self, row: Row, its_plan: plan.Plan, key: ProvenKey, sealed: str) -> None:
        """One CVM: the update, an approval if it takes one, and the wait."""
        client, target = self._client, row.target
        before = target.last_operation
        if row is not self.rows[0] or before is None:
            before = client.send(answers.newest_operation(target.cvm.id))
        approved = self._approver.check_prepared(target, key)
        if approved:
            row.approval = approved[1]
            self._output_of(row, {"compose-hash": approved[0], "transaction-hash": approved[1]})
        row.stage = "sending"
        result = deliver(client, self._runner, target, before, sealed, its_plan.names, approved)
        if not isinstance(result, Accepted):
            row.stage = "waiting"
            approved = self._approve(row, its_plan, key, sealed, result)
            if not approved:
                return
            row.approval = approved[1]
            before = client.send(answers.newest_operation(target.cvm.id))  # a confirmation takes its time
            row.stage = "sending"
            result = deliver(client, self._runner, target, before, sealed, its_plan.names, approved)
        if not isinstance(result, Accepted):
            raise ApprovalRefusedError(
                "Phala Cloud asks again for the approval that it has just been shown",
                status_code=465,
                hint="run again later: what is approved by then is not sent again",
            )
        self._accepted(row, result)
        if self._job.wait:
            self._wait(row)
        self._read_again(row, its_plan)
        row.stage = "over"

    def _accepted(self, row: Row, result: Accepted) -> None:
        row.stage, row.status, row.correlation_id = "accepted", "in_progress", result.correlation_id
        if row is self.rows[0]:
            self._runner.output("correlation-id", result.correlation_id)
            self._runner.output("status", "in_progress")
            if result.allowed_envs_changed is not None:
                self._runner.output("allowed-envs-changed", result.allowed_envs_changed)
        if len(self.rows) == 1 or not self._job.wait:
            self._runner.say(f"{row.target.cvm.name}: update accepted ({result.correlation_id})")

    def _wait(self, row: Row) -> None:
        from phala_secrets.wait import Wait

        name = row.target.cvm.name
        wait = Wait(
            self._client,
            row.target.cvm.id,
            row.correlation_id,
            self._job.wait_timeout,
            lambda what: self._runner.progress(f"{name}: {what}", cvm=self._in_fleet(row)),
        )
        try:
            wait.until_running()
        except PhalaSecretsError as error:
            error.message = f"{name}: the update was accepted ({row.correlation_id}), but {error.message}"
            raise
        row.status = "running"

    def _in_fleet(self, row: Row) -> str:
        """What tells a CVM from the others of a fleet; empty for one that is alone."""
        return f"{row.target.cvm.name} {row.target.cvm.id}" if len(self.rows) > 1 else ""

    def _done(self, row: Row, became: str) -> None:
        """The one line that each CVM of a fleet has in a log."""
        if cvm := self._in_fleet(row):
            self._runner.progress("", cvm=cvm)
            self._runner.say(f"{row.target.cvm.name}: {became}")

    def _read_again(self, row: Row, its_plan: plan.Plan) -> None:
        """Two runs at once against one CVM: the later one wins, and the earlier has to hear of it."""
        try:
            compose = self._client.send(answers.compose(row.target.cvm.id))
        except PhalaSecretsError:
            return
        now = compose.allowed_envs
        if now is not None and set(now) != set(its_plan.names):
            other = ", ".join(sorted(set(now) ^ set(its_plan.names))[:20])
            self._runner.tell(
                Finding(
                    f"{row.target.cvm.name}: the names are no longer those that were sent: {other}",
                    "another run has updated this CVM meanwhile: let one run at a time do so (concurrency:)",
                )
            )

    # -- an approval on chain --------------------------------------------------------------------

    def _approve(
        self, row: Row, its_plan: plan.Plan, key: ProvenKey, sealed: str, said: Precondition
    ) -> tuple[str, str] | None:
        """The compose hash and the transaction to commit with; None where it was prepared for others."""
        asked = self._approver.check(row.target, key, its_plan.names, said)
        self._output_of(row, asked.outputs)
        if not self._job.prepare_only:  # its report has them
            for remark in asked.remarks:
                self._runner.say(remark)
        transaction = self._approver.settle(
            asked, lambda signed: self._output_of(row, {"transaction-hash": signed})
        )
        if transaction:
            self._output_of(row, {"transaction-hash": transaction})
            return asked.compose_hash, transaction
        preparation = self._approver.prepare(row.target, key, its_plan.names, sealed, asked)
        row.status, row.stage = "precondition_required", "over"
        self._output_of(row, preparation.outputs)
        self._runner.report(summary.prepared(its_plan, key, preparation))
        return None

    def _output_of(self, row: Row, outputs: Mapping[str, str]) -> None:
        """Outputs are those of the first CVM."""
        if row is self.rows[0]:
            for name, value in outputs.items():
                self._runner.output(name, value)

    # -- the end ---------------------------------------------------------------------------------

    def _look_for_newcomers(self, plans: Sequence[plan.Plan]) -> None:
        """With ``app``: a replica that came meanwhile was not reached, and is named."""
        if not self._job.app:
            return
        known = {each_plan.target.cvm.id for each_plan in plans}
        try:
            now = self._client.send(answers.app_cvms(self._job.app))
        except PhalaSecretsError as error:  # what became of the others is still to be told
            self._runner.tell(
                Finding(f"replicas that came meanwhile could not be looked for: {error.message}", "run again")
            )
            return
        for cvm in now:
            if cvm.id not in known:
                self._runner.tell(
                    Finding(f"the CVM {cvm.name} ({cvm.id}) came meanwhile and was not updated", "run again")
                )

    def _tell_rows(self) -> None:
        self._runner.output("status", self.rows[0].status)
        if len(self.rows) > 1:
            self._runner.output("results", [row.as_output(self._runner.clean) for row in self.rows])

    def _close(self, plans: Sequence[plan.Plan], keys: Mapping[str, ProvenKey]) -> None:
        """Raises the worst error, after all the others were told; or reports what was done."""
        failed = [row for row in self.rows if row.error]
        prepared = [row.status for row in self.rows] == ["precondition_required"]
        if len(self.rows) > 1 or not (failed or prepared):
            self._runner.report(summary.updated(self.rows, plans, keys))
        if failed:
            worst = max(failed, key=lambda row: row.exit_code)
            for row in failed:
                if row is not worst and row.error:
                    self._runner.tell(
                        Finding(
                            f"{row.target.cvm.name}: {row.error.message}", row.error.hint, severity="error"
                        )
                    )
            if worst.error:
                raise worst.error

    def _finish(
        self, status: str, found: Found, keys: Mapping[str, ProvenKey], plans: Sequence[plan.Plan]
    ) -> None:
        self._runner.output("status", status)
        self._runner.report(summary.told(status, found.targets, plans, keys))

    def interrupted(self) -> CancelledError:
        """What an interrupt means for the CVMs at this moment."""
        accepted = [row for row in self.rows if row.stage == "accepted"]
        sending = [row for row in self.rows if row.stage == "sending"]
        if sending:
            return CancelledError(
                f"interrupted while updating {_named(sending)}: it may have been accepted",
                hint="look at the CVM's operations before running again",
            )
        if self._approver.transaction and not accepted:
            return CancelledError(
                f"interrupted: transaction {self._approver.transaction} for the approval may have been sent",
                hint="run again when it is confirmed: what is approved by then is not sent again",
            )
        if accepted:
            return CancelledError(
                f"interrupted: the update had been accepted for {_named(accepted)}",
                hint="it goes on without this run",
            )
        if any(row.stage == "over" for row in self.rows):
            return CancelledError("interrupted after the update", hint="some CVMs may not have been reached")
        return CancelledError("interrupted before anything was sent", hint="run again")


def _named(rows: Sequence[Row]) -> str:
    return ", ".join(
        f"{row.target.cvm.name}{f' ({row.correlation_id})' if row.correlation_id else ''}" for row in rows
    )
