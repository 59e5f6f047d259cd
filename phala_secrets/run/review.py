"""Check what the guest and the app would make of the variables. ``guest-check`` decides: stop or warn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.dstack import guest_check, pre_launch
from phala_secrets.dstack.compose_refs import missing_and_unused, mutable_images, references
from phala_secrets.dstack.generations import CERTAIN, generation_of, unknown_generation
from phala_secrets.errors import DeliveryError
from phala_secrets.run import compose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phala_secrets.errors import Finding
    from phala_secrets.run.context import Run, Target


def hold_to_limits(run: Run) -> None:
    """Raise DeliveryError beyond the limits of the guest, which hold whatever ``guest-check`` says."""
    if run.job.prepared:
        guest_check.check_sealed(run.job.prepared.encrypted_env)
    else:
        guest_check.check_limits(run.environment)


def review_early(run: Run) -> None:
    """Judge what no generation of the guest would take, before anything is asked of the API."""
    if run.job.guest_check != "off":
        _judge(run, guest_check.review(run.environment, CERTAIN))


def review(run: Run, targets: Sequence[Target]) -> None:
    """Judge by the generation of each guest, and by each app's compose file and pre-launch script."""
    findings: list[Finding] = []
    for version in dict.fromkeys(target.cvm.os_version for target in targets):
        if unknown := unknown_generation(version):
            run.tell(unknown)
        if run.job.guest_check != "off":
            findings += guest_check.review(run.environment, generation_of(version))
    for target in targets:
        compose.review(run, target)
        findings += _of_app(run, target)
    _judge(run, [*findings, *pre_launch.registry_hints(run.environment.names)])


def _of_app(run: Run, target: Target) -> list[Finding]:
    if not target.compose:
        return []
    content, names = target.compose.content, target.plan.names
    refs = references(content)
    empty = [name for name, value in run.environment.as_dict().items() if not value]
    own = [] if target.change else [*missing_and_unused(refs, names, empty), *mutable_images(refs)]
    unasked = pre_launch.root_access(target.compose.allowed_envs or (), names)
    return [
        *pre_launch.review(content, run.environment),
        *own,
        *([unasked] if unasked else []),
    ]


def _judge(run: Run, findings: Sequence[Finding]) -> None:
    wrong = list(dict.fromkeys(finding for finding in findings if finding.severity == "error"))
    if wrong and run.job.guest_check == "error":
        count = f"{len(wrong)} variables" if len(wrong) > 1 else "a variable"
        raise DeliveryError(
            f"{count} would not reach the guest as written",
            hint="follow the hint of each variable, or set guest-check: warn to send them anyway",
            findings=list(dict.fromkeys(findings)),
        )
    for finding in findings:
        run.tell(finding._replace(severity="warning") if finding.severity == "error" else finding)
