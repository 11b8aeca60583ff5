"""What a keeper does each time it looks: renew the lease, enforce timeouts and cancels, report a death. No process, no clock
of its own: `Keeping` drives it, and so do tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol
from uuid import UUID

from ledgerq.execution.parts import RunLedger
from ledgerq.execution.slate import AtWork, Slate, Terms
from ledgerq.logs import get_logger
from ledgerq.models import Disposition, JsonObject, RunTicket, RunVerdict, Verdict

ACTOR: Final = "keeper"
LOOK_S: Final = 0.2
"""Between two looks: how late a timeout may be noticed. A look costs 50 µs."""
REPORT_S: Final = 60.0
"""How long a keeper tries to report after the horse's end; by then the lease tells the rest."""
LONGEST_RETRY_S: Final = 1.0
"""A ledger that is back should hear from the witness before the status sync draws its own conclusions."""

log = get_logger("ledgerq.keeper")


class WatchedHorse(Protocol):
    """The process that is kept: `Horse`."""

    @property
    def pid(self) -> int: ...
    def is_alive(self) -> bool: ...
    def is_stopped(self) -> bool: ...
    def kill(self) -> None: ...
    def note_peak(self) -> int: ...
    def ending(self) -> JsonObject: ...


class Look(Enum):
    """Whether to look again."""

    AGAIN = "the horse lives and the run is ours"
    OVER = "there is nothing left to keep"


