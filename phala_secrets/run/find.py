"""Finding the CVMs that a job is for, what each has today, and the key of each app."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.cloud import records, trust
from phala_secrets.dstack.compose_hash import find_form, measured
from phala_secrets.errors import NotFoundError, PhalaSecretsError, ProofError
from phala_secrets.flow import Flow, ask, together
from phala_secrets.run.context import Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phala_secrets.cloud.ids import CvmRef
    from phala_secrets.cloud.records import Compose, Contract, Cvm
    from phala_secrets.inputs.job import Job


def find(job: Job) -> Flow[tuple[list[Target], tuple[Contract, ...]]]:
    """Return the CVMs of a job, and the KMS contracts that the API lists.

    One round trip, which asks for nothing that a wrong API key would make idle. Raise NotFoundError
    for an unknown CVM or an app without any, ApiError for an ambiguous name, ProofError for a CVM
    of another app than the one expected.
    """
    if job.app:
        rows, first = yield (records.app_cvms(job.app), records.contracts())
        if not rows:
            raise NotFoundError(
                f"the app {job.app} has no CVM",
                status_code=404,
                hint="check app, and the API key's workspace",
            )
        found = [_target(cvm, job.app, named=False) for cvm in rows]
    else:
        *cvms, first = yield (*(records.cvm(ref.id) for ref in job.cvms), records.contracts())
        found = [_of_reference(cvm, ref, job.policy) for cvm, ref in zip(cvms, job.cvms, strict=True)]
    targets = list({target.id: target for target in found}.values())
    _hold_to_apps(job.policy.app_ids, targets)
    targets[0].leads = True
    contracts = yield from trust.all_contracts(first)
    return targets, contracts


def _hold_to_apps(app_ids: Sequence[str], targets: Sequence[Target]) -> None:
    """Raise ProofError unless each CVM is of one of these apps, and each of them has a CVM here."""
    if not app_ids:
        return
    for target in targets:
        if target.app_id not in app_ids:
            raise _of_another_app(target)
    found = {target.app_id for target in targets}
    if missing := [app_id for app_id in app_ids if app_id not in found]:
        raise ProofError(
            f"none of the CVMs belongs to the app {missing[0]}, which app-id names",
            hint="check cvm and app-id; if both are right, do not trust this API",
        )


def _of_another_app(target: Target) -> ProofError:
    return ProofError(
        f"the CVM {target.name!a} belongs to the app {target.app_id}, which app-id does not name",
        hint="check cvm and app-id; if both are right, do not trust this API",
    )


def find_again(job: Job, target: Target) -> Flow[tuple[Contract, ...]]:
    """Give a target its CVM and app of now, as ``find`` would, and return the contracts of now."""
    cvm, first = yield (records.cvm(target.ref.id if target.ref else target.id), records.contracts())
    now = _of_reference(cvm, target.ref, job.policy) if target.ref else _target(cvm, job.app, named=False)
    if job.policy.app_ids and now.app_id not in job.policy.app_ids:
        raise _of_another_app(now)
    target.cvm, target.app_id, target.named = now.cvm, now.app_id, now.named
    contracts = yield from trust.all_contracts(first)
    return contracts


def describe(job: Job, targets: Sequence[Target]) -> Flow[None]:
    """Give the targets their app-compose, which those with one compose hash share."""
    if job.mode == "verify":
        return
    kinds = {_kind(target): target.id for target in targets}
    told = yield tuple(map(records.compose, kinds.values()))
    composes: dict[str, Compose] = {}
    for (kind, cvm_id), compose in zip(kinds.items(), told, strict=True):
        composes[kind] = yield from _as_measured(cvm_id, kind, compose)
    for target in targets:
        target.compose = composes[_kind(target)]


def _as_measured(cvm_id: str, compose_hash: str, compose: Compose) -> Flow[Compose]:
    """Return the app-compose with the form that has this compose hash.

    Objects from the API may hold defaults that the measured document lacks. Then the exact text is
    taken, which the attestation has. Its SHA-256 has to be the compose hash.
    """
    if form := find_form(compose.content, compose_hash):
        return compose._replace(form=form)
    try:
        text = yield from ask(records.measured(cvm_id))
        exact = measured(text) if text else None
    except PhalaSecretsError:
        exact = None
    if exact is None or exact.compose_hash != compose_hash.lower().removeprefix("0x"):
        return compose
    form = find_form(exact.app_compose, compose_hash)
    return records.compose_of(exact.app_compose)._replace(form=form)


def prove(job: Job, targets: Sequence[Target], contracts: Sequence[Contract]) -> Flow[None]:
    """Give each target the proven key of its app: fetched once, however many CVMs the app has."""
    first = {target.app_id: target for target in reversed(targets)}
    policies = [job.policy._replace(app_id=app_id) for app_id in first]
    keys = yield from together(
        *(
            trust.prove_key(target.cvm, contracts, policy)
            for target, policy in zip(first.values(), policies, strict=True)
        )
    )
    of_app = dict(zip(first, keys, strict=True))
    for target in targets:
        target.key = of_app[target.app_id]


def _kind(target: Target) -> str:
    return target.cvm.compose_hash or target.id


def _of_reference(cvm: Cvm, ref: CvmRef, policy: trust.Policy) -> Target:
    expected = policy.app_id or ref.app_id
    return _target(cvm, expected, named=not (expected or policy.app_ids), ref=ref)


def _target(cvm: Cvm, expected: str | None, *, named: bool, ref: CvmRef | None = None) -> Target:
    return Target(cvm, trust.app_of(cvm, expected), named, ref)
