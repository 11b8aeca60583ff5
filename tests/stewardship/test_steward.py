"""Rounds of the steward: each duty alone, told about once, patient with what is away."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from ledgerq.dispatch.dispatcher import PushReport
from ledgerq.errors import LedgerUnavailable, VectorsUnavailable
from ledgerq.ledger.answers import Expired
from ledgerq.models import Dispatched, RunTicket
from ledgerq.stewardship.pruner import PruneReport
from ledgerq.stewardship.steward import MISFIRE_FORGOTTEN_S, PRUNE_EVERY_S, SWEEP_EVERY_S, Steward, StewardReport
from ledgerq.stewardship.sweeper import SweepReport
from ledgerq.sync.reconciler import Misfire, ReconcileReport

NOW = datetime(2026, 11, 22, tzinfo=UTC)
RUN = RunTicket(run=UUID(int=1), queue="processing", type="noop")


@dataclass
class Duties:
    """What the steward calls, counted; any of it can be made to fail."""

    done: list[str] = field(default_factory=list)
    failing: dict[str, Exception] = field(default_factory=dict)
    due: list[Dispatched] = field(default_factory=list)
    reconciled: ReconcileReport = field(default_factory=ReconcileReport)
    redis_away: str | None = None
    late: list[UUID] = field(default_factory=list)

    def _did(self, name: str) -> None:
        self.done.append(name)
        if name in self.failing:
            raise self.failing[name]

    def dispatch_due(self, *, limit: int | None = None) -> Dispatched:
        self._did("dispatch")
        return self.due.pop(0) if self.due else Dispatched()

    def expire_jobs(self, *, limit: int = 100) -> Expired:
        self._did("expire")
        late, self.late = self.late[:limit], self.late[limit:]
        return Expired(expired=tuple(late), more=len(late) == limit)

    def push(self, tickets: tuple[RunTicket, ...]) -> PushReport:
        return PushReport(degraded=self.redis_away) if self.redis_away else PushReport(pushed=len(tickets))

    def unavailable(self) -> str | None:
        return self.redis_away


@dataclass
class Part:
    """A reconciler, pruner or sweeper."""

    duties: Duties
    name: str
    answer: Callable[[], object]

    def run_once(self, *_: object, **__: object) -> object:
        self.duties._did(self.name)
        return self.answer()


@pytest.fixture
def duties() -> Duties:
    return Duties()


@pytest.fixture
def now() -> list[float]:
    return [1_000.0]


@pytest.fixture
def steward(duties: Duties, now: list[float]) -> Steward:
    return Steward(
        duties,
        duties,
        Part(duties, "reconcile", lambda: duties.reconciled),
        Part(duties, "prune", PruneReport),
        Part(duties, "sweep", SweepReport),
        interval_s=5.0,
        clock=lambda: now[0],
        draw=lambda: 0.5,
    )


def test_a_round_does_all_duties_and_housekeeping_at_its_own_pace(steward: Steward, duties: Duties, now: list[float]) -> None:
    steward.run_once()
    assert duties.done == ["reconcile", "expire", "dispatch", "sweep", "prune"]
    for seconds, more in ((5.0, []), (SWEEP_EVERY_S, ["sweep"]), (PRUNE_EVERY_S, ["sweep", "prune"])):
        duties.done.clear()
        now[0] += seconds
        steward.run_once()
        assert duties.done == ["reconcile", "expire", "dispatch", *more]


def test_all_that_is_past_its_deadline_ends_before_anything_is_dispatched(steward: Steward, duties: Duties) -> None:
    duties.late = [UUID(int=n) for n in range(250)]
    assert len(steward.run_once().expired) == 250
    assert duties.done[:5] == ["reconcile", "expire", "expire", "expire", "dispatch"]


@pytest.mark.parametrize("name", ["reconcile", "expire", "sweep", "prune"])
def test_a_duty_that_fails_stops_no_other(steward: Steward, duties: Duties, name: str) -> None:
    duties.failing[name] = RuntimeError("bug")
    report = steward.run_once()
    assert duties.done == ["reconcile", "expire", "dispatch", "sweep", "prune"]
    assert report.failures == {name: "RuntimeError: bug"}


def test_a_failure_is_told_once_and_its_end_too(
    steward: Steward, duties: Duties, now: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ledgerq")
    duties.failing["sweep"] = VectorsUnavailable("Qdrant is away")
    for _ in range(3):
        steward.run_once()
        now[0] += SWEEP_EVERY_S
    assert [record.getMessage() for record in caplog.records] == [
        'duty failed, will be tried again duty=sweep error="Qdrant is away"',
    ]
    duties.failing.clear()
    steward.run_once()
    assert caplog.records[-1].getMessage() == "duty works again duty=sweep"


@pytest.mark.parametrize("name", ["expire", "dispatch", "sweep"])
def test_a_call_that_is_too_much_for_the_ledger_leaves_out_no_other(steward: Steward, duties: Duties, name: str) -> None:
    """It has answered the first duty of the round, so it is not away."""
    duties.failing[name] = LedgerUnavailable("canceling statement due to statement timeout")
    report = steward.run_once()
    assert duties.done == ["reconcile", "expire", "dispatch", "sweep", "prune"]
    assert (report.ledger_away, list(report.failures)) == (False, [name])


def test_a_ledger_that_is_away_ends_the_round_and_is_asked_ever_more_seldom(steward: Steward, duties: Duties) -> None:
    duties.failing["reconcile"] = LedgerUnavailable("Postgres is away")
    pauses: list[float] = []
    for _ in range(6):
        duties.done.clear()
        pauses.append(steward.pause_s(steward.run_once()))
        assert duties.done == ["reconcile"]
    assert pauses == [10.0, 20.0, 40.0, 60.0, 60.0, 60.0]
    duties.failing.clear()
    assert steward.pause_s(steward.run_once()) == 5.0


def test_a_cap_that_is_being_counted_elsewhere_is_asked_again(steward: Steward, duties: Duties) -> None:
    duties.due = [Dispatched(runs=(RUN,), busy=True), Dispatched(runs=(RUN,)), Dispatched(runs=(RUN,))]
    assert steward.run_once().pushed == 2


@pytest.mark.parametrize(("due_in", "pause"), [(60.0, 5.0), (1.5, 1.5), (-3.0, 0.05)])
def test_what_is_due_soon_is_not_waited_past(steward: Steward, duties: Duties, due_in: float, pause: float) -> None:
    duties.due = [Dispatched(now=NOW, next_due_at=NOW + timedelta(seconds=due_in))]
    assert steward.pause_s(steward.run_once()) == pause


def test_rounds_are_spread_by_a_tenth(duties: Duties) -> None:
    for draw, pause in ((0.0, 4.5), (1.0, 5.5)):
        steward = Steward(duties, duties, Part(duties, "reconcile", ReconcileReport), interval_s=5.0, draw=lambda draw=draw: draw)
        assert steward.pause_s(StewardReport()) == pytest.approx(pause)


def test_a_worker_that_cannot_start_runs_is_named_once(steward: Steward, duties: Duties, caplog: pytest.LogCaptureFixture) -> None:
    misfire = Misfire(run=RUN.run, queue="processing", rq_status="failed", error="worker w7 cannot read runs: start it with …")
    duties.reconciled = ReconcileReport(misfires=(misfire, misfire))
    steward.run_once()
    steward.run_once()
    assert len(caplog.records) == 1
    assert "w7" in caplog.records[0].getMessage()


def test_a_worker_that_was_well_for_a_while_is_named_again(
    steward: Steward, duties: Duties, now: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    ill = ReconcileReport(misfires=(Misfire(run=RUN.run, queue="processing", rq_status="failed", error="no module"),))
    for after_s, report in ((0, ill), (30, ReconcileReport()), (30, ill), (MISFIRE_FORGOTTEN_S, ReconcileReport())):
        now[0] += after_s
        duties.reconciled = report
        steward.run_once()
    assert len(caplog.records) == 1, "a moment in which none is held is not yet health"
    assert steward._misfires == {}
    duties.reconciled = ill
    steward.run_once()
    assert len(caplog.records) == 2


def test_a_redis_that_stays_away_is_not_dispatched_to_and_is_told_once(
    steward: Steward, duties: Duties, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ledgerq")
    duties.due = [Dispatched(runs=(RUN,)), Dispatched(runs=(RUN,))]
    duties.redis_away = "refused"
    assert [steward.run_once().degraded for _ in range(3)] == ["refused"] * 3
    assert duties.done.count("dispatch") == 1, "what would be taken back at once is not dispatched again"
    duties.redis_away = None
    report = steward.run_once()
    assert (report.degraded, report.pushed) == (None, 1)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["Redis is away", "Redis is back"]


def test_it_goes_on_until_it_is_stopped(duties: Duties) -> None:
    stop = threading.Event()

    def third_round() -> ReconcileReport:
        if duties.done.count("reconcile") == 3:
            stop.set()
        raise LedgerUnavailable("away")

    Steward(duties, duties, Part(duties, "reconcile", third_round), interval_s=0.001).run_forever(stop)
    assert duties.done == ["reconcile"] * 3
