"""One run: its job, what it works with, and one record for each CVM."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from phala_secrets.dstack.environment import Environment
from phala_secrets.dstack.ids import bare
from phala_secrets.errors import CancelledError, Finding, InputError, PhalaSecretsError
from phala_secrets.run.looks import Looks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from phala_secrets.cloud.driver import Driver
    from phala_secrets.cloud.ids import CvmRef
    from phala_secrets.cloud.records import Compose, Contract, Cvm
    from phala_secrets.cloud.trust import ProvenKey
    from phala_secrets.dstack.attestation import Attestation
    from phala_secrets.inputs.job import Job
    from phala_secrets.run.plan import Change, Plan
    from phala_secrets.runners.base import Runner
    from phala_secrets.runners.files import Value
    from phala_secrets.runners.report import Report


class Approval(NamedTuple):
    """What an update with new names is committed with: the compose hash (hex), and its transaction.

    The latter with ``0x``, or ``already-registered``.
    """

    compose_hash: str
    transaction_hash: str

    @property
    def made_before(self) -> bool:
        """Whether the approval is an older one, whose transaction is not known here."""
        return self.transaction_hash == "already-registered"

    @property
    def outputs(self) -> dict[str, str]:
        """Both, as outputs."""
        return {"compose-hash": self.compose_hash, "transaction-hash": self.transaction_hash}


@dataclass(slots=True, repr=False, eq=False)
class Target:
    """One CVM of a run: what the API says of it, its key, its plan, and what became of it.

    ``named`` is whether only a name (or the CVM's own id) says which app it is of, so that the API
    picked the app; ``ref`` is how the user named the CVM, None where ``app`` did. ``leads`` is whether
    the run's outputs are about this one. ``compose`` is today's app-compose, with the compose file of
    ``change`` in it where one is deployed. ``asked`` is whether the service has the update, and waits for
    its approval.
    """

    cvm: Cvm
    app_id: str
    named: bool
    ref: CvmRef | None = None
    leads: bool = False
    compose: Compose | None = None
    change: Change | None = None
    asked: bool = False
    key: ProvenKey = field(init=False)
    plan: Plan = field(init=False)
    sealed: str = ""
    approval: Approval | None = None
    stage: Literal["waiting", "sending", "accepted", "over"] = "waiting"
    status: str = "failed"
    shown: str = ""
    """The state that the CVM showed after its update, by the API's word; empty where nobody looked."""
    correlation_id: str = ""
    error: PhalaSecretsError | None = None
    approval_needed: bool | None = None
    """Whether its update needs an approval on chain, by the contract or the API; None where unknown."""
    old_report_data: frozenset[str] = frozenset()
    """Of each quote that there was before the update (hex)."""
    attestation: Attestation | None = None

    @property
    def id(self) -> str:
        return self.cvm.id

    @property
    def name(self) -> str:
        return self.cvm.name

    @property
    def outputs(self) -> dict[str, str]:
        """What the API says of it today, as outputs. Every mode that finds CVMs writes them."""
        return {"cvm-id": self.id, "app-id": self.app_id, "compose-hash": bare(self.cvm.compose_hash)}

    @property
    def expected_hash(self) -> str:
        """The compose hash that it is to have, or nothing if unknown."""
        return self.approval.compose_hash if self.approval else self.plan.compose_hash

    @property
    def exit_code(self) -> int:
        """That of its error, or 0."""
        return self.error.exit_code if self.error else 0

    @property
    def progress(self) -> str:
        """How far it has got, or nothing where nothing was sent for it."""
        operation = f" ({self.correlation_id})" if self.correlation_id else ""
        if self.correlation_id or self.stage in ("accepted", "over"):
            return f"the update of {self.name} was accepted{operation}"
        return f"the update of {self.name} may have been accepted" if self.stage == "sending" else ""

    @property
    def result_code(self) -> int | None:
        """The exit code of its row among others: None where it was not reached."""
        if self.status == "interrupted":
            return CancelledError.exit_code if self.progress else None
        return None if self._unreached else self.exit_code

    @property
    def remark(self) -> str:
        """Why it is not updated, or nothing."""
        if self.error:
            return self.error.marked
        if self.status == "interrupted" and self.progress:
            return self.progress
        return "not reached" if self._unreached else ""

    @property
    def _unreached(self) -> bool:
        ended = self.status in ("failed", "interrupted")
        return self.error is None and ended and self.stage == "waiting"

    def interrupt(self) -> None:
        """Note that the run was cut short, unless this CVM was done with."""
        if self.stage != "over" and not self.error:
            self.status = "interrupted"

    def as_output(self, clean: Callable[[str], str]) -> dict[str, Any]:
        """Return its row of the output ``results``; ``clean`` takes secrets out of untrusted text.

        Until 1.0 each name is there with ``_`` for ``-``, too, as the JSON of all other outputs has it.
        """
        row = {
            "cvm-id": self.id,
            "name": self.name,
            "status": self.status,
            "correlation-id": self.correlation_id,
            "exit-code": self.result_code,
            "error": clean(self.remark),
        }
        return row | {name.replace("-", "_"): value for name, value in row.items()}


@dataclass(slots=True, repr=False, eq=False)
class Run:
    """One run of a job, handed to the function of its mode."""

    job: Job
    client: Driver
    runner: Runner
    environ: Mapping[str, str]
    stdin: Callable[[], bytes] | None = None
    environment: Environment = field(default_factory=Environment)
    targets: list[Target] = field(default_factory=list)
    contracts: tuple[Contract, ...] = ()
    transaction: str = ""
    """The newest one that was signed here (``0x``): known before it is sent."""
    told: set[Finding] = field(default_factory=set)
    approving: threading.Lock = field(default_factory=threading.Lock)
    looks: Looks = field(default_factory=Looks)
    explained: bool = False
    """Whether a report has the error that ends the run."""

    @property
    def sent(self) -> bool:
        """Whether an update or a transaction may have been sent: from then on a run reports all it knows."""
        return bool(self.transaction) or any(target.stage != "waiting" for target in self.targets)

    @property
    def progress(self) -> str:
        """How far it has got, or nothing where nothing was sent."""
        known = [target.progress for target in self.targets if target.progress]
        if self.transaction:
            known.append(f"transaction {self.transaction} may have been sent")
        return "; ".join(known)

    @property
    def fleet(self) -> bool:
        """Whether it is about several CVMs."""
        return len(self.targets) > 1

    @property
    def whom(self) -> str:
        """The CVM that it is about, or how many of which app."""
        first, others = self.targets[0], len(self.targets) - 1
        if not others:
            return first.name
        apps = {target.app_id for target in self.targets}
        return f"{first.name} and {others} more" + (" of its app" if len(apps) == 1 else "")

    def headline(self, otherwise: str) -> str:
        """Return what names this run among others: the mode and the CVM."""
        return f"{self.job.mode} of {self.whom}" if self.targets else otherwise

    @property
    def full(self) -> bool:
        """Whether ids and hashes are shown whole."""
        return self.job.full

    def place(self, target: Target) -> str:
        """Return which of a fleet a CVM is, and its name: ``[2/5] web-2``."""
        number = (
            f"[{[one.id for one in self.targets].index(target.id) + 1}/{len(self.targets)}] "
            if self.fleet
            else ""
        )
        return f"{number}{target.name}"

    def dashboard(self, target: Target) -> str:
        """Return the page of a CVM in the dashboard, or nothing where there is none."""
        uuid = (target.cvm.vm_uuid or "").replace("-", "").lower()
        if not (self.job.dashboard and re.fullmatch("[0-9a-f]{32}", uuid)):
            return ""
        return f"{self.job.dashboard}/dashboard/cvms/{uuid}"

    def report(self, report: Report, error: PhalaSecretsError | None = None) -> None:
        """Say what the run came to, and what ends it, if that is an error."""
        if error:
            from phala_secrets.run import guide

            report.page = guide.page(error)
            report.problem = (self.runner.message_of(error), self.runner.spoken(error.marked_hint))
            report.findings = error.findings
            self.explained = True
        self.runner.report(report)

    def in_fleet(self, target: Target) -> str:
        """Return what names a CVM in a fleet, or nothing outside a fleet."""
        return f"{target.name} {target.id}" if self.fleet else ""

    @property
    def keys(self) -> dict[str, ProvenKey]:
        """The proven keys, by app id."""
        return {target.app_id: target.key for target in self.targets if hasattr(target, "key")}

    def tell(self, finding: Finding) -> None:
        """Report a finding, once."""
        if finding not in self.told:
            self.told.add(finding)
            self.runner.tell(finding)

    def output(self, name: str, value: Value) -> None:
        """Write one output at once. Once something may have been sent, a failure only warns."""
        try:
            self.runner.output(name, value)
        except InputError as error:
            if not self.sent:
                raise
            self.runner.tell(Finding(f"{error.marked}; the output {name} is missing there", error.hint))

    def output_of(self, target: Target, outputs: Mapping[str, Value]) -> None:
        """Write outputs that are about one CVM, if that is the first."""
        if target.leads:
            for name, value in outputs.items():
                self.output(name, value)

    def interrupted(self) -> CancelledError:
        """Return what an interrupt means for each of the CVMs at this moment."""
        sending = [target for target in self.targets if target.stage == "sending"]
        accepted = [target for target in self.targets if target.correlation_id or target.stage == "accepted"]
        known, hints = [], []
        if sending:
            known.append(f"the update may have been accepted for {_named(sending)}")
            hints.append("check the CVM's operations before you run again")
        used = [target.approval.transaction_hash for target in (*sending, *accepted) if target.approval]
        if self.transaction and self.transaction not in used:
            known.append(f"transaction {self.transaction} for the approval may have been sent")
            hints.append("run again when it is confirmed: the run does not repeat an approval")
        if accepted:
            known.append(f"the update was accepted for {_named(accepted)}")
            hints.append("follow it with `mode: wait`: the update goes on without this run")
        if self.job.mode == "wait":
            return CancelledError(
                "interrupted: the operation goes on without this run",
                hint="follow it again with `mode: wait`",
            )
        if not known:
            return CancelledError("interrupted before anything was sent", hint="run again")
        return CancelledError(f"interrupted: {'; '.join(known)}", hint="; ".join(hints))


def _named(targets: Sequence[Target]) -> str:
    return ", ".join(
        f"{target.name} ({target.correlation_id})" if target.correlation_id else target.name
        for target in targets
    )
