"""What a CVM has today. Each line says whether it is proven, or the API's word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from phala_secrets import flow
from phala_secrets.cloud import progress, records
from phala_secrets.dstack.ids import bare
from phala_secrets.errors import PhalaSecretsError, untrusted
from phala_secrets.flow import Flow, Settled
from phala_secrets.run.asked import approvals
from phala_secrets.run.containers import in_words
from phala_secrets.run.reports import short
from phala_secrets.runners.report import Report, Table

if TYPE_CHECKING:
    from phala_secrets.cloud.progress import Container, Operation, State
    from phala_secrets.run.context import Run, Target

_NAMES = 20
_CONTAINERS = 10
_TEXT = 200
"""Names and containers that are listed, and characters of what a guest or a service says."""

_ROOTS = {
    "pinned": "in trusted-signers",
    "chain": "in the KMS contract, as rpc-url says",
    "known": "the published root of the Cloud KMS",
    "api": "as the API publishes it",
}
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))

Known = Literal["proven", "API's word"]


class Line(NamedTuple):
    """One fact: what it is about, how it is known, and what it is."""

    what: str
    known: Known
    today: str


class _Seen(NamedTuple):
    """What the API says of a CVM now, or the error that came of asking."""

    state: State | PhalaSecretsError
    operations: tuple[Operation, ...] | PhalaSecretsError
    containers: tuple[Container, ...] | PhalaSecretsError | None
    allowed: bool | PhalaSecretsError | None = None


def tell(run: Run) -> None:
    """Report what each CVM has. Raise the first error of an attestation that was asked for."""
    for target in run.targets:
        seen: _Seen = run.client.run(_look(target))
        if isinstance(seen.state, PhalaSecretsError):
            raise seen.state
        target.status = seen.state.status
        if newest := _newest(seen):
            target.correlation_id = newest.correlation_id
        report = Report(f"{target.name}: {target.status}")
        report.tables.append(Table(("what", "known", "today"), _lines(run, target, seen, seen.state)))
        run.report(report)
        names = (target.compose.allowed_envs if target.compose else None) or ()
        run.output_of(
            target,
            {
                "status": target.status,
                "env-keys": list(names),
                "compose-hash": bare(target.cvm.compose_hash),
                "correlation-id": target.correlation_id,
            },
        )
    if run.fleet:
        run.output("results", [target.as_output(run.runner.clean) for target in run.targets])
    if failed := [target.error for target in run.targets if target.error]:
        raise failed[0]


def _look(target: Target) -> Flow[_Seen]:
    asked = (progress.state(target.id), progress.operations(target.id), progress.containers(target.id))
    if not (target.key.chain_id and target.cvm.compose_hash):
        return _Seen(*(yield Settled(asked)))
    device = next(iter(target.cvm.device_ids), None)
    approval = records.is_allowed(target.app_id, bare(target.cvm.compose_hash), device)
    return _Seen(*(yield Settled((*asked, approval))))


def _lines(run: Run, target: Target, seen: _Seen, state: State) -> list[Line]:
    key, attested = target.key, target.attestation
    by_api: Known = "API's word"
    code: Known = "proven" if attested and attested.attested else by_api
    root = f"{short(run, key.signer)}, {_ROOTS[key.trust]}"
    app = short(run, target.app_id) + ("" if target.named else ", as app-id or cvm names it")
    root_known: Known = by_api if key.trust == "api" else "proven"
    lines = [
        Line("CVM", by_api, f"{target.name} ({target.id})"),
        Line("app", by_api if target.named else root_known, app),
        Line("KMS root", root_known, root),
        Line("state", by_api, _state(state)),
        Line("last operation", by_api, _operation(seen)),
        Line("containers", by_api, _containers(seen)),
        Line("compose hash", code, short(run, bare(target.cvm.compose_hash)) or "none is shown"),
        _approval(run, target, seen),
        _names(target, code),
    ]
    if attested:
        from phala_secrets.run.attest_report import headline

        lines.append(Line("attestation", "proven" if attested.attested else by_api, headline(attested)))
    return lines


def _state(state: State) -> str:
    doing = [] if state.status == "running" else [state.boot_progress, state.shutdown_progress]
    words = [state.status, *doing, state.boot_error]
    return untrusted(", ".join(filter(None, words))[:_TEXT])


def _newest(seen: _Seen) -> Operation | None:
    if isinstance(seen.operations, PhalaSecretsError) or not seen.operations:
        return None
    return seen.operations[0]


def _operation(seen: _Seen) -> str:
    if isinstance(seen.operations, PhalaSecretsError):
        return f"unknown: {seen.operations.marked}"
    newest = _newest(seen)
    if not newest:
        return "none"
    by = f" by {newest.by[:60]}" if newest.by else ""
    words = [f"{newest.kind[:60] or 'an operation'}{by}: {newest.status[:60]}", newest.error[:_TEXT]]
    if newest.started is not None:
        words.append(f"begun {_ago(newest.started)} ago")
    return untrusted(", ".join(filter(None, words)))


def _ago(moment: float) -> str:
    seconds = max(0, int(flow.clock.time() - moment))
    return next(f"{seconds // size} {unit}" for size, unit in _UNITS if seconds >= size or size == 1)


def _containers(seen: _Seen) -> str:
    if isinstance(seen.containers, PhalaSecretsError):
        return f"unknown: {seen.containers.marked}"
    if seen.containers is None:
        return "cannot be seen"
    more = len(seen.containers) - _CONTAINERS
    words = [*map(in_words, seen.containers[:_CONTAINERS]), *([f"and {more} more"] if more > 0 else [])]
    return untrusted("; ".join(words)) or "none"


def _approval(run: Run, target: Target, seen: _Seen) -> Line:
    """Return whether the app's contract allows the compose hash, by the chain or else by the API."""
    key, compose_hash = target.key, bare(target.cvm.compose_hash)
    if not key.chain_id:
        return Line("approval", "proven" if key.trust == "known" else "API's word", "not needed: Cloud KMS")
    if run.job.policy.rpc_url and compose_hash:
        try:
            today = approvals(run, target.app_id, key.chain_id, compose_hash, target.cvm.device_ids)
        except PhalaSecretsError as error:
            return Line("approval", "API's word", f"unknown: {error.marked}")
        if today and not today.compose_hash:
            return Line("approval", "proven", "the app's contract does not allow this compose hash")
        if today and today.missing_devices:
            devices = ", ".join(today.missing_devices)
            return Line("approval", "proven", f"the app's contract does not allow the device {devices}")
        if not target.cvm.device_ids:
            return Line(
                "approval", "API's word", "the app's contract allows the compose hash; no device is shown"
            )
        return Line("approval", "proven", "given: the app's contract allows compose hash and device")
    if isinstance(seen.allowed, PhalaSecretsError):
        return Line("approval", "API's word", f"unknown: {seen.allowed.marked}")
    words = {True: "given", False: "missing", None: "unknown"}[seen.allowed]
    return Line("approval", "API's word", f"{words} on chain {key.chain_id}; rpc-url would prove it")


def _names(target: Target, code: Known) -> Line:
    """Return the names, which are known as the compose hash is where they are shown to be in it."""
    if not target.compose or target.compose.allowed_envs is None:
        return Line("variables", "API's word", "unknown")
    names = target.compose.allowed_envs
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    shown = f"{len(names)}: {', '.join(names[:_NAMES])}{more}" if names else "none"
    return Line("variables", code if target.compose.form else "API's word", shown)
