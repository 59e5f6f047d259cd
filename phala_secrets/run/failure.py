"""The report of a failed run besides its error: the CVMs, what was sent, where to look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.errors import BootError, CancelledError, untrusted
from phala_secrets.run import guide, reports
from phala_secrets.runners.report import Report

if TYPE_CHECKING:
    from phala_secrets.errors import PhalaSecretsError
    from phala_secrets.run.context import Run

_LOGS = "To see the boot, read the CVM's serial console:"


def failed(run: Run, what: str, error: PhalaSecretsError) -> Report:
    """Return the report of a run that ended with this error; ``what`` names the run among others."""
    report = Report(headline(run.headline(what), error), good=False, page=guide.page(error))
    if run.job.mode == "update" and run.targets:
        report.glance = [_sent(run)]
    if not run.targets:
        return report
    failing = next((target for target in run.targets if target.error), run.targets[0])
    reports.add_outcome(run, report, failing)
    if isinstance(error, BootError) and failing.id not in error.hint:
        report.advice = [(_LOGS, f"phala logs --serial --cvm-id {failing.id}")]
    return report


def headline(what: str, error: PhalaSecretsError) -> str:
    """Return what was to be done to whom, how it ended, and the exit code."""
    ended = "was interrupted" if isinstance(error, CancelledError) else "failed"
    return f"{what[0].upper()}{what[1:]} {ended} (exit code {error.exit_code})"


def _sent(run: Run) -> str:
    """Return in a sentence what was sent, and what is as it was."""
    if not run.sent:
        return "Nothing was sent. " + ("All CVMs are" if run.fleet else "The CVM is") + " unchanged."
    reached = sum(bool(target.progress) for target in run.targets)
    if run.fleet and reached:
        left = len(run.targets) - reached
        unchanged = {0: "", 1: " The other one is unchanged."}.get(left, f" The other {left} are unchanged.")
        return f"The update was sent to {reached} of {len(run.targets)} CVMs.{unchanged}"
    target = run.targets[0]
    if target.correlation_id and target.shown:
        return f"What was sent replaced what {target.name} had. It now shows {untrusted(target.shown)}."
    return f"{run.progress[0].upper()}{run.progress[1:]}."
