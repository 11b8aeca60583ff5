"""From the ledger's decision to RQ's list: push the runs, and take back what could not be pushed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ledgerq.errors import LedgerUnavailable, QueueUnavailable
from ledgerq.lifecycle import RunStatus
from ledgerq.logs import get_logger
from ledgerq.models import Dispatched, Disposition, RunsReconciled, RunTicket, RunVerdict, Verdict

ACTOR: Final = "dispatcher"
BUSY_TRIES: Final = 8
"""Calls of `dispatch` while somebody else holds the queue's concurrency cap; whoever holds it dispatches as well."""
BUSY_WAIT_S: Final = 0.02
VERDICTS_A_CALL: Final = 100
"""The ledger's bound for one `reconcile_runs`."""

log = get_logger("ledgerq.dispatch")


class RunLedger(Protocol):
    """What the dispatcher asks of the ledger."""

    def dispatch(self, queue: str) -> Dispatched: ...

    def reconcile_runs(self, verdicts: Sequence[RunVerdict], *, actor: str, dispatch: bool = True) -> RunsReconciled: ...


class Pusher(Protocol):
    """Where runs are pushed: `RunQueue`."""

    def push(self, tickets: Sequence[RunTicket]) -> None: ...

    def ping(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PushReport:
    """What became of runs that the ledger had dispatched."""

    pushed: int = 0
    revoked: int = 0
    """Taken back: their tasks are pending again and go out with the next dispatch."""
    degraded: str | None = None
    """Why runs could not be pushed. The jobs are safe in the ledger; a steward pushes them when Redis is back."""

    def __add__(self, other: PushReport) -> PushReport:
        return PushReport(
            pushed=self.pushed + other.pushed,
            revoked=self.revoked + other.revoked,
            degraded=self.degraded or other.degraded,
        )


class Dispatcher:
    """Pushes what the ledger dispatched. Holds no state; any number may work at once."""

    def __init__(self, ledger: RunLedger, run_queue: Pusher, *, actor: str = ACTOR, wait: Callable[[float], None] = time.sleep) -> None:
        self._ledger = ledger
        self._run_queue = run_queue
        self._actor = actor
        self._wait = wait

    def push(self, tickets: Sequence[RunTicket]) -> PushReport:
        """Push runs; when Redis refuses or does not answer, revoke them. Never raises for Redis, nor for the ledger.

        A run that could be neither pushed nor revoked stays `dispatched`; the status sync pushes it again after 5 s.
        """
        if not tickets:
            return PushReport()
        try:
            self._run_queue.push(tickets)
        except QueueUnavailable as error:
            log.warning("runs not pushed", runs=len(tickets), cause=str(error))
            return self._revoke(tickets, str(error))
        log.info("runs pushed", runs=[str(ticket.run) for ticket in tickets])
        return PushReport(pushed=len(tickets))

    def dispatch(self, queue: str) -> PushReport:
        """Let the ledger pack what is ready and push it; again while the queue's cap is being counted by somebody else.

        Raises:
            LedgerUnavailable: the ledger did not answer.
        """
        report = PushReport()
        for attempt in range(BUSY_TRIES):
            dispatched = self._ledger.dispatch(queue)
            report += self.push(dispatched.runs)
            if not dispatched.busy:
                break
            self._wait(BUSY_WAIT_S * (attempt + random.random()))  # noqa: S311 - spreads callers, keeps no secret
        return report

    def unavailable(self) -> str | None:
        """Why nothing can be pushed now, or None when Redis answers. Asked before dispatching what would only be taken back."""
        try:
            self._run_queue.ping()
        except QueueUnavailable as error:
            return str(error)
        return None

    def _revoke(self, tickets: Sequence[RunTicket], cause: str) -> PushReport:
        revoked = 0
        try:
            for batch in _batches(tickets):
                verdicts = [_revocation(ticket, cause) for ticket in batch]
                answer = self._ledger.reconcile_runs(verdicts, actor=self._actor, dispatch=False)
                revoked += sum(run.disposition is Disposition.APPLIED for run in answer.runs)
        except LedgerUnavailable as error:
            log.warning("runs not revoked", cause=str(error))
        return PushReport(revoked=revoked, degraded=cause)


def _revocation(ticket: RunTicket, cause: str) -> RunVerdict:
    """Fenced by what a run is before its start, so one that was delivered after all is left alone."""
    return RunVerdict(
        run=ticket.run,
        verdict=Verdict.REVOKE,
        seen_status=RunStatus.DISPATCHED,
        seen_step=0,
        seen_heartbeat_at=None,
        evidence={"why": "could not be pushed", "cause": cause[:500]},
    )


def _batches(tickets: Sequence[RunTicket]) -> Iterable[Sequence[RunTicket]]:
    return (tickets[start : start + VERDICTS_A_CALL] for start in range(0, len(tickets), VERDICTS_A_CALL))
