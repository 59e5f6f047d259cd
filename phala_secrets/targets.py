"""Finding the CVMs that a job is for, and what each of them has today."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from phala_secrets import answers, trust
from phala_secrets.calls import Call, Flow, together
from phala_secrets.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phala_secrets.answers import Compose, Contract, Cvm
    from phala_secrets.identifiers import CvmRef
    from phala_secrets.job import Job


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
    """The CVMs of a job: one round trip, whatever is asked about each of them included.

    Raises NotFoundError for an unknown CVM or an app without any, ApiError for an
    ambiguous name, ProofError for a CVM of another app than the one expected.
    """
    if job.app:
        rows, first = yield (answers.app_cvms(job.app), answers.contracts())
        if not rows:
            raise NotFoundError(
                f"the app {job.app} has no CVM",
                status_code=404,
                hint="check app, and the API key's workspace",
            )
        targets = [_target(cvm, job.app, named=False) for cvm in rows]
    else:
        described = _described(job)
        width = 1 + described
        calls: list[Call[Any]] = [call for ref in job.cvms for call in _about(ref.id, described)]
        *told, first = yield (*calls, answers.contracts())
        targets = [
            _told(_of_reference(of_cvm, ref, job.policy), more)
            for ref, (of_cvm, *more) in zip(job.cvms, _batched(told, width), strict=True)
        ]
    unique = {target.cvm.id: target for target in targets}
    contracts = yield from trust.all_contracts(first)
    return Found(tuple(unique.values()), contracts)


def describe(job: Job, targets: Sequence[Target]) -> Flow[tuple[Target, ...]]:
    """The targets with what was not asked yet; CVMs with one compose hash share one app-compose."""
    open_ = [target for target in targets if target.compose is None]
    if not _described(job) or not open_:
        return tuple(targets)
    kinds = {target.cvm.compose_hash or target.cvm.id: target.cvm.id for target in open_}
    told = yield tuple(answers.compose(cvm_id) for cvm_id in kinds.values())
    compose = dict(zip(kinds, told, strict=True))
    return tuple(
        replace(target, compose=target.compose or compose[target.cvm.compose_hash or target.cvm.id])
        for target in targets
    )


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


def _batched(items: Sequence[Any], width: int) -> list[Sequence[Any]]:
    return [items[start : start + width] for start in range(0, len(items), width)]


def _described(job: Job) -> int:
    """How many more things than the CVM itself a job asks about: names and operations, to update."""
    return {"update": 2, "plan": 1}.get(job.mode, 0)


def _about(cvm_id: str, described: int) -> tuple[Call[Any], ...]:
    more = (answers.compose(cvm_id), answers.newest_operation(cvm_id))
    return (answers.cvm(cvm_id), *more[:described])


def _told(target: Target, told: Sequence[Any]) -> Target:
    compose, last_operation = (*told, None, None)[:2]
    return replace(target, compose=compose, last_operation=last_operation)


def _of_reference(cvm: Cvm, ref: CvmRef, policy: trust.Policy) -> Target:
    expected = policy.app_id or ref.app_id
    return _target(cvm, expected, named=expected is None)


def _target(cvm: Cvm, expected: str | None, *, named: bool) -> Target:
    return Target(cvm, trust.app_of(cvm, expected), named)
