"""Finding the CVMs that a job is for, and what each of them has today."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from phala_secrets.cloud import records, trust
from phala_secrets.cloud.call import Flow, together
from phala_secrets.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phala_secrets.cloud.ids import CvmRef
    from phala_secrets.cloud.records import Compose, Contract, Cvm
    from phala_secrets.inputs.job import Job


@dataclass(frozen=True, slots=True)
class Target:
    """A CVM of the job: what the API says of it, its app, and today's app-compose and newest operation.

    ``named`` is whether only a name (or the CVM's own id) says which app it is of: then
    the API picked the app. ``last_operation`` is empty where there was none, and None while
    nobody has asked.
    """

    cvm: Cvm
    app_id: str
    named: bool
    compose: Compose | None = None
    last_operation: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """All CVMs of the job, and the KMS contracts that the API lists."""

    targets: tuple[Target, ...]
    contracts: tuple[Contract, ...]


def find(job: Job) -> Flow[Found]:
    """The CVMs of a job, in one round trip, which asks for nothing that a wrong API key would make idle.

    Raises NotFoundError for an unknown CVM or an app without any, ApiError for an
    ambiguous name, ProofError for a CVM of another app than the one expected.
    """
    if job.app:
        rows, first = yield (records.app_cvms(job.app), records.contracts())
        if not rows:
            raise NotFoundError(
                f"the app {job.app} has no CVM",
                status_code=404,
                hint="check app, and the API key's workspace",
            )
        targets = [_target(cvm, job.app, named=False) for cvm in rows]
    else:
        *cvms, first = yield (*(records.cvm(ref.id) for ref in job.cvms), records.contracts())
        targets = [_of_reference(cvm, ref, job.policy) for cvm, ref in zip(cvms, job.cvms, strict=True)]
    unique = {target.cvm.id: target for target in targets}
    contracts = yield from trust.all_contracts(first)
    return Found(tuple(unique.values()), contracts)


def describe(job: Job, targets: Sequence[Target]) -> Flow[tuple[Target, ...]]:
    """The targets with their app-compose, which those with one compose hash share.

    For an update the first one gets its newest operation, too; the others are asked when
    their turn comes.
    """
    if job.mode not in ("update", "plan"):
        return tuple(targets)
    kinds = {_kind(target): target.cvm.id for target in targets}
    newest = (records.newest_operation(targets[0].cvm.id),) if job.mode == "update" else ()
    told = yield (*map(records.compose, kinds.values()), *newest)
    compose = dict(zip(kinds, told, strict=False))
    described = [replace(target, compose=compose[_kind(target)]) for target in targets]
    if newest:
        described[0] = replace(described[0], last_operation=told[-1])
    return tuple(described)


def prove(job: Job, found: Found) -> Flow[dict[str, trust.ProvenKey]]:
    """The proven key of each app, by app id: fetched once, however many CVMs the app has."""
    first = {target.app_id: target for target in reversed(found.targets)}
    policies = [replace(job.policy, app_id=app_id) for app_id in first]
    keys = yield from together(
        *(
            trust.prove_key(target.cvm, found.contracts, policy)
            for target, policy in zip(first.values(), policies, strict=True)
        )
    )
    return dict(zip(first, keys, strict=True))


def _kind(target: Target) -> str:
    return target.cvm.compose_hash or target.cvm.id


def _of_reference(cvm: Cvm, ref: CvmRef, policy: trust.Policy) -> Target:
    expected = policy.app_id or ref.app_id
    return _target(cvm, expected, named=expected is None)


def _target(cvm: Cvm, expected: str | None, *, named: bool) -> Target:
    return Target(cvm, trust.app_of(cvm, expected), named)
