"""Carrying the plans out: each CVM's update, the approval if it takes one, the wait, and how it all ended."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from phala_secrets.cloud import records
from phala_secrets.cloud.records import Accepted, Precondition
from phala_secrets.errors import (
    ApprovalRefusedError,
    CancelledError,
    Finding,
    InputError,
    PhalaSecretsError,
    TransportError,
)
from phala_secrets.run import reports
from phala_secrets.run.approve import Approval, Approver
from phala_secrets.run.fleet import Row, deliver, each
from phala_secrets.run.plan import refuse_removal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from phala_secrets.cloud.client import Client
    from phala_secrets.cloud.trust import ProvenKey
    from phala_secrets.inputs.job import Job
    from phala_secrets.run.plan import Plan
    from phala_secrets.runners.base import Runner


_LAST_LOOK = 5.0
"""Seconds for reading the names again after a wait that has failed already."""


class Update:
    """The update of every CVM of a job; ``rows`` is what became of each so far."""

    def __init__(
        self, job: Job, client: Client, runner: Runner, plans: Sequence[Plan], keys: Mapping[str, ProvenKey]
    ) -> None:
        self._job = job
        self._client = client
        self._runner = runner
        self._keys = keys
        self._approver = Approver(job, client, runner)
        self._sealed: Mapping[str, str] = {}
        self.rows = [Row(plan, leads=number == 0) for number, plan in enumerate(plans)]

    def refuse(self) -> None:
        """Raises what can be known to stand in the way before anything is sent."""
        if not self._job.allow_removal:
            refuse_removal([row.plan for row in self.rows])
        self._refuse_several()
        for row in self.rows:
            row.approval = self._approver.prepared(row.target, self._key(row))
            if row.approval:
                self._output_of(row, row.approval.outputs)

    def run(self, sealed: Mapping[str, str]) -> None:
        """Updates every CVM with its app's ciphertext (hex, by app id), and waits; raises the worst error."""
        self._sealed = sealed
        try:
            with self._runner.group("The update"):
                each(self.rows, self._work, at_once=self._job.max_parallel, fail_fast=self._job.fail_fast)
        finally:
            self._runner.no_way_back()  # what became of them is told whatever happens
            self._runner.output("status", self.rows[0].status)
            if len(self.rows) > 1:
                self._runner.output("results", [row.as_output(self._runner.clean) for row in self.rows])
        self._look_for_newcomers()
        self._close()

    def _refuse_several(self) -> None:
        """A ciphertext is for one app's key, and what is prepared for one CVM, which its digest names."""
        job, apps = self._job, len(self._keys)
        if apps > 1 and (job.prepared or job.mode == "encrypt"):
            raise InputError(
                f"encrypted-env is for the key of one app, but these CVMs are of {apps}",
                hint="give the CVMs of one app alone",
            )
        by_approval = job.prepare_only or (job.prepared and job.prepared.compose_hash)
        if len(self.rows) > 1 and by_approval and any(key.chain_id for key in self._keys.values()):
            raise InputError(
                f"an approval is prepared, and committed, for one CVM: {len(self.rows)} are given",
                hint="run once for each, as a matrix over the CVMs does",
            )

    # -- one CVM ---------------------------------------------------------------------------------

    def _work(self, row: Row) -> None:
        """The update of one CVM; in a fleet it has a line of its own in a log."""
        try:
            self._update(row)
        except PhalaSecretsError:
            self._done(row, "failed")
            raise
        done = sum(other.stage == "over" for other in self.rows)
        self._done(row, f"{row.status} ({done} of {len(self.rows)})")

    def _update(self, row: Row) -> None:
        """Sends the update, gets an approval if it takes one, and waits."""
        result = self._send(row, row.target.last_operation)
        if isinstance(result, Precondition):
            row.stage = "waiting"
            row.approval = self._approve(row, result)
            if not row.approval:
                return
            result = self._send(row)  # a confirmation takes its time: there may be newer operations
        if isinstance(result, Precondition):
            raise ApprovalRefusedError(
                "Phala Cloud asks again for the approval that it has just been shown",
                status_code=465,
                hint="run again later: what is approved by then is not sent again",
            )
        self._accepted(row, result)
        try:
            if self._job.wait:
                self._wait(row)
        except PhalaSecretsError:
            self._tell_other_names(row, within=_LAST_LOOK)
            raise
        if (said := self._tell_other_names(row)) and result.inferred:
            raise TransportError(
                f"{said}; the operation {row.correlation_id} was another run's, or came before one",
                hint="run again, one run at a time (concurrency:)",
            )
        row.stage = "over"

    def _send(self, row: Row, last_operation: str | None = None) -> Accepted | Precondition:
        """One PATCH with a known outcome; the CVM's newest operation is asked for where it is not known."""
        if last_operation is None:
            last_operation = self._client.send(records.newest_operation(row.target.cvm.id))
        row.stage = "sending"
        sealed = self._sealed[row.target.app_id]
        return deliver(self._client, self._runner, row, last_operation, sealed)

    def _approve(self, row: Row, said: Precondition) -> Approval | None:
        """The approval to commit with; None where it was prepared for others to give."""
        key, sealed = self._key(row), self._sealed[row.target.app_id]
        got = self._approver.obtain(
            row.target, key, row.plan.names, sealed, said, lambda outputs: self._output_of(row, outputs)
        )
        if isinstance(got, Approval):
            return got
        row.status, row.stage = "precondition_required", "over"
        self._runner.report(reports.prepared(row.plan, key, got))
        return None

    def _accepted(self, row: Row, result: Accepted) -> None:
        row.stage, row.status, row.correlation_id = "accepted", "in_progress", result.correlation_id
        self._runner.no_way_back()
        if row.leads:
            self._runner.output("correlation-id", result.correlation_id)
            self._runner.output("status", "in_progress")
            if result.allowed_envs_changed is not None:
                self._runner.output("allowed-envs-changed", result.allowed_envs_changed)
        if len(self.rows) == 1 or not self._job.wait:
            self._runner.say(f"{row.target.cvm.name}: update accepted ({result.correlation_id})")

    def _wait(self, row: Row) -> None:
        from phala_secrets.run.wait import Wait

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

    def _tell_other_names(self, row: Row, within: float = math.inf) -> str:
        """Two runs at once against one CVM: the later one wins, and the earlier has to hear of it."""
        name = row.target.cvm.name
        try:
            now = self._client.send(records.compose(row.target.cvm.id), within=within).allowed_envs
        except PhalaSecretsError as error:
            self._runner.tell(
                Finding(
                    f"{name}: the names could not be read again: {error.message}", "compare them yourself"
                )
            )
            return ""
        if now is None or set(now) == set(row.plan.names):
            return ""
        other = ", ".join(sorted(set(now) ^ set(row.plan.names))[:20])
        said = f"{name}: the names are no longer those that were sent: {other}"
        hint = "another run has updated this CVM meanwhile: let one run at a time do so (concurrency:)"
        self._runner.tell(Finding(said, hint))
        return said

    def _output_of(self, row: Row, outputs: Mapping[str, str]) -> None:
        """Outputs are those of the first CVM."""
        if row.leads:
            for name, value in outputs.items():
                self._runner.output(name, value)

    def _key(self, row: Row) -> ProvenKey:
        return self._keys[row.target.app_id]

    # -- the end ---------------------------------------------------------------------------------

    def _look_for_newcomers(self) -> None:
        """With ``app``: a replica that came meanwhile was not reached, and is named."""
        if not self._job.app:
            return
        known = {row.target.cvm.id for row in self.rows}
        try:
            now = self._client.send(records.app_cvms(self._job.app))
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

    def _close(self) -> None:
        """Raises the worst error, after all the others were told; or reports what was done."""
        failed = [row for row in self.rows if row.error]
        prepared = [row.status for row in self.rows] == ["precondition_required"]
        if len(self.rows) > 1 or not (failed or prepared):
            self._runner.report(reports.updated(self.rows, self._keys))
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

    def interrupted(self) -> CancelledError:
        """What an interrupt means for each of the CVMs at this moment."""
        sending = [row for row in self.rows if row.stage == "sending"]
        accepted = [row for row in self.rows if row.correlation_id]
        signed = self._approver.transaction
        known, hints = [], []
        if sending:
            known.append(f"the update may have been accepted for {_named(sending)}")
            hints.append("look at the CVM's operations before running again")
        used = [row.approval.transaction_hash for row in (*sending, *accepted) if row.approval]
        if signed and signed not in used:
            known.append(f"transaction {signed} for the approval may have been sent")
            hints.append("run again when it is confirmed: what is approved by then is not sent again")
        if accepted:
            known.append(f"the update had been accepted for {_named(accepted)}")
            hints.append("what was accepted goes on without this run")
        if not known:
            return CancelledError("interrupted before anything was sent", hint="run again")
        return CancelledError(f"interrupted: {'; '.join(known)}", hint="; ".join(hints))


def _named(rows: Sequence[Row]) -> str:
    return ", ".join(
        f"{row.target.cvm.name}{f' ({row.correlation_id})' if row.correlation_id else ''}" for row in rows
    )
