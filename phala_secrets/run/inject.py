"""The job itself: from the sources to a CVM that runs with them.

Sources → CVMs → key and proof → plan → envelope → update → wait. Everything that can
stop a run does so before anything is sent; what is known is output as soon as it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from phala_secrets.cloud.call import together
from phala_secrets.dstack import guest_check, pre_launch
from phala_secrets.dstack.encryption import seal
from phala_secrets.dstack.environment import Environment
from phala_secrets.errors import CancelledError, DeliveryError, Finding
from phala_secrets.inputs.sources import gather
from phala_secrets.run import find, reports
from phala_secrets.run.plan import Plan, compare
from phala_secrets.run.update import Update

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from phala_secrets.cloud.client import Client
    from phala_secrets.cloud.trust import ProvenKey
    from phala_secrets.inputs.job import Job
    from phala_secrets.run.find import Found
    from phala_secrets.runners.base import Runner


class Injection:
    """One run of a job, step by step."""

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
        self._update: Update | None = None

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
        self._update = Update(self._job, self._client, self._runner, plans, keys)
        if self._job.mode == "plan":
            self._finish("planned", found, keys, plans)
            self._review(environment)
        self._review_apps(environment, plans)
        self._update.refuse()
        if self._job.mode == "plan":
            return
        sealed = self._seal(environment, keys)
        if self._job.mode == "encrypt":
            self._runner.output("encrypted-env", next(iter(sealed.values())))
            self._finish("encrypted", found, keys, plans)
            return
        self._update.run(sealed)

    # -- the steps -------------------------------------------------------------------------------

    def _collect(self) -> Environment:
        """Reads the sources, masks every value, and checks what the guest would make of them."""
        job = self._job
        if job.prepared:
            guest_check.check_sealed(job.prepared.encrypted_env)
        if job.prepared or job.mode == "verify":
            return Environment()
        environment, findings = gather(
            job.sources, environ=self._environ, root=job.root, folder=job.folder, stdin=self._stdin
        )
        self._runner.mask(environment.secrets())
        for finding in findings:
            self._runner.tell(finding)
        guest_check.check_limits(environment)
        if job.mode != "plan":
            self._review(environment)
        return environment

    def _review(self, environment: Environment) -> None:
        """What would not arrive as given stops the run, or is only told, as ``guest-check`` says."""
        findings = guest_check.review(environment) if self._job.guest_check != "off" else []
        self._judge(findings, "the guest would not get {} as given")
        for finding in guest_check.registry_hints(environment.names):
            self._runner.tell(finding)

    def _review_apps(self, environment: Environment, plans: Sequence[Plan]) -> None:
        """The same of what an app does not start without, or Phala's pre-launch script would make of it."""
        findings = [finding for plan in plans for finding in plan.findings if finding.severity == "error"]
        for plan in plans:
            if plan.target.compose:
                findings += pre_launch.review(plan.target.compose.content, environment)
        self._judge(list(dict.fromkeys(findings)), "the app would not start with {} as given")

    def _judge(self, findings: Sequence[Finding], problem: str) -> None:
        wrong = [finding for finding in findings if finding.severity == "error"]
        if wrong and self._job.guest_check == "error":
            raise DeliveryError(
                problem.format(f"{len(wrong)} variables" if len(wrong) > 1 else "a variable"),
                hint="see each of them above; guest-check: warn sends them all the same",
                findings=findings,
            )
        for finding in findings:
            self._runner.tell(
                replace(finding, severity="warning") if finding.severity == "error" else finding
            )

    def _names(self, environment: Environment) -> tuple[str, ...]:
        return self._job.prepared.env_keys if self._job.prepared else tuple(environment.names)

    def _prove(self) -> tuple[Found, dict[str, ProvenKey]]:
        """Finds the CVMs and proves the key of their app, in as few round trips as that takes."""
        self._runner.progress("finding the CVM and its KMS")
        found = self._client.run(find.find(self._job))
        first = found.targets[0]
        self._runner.output("cvm-id", first.cvm.id)
        self._runner.output("app-id", first.app_id)
        self._runner.progress("fetching and proving the key")
        keys, described = self._client.run(
            together(find.prove(self._job, found), find.describe(self._job, found.targets))
        )
        key = keys[first.app_id]
        self._runner.output("kms", key.kms)
        self._runner.output("kms-signer", key.signer)
        self._runner.output("trust", key.trust)
        self._runner.output("public-key", key.public_key.hex())
        for proven in keys.values():
            for finding in proven.findings:
                self._runner.tell(finding)
            self._runner.say(reports.proof_line(proven))
        return replace(found, targets=described), keys

    def _plan(self, found: Found, names: Sequence[str]) -> list[Plan]:
        """Compares today's names with the new ones, and tells what the compose file says of them."""
        self._runner.output("env-keys", list(names))
        plans = [compare(target, names) for target in found.targets]
        if self._job.mode in ("update", "plan"):
            self._runner.output("keys-added", list(plans[0].added))
            self._runner.output("keys-removed", list(plans[0].removed))
            self._runner.output("allowed-envs-changed", plans[0].changes_names)
        told: set[Finding] = set()
        for finding in (finding for plan in plans for finding in plan.findings):
            if finding.severity != "error" and finding not in told:
                self._runner.tell(finding)
                told.add(finding)
        return plans

    def _seal(self, environment: Environment, keys: Mapping[str, ProvenKey]) -> dict[str, str]:
        """The ciphertext (hex) for each app, by app id."""
        if self._job.prepared:
            return dict.fromkeys(keys, self._job.prepared.encrypted_env)
        pairs = [(variable.name, variable.value) for variable in environment]
        return {app_id: seal(pairs, key.public_key).hex() for app_id, key in keys.items()}

    def _finish(
        self, status: str, found: Found, keys: Mapping[str, ProvenKey], plans: Sequence[Plan]
    ) -> None:
        self._runner.output("status", status)
        self._runner.report(reports.told(status, found.targets, plans, keys))

    def interrupted(self) -> CancelledError:
        """What an interrupt means for the CVMs at this moment."""
        if self._update:
            return self._update.interrupted()
        return CancelledError("interrupted before anything was sent", hint="run again")
