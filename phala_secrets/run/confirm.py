"""Ask the person at the terminal before an update."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from phala_secrets.cloud import records
from phala_secrets.errors import CancelledError, DeliveryError, InputError
from phala_secrets.run import foresee

if TYPE_CHECKING:
    from phala_secrets.flow import Flow
    from phala_secrets.run.context import Run, Target

TERMINAL = "/dev/tty"
"""Where the question goes, and its answer comes from, whatever the streams are."""

PATIENCE = 300.0
"""Seconds for an answer: an unattended terminal must not hold up an update forever."""

_TURN = 0.25
"""Seconds of one look for an answer. A signal that another thread receives does not end a select here."""

_ANSWER = 1024


def confirm(run: Run) -> None:
    """Show the plan, and ask whether to carry it out.

    Raise CancelledError unless the answer is yes, and DeliveryError where a CVM is another one by then.
    """
    report = foresee.planned(run, foresee.refusal(run, lambda: None))
    report.advice = []
    run.runner.report(report)
    answer = _ask(run.runner.clean(f"Update and restart {run.whom}? [y/N]"))
    if answer is not None and answer.strip().lower() in ("y", "yes"):
        run.client.run(_compare(run))
        return
    run.output("status", "interrupted")
    run.explained = True  # the plan is on the screen
    if answer is None:
        raise CancelledError(
            "no answer, so nothing was sent", hint="answer y within five minutes, or pass `yes: true`"
        )
    raise CancelledError("not confirmed, so nothing was sent", hint="run again and answer y")


def _ask(question: str) -> str | None:
    """Return the line that a person types at the terminal, or None on timeout.

    What was typed before the question was there does not count.
    """
    import termios

    try:
        terminal = os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise InputError(
            f"cannot open {TERMINAL} to ask before the update", hint="pass `yes: true`"
        ) from None
    try:
        termios.tcflush(terminal, termios.TCIFLUSH)
        os.write(terminal, f"{question} ".encode(errors="replace"))
        if not _is_answered(terminal):
            os.write(terminal, b"\n")
            return None
        return os.read(terminal, _ANSWER).decode(errors="replace")
    finally:
        os.close(terminal)


def _is_answered(terminal: int) -> bool:
    import select
    import time

    ends = time.monotonic() + PATIENCE
    while (left := ends - time.monotonic()) > 0:
        if select.select([terminal], [], [], min(left, _TURN))[0]:
            return True
    return False


def _compare(run: Run) -> Flow[None]:
    """Raise DeliveryError where a CVM has another compose hash than the one that the plan was made for."""
    now = yield tuple(records.cvm(target.id) for target in run.targets)
    for target, cvm in zip(run.targets, now, strict=True):
        if cvm.compose_hash != target.cvm.compose_hash:
            raise changed(target)


def changed(target: Target) -> DeliveryError:
    """Return the error for a plan that is no longer the one that a person agreed to."""
    return DeliveryError(
        f"another operation changed {target.name!a} after its plan was shown",
        hint="run again to see the current plan",
    )
