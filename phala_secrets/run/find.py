"""Find the CVMs of a job, what each has today, and the key of each app."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.cloud import records, trust
from phala_secrets.cloud.call import Within
from phala_secrets.cloud.ids import is_uuid
from phala_secrets.cloud.progress import bare_uuid
from phala_secrets.dstack.compose_hash import find_form, measured
from phala_secrets.dstack.ids import bare
from phala_secrets.errors import NotFoundError, PhalaSecretsError, ProofError, untrusted
from phala_secrets.flow import Flow, ask, together
from phala_secrets.run.context import Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from phala_secrets.cloud.ids import CvmRef
    from phala_secrets.cloud.records import Compose, Contract, Cvm
    from phala_secrets.inputs.job import Job

_PAGES = 10
"""Pages of a hundred CVMs that are searched for a name."""

_SECONDS = 10.0
"""For each page: a run that has failed should say so soon."""

_NEAR = 3
_NAME = 60
"""How many near names are shown, and how many characters of each."""


def find(job: Job) -> Flow[tuple[list[Target], tuple[Contract, ...]]]:
    """Return the CVMs of a job, and the KMS contracts that the API lists.

    Take one round trip, without requests that a wrong API key would waste.

    Raises:
        NotFoundError: A CVM is unknown, or the app has none.
        ApiError: A name is ambiguous.
        ProofError: A CVM belongs to another app.
    """
    if job.app:
        rows, first = yield (records.app_cvms(job.app), records.contracts())
        if not rows:
            raise NotFoundError(
                f"the app {job.app} has no CVM",
                status_code=404,
                hint="check `app` and the API key's workspace",
            )
        found = [_target(cvm, job.app, named=False) for cvm in rows]
    else:
        try:
            *cvms, first = yield (*(records.cvm(ref.id) for ref in job.cvms), records.contracts())
        except NotFoundError as error:
            raise (yield from _with_near_names(job, error)) from None
        found = [_of_reference(cvm, ref, job.policy) for cvm, ref in zip(cvms, job.cvms, strict=True)]
    targets = list({target.id: target for target in found}.values())
    _hold_to_apps(job.policy.app_ids, targets)
    targets[0].leads = True
    contracts = yield from trust.all_contracts(first)
    return targets, contracts


def _with_near_names(job: Job, error: NotFoundError) -> Flow[NotFoundError]:
    """Return the error with the names that may have been meant, where the workspace's can be listed."""
    from difflib import get_close_matches

    known: list[str] = []
    page = pages = 1
    try:
        while page <= min(pages, _PAGES):
            listed: records.Names = yield Within(records.cvm_names(page), _SECONDS)
            known += listed.names
            page, pages = page + 1, listed.pages
    except PhalaSecretsError:  # the first one says what is wrong
        pass
    near = [name for ref in job.cvms if ref.text not in known for name in get_close_matches(ref.text, known)]
    shown = " or ".join(untrusted(name[:_NAME]) for name in dict.fromkeys(near[:_NEAR]))
    hint = f"did you mean {shown}?" if shown else f"{error.marked_hint};"
    return error.saying(error.marked, hint=f"{hint} phala-secrets list shows every CVM of the workspace")


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
            hint="check `cvm` and `app-id`; if both are right, do not trust this API",
        )


def _of_another_app(target: Target) -> ProofError:
    return ProofError(
        f"the CVM {target.name!a} belongs to the app {target.app_id}, which app-id does not name",
        hint="check `cvm` and `app-id`; if both are right, do not trust this API",
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
    if _is_another(cvm, ref):
        raise ProofError(
            f"Phala Cloud returned the CVM {cvm.id}, not {ref.text[:60]!a}",
            hint="check cvm; if it is right, do not trust this API",
        )
    expected = policy.app_id or ref.app_id
    return _target(cvm, expected, named=not (expected or policy.app_ids), ref=ref)


def _is_another(cvm: Cvm, ref: CvmRef) -> bool:
    """Return whether a CVM that is named by an id of its own has another one, as far as its record shows."""
    if ref.app_id or cvm.name == ref.text:
        return False
    kind, _, rest = ref.id.partition("_")
    if kind == "cvm":
        return cvm.id.startswith("cvm_") and cvm.id != ref.id
    if kind == "instance":
        return bool(cvm.instance_id) and bare(cvm.instance_id) != rest.lower()
    return is_uuid(ref.id) and bool(cvm.vm_uuid) and bare_uuid(cvm.vm_uuid) != ref.id


def _target(cvm: Cvm, expected: str | None, *, named: bool, ref: CvmRef | None = None) -> Target:
    return Target(cvm, trust.app_of(cvm, expected), named, ref)