@dataclass(slots=True)
class Watch:
    """The keeper of one delivery."""

    run: UUID
    delivery: UUID
    slate: Slate
    horse: WatchedHorse
    ledger: Callable[[], RunLedger]
    """The keeper's own; made when it is first asked for."""
    push: Callable[[Sequence[RunTicket]], None]
    stopped_by_hand: Callable[[], bool]
    """Whether RQ says that a person stopped the run. Asked once, after a death by SIGKILL; may wait half a second."""
    now_ns: Callable[[], int]
    note_kill: Callable[[], None]
    """Called before each kill, so that who reaps the horse leaves the report to this keeper."""
    wait: Callable[[float], None]
    _next_heartbeat_ns: int = 0
    _told_ns: dict[int, int] = field(default_factory=dict[int, int])
    _superseded_ns: int | None = None

    def look(self) -> Look:
        """One look at the horse. Anything that the ledger refuses or does not answer is tried again at the next one.

        What is late is ended before the lease is renewed: a call to a ledger that has fallen silent may take as long as the
        ledger's own timeout, and the next look knows that it is away.
        """
        terms = self.slate.terms
        if terms is None:
            return Look.AGAIN
        self.horse.note_peak()
        found = self._enforce(terms)
        if found is Look.AGAIN and not self.horse.is_stopped():
            self._renew(terms)
        return found

    def horse_died(self) -> None:
        """Report the death with what is known of it. The ledger ignores it when the run ended before."""
        evidence = self._evidence(self.horse.ending())
        verdict = Verdict.DIED
        if evidence.get("signal", "SIGKILL") == "SIGKILL" and evidence.get("exit_code") is None and self.stopped_by_hand():
            verdict = Verdict.STOPPED
        self.report(RunVerdict(run=self.run, verdict=verdict, delivery=self.delivery, evidence=evidence))

    def report(self, verdict: RunVerdict) -> Disposition | None:
        """Record a verdict that nobody else can give, for as long as it is of use; None when it could not be."""
        began, pause = self.now_ns(), 0.2
        while True:
            try:
                disposition = self._record(verdict)
            except Exception as error:  # noqa: BLE001 - whatever keeps the ledger from it, it may pass: a migration, a restart
                if self.now_ns() - began > _ns(REPORT_S):
                    log.warning("verdict lost; the lease will tell", run=self.run, verdict=verdict.verdict, cause=_cause(error))
                    return None
                self.wait(pause)
                pause = min(pause * 2, LONGEST_RETRY_S)
                continue
            log.info("verdict recorded", run=self.run, verdict=verdict.verdict, disposition=disposition)
            return disposition

    # --- the lease

    def _renew(self, terms: Terms) -> None:
        now = self.now_ns()
        if now < self._next_heartbeat_ns or self._is_fresh(terms, now) or self._superseded_ns is not None:
            return
        try:
            answer = self.ledger().heartbeat_run(self.run, delivery=self.delivery)
        except Exception as error:  # noqa: BLE001 - whatever the ledger says, the horse is still to be watched
            log.warning("heartbeat failed", run=self.run, cause=_cause(error))
            self.slate.ledger_is_away()
            self._next_heartbeat_ns = self.now_ns() + _ns(min(terms.heartbeat_s, 1.0))
            return
        if answer.disposition is not Disposition.APPLIED:
            self.slate.supersede()
            self._superseded_ns = self.now_ns()
            log.warning("superseded", run=self.run, disposition=answer.disposition)
            return
        self.slate.renewed(now)
        self.slate.want_shed(answer.shed_wanted)
        if answer.shed_wanted:
            self._shed()
        self._tell_cancelled(answer.cancelled)
        self._next_heartbeat_ns = now + _ns(terms.heartbeat_s)

    def _shed(self) -> None:
        """Give back what is in nobody's hands: the horse may be in the middle of a long task, and tells nobody for so long."""
        try:
            self.push(self.ledger().shed(self.run, dispatch=True).runs)
        except Exception as error:  # noqa: BLE001 - it is asked for again with the next heartbeat
            log.info("not shed", run=self.run, cause=_cause(error))

    def _is_fresh(self, terms: Terms, now: int) -> bool:
        """The horse renewed the lease itself, and has no long task at work that a cancel would have to reach through us."""
        oldest = min((one.taken_ns for one in self.slate.at_work()), default=now)
        return now - self.slate.heard_ns < _ns(terms.heartbeat_s) and now - oldest < _ns(terms.heartbeat_s)

    def _tell_cancelled(self, tasks: Sequence[int]) -> None:
        self.slate.cancel(tasks)
        for task in tasks:
            self._told_ns.setdefault(task, self.now_ns())

    # --- timeouts, cancels, a lost run

    def _enforce(self, terms: Terms) -> Look:
        now = self.now_ns()
        waiting_since = self.slate.waiting_since_ns
        clock = now
        if waiting_since:  # it stands still while the handler waits for us, and cannot hear of a cancel
            clock = min(now, waiting_since)
            self._told_ns = dict.fromkeys(self._told_ns, now)
        at_work = self.slate.at_work()
        late = next((one for one in at_work if one.deadline_ns <= clock), None)
        if late is not None:
            return self._end(late, Verdict.TIMEOUT)
        if not at_work and 0 < self.slate.idle_until_ns <= clock:
            return self._end_idle()
        grace = _ns(terms.cancel_grace_s)
        stubborn = next((one for one in at_work if clock - self._told_ns.get(one.task, clock) > grace), None)
        if stubborn is not None:
            return self._end(stubborn, Verdict.CANCEL_KILL)
        if self._superseded_ns is not None and now - self._superseded_ns > grace:
            log.warning("horse killed: the run is not its own any more", run=self.run)
            self._kill()
            return Look.OVER
        return Look.AGAIN

    def _end_idle(self) -> Look:
        """A window handler takes no task and does not end: nobody to blame but the tasks that the horse holds."""
        log.warning("horse killed: its handler works on no task", run=self.run)
        self._kill()
        self.report(RunVerdict(run=self.run, verdict=Verdict.DIED, delivery=self.delivery, evidence=self._evidence({"idle": True})))
        return Look.OVER

    def _end(self, culprit: AtWork, verdict: Verdict) -> Look:
        """Record why, then kill. Without the ledger it kills first, whatever the ledger says: nothing else can end a task that hangs."""
        ran_s = (self.now_ns() - culprit.taken_ns) / 1e9
        evidence = self._evidence({"ran_s": round(ran_s, 3), "allowed_s": round((culprit.deadline_ns - culprit.taken_ns) / 1e9, 3)})
        said = RunVerdict(run=self.run, verdict=verdict, delivery=self.delivery, culprit=culprit.task, evidence=evidence)
        disposition = None if self.slate.is_ledger_away else self._tried(said)
        if disposition in (None, Disposition.REFUSED) and culprit not in self.slate.at_work():
            return Look.AGAIN  # it was answered in the same instant
        log.warning("horse killed", run=self.run, verdict=verdict, task=culprit.task, disposition=disposition)
        self._kill()
        if (disposition or self.report(said)) is Disposition.REFUSED:
            self.report(RunVerdict(run=self.run, verdict=Verdict.DIED, delivery=self.delivery, evidence=evidence))
        return Look.OVER

    def _kill(self) -> None:
        self.note_kill()
        self.horse.kill()

    # --- reporting

    def _tried(self, verdict: RunVerdict) -> Disposition | None:
        """Record a verdict if the ledger takes it now."""
        try:
            return self._record(verdict)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not save a horse that hangs
            log.warning("verdict not recorded yet", run=self.run, verdict=verdict.verdict, cause=_cause(error))
            return None

    def _record(self, verdict: RunVerdict) -> Disposition:
        answer = self.ledger().reconcile_runs([verdict], actor=ACTOR)
        with suppress(Exception):  # what is not pushed is pushed by the status sync
            self.push(answer.to_push)
        return answer.runs[0].disposition

    def _evidence(self, more: JsonObject) -> JsonObject:
        peak = max(self.horse.note_peak(), self.slate.peak_bytes)
        at_work = self.slate.at_work()
        return {
            "witness": ACTOR,
            "horse_pid": self.horse.pid,
            "tasks_at_work": [one.task for one in at_work[:20]],
            **({"peak_bytes": peak} if peak else {}),
            **more,
        }


def _cause(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
