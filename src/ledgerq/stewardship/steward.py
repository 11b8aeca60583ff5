"""The steward: the only part that acts because time passed. Any number of stewards may run at once, and none must.

Work flows without one: the last acknowledgement of a run hands over the next runs. A steward is what brings back retries
that became due, what a dead worker held, and what was refused by a Redis that was away; it ends what is past its deadline
and removes what nobody needs any more. Each duty is repeatable and stands alone: one that fails is told about once, tried
again in the next round, and keeps no other from being done.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol
from uuid import UUID

from ledgerq.dispatch.dispatcher import Dispatcher
from ledgerq.errors import LedgerUnavailable, ServiceUnavailable
from ledgerq.ledger.answers import Expired
from ledgerq.logs import get_logger
from ledgerq.models import Dispatched
from ledgerq.stewardship.pruner import Pruner, PruneReport
from ledgerq.stewardship.sweeper import Sweeper, SweepReport
from ledgerq.sync.reconciler import Reconciler, ReconcileReport

PRUNE_EVERY_S: Final = 600.0
SWEEP_EVERY_S: Final = 30.0
JITTER: Final = 0.1
"""Rounds are spread by a tenth, so that stewards started together do not stay together."""
LONGEST_BACKOFF_S: Final = 60.0
SHORTEST_WAIT_S: Final = 0.05
MISFIRE_FORGOTTEN_S: Final = 600.0
"""A run that cannot be started is held for half a minute and goes out again: between two of them there is none to be seen."""
BUSY_ROUNDS: Final = 5
"""Dispatches in one round while somebody else is counting a queue's cap."""
EXPIRED_A_CALL: Final = 100
EXPIRING_CALLS: Final = 100
"""So a round ends at most 10,000 jobs or a million tasks; the next one goes on."""
EXPIRED_NAMED: Final = 10

log = get_logger("ledgerq.stewardship")


class StewardLedger(Protocol):
    """What the steward itself asks of the ledger."""

    def dispatch_due(self, *, limit: int | None = None) -> Dispatched: ...

    def expire_jobs(self, *, limit: int = 100) -> Expired: ...


@dataclass(slots=True, kw_only=True)
class StewardReport:
    """What one round did."""

    pushed: int = 0
    """Runs pushed because their tasks were due."""
    reconciled: ReconcileReport | None = None
    expired: tuple[UUID, ...] = ()
    """Jobs of which tasks were failed because the deadline passed."""
    pruned: PruneReport | None = None
    """None: it was not time for it."""
    swept: SweepReport | None = None
    degraded: str | None = None
    """Why Redis was not asked or did not take runs."""
    failures: dict[str, str] = field(default_factory=dict[str, str])
    """Duties that failed, with what they said."""
    next_due_s: float | None = None
    """Seconds until the next task becomes due, as the ledger sees it."""
    ledger_away: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Duty:
    name: str
    work: Callable[[StewardReport], None]
    every_s: float = 0.0


