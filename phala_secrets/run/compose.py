"""A compose file to deploy with the secrets: check it, put it into the app-compose, send it, confirm it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from phala_secrets.cloud import progress, records
from phala_secrets.cloud.call import Within
from phala_secrets.dstack.compose_hash import find_form
from phala_secrets.dstack.ids import bare
from phala_secrets.errors import AnswerError, DeliveryError, Finding, InputError, PhalaSecretsError
from phala_secrets.run.plan import Change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phala_secrets.cloud.call import Call
    from phala_secrets.cloud.records import Accepted, Precondition
    from phala_secrets.flow import Flow
    from phala_secrets.run.context import Run, Target

_FIELD = "docker_compose_file"
_LISTED = 20
"""Findings that are shown: a file of 200 KB may have thousands."""


def check(run: Run) -> None:
    """Check the compose file by itself and against the values, before any request.

    Raise InputError with a finding for each problem.
    """
    job = run.job
    if job.undeployed:
        run.tell(
            Finding(
                f"phala.toml names the compose file {job.undeployed}, which is not deployed",
                f"to deploy it with the secrets, pass `compose-file: {job.undeployed}`",
                severity="notice",
            )
        )
    if job.deploy:
        from phala_secrets.dstack import compose_file

        file = job.deploy.file
        found = compose_file.check(file, require_digest=job.deploy.require_digest)
        found += compose_file.in_plain_text(file, run.environment, run.runner.secret_parts)
        found += [
            file.finding(
                f"the compose file is public, but contains {owner}",
                "write a variable instead, ${NAME}, and rotate the credential if the file was shared",
                number,
            )
            for number, line in enumerate(file.text.split("\n"), 1)
            if (owner := run.runner.secrets.credential_in(line))
        ]
        _judge(run, found, InputError)


def place(run: Run, targets: Sequence[Target]) -> None:
    """Put the compose file into the app-compose of each CVM: from here on that is the one to come."""
    deploy = run.job.deploy
    for target in targets if deploy else ():
        if not deploy or not target.compose:
            continue
        content = target.compose.content
        if isinstance(content.get("bash_script"), str) and content.get("runner") == "bash":
            raise InputError(
                f"{target.name!a} runs a bash script, not a compose file", hint="leave compose-file out"
            )
        before = content.get(_FIELD)
        target.change = Change(
            deploy.file.text, before if isinstance(before, str) else None, deploy.keeps_secrets
        )
        target.compose = target.compose._replace(content={**content, _FIELD: deploy.file.text})


def review(run: Run, target: Target) -> None:
    """Judge the compose file against the app and the names that it is to have.

    Raise InputError where it is too large, DeliveryError where a variable is missing.
    """
    deploy = run.job.deploy
    if not deploy or not target.compose:
        return
    from phala_secrets.dstack import compose_file

    content = target.compose.content
    _judge(run, compose_file.too_large(deploy.file, content), InputError)
    empty = [name for name, value in run.environment.as_dict().items() if not value]
    _judge(run, compose_file.unresolved(deploy.file, content, target.plan.names, empty), DeliveryError)


def outgoing(run: Run, target: Target) -> Call[Accepted | Precondition]:
    """Return the update of one CVM as a request.

    With a compose file it is one for all, and a second without a body once that is approved.
    """
    change, names = target.change, target.plan.names
    if change is None:
        return records.update(target.id, target.sealed, names, *(target.approval or ()))
    if target.approval and target.asked:
        return records.commit(target.id, *target.approval)
    if change.keeps_secrets:
        return records.patch(target.id, change.text, prepare_only=run.job.prepare_only)
    return records.patch(target.id, change.text, target.sealed, names, prepare_only=run.job.prepare_only)


def is_approved(target: Target, said: Precondition) -> bool:
    """Return whether the approval that the API asks for came with what was prepared.

    The first request of a second half has all that was prepared in it, so that the service has
    exactly that, and then asks for the approval.
    """
    approval = target.approval
    return bool(target.change and approval and bare(said.compose_hash) == approval.compose_hash)


def confirm(target: Target, seconds: float) -> Flow[None]:
    """Raise AnswerError where the CVM has another compose file than was sent, as shown or as measured."""
    change = target.change
    if not change:
        return
    cvm: records.Cvm = yield Within(records.cvm(target.id), seconds)
    expected, now = target.expected_hash, bare(cvm.compose_hash)
    if expected and now == expected:
        return
    compose: records.Compose = yield Within(records.compose(target.id), seconds)
    told = bool(expected and now) and not cvm.in_progress  # then what is shown has to be what is measured
    if compose.content.get(_FIELD) != change.text or (told and not find_form(compose.content, now)):
        raise AnswerError(
            f"{target.name}: the update was accepted, but the CVM has a different compose file",
            hint="find out what changed before you trust it, such as another deployment",
        )


def with_way_back(run: Run, target: Target, error: PhalaSecretsError, seconds: float) -> PhalaSecretsError:
    """Return an error of after the update with what ran before, by compose hash and revision.

    Nothing is rolled back by itself: what failed may be what is needed.
    """
    before = target.plan.previous_hash
    if not target.change or not before:
        return error
    revision = ""
    with suppress(PhalaSecretsError):
        uuid = progress.bare_uuid(target.cvm.vm_uuid)
        listed = run.client.send(progress.revisions(target.app_id), within=seconds)
        of_before = (one.id for one in listed if (one.vm_uuid, one.compose_hash) == (uuid, before))
        revision = next(of_before, "")
    what = f"compose hash {before}" + (f", revision {revision}" if revision else "")
    hint = f"{error.marked_hint}; to roll back, deploy what ran before: {what}"
    return error.saying(error.marked, hint=hint)


def _judge(run: Run, found: Sequence[Finding], kind: type[PhalaSecretsError]) -> None:
    """Report the findings, or raise an error with all of them where one is an error."""
    each = list(dict.fromkeys(found))
    wrong = [finding for finding in each if finding.severity == "error"]
    if not wrong:
        for finding in each[:_LISTED]:
            run.tell(finding)
        return
    first, more = wrong[0], len(wrong) - 1
    raise kind(
        f"{first.message} (and {more} more)" if more else first.message,
        hint=first.hint,
        file=first.file,
        line=first.line,
        findings=[finding for finding in wrong[1:] or each if finding != first][:_LISTED],
    )
