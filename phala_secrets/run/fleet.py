"""Sending the update to the CVMs: one, or a fleet a few at a time; each with an outcome that is known."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from phala_secrets.cloud import records
from phala_secrets.cloud.call import Exchange, is_busy
from phala_secrets.cloud.records import Accepted, Precondition
from phala_secrets.errors import ApiError, Finding, PhalaSecretsError, ServerError, TransportError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from phala_secrets.cloud.client import Client
    from phala_secrets.cloud.records import Cvm
    from phala_secrets.run.approve import Approval
    from phala_secrets.run.find import Target
    from phala_secrets.run.plan import Plan
    from phala_secrets.runners.base import Runner

_LOOKS = (0.5, 1.0, 2.0, 4.0)
"""Seconds between looks at the operations, until one that is ours should have shown."""


@dataclass(slots=True)
class Row:
    """What is to be sent to one CVM, and what became of it.

    ``stage`` is how far it got: waiting, sending, accepted, over. ``leads`` is whether it is
    the job's first CVM, whose outputs are the job's.
    """

    plan: Plan
    leads: bool
    approval: Approval | None = None
    status: str = "failed"
    correlation_id: str = ""
    stage: str = "waiting"
    error: PhalaSecretsError | None = None

    @property
    def target(self) -> Target:
        """The CVM."""
        return self.plan.target

    @property
    def exit_code(self) -> int:
        """That of its error, or 0."""
        return self.error.exit_code if self.error else 0

    @property
    def remark(self) -> str:
        """Why it is not updated, or nothing."""
        if self.error:
            return self.error.message
        return "not reached" if self.status == "failed" and self.stage == "waiting" else ""

    def as_output(self, clean: Callable[[str], str]) -> dict[str, Any]:
        """One row of the output ``results``; ``clean`` takes secrets out of what a guest or a server said."""
        return {
            "cvm-id": self.target.cvm.id,
            "name": self.target.cvm.name,
            "status": self.status,
            "correlation-id": self.correlation_id,
            "exit-code": self.exit_code,
            "error": clean(self.remark),
        }


def deliver(client: Client, runner: Runner, row: Row, before: str, sealed: str) -> Accepted | Precondition:
    """Sends the update; a lost answer is found out about, and an update that did not happen is sent again.

    ``before`` is the CVM's newest operation as of just now, ``sealed`` the ciphertext (hex). The
    set is replaced whole, so the same ciphertext twice does no harm. Raises TransportError when
    it cannot be found out whether it happened.
    """
    cvm = row.target.cvm
    exchange = Exchange(records.update(cvm.id, sealed, row.plan.names, *(row.approval or ())))
    lost: PhalaSecretsError | None = None
    while True:
        try:
            return client.send(exchange)
        except PhalaSecretsError as refusal:
            error, failed = refusal, time.monotonic()
        if _may_have_happened(error):
            runner.tell(
                Finding(f"the answer to the update was lost: {error.message}", "its outcome is looked up")
            )
            lost = error
            runner.no_way_back()
        looks = _LOOKS if error is lost else _LOOKS[:1]
        if lost and (correlation_id := _find_out(client, cvm, before, lost, looks)):
            runner.tell(
                Finding(
                    f"Phala Cloud shows an operation that began meanwhile, taken for ours: {correlation_id}",
                    "another run's would look alike: let one run at a time update this CVM (concurrency:)",
                )
            )
            return Accepted(correlation_id, inferred=True)
        pause = exchange.pause_after(error) if error is lost or is_busy(error) else None
        if pause is None:
            if error is lost:
                error.message += " (and the CVM's operations show that it did not happen)"
            elif lost:
                error.message += f" (and the answer to an earlier try was lost: {lost.message})"
            raise error
        if error is lost:
            runner.tell(
                Finding("Phala Cloud's operations show that the update did not happen", "it is sent again")
            )
        time.sleep(max(0.0, failed + pause - time.monotonic()))
        if not lost:  # what is in the way is not ours
            before = client.send(records.newest_operation(cvm.id))


def _may_have_happened(error: PhalaSecretsError) -> bool:
    return isinstance(error, ServerError) or (isinstance(error, TransportError) and error.sent)


def _find_out(
    client: Client, cvm: Cvm, before: str, lost: PhalaSecretsError, looks: Sequence[float]
) -> str | None:
    """The correlation id of an operation that came after ``before``, or None when there is none."""
    for pause in looks:
        time.sleep(pause)
        try:
            newest = client.send(records.newest_operation(cvm.id))
        except (TransportError, ApiError):
            raise TransportError(
                f"it is not known whether the update of {cvm.name!a} was accepted: {lost.message}",
                hint="look at the CVM's operations before running again; sending it twice does no harm",
            ) from None
        if newest and newest != before:
            return newest
    return None


def each(rows: Sequence[Row], work: Callable[[Row], None], *, at_once: int, fail_fast: bool) -> None:
    """Does the work for every row, ``at_once`` of them at a time, and notes each error in its row.

    With ``fail_fast`` no further row is begun once one has failed. Threads are daemons, so
    that an interrupt in the main thread ends the run at once.
    """
    todo: SimpleQueue[Row] = SimpleQueue()
    for row in rows:
        todo.put(row)
    stop = threading.Event()
    bugs: list[Exception] = []

    def run() -> None:
        while not stop.is_set():
            try:
                row = todo.get_nowait()
            except Empty:
                return
            try:
                work(row)
            except PhalaSecretsError as error:
                row.error, row.status = error, "failed"
                if fail_fast:
                    stop.set()
            except Exception as error:  # noqa: BLE001 (a bug is raised in the main thread, which reports it)
                bugs.append(error)
                stop.set()

    if at_once == 1 or len(rows) == 1:
        run()
    else:
        threads = [threading.Thread(target=run, daemon=True) for _ in range(min(at_once, len(rows)))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if bugs:
        raise bugs[0]
