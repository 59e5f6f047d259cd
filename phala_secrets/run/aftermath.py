"""After an update: compare what the CVM has with what was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.cloud import records
from phala_secrets.cloud.call import Within
from phala_secrets.dstack.compose_hash import recognise
from phala_secrets.dstack.ids import bare
from phala_secrets.errors import Finding, PhalaSecretsError

if TYPE_CHECKING:
    from phala_secrets.cloud.wait import Seen
    from phala_secrets.flow import Flow
    from phala_secrets.run.context import Run, Target

_CONCURRENCY = "limit updates of this CVM to one run at a time (concurrency:)"
_NAMES_LISTED = 20


def look(run: Run, target: Target, seconds: float, seen: Seen | None = None) -> Flow[None]:
    """Report names or a compose hash that are not those sent. ``seen`` may have shown the hash already."""
    name = target.name
    expected = target.approval.compose_hash if target.approval else target.plan.compose_hash
    try:
        if seen and expected and seen.compose_hash == expected:
            return run.output_of(target, {"compose-hash": expected})
        cvm: records.Cvm = yield Within(records.cvm(target.id), seconds)
        target.shown = cvm.status or ""
        now = bare(cvm.compose_hash)
        run.output_of(target, {"compose-hash": now})
        if expected and now == expected:
            return None
        compose: records.Compose = yield Within(records.compose(target.id), seconds)
    except PhalaSecretsError as error:
        run.tell(Finding(f"{name}: reading the names again failed: {error.marked}", "compare them yourself"))
        return None
    names = compose.allowed_envs
    if names is not None and set(names) != set(target.plan.names):
        other = ", ".join(sorted(set(names) ^ set(target.plan.names))[:_NAMES_LISTED])
        run.tell(Finding(f"{name}: the names differ from those that were sent: {other}", _CONCURRENCY))
    elif expected:
        run.tell(_other_hash(target, now, expected))
    return None


def _other_hash(target: Target, now: str, expected: str) -> Finding:
    """Return a finding about an unexpected compose hash, where the names are as expected."""
    content = target.compose.content if target.compose else {}
    written = recognise(content, target.plan.names, now) if now else None
    if written is None:
        return Finding(
            f"{target.name}: the compose hash is {now or 'unknown'}, not {expected}, "
            "and no order of these names explains it",
            "find out what else changed before you trust it, such as another deployment",
        )
    return Finding(
        f"{target.name}: Phala Cloud wrote the names in another order ({written.order}), "
        f"so the compose hash is {now}, not {expected}",
        "pin this compose hash, if you pin it",
        severity="notice",
    )
