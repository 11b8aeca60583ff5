"""Observe, decide, apply: what RQ shows of the live runs becomes fenced verdicts in the ledger.

It may run anywhere and any number of times at once: every verdict carries the fence it was reached under, so of two observers
one is superseded. Recovery dispatches again and never executes. What this process remembers (since when it has seen a run in
a doubtful state) only delays verdicts; losing it costs a few seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

from ledgerq.dispatch.dispatcher import Dispatcher
from ledgerq.dispatch.observation import Observation
from ledgerq.errors import InvalidInput, QueueUnavailable
from ledgerq.ledger.store import LedgerStore
from ledgerq.logs import get_logger
from ledgerq.models import Disposition, LiveRun, LiveRuns, RunTicket, RunVerdict, Verdict
from ledgerq.sync.decide import Leave, PushAgain, Rule, decide, is_questionable, misfire_reason, rule_of

PAGE: Final = 500
"""Runs read from the ledger and asked of RQ at once."""

VERDICTS_A_CALL: Final = 100
"""The ledger's bound for one `reconcile_runs`."""

MOST_WATCHED: Final = 1_000
"""Runs in a doubtful state that a reader of single jobs remembers: ten times what one look may name."""

RUNS_A_LOOK: Final = 100
"""The ledger's bound for naming runs to `live_runs`."""

log = get_logger("ledgerq.sync")


class RunSource(Protocol):
    """Where RQ's view of runs comes from, and where a run is pushed once more: `dispatch.RunQueue`."""

    def observe(self, runs: Iterable[LiveRun]) -> dict[UUID, Observation]: ...

    def push_again(self, ticket: RunTicket) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfire:
    """A run that RQ ended without starting it: its worker cannot start runs (no JSON serializer, a failing import)."""

    run: UUID
    queue: str
    rq_status: str
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileReport:
    """What one pass saw and did."""

    live: int = 0
    observed: int = 0
    applied: tuple[RunVerdict, ...] = ()
    suspected: tuple[UUID, ...] = ()
    superseded: int = 0
    refused: int = 0
    pushed_again: int = 0
    dispatched: int = 0
    """Runs pushed because verdicts set their tasks free."""
    misfires: tuple[Misfire, ...] = ()
    degraded: str | None = None
    """Why RQ could not be asked or pushed to; leases were judged all the same."""

    @property
    def verdicts(self) -> dict[Verdict, int]:
        """How many of each verdict were applied."""
        return dict(Counter(verdict.verdict for verdict in self.applied))