class Steward:
    """Does the duties, once or for ever."""

    def __init__(
        self,
        ledger: StewardLedger,
        dispatcher: Dispatcher,
        reconciler: Reconciler,
        pruner: Pruner | None = None,
        sweeper: Sweeper | None = None,
        *,
        interval_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`interval_s` is the pause between two rounds; a task that becomes due earlier shortens it."""
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._reconciler = reconciler
        self._pruner = pruner
        self._sweeper = sweeper
        self._interval_s = interval_s
        self._clock = clock
        self._draw = draw
        self._stop = threading.Event()
        self._done_at: dict[str, float] = {}
        self._failing: dict[str, str] = {}
        self._misfires: dict[str, float] = {}
        self._rounds_away = 0
        self._was_degraded = False

    def run_once(self) -> StewardReport:
        """One round of all duties whose time it is. Never raises for what a duty meets; `failures` says."""
        report = StewardReport()
        for duty in self._duties():
            if self._is_time(duty) and not report.ledger_away:
                self._do(duty, report)
        self._tell_misfires(report)
        self._tell_degraded(report)
        self._rounds_away = self._rounds_away + 1 if report.ledger_away else 0
        return report

    def run_forever(self, stop: threading.Event) -> None:
        """Round after round until `stop` is set, whatever is away in between."""
        self._stop = stop
        log.info("steward started", interval_s=self._interval_s)
        while not stop.is_set():
            stop.wait(self.pause_s(self.run_once()))
        log.info("steward stopped")

    def pause_s(self, report: StewardReport) -> float:
        """Seconds to wait after that round: the interval, less when something is due earlier, more while the ledger is away."""
        spread = 1 + JITTER * (2 * self._draw() - 1)
        if report.ledger_away:
            return min(LONGEST_BACKOFF_S, self._interval_s * 2 ** min(self._rounds_away, 10)) * spread
        if report.next_due_s is not None:
            return max(SHORTEST_WAIT_S, min(report.next_due_s, self._interval_s * spread))
        return self._interval_s * spread

    def _duties(self) -> tuple[_Duty, ...]:
        """In this order: what sets work free comes before what looks at it, and housekeeping comes last."""
        return (
            _Duty(name="reconcile", work=self._reconcile),
            _Duty(name="expire", work=self._expire),
            _Duty(name="dispatch", work=self._dispatch),
            _Duty(name="sweep", work=self._sweep, every_s=SWEEP_EVERY_S),
            _Duty(name="prune", work=self._prune, every_s=PRUNE_EVERY_S),
        )

    def _is_time(self, duty: _Duty) -> bool:
        done_at = self._done_at.get(duty.name)
        return done_at is None or self._clock() - done_at >= duty.every_s

    def _do(self, duty: _Duty, report: StewardReport) -> None:
        self._done_at[duty.name] = self._clock()
        try:
            duty.work(report)
        except ServiceUnavailable as error:
            # It has just answered the first duty: what is too much for it in another one is no reason to leave out the rest.
            report.ledger_away = isinstance(error, LedgerUnavailable) and report.reconciled is None
            self._note(duty, report, str(error))
        except Exception as error:  # noqa: BLE001 - a duty that meets a bug must not take the others down
            self._note(duty, report, f"{type(error).__name__}: {error}", unexpected=error)
        else:
            self._note_success(duty)

    def _note(self, duty: _Duty, report: StewardReport, message: str, unexpected: Exception | None = None) -> None:
        """Told once: a service that stays away must not fill the log."""
        report.failures[duty.name] = message
        if duty.name not in self._failing:
            log.warning("duty failed, will be tried again", duty=duty.name, error=message, exc_info=unexpected)
        self._failing[duty.name] = message

    def _note_success(self, duty: _Duty) -> None:
        if self._failing.pop(duty.name, None) is not None:
            log.info("duty works again", duty=duty.name)

    def _reconcile(self, report: StewardReport) -> None:
        # What it sets free is dispatched below, after deadlines were looked at: else a job could be revoked and sent for ever.
        report.reconciled = self._reconciler.run_once(dispatch=False)

    def _expire(self, report: StewardReport) -> None:
        # All of them before anything is dispatched: what is past its deadline must not go out once more.
        for _ in range(EXPIRING_CALLS):
            answer = self._ledger.expire_jobs(limit=EXPIRED_A_CALL)
            report.expired += tuple(job for job in answer.expired if job not in report.expired[-EXPIRED_A_CALL:])
            if not answer.more or self._stop.is_set():
                break
        if report.expired:
            named = [str(job) for job in report.expired[:EXPIRED_NAMED]]
            log.warning("jobs past their deadline", count=len(report.expired), jobs=named)

    def _dispatch(self, report: StewardReport) -> None:
        # What cannot be pushed is revoked again: while Redis stays away, that would only wear out rows.
        if self._was_degraded and (why := self._dispatcher.unavailable()) is not None:
            report.degraded = why
            return
        self._was_degraded = False
        for _ in range(BUSY_ROUNDS):
            due = self._ledger.dispatch_due()
            pushed = self._dispatcher.push(due.runs)
            report.pushed += pushed.pushed
            report.degraded = report.degraded or pushed.degraded
            self._was_degraded = self._was_degraded or pushed.degraded is not None
            report.next_due_s = _seconds_until(due.next_due_at, due.now)
            if not due.busy or self._was_degraded or self._stop.is_set():
                break

    def _sweep(self, report: StewardReport) -> None:
        if self._sweeper is not None:
            report.swept = self._sweeper.run_once(self._stop.is_set)

    def _prune(self, report: StewardReport) -> None:
        if self._pruner is not None:
            report.pruned = self._pruner.run_once(self._stop.is_set)

    def _tell_degraded(self, report: StewardReport) -> None:
        """Redis away, told once, and its return too."""
        if report.reconciled is not None:
            report.degraded = report.degraded or report.reconciled.degraded
        if report.degraded is not None and "redis" not in self._failing:
            log.warning("Redis is away: jobs stay in the ledger", error=report.degraded)
            self._failing["redis"] = report.degraded
        elif report.degraded is None and self._failing.pop("redis", None) is not None:
            log.info("Redis is back")

    def _tell_misfires(self, report: StewardReport) -> None:
        """A worker that cannot start any run is its operator's to mend: named once for each reason, until it was well for a while."""
        misfires = () if report.reconciled is None else report.reconciled.misfires
        now = self._clock()
        self._misfires = {reason: at for reason, at in self._misfires.items() if now - at < MISFIRE_FORGOTTEN_S}
        for reason in {f"{misfire.queue}: {misfire.error or misfire.rq_status}" for misfire in misfires}:
            if reason not in self._misfires:
                log.warning("a worker cannot start runs; its runs are held back and go out again", queue_and_reason=reason)
            self._misfires[reason] = now


def _seconds_until(moment: datetime | None, now: datetime | None) -> float | None:
    return None if moment is None or now is None else (moment - now).total_seconds()
