"""What a keeper does at each look, on a horse, a ledger and a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import pytest

from ledgerq.errors import ConfigurationError, InvalidInput, LedgerUnavailable, SchemaMismatch
from ledgerq.execution.slate import CANCELS, SLOTS, Slate, Terms
from ledgerq.execution.watch import REPORT_S, Look, Watch
from ledgerq.ledger.answers import Shed
from ledgerq.models import Disposition, Heartbeat, JsonObject, RunDisposition, RunsReconciled, RunTicket, RunVerdict, Verdict

SECOND = 1_000_000_000
TERMS = Terms(lease_s=20, heartbeat_s=5, cancel_grace_s=10)


@dataclass
class FakeHorse:
    pid: int = 4711
    alive: bool = True
    stopped: bool = False
    end: JsonObject = field(default_factory=lambda: {"signal": "SIGKILL"})

    def is_alive(self) -> bool:
        return self.alive

    def is_stopped(self) -> bool:
        return self.stopped

    def kill(self) -> None:
        self.alive = False

    def note_peak(self) -> int:
        return 5_000_000

    def ending(self) -> JsonObject:
        return self.end


@dataclass
class Play:
    """A watch and everything around it."""

    slate: Slate = field(default_factory=Slate)
    horse: FakeHorse = field(default_factory=FakeHorse)
    now: int = 100 * SECOND
    heartbeats: int = 0
    sheds: int = 0
    answer: Heartbeat = field(default_factory=lambda: Heartbeat(disposition=Disposition.APPLIED))
    disposition: Disposition = Disposition.APPLIED
    verdicts: list[RunVerdict] = field(default_factory=list)
    pushed: list[RunTicket] = field(default_factory=list)
    to_push: tuple[RunTicket, ...] = ()
    away: int = 0
    by_hand: bool = False
    error: Exception = field(default_factory=lambda: LedgerUnavailable("no route to host"))
    hangs_s: float = 0
    """How long the ledger takes to fail."""
    meanwhile: Callable[[], None] = lambda: None
    kills: list[tuple[int, bool]] = field(default_factory=list)
    """When a kill was noted, and whether the horse lived then."""
    during_verdict: Callable[[], None] = lambda: None
    before_shed: Callable[[], None] = lambda: None
    run: UUID = field(default_factory=uuid4)
    delivery: UUID = field(default_factory=uuid4)

    def __post_init__(self) -> None:
        self.watch = Watch(
            run=self.run,
            delivery=self.delivery,
            slate=self.slate,
            horse=self.horse,
            ledger=lambda: self,  # type: ignore[arg-type, return-value]
            push=self.pushed.extend,
            stopped_by_hand=lambda: self.by_hand,
            now_ns=lambda: self.now,
            note_kill=lambda: self.kills.append((self.now, self.horse.alive)),
            wait=self.pass_time,
        )

    def heartbeat_run(self, run: UUID, *, delivery: UUID) -> Heartbeat:
        assert (run, delivery) == (self.run, self.delivery)
        self._fail_when_away()
        self.heartbeats += 1
        return self.answer

    def shed(self, run: UUID, *, dispatch: bool) -> Shed:
        assert (run, dispatch) == (self.run, True)
        self.before_shed()
        self._fail_when_away()
        self.sheds += 1
        return Shed(released=3, runs=self.to_push)

    def reconcile_runs(self, verdicts: Sequence[RunVerdict], *, actor: str) -> RunsReconciled:
        assert actor == "keeper"
        self._fail_when_away()
        self.verdicts += verdicts
        self.during_verdict()
        return RunsReconciled(runs=(RunDisposition(run=self.run, disposition=self.disposition),), to_push=self.to_push)

    def _fail_when_away(self) -> None:
        if self.away:
            self.away -= 1
            self.pass_time(self.hangs_s)
            self.meanwhile()
            raise self.error

    def lose_the_ledger(self) -> None:
        self.away = 1

    def pass_time(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)

    def look_after(self, seconds: float) -> Look:
        self.pass_time(seconds)
        return self.watch.look()


@pytest.fixture
def play() -> Play:
    made = Play()
    made.slate.begin_run(TERMS, at_ns=made.now)
    return made


def test_before_the_run_has_started_there_is_nothing_to_do() -> None:
    unstarted = Play()
    assert unstarted.look_after(100) is Look.AGAIN
    assert unstarted.heartbeats == 0


def test_a_short_run_needs_no_heartbeat(play: Play) -> None:
    for _ in range(24):
        play.look_after(0.2)
    assert play.heartbeats == 0


def test_the_lease_is_renewed_each_heartbeat_and_the_horse_is_told(play: Play) -> None:
    for _ in range(21):
        play.look_after(1)
    assert play.heartbeats == 4
    assert play.slate.renewed_ns >= 115 * SECOND


def test_a_horse_that_renews_its_lease_itself_is_left_alone(play: Play) -> None:
    for _ in range(20):
        play.pass_time(1)
        play.slate.heard(play.now)
        play.watch.look()
    assert play.heartbeats == 0


def test_a_long_task_is_told_of_its_cancel_even_while_others_are_quick(play: Play) -> None:
    play.slate.begin(7, taken_ns=play.now, timeout_s=600)
    play.answer = Heartbeat(disposition=Disposition.APPLIED, cancelled=(7,))
    for _ in range(7):
        play.pass_time(1)
        play.slate.heard(play.now)
        play.watch.look()
    assert play.slate.cancelled() == {7}


def test_a_stopped_horse_is_not_renewed(play: Play) -> None:
    play.horse.stopped = True
    play.look_after(60)
    assert play.heartbeats == 0
    play.horse.stopped = False
    play.look_after(1)
    assert play.heartbeats == 1


def test_a_ledger_that_is_away_is_asked_again_in_a_second_and_the_horse_is_told(play: Play) -> None:
    play.away = 2
    play.look_after(6)
    assert play.slate.is_ledger_away
    play.look_after(0.5)
    assert play.away == 1
    play.look_after(1)
    play.look_after(1.1)
    assert play.heartbeats == 1
    assert not play.slate.is_ledger_away


def test_a_wish_to_give_way_reaches_the_horse_and_is_taken_back(play: Play) -> None:
    play.answer = Heartbeat(disposition=Disposition.APPLIED, shed_wanted=True)
    play.look_after(6)
    assert play.slate.is_shed_wanted
    play.answer = Heartbeat(disposition=Disposition.APPLIED)
    play.look_after(6)
    assert not play.slate.is_shed_wanted


def test_a_late_task_is_recorded_as_the_culprit_and_then_its_horse_is_killed(play: Play) -> None:
    play.slate.begin(7, taken_ns=play.now, timeout_s=3)
    play.slate.begin(8, taken_ns=play.now + SECOND, timeout_s=60)
    play.to_push = (RunTicket(run=uuid4(), queue="processing", type="job"),)
    play.during_verdict = lambda: None if play.horse.alive else pytest.fail("killed before it was recorded")
    assert play.look_after(2.9) is Look.AGAIN
    assert play.look_after(0.2) is Look.OVER
    (verdict,) = play.verdicts
    assert (verdict.verdict, verdict.culprit, verdict.delivery) == (Verdict.TIMEOUT, 7, play.delivery)
    assert verdict.evidence["allowed_s"] == 3.0
    assert verdict.evidence["tasks_at_work"] == [7, 8]
    assert verdict.evidence["peak_bytes"] == 5_000_000
    assert not play.horse.alive
    assert play.pushed == list(play.to_push)


def test_a_task_that_is_answered_in_the_same_instant_is_not_killed(play: Play) -> None:
    play.slate.begin(7, taken_ns=play.now, timeout_s=3)
    play.disposition = Disposition.REFUSED
    play.during_verdict = lambda: play.slate.end(7)
    assert play.look_after(4) is Look.AGAIN
    assert play.horse.alive


def test_a_hung_task_is_killed_even_while_the_ledger_is_away_and_recorded_later(play: Play) -> None:
    play.slate.begin(7, taken_ns=play.now, timeout_s=3)
    play.away = 4
    assert play.look_after(4) is Look.OVER
    assert not play.horse.alive
    assert [verdict.verdict for verdict in play.verdicts] == [Verdict.TIMEOUT]


ODD = [SchemaMismatch("a migration came"), ConfigurationError("the role may not"), InvalidInput("verdict"), RuntimeError("a bug")]


@pytest.mark.parametrize("error", ODD)
def test_whatever_the_ledger_says_a_hung_task_is_killed_and_a_death_reported(play: Play, error: Exception) -> None:
    play.error = error
    play.away = 3
    assert play.look_after(6) is Look.AGAIN, "a heartbeat that is refused is tried again"
    play.slate.renewed(play.now)
    play.slate.begin(7, taken_ns=play.now, timeout_s=3)
    assert play.look_after(4) is Look.OVER
    assert not play.horse.alive
    assert [verdict.verdict for verdict in play.verdicts] == [Verdict.TIMEOUT]
    play.away = 2
    play.watch.horse_died()
    assert [verdict.verdict for verdict in play.verdicts] == [Verdict.TIMEOUT, Verdict.DIED]


def test_a_ledger_that_hangs_keeps_a_late_task_alive_for_one_call_at_most(play: Play) -> None:
    play.slate.begin(7, taken_ns=play.now, timeout_s=6.5)
    play.hangs_s, play.away = 20, 3
    assert play.look_after(6) is Look.AGAIN
    assert play.look_after(0.2) is Look.OVER
    assert play.kills == [(play.now - 40 * SECOND - int(0.6 * SECOND), True)], "before the calls that report it, which hang as well"
    assert [verdict.verdict for verdict in play.verdicts] == [Verdict.TIMEOUT]


def test_what_is_late_is_ended_before_the_lease_is_renewed(play: Play) -> None:
    play.slate.begin(7, taken_ns=play.now, timeout_s=6)
    assert play.look_after(6) is Look.OVER
    assert play.heartbeats == 0


def test_who_reaps_the_horse_is_told_before_it_is_killed(play: Play) -> None:
    play.slate.begin(7, taken_ns=play.now, timeout_s=3)
    play.look_after(4)
    assert play.kills == [(play.now, True)]


def test_a_task_that_is_answered_while_the_ledger_hangs_is_not_killed(play: Play) -> None:
    play.slate.begin(7, taken_ns=play.now, timeout_s=3)
    play.away = 1
    play.meanwhile = lambda: play.slate.end(7)
    assert play.look_after(4) is Look.AGAIN
    assert play.horse.alive


def test_a_horse_killed_without_the_ledger_for_what_that_does_not_know_has_died(play: Play) -> None:
    play.slate.begin(7, taken_ns=play.now, timeout_s=3)
    play.slate.ledger_is_away()
    play.disposition = Disposition.REFUSED
    assert play.look_after(4) is Look.OVER
    assert [verdict.verdict for verdict in play.verdicts] == [Verdict.TIMEOUT, Verdict.DIED]


def test_a_refused_verdict_about_a_task_that_hangs_on_still_ends_its_horse(play: Play) -> None:
    """The ledger does not know the task as held, yet the horse works on it: nothing good can come of it."""
    play.slate.begin(7, taken_ns=play.now, timeout_s=3)
    play.disposition = Disposition.REFUSED
    assert play.look_after(4) is Look.OVER
    assert [verdict.verdict for verdict in play.verdicts] == [Verdict.TIMEOUT, Verdict.DIED]


def test_a_cancelled_task_has_its_grace_before_the_cause_is_recorded_and_the_horse_killed(play: Play) -> None:
    play.slate.begin(7, taken_ns=play.now, timeout_s=600)
    play.answer = Heartbeat(disposition=Disposition.APPLIED, cancelled=(7,))
    play.look_after(6)
    assert play.look_after(9) is Look.AGAIN
    assert play.look_after(2) is Look.OVER
    (verdict,) = play.verdicts
    assert (verdict.verdict, verdict.culprit) == (Verdict.CANCEL_KILL, 7)
    assert not play.horse.alive


def test_a_cancelled_task_that_ends_in_its_grace_kills_nobody(play: Play) -> None:
    play.slate.begin(7, taken_ns=play.now, timeout_s=600)
    play.answer = Heartbeat(disposition=Disposition.APPLIED, cancelled=(7,))
    play.look_after(6)
    play.slate.end(7)
    assert play.look_after(30) is Look.AGAIN
    assert play.horse.alive


def test_a_superseded_horse_may_stop_by_itself_and_is_killed_without_a_verdict(play: Play) -> None:
    play.answer = Heartbeat(disposition=Disposition.SUPERSEDED)
    assert play.look_after(6) is Look.AGAIN
    assert play.slate.is_superseded
    assert play.look_after(11) is Look.OVER
    assert not play.horse.alive
    assert play.verdicts == []
    assert play.heartbeats == 1


def test_a_death_is_reported_with_signal_memory_and_tasks(play: Play) -> None:
    play.slate.begin(7, taken_ns=play.now, timeout_s=600)
    play.slate.note_peak(9_000_000)
    play.horse.end = {"signal": "SIGSEGV"}
    play.watch.horse_died()
    (verdict,) = play.verdicts
    assert (verdict.verdict, verdict.delivery, verdict.seen_status) == (Verdict.DIED, play.delivery, None)
    assert verdict.evidence == {
        "witness": "keeper",
        "horse_pid": 4711,
        "tasks_at_work": [7],
        "peak_bytes": 9_000_000,
        "signal": "SIGSEGV",
    }


def test_a_death_in_starting_is_reported_too() -> None:
    unstarted = Play()
    unstarted.watch.horse_died()
    assert [verdict.verdict for verdict in unstarted.verdicts] == [Verdict.DIED]


def test_a_horse_that_a_person_stopped_in_rq_did_not_die(play: Play) -> None:
    play.by_hand = True
    play.watch.horse_died()
    assert [verdict.verdict for verdict in play.verdicts] == [Verdict.STOPPED]


def test_no_person_stops_a_horse_with_another_signal(play: Play) -> None:
    play.by_hand = True
    play.horse.end = {"signal": "SIGSEGV"}
    play.watch.horse_died()
    assert [verdict.verdict for verdict in play.verdicts] == [Verdict.DIED]


def test_a_death_is_reported_as_soon_as_the_ledger_is_back(play: Play) -> None:
    play.away = 20
    began = play.now
    play.watch.horse_died()
    assert len(play.verdicts) == 1
    assert (play.now - began) / SECOND < 20, "asked each second"


def test_a_keeper_does_not_wait_for_ever_to_report(play: Play) -> None:
    play.away = 10_000
    began = play.now
    play.watch.horse_died()
    assert REPORT_S <= (play.now - began) / SECOND < REPORT_S + 10


def test_the_slate_forgets_nobody_and_holds_the_largest_run() -> None:
    slate = Slate()
    for task in range(1, SLOTS + 1):
        slate.begin(task, taken_ns=task, timeout_s=1)
    assert [one.task for one in slate.at_work()] == list(range(1, SLOTS + 1))
    for task in range(1, SLOTS + 1):
        slate.end(task)
    assert slate.at_work() == []
    slate.end(5)
    slate.cancel(range(1, CANCELS + 10))
    slate.cancel([1, 2])
    assert len(slate.cancelled()) == CANCELS
    slate.close()


def test_what_is_asked_back_goes_back_while_the_horse_is_in_a_long_task(play: Play) -> None:
    play.slate.begin(7, taken_ns=play.now, timeout_s=600)
    play.to_push = (RunTicket(run=uuid4(), queue="processing", type="job"),)
    play.look_after(6)
    assert (play.heartbeats, play.sheds, play.slate.is_shed_wanted) == (1, 0, False)
    play.answer = Heartbeat(disposition=Disposition.APPLIED, shed_wanted=True)
    play.look_after(6)
    assert (play.heartbeats, play.sheds, play.slate.is_shed_wanted) == (2, 1, True)
    assert tuple(play.pushed) == play.to_push
    play.pass_time(6)
    play.before_shed = play.lose_the_ledger
    assert play.watch.look() is Look.AGAIN
    assert (play.heartbeats, play.sheds) == (3, 1), "tried again with the next heartbeat"


def test_no_deadline_passes_while_the_handler_waits_for_the_ledger(play: Play) -> None:
    play.slate.begin(7, taken_ns=play.now, timeout_s=60)
    play.pass_time(50)
    play.slate.wait_since(play.now)
    assert play.look_after(100) is Look.AGAIN
    play.slate.waited(100 * SECOND)
    assert play.look_after(9) is Look.AGAIN
    assert play.look_after(2) is Look.OVER
    assert [verdict.culprit for verdict in play.verdicts] == [7]


def test_a_cancel_has_its_grace_when_the_handler_may_hear_of_it(play: Play) -> None:
    play.slate.begin(7, taken_ns=play.now, timeout_s=600)
    play.answer = Heartbeat(disposition=Disposition.APPLIED, cancelled=(7,))
    play.look_after(6)
    play.slate.wait_since(play.now)
    assert play.look_after(30) is Look.AGAIN
    play.slate.waited(30 * SECOND)
    assert play.look_after(9) is Look.AGAIN
    assert play.look_after(2) is Look.OVER
    assert play.verdicts[-1].verdict is Verdict.CANCEL_KILL


def test_a_handler_that_works_on_no_task_for_too_long_is_killed(play: Play) -> None:
    play.slate.idle_until(play.now + 60 * SECOND)
    play.slate.begin(7, taken_ns=play.now, timeout_s=600)
    assert play.look_after(61) is Look.AGAIN, "a task is at work, and has its own time"
    play.slate.end(7)
    assert play.look_after(0) is Look.OVER
    assert not play.horse.alive
    (verdict,) = play.verdicts
    assert (verdict.verdict, verdict.culprit) == (Verdict.DIED, None)