@dataclass(slots=True)
class Reconciler:
    """Looks at live runs and ends, revokes or pushes again what needs it."""

    store: LedgerStore
    run_queue: RunSource
    dispatcher: Dispatcher
    actor: str = "status-sync"
    _watched: dict[UUID, tuple[Rule, datetime]] = field(default_factory=dict[UUID, "tuple[Rule, datetime]"])

    def run_once(self, *, dispatch: bool = True) -> ReconcileReport:
        """One pass over all live runs.

        Args:
            dispatch: send out at once what verdicts set free; a steward does that itself, after it has looked at deadlines.

        Raises:
            LedgerUnavailable: the ledger did not answer; what was applied before stays applied.
        """
        tally = _Tally()
        seen: set[UUID] = set()
        for page in self._pages():
            seen.update(run.run for run in page.runs)
            self._judge(page, tally, dispatch=dispatch)
        self._forget_all_but(seen)
        return tally.report()

    def sync_runs(self, runs: Sequence[UUID]) -> ReconcileReport:
        """The same for at most the first 100 of the named runs: what a reader of one job asks for."""
        tally = _Tally()
        if runs:
            self._judge(self.store.live_runs(runs=list(runs[:RUNS_A_LOOK])), tally, dispatch=True)
            self._forget_oldest()
        return tally.report()

    def _pages(self) -> Iterator[LiveRuns]:
        after: UUID | None = None
        while True:
            page = self.store.live_runs(after=after, limit=PAGE)
            yield page
            if len(page.runs) < PAGE:
                return
            after = page.runs[-1].run

    def _judge(self, page: LiveRuns, tally: _Tally, *, dispatch: bool) -> None:
        tally.live += len(page.runs)
        doubtful = [run for run in page.runs if is_questionable(run, page.now)]
        if not doubtful:
            return
        seen = self._observe(doubtful, tally)
        verdicts: list[RunVerdict] = []
        for run in doubtful:
            observation = seen.get(run.run)
            if observation is None:
                continue
            decision = decide(run, observation, page.now, self._since(run, observation, page.now))
            self._note_misfire(run, observation, tally)
            match decision:
                case RunVerdict():
                    verdicts.append(decision)
                case PushAgain():
                    self._push_again(decision.ticket, tally)
                case Leave():
                    pass
        self._apply(verdicts, tally, dispatch=dispatch)

    def _observe(self, runs: Sequence[LiveRun], tally: _Tally) -> dict[UUID, Observation]:
        """What RQ shows. Without RQ, running runs are judged by their leases alone and the others are left."""
        try:
            seen = self.run_queue.observe(runs)
        except QueueUnavailable as error:
            tally.degraded = str(error)
            return {run.run: _UNSEEN for run in runs if run.started_at is not None}
        tally.observed += len(seen)
        return seen

    def _since(self, run: LiveRun, seen: Observation, now: datetime) -> datetime | None:
        """Since when this process has seen the run under the same rule; the first sighting starts the clock."""
        rule = rule_of(run, seen)
        known = self._watched.get(run.run)
        if known is not None and known[0] is rule:
            return known[1]
        self._watched[run.run] = (rule, now)
        return None

    def _forget_all_but(self, live: set[UUID]) -> None:
        for run in [run for run in self._watched if run not in live]:
            del self._watched[run]

    def _forget_oldest(self) -> None:
        """Whoever only asks for single jobs never learns which runs have ended: its memory is bounded by number."""
        for run in list(self._watched)[:-MOST_WATCHED]:
            self._watched.pop(run, None)

    def _note_misfire(self, run: LiveRun, seen: Observation, tally: _Tally) -> None:
        if rule_of(run, seen) is Rule.MISFIRED and seen.status is not None:
            error = misfire_reason(seen)
            tally.misfires.append(Misfire(run=run.run, queue=run.queue, rq_status=seen.status.value, error=error))

    def _push_again(self, ticket: RunTicket, tally: _Tally) -> None:
        if tally.degraded is not None:
            return
        try:
            self.run_queue.push_again(ticket)
        except QueueUnavailable as error:
            tally.degraded = str(error)
            return
        tally.pushed_again += 1
        log.info("run pushed again", run=ticket.run, queue=ticket.queue)

    def _apply(self, verdicts: Sequence[RunVerdict], tally: _Tally, *, dispatch: bool) -> None:
        for batch in _batches(verdicts, VERDICTS_A_CALL):
            try:
                self._tell(batch, tally, dispatch=dispatch)
            except InvalidInput as error:
                log.warning("verdicts one by one", verdicts=len(batch), cause=str(error))
                self._tell_one_by_one(batch, tally, dispatch=dispatch)

    def _tell_one_by_one(self, verdicts: Sequence[RunVerdict], tally: _Tally, *, dispatch: bool) -> None:
        """One that the ledger cannot take must not keep the others from it, in this pass and in every one after it."""
        for verdict in verdicts:
            try:
                self._tell([verdict], tally, dispatch=dispatch)
            except InvalidInput as error:
                tally.refused += 1
                log.warning("verdict refused", run=verdict.run, verdict=verdict.verdict, cause=str(error))

    def _tell(self, verdicts: Sequence[RunVerdict], tally: _Tally, *, dispatch: bool) -> None:
        answer = self.store.reconcile_runs(verdicts, actor=self.actor, dispatch=dispatch)
        by_run = {verdict.run: verdict for verdict in verdicts}
        for given in answer.runs:
            tally.count(by_run[given.run], given.disposition)
        pushed = self.dispatcher.push(answer.to_push)
        tally.dispatched += pushed.pushed
        tally.degraded = tally.degraded or pushed.degraded


@dataclass(slots=True)
class _Tally:
    """A report in the making."""

    live: int = 0
    observed: int = 0
    applied: list[RunVerdict] = field(default_factory=list[RunVerdict])
    suspected: list[UUID] = field(default_factory=list[UUID])
    superseded: int = 0
    refused: int = 0
    pushed_again: int = 0
    dispatched: int = 0
    misfires: list[Misfire] = field(default_factory=list[Misfire])
    degraded: str | None = None

    def count(self, verdict: RunVerdict, disposition: Disposition) -> None:
        if disposition is Disposition.APPLIED:
            self.applied.append(verdict)
            log.info("verdict applied", run=verdict.run, verdict=verdict.verdict, **verdict.evidence)
        elif disposition is Disposition.SUSPECTED:
            self.suspected.append(verdict.run)
        elif disposition is Disposition.REFUSED:
            self.refused += 1
        else:
            self.superseded += 1

    def report(self) -> ReconcileReport:
        return ReconcileReport(
            live=self.live,
            observed=self.observed,
            applied=tuple(self.applied),
            suspected=tuple(self.suspected),
            superseded=self.superseded,
            refused=self.refused,
            pushed_again=self.pushed_again,
            dispatched=self.dispatched,
            misfires=tuple(self.misfires),
            degraded=self.degraded,
        )


_UNSEEN: Final = Observation(status=None, in_list=False)


def _batches(items: Sequence[RunVerdict], size: int) -> Iterable[Sequence[RunVerdict]]:
    return (items[start : start + size] for start in range(0, len(items), size))
