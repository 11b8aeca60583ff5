"""The dispatcher between a ledger and a queue that can be away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import uuid4

import pytest

from ledgerq.dispatch.dispatcher import BUSY_TRIES, Dispatcher, PushReport
from ledgerq.errors import LedgerUnavailable, QueueUnavailable
from ledgerq.lifecycle import RunStatus
from ledgerq.models import Dispatched, Disposition, RunDisposition, RunsReconciled, RunTicket, RunVerdict, Verdict


def ticket() -> RunTicket:
    return RunTicket(run=uuid4(), queue="processing", type="process", tasks=1, timeout_s=100)


@dataclass
class Ledger:
    answers: list[Dispatched] = field(default_factory=list)
    verdicts: list[RunVerdict] = field(default_factory=list)
    away: bool = False
    disposition: Disposition = Disposition.APPLIED

    def dispatch(self, queue: str) -> Dispatched:
        assert queue == "processing"
        return self.answers.pop(0)

    def reconcile_runs(self, verdicts: Sequence[RunVerdict], *, actor: str, dispatch: bool = True) -> RunsReconciled:
        if self.away:
            raise LedgerUnavailable("gone")
        assert actor == "dispatcher"
        assert not dispatch, "what Redis refused is not sent out again at once"
        assert len(verdicts) <= 100
        self.verdicts += verdicts
        return RunsReconciled(runs=tuple(RunDisposition(run=v.run, disposition=self.disposition) for v in verdicts))


@dataclass
class Queue:
    away: bool = False
    pushed: list[RunTicket] = field(default_factory=list)

    def push(self, tickets: Sequence[RunTicket]) -> None:
        if self.away:
            raise QueueUnavailable("Redis did not take 1 runs (refused)")
        self.pushed += tickets


def test_runs_are_pushed_and_counted() -> None:
    queue, runs = Queue(), [ticket(), ticket()]
    assert Dispatcher(Ledger(), queue).push(runs) == PushReport(pushed=2)
    assert queue.pushed == runs


def test_what_redis_does_not_take_is_revoked_under_the_fence_of_a_run_that_never_started() -> None:
    ledger, run = Ledger(), ticket()
    report = Dispatcher(ledger, Queue(away=True)).push([run])
    assert report == PushReport(revoked=1, degraded="Redis did not take 1 runs (refused)")
    (verdict,) = ledger.verdicts
    assert (verdict.run, verdict.verdict, verdict.delivery) == (run.run, Verdict.REVOKE, None)
    assert (verdict.seen_status, verdict.seen_step, verdict.seen_heartbeat_at) == (RunStatus.DISPATCHED, 0, None)


def test_a_run_that_was_delivered_after_all_is_not_counted_as_revoked() -> None:
    report = Dispatcher(Ledger(disposition=Disposition.SUPERSEDED), Queue(away=True)).push([ticket()])
    assert report.revoked == 0
    assert report.degraded


def test_a_thousand_runs_are_revoked_in_calls_of_a_hundred() -> None:
    ledger = Ledger()
    assert Dispatcher(ledger, Queue(away=True)).push([ticket() for _ in range(250)]).revoked == 250
    assert len(ledger.verdicts) == 250


def test_with_redis_and_the_ledger_away_nothing_is_raised() -> None:
    report = Dispatcher(Ledger(away=True), Queue(away=True)).push([ticket()])
    assert report.revoked == 0
    assert report.degraded


def test_dispatch_calls_again_while_the_cap_is_being_counted() -> None:
    first, second = ticket(), ticket()
    ledger = Ledger(answers=[Dispatched(runs=(first,), busy=True), Dispatched(busy=True), Dispatched(runs=(second,))])
    waits: list[float] = []
    queue = Queue()
    assert Dispatcher(ledger, queue, wait=waits.append).dispatch("processing").pushed == 2
    assert queue.pushed == [first, second]
    assert len(waits) == 2


def test_dispatch_leaves_a_cap_that_stays_busy_to_whoever_holds_it() -> None:
    ledger = Ledger(answers=[Dispatched(busy=True)] * (BUSY_TRIES + 1))
    assert Dispatcher(ledger, Queue(), wait=lambda _: None).dispatch("processing") == PushReport()
    assert len(ledger.answers) == 1


def test_a_ledger_that_is_away_is_told_by_dispatch() -> None:
    class Away(Ledger):
        def dispatch(self, queue: str) -> Dispatched:
            raise LedgerUnavailable("gone")

    with pytest.raises(LedgerUnavailable):
        Dispatcher(Away(), Queue()).dispatch("processing")
