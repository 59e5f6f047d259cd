"""The variables of a plan as people read them: a diff, and a line that counts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phala_secrets.runners.report import Line, Names

if TYPE_CHECKING:
    from collections.abc import Callable

    from phala_secrets.run.context import Target

_MOST_PLANS = 10
"""Different plans of one fleet that are shown."""


def diffs(targets: list[Target], *, done: bool) -> list[Names]:
    """Return the diffs of a run's CVMs, one for those that have the same; ``done`` is whether it happened."""
    groups: dict[tuple[tuple[str, ...], ...], list[Target]] = {}
    for target in targets:
        plan = target.plan
        groups.setdefault((plan.added, plan.kept, plan.removed), []).append(target)
    shown = [_names(group, done=done, alone=len(groups) == 1) for group in groups.values()]
    return shown[:_MOST_PLANS]


def _names(group: list[Target], *, done: bool, alone: bool) -> Names:
    target = group[0]
    plan, title = target.plan, "" if alone else ", ".join(one.name for one in group)
    if target.change and target.change.keeps_secrets:
        stay = "stays as it is" if len(plan.names) == 1 else "stay as they are"
        return Names((), f"{_variables(len(plan.names))}: {stay}", title)
    use, lost = _use(target), "dropped" if done else "would be dropped"
    lines = [Line("+", name, note=use(name)) for name in plan.added]
    lines += [Line("~", name, "sent anew", use(name)) for name in plan.kept]
    lines += [Line("-", name, lost, use(name)) for name in plan.removed]
    counts = [(len(plan.added), "added" if done else "to add"), (len(plan.kept), "sent anew")]
    told = ", ".join(f"{number} {what}" for number, what in counts if number)
    count = f"{_variables(len(plan.names))}: {told}" if told else "no variable"
    return Names(lines, count + (f"; {len(plan.removed)} {lost}" if plan.removed else ""), title)


def _use(target: Target) -> Callable[[str], str]:
    if not target.compose:
        return lambda _: ""
    from phala_secrets.dstack.compose_refs import references

    return references(target.compose.content).use_of


def _variables(count: int) -> str:
    return f"{count} variables" if count != 1 else "1 variable"
