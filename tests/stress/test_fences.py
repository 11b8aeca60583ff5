"""Every fence by itself: what it is there to refuse is refused.

Each of these tests notices when its fence is taken out of the SQL (`scripts/mutate_ledger`, `protections/`).
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from ledgerq.errors import WrongState
from ledgerq.ids import new_id
from ledgerq.ledger import Returned, TaskReport
from ledgerq.models import Disposition, JobRequest, TaskRequest, Verdict
from ledgerq.outcomes import Completed, Failed, Outcome, Retry, Usage
from tests.stress.hands import Hand, Hands

APPLIED, SUPERSEDED, REFUSED = Disposition.APPLIED, Disposition.SUPERSEDED, Disposition.REFUSED


# --- who may speak for a run ---------------------------------------------------------------------------------------


def test_a_run_admits_one_delivery(hands: Hands) -> None:
    _, hand = hands.started()
    second = Hand(hands.store, hand.run)
    assert (second.start().disposition, second.tasks) == (SUPERSEDED, ())
    assert hands.live(hand).delivery == hand.delivery
    hand.complete(*hand.tasks)
    assert second.start().disposition is SUPERSEDED


def test_a_lost_start_is_answered_again(hands: Hands) -> None:
    _, hand = hands.started(3, window=2)
    first = hand.tasks
    again = hand.start(window=1)
    assert (again.disposition, again.step, again.tasks) == (APPLIED, 0, first)


def test_a_stranger_changes_nothing(hands: Hands) -> None:
    job, hand = hands.started(2)
    stranger = Hand(hands.store, hand.run, tasks=hand.tasks)
    before = hands.live(hand)
    assert stranger.beat() is SUPERSEDED
    assert stranger.complete(*hand.tasks).disposition is SUPERSEDED
    assert hands.live(hand) == before
    assert hands.statuses(job) == ["queued", "queued"]


@pytest.mark.parametrize("acknowledged", [0, 1])
def test_a_zombie_changes_nothing(hands: Hands, acknowledged: int) -> None:
    """Its run was taken away: neither a new call nor the repetition of one that had been answered says anything to it."""
    job, hand = hands.started(3, window=2)
    zombie = Hand(hands.store, hand.run, delivery=hand.delivery, tasks=hand.tasks)
    if acknowledged:
        hand.complete(hand.tasks[0])
    hands.lose(hand)
    before = (hands.rows("select * from ledgerq.run where id = %s", hand.run), hands.statuses(job))
    assert zombie.complete(*zombie.tasks, want=5).disposition is SUPERSEDED
    assert hand.complete(*hand.tasks, want=5).disposition is SUPERSEDED
    assert zombie.beat() is SUPERSEDED
    assert zombie.start().disposition is SUPERSEDED
    assert (hands.rows("select * from ledgerq.run where id = %s", hand.run), hands.statuses(job)) == before
    hands.in_order()


def test_a_finished_run_goes_no_further(hands: Hands) -> None:
    _, hand = hands.started()
    assert hand.complete(*hand.tasks).finished
    assert hand.advance(want=1).disposition is SUPERSEDED
    assert hand.beat() is SUPERSEDED


# --- which call it is ----------------------------------------------------------------------------------------------


def test_a_lost_acknowledgement_is_answered_again(hands: Hands) -> None:
    job, hand = hands.started(3, window=1)
    done = hand.tasks
    first = hand.complete(*done, want=1)
    again = hand.advance(*((task, Failed("another story")) for task in done), want=5, step=0)
    assert (again.disposition, again.step, again.tasks) == (APPLIED, 1, first.tasks)
    last = hand.complete(*hand.tasks, want=1)
    last = hand.complete(*last.tasks)
    assert (hand.advance(step=hand.step - 1).finished, last.finished) == (True, True)
    assert hands.status(job) == "completed"


def test_an_old_step_changes_nothing(hands: Hands) -> None:
    job, hand = hands.started(4, window=4)
    for task in hand.tasks[:2]:
        hand.complete(task)
    assert hand.advance((hand.tasks[0], Failed("late")), step=0).disposition is SUPERSEDED
    assert hands.statuses(job) == ["completed", "completed", "queued", "queued"]


def test_a_step_from_the_future_is_a_mistake(hands: Hands) -> None:
    _, hand = hands.started()
    with pytest.raises(WrongState, match="step"):
        hand.advance(step=1)


# --- which tasks it is about ------------------------------------------------------------------------------------------


def test_only_held_tasks_are_acknowledged(hands: Hands) -> None:
    """The rest of the run is in nobody's hands yet."""
    job, hand = hands.started(3, window=1)
    unhanded = hands.tasks(job)[2].id
    answer = hand.advance((unhanded, Completed()), want=0)
    assert answer.ignored == (unhanded,)
    assert hands.statuses(job) == ["queued"] * 3


def test_only_its_own_tasks_are_acknowledged(hands: Hands) -> None:
    job = hands.job(2)
    mine, theirs = hands.runs(2)
    mine.start()
    theirs.start()
    (stolen,) = theirs.tasks
    assert mine.advance((stolen, Failed("mine now"))).ignored == (stolen.id,)
    assert hands.statuses(job) == ["queued", "queued"]
    assert theirs.complete(stolen).ignored == ()


def test_a_task_is_acknowledged_once(hands: Hands) -> None:
    job, hand = hands.started(2)
    done, other = hand.tasks
    hand.complete(done)
    answer = hand.advance((done, Completed()), (other, Completed()))
    assert (answer.disposition, answer.ignored) == (APPLIED, (done.id,))
    assert hands.tasks(job)[0].attempts == 1
    hands.in_order()


def test_progress_is_noted_for_what_is_held(hands: Hands) -> None:
    job, hand = hands.started(3, window=1)
    held, unhanded = hands.tasks(job)[0].id, hands.tasks(job)[1].id
    hand.note({held: "mine", unhanded: "nobody's yet"})
    assert [task.progress for task in hands.tasks(job)] == ["mine", None, None]
    hand.advance((held, Completed()), want=0)
    hand.note({held: "late"})
    assert hands.tasks(job)[0].progress == "mine"


# --- every loop ends --------------------------------------------------------------------------------------------------


def test_attempts_are_bounded(hands: Hands) -> None:
    job = hands.job(max_attempts=2)
    for _ in range(2):
        hand = hands.next()
        hand.start()
        hand.advance((hand.tasks[0], Retry("again")))
    assert (hands.statuses(job), hands.tasks(job)[0].attempts) == (["failed"], 2)


@pytest.mark.parametrize("outcome", [Returned(), Retry("slower", throttled=True)], ids=["returned", "throttled"])
def test_free_returns_end_at_the_deadline(hands: Hands, outcome: Outcome | Returned) -> None:
    job, hand = hands.started(deadline_s=50)
    hands.clock.advance(51)
    hand.advance((hand.tasks[0], outcome))
    assert (hands.statuses(job), hands.tasks(job)[0].attempts) == (["failed"], 0)


def test_crashes_are_bounded(hands: Hands) -> None:
    job = hands.job()
    for _ in range(3):
        hand = hands.next()
        hand.start()
        hand.witnessed(Verdict.DIED)
    (task,) = hands.tasks(job)
    assert (task.status.value, task.crashes) == ("failed", 3)


def test_losses_are_bounded(hands: Hands) -> None:
    hands.limit(max_losses=2)
    job = hands.job()
    for _ in range(2):
        hand = hands.next()
        hand.start()
        hands.lose(hand)
    (task,) = hands.tasks(job)
    assert (task.status.value, task.losses) == ("failed", 2)


def test_timeouts_are_bounded(hands: Hands) -> None:
    hands.limit(max_crashes=50)
    job = hands.job(max_attempts=2)
    for _ in range(2):
        hand = hands.next()
        hand.start()
        assert hand.witnessed(Verdict.TIMEOUT, culprit=hand.tasks[0]) is APPLIED
    (task,) = hands.tasks(job)
    assert (task.status.value, task.attempts) == ("failed", 2)


# --- the lease ----------------------------------------------------------------------------------------------------------


def test_a_lease_protects_while_it_lasts(hands: Hands) -> None:
    _, hand = hands.started()
    hands.clock.advance(19)
    assert hands.judge(hands.seen(hand, Verdict.EXPIRED)) is REFUSED
    hands.clock.advance(2)
    assert hands.judge(hands.seen(hand, Verdict.EXPIRED)) is Disposition.SUSPECTED


def test_an_expired_lease_is_seen_twice(hands: Hands) -> None:
    """With at least a heartbeat's time in between."""
    _, hand = hands.started()
    hands.clock.advance(100)
    assert hands.judge(hands.seen(hand, Verdict.EXPIRED)) is Disposition.SUSPECTED
    hands.clock.advance(4)
    assert hands.judge(hands.seen(hand, Verdict.EXPIRED)) is Disposition.SUSPECTED
    hands.clock.advance(2)
    assert hands.judge(hands.seen(hand, Verdict.EXPIRED)) is APPLIED


def test_an_advance_clears_the_suspicion(hands: Hands) -> None:
    _, hand = hands.started(2)
    hands.clock.advance(100)
    hands.judge(hands.seen(hand, Verdict.EXPIRED))
    hand.complete(hand.tasks[0])
    hands.clock.advance(100)
    assert hands.judge(hands.seen(hand, Verdict.EXPIRED)) is Disposition.SUSPECTED


def test_a_heartbeat_clears_the_suspicion(hands: Hands) -> None:
    _, hand = hands.started()
    hands.clock.advance(100)
    hands.judge(hands.seen(hand, Verdict.EXPIRED))
    assert hand.beat() is APPLIED
    hands.clock.advance(100)
    assert hands.judge(hands.seen(hand, Verdict.EXPIRED)) is Disposition.SUSPECTED


def test_whoever_speaks_keeps_the_run(hands: Hands) -> None:
    """A heartbeat and an advance renew the lease, also one that had ended already."""
    _, hand = hands.started(3)
    hands.clock.advance(100)
    hand.complete(hand.tasks[0])
    hands.clock.advance(15)
    assert hands.judge(hands.seen(hand, Verdict.EXPIRED)) is REFUSED
    hand.beat()
    hands.clock.advance(15)
    assert hands.judge(hands.seen(hand, Verdict.EXPIRED)) is REFUSED


def test_a_database_that_was_away_judges_nobody_at_once(hands: Hands) -> None:
    """While it was away no lease could be renewed: so it waits one lease from its own start."""
    ((ahead,),) = hands.rows("select extract(epoch from pg_postmaster_start_time() - ledgerq.clock())::float8 - 60")
    hands.clock.advance(ahead)
    _, hand = hands.started()
    hands.clock.advance(70)
    assert hands.live(hand).lease_until < hands.store.moment()  # type: ignore[operator]
    assert hands.judge(hands.seen(hand, Verdict.EXPIRED)) is REFUSED
    hands.clock.advance(25)
    assert hands.judge(hands.seen(hand, Verdict.EXPIRED)) is Disposition.SUSPECTED


# --- verdicts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["seen_status", "seen_step", "seen_heartbeat_at"])
def test_a_verdict_holds_for_what_was_seen(hands: Hands, what: str) -> None:
    """One of the three differs: whoever judged has seen another moment."""
    _, hand = hands.started()
    hands.clock.advance(100)
    now = hands.live(hand)
    assert now.heartbeat_at is not None
    other = {"seen_status": "dispatched", "seen_step": 7, "seen_heartbeat_at": now.heartbeat_at - timedelta(seconds=1)}
    assert hands.judge(hands.seen(hand, Verdict.EXPIRED, **{what: other[what]})) is SUPERSEDED
    assert hands.judge(hands.seen(hand, Verdict.EXPIRED)) is Disposition.SUSPECTED


def test_a_witness_of_another_delivery_is_not_heard(hands: Hands) -> None:
    _, hand = hands.started()
    keeper = Hand(hands.store, hand.run)
    assert keeper.witnessed(Verdict.DIED) is SUPERSEDED
    assert hand.beat() is APPLIED


def test_a_run_ends_once(hands: Hands) -> None:
    """The same verdict again is the same one; another one comes too late."""
    job, hand = hands.started()
    culprit = hand.tasks[0]
    assert hand.witnessed(Verdict.DIED) is APPLIED
    assert hand.witnessed(Verdict.DIED) is APPLIED
    assert hand.witnessed(Verdict.TIMEOUT, culprit=culprit) is SUPERSEDED
    assert hands.tasks(job)[0].crashes == 1
    assert hands.rows("select verdict from ledgerq.run where id = %s", hand.run) == [("died",)]


def test_a_death_needs_positive_evidence(hands: Hands) -> None:
    """From RQ: the failure of the very execution that the run records, and silence for two heartbeats. A parent just knows."""
    _, hand = hands.started()
    right, wrong = {"execution_id": "execution"}, {"execution_id": "another"}
    assert hands.judge(hands.seen(hand, Verdict.DIED, evidence=right)) is REFUSED
    hands.clock.advance(11)
    assert hands.judge(hands.seen(hand, Verdict.DIED, evidence=wrong)) is REFUSED
    assert hands.judge(hands.seen(hand, Verdict.DIED)) is REFUSED
    assert hands.judge(hands.seen(hand, Verdict.DIED, evidence=right)) is APPLIED


def test_a_culprit_is_a_held_task(hands: Hands) -> None:
    job, hand = hands.started(3, window=1)
    held, unhanded, _ = hands.tasks(job)
    assert hand.witnessed(Verdict.TIMEOUT, culprit=unhanded.id) is REFUSED
    assert hand.witnessed(Verdict.TIMEOUT, culprit=999_999) is REFUSED
    assert hand.witnessed(Verdict.TIMEOUT, culprit=held.id) is APPLIED


@pytest.mark.parametrize("verdict", [Verdict.TIMEOUT, Verdict.CANCEL_KILL])
def test_only_a_direct_witness_reports_timeouts_and_kills(hands: Hands, verdict: Verdict) -> None:
    job, hand = hands.started()
    hands.store.cancel_jobs([job], actor="a")
    hands.clock.advance(100)
    assert hands.judge(hands.seen(hand, verdict, culprit=hand.tasks[0].id)) is REFUSED
    assert hand.witnessed(verdict, culprit=hand.tasks[0]) is APPLIED


def test_a_kill_needs_a_cancel_request(hands: Hands) -> None:
    job, hand = hands.started()
    assert hand.witnessed(Verdict.CANCEL_KILL, culprit=hand.tasks[0]) is REFUSED
    hands.store.cancel_jobs([job], actor="a")
    assert hand.witnessed(Verdict.CANCEL_KILL, culprit=hand.tasks[0]) is APPLIED
    assert hands.status(job) == "cancelled"


def test_a_stop_needs_silence(hands: Hands) -> None:
    job, hand = hands.started()
    assert hands.judge(hands.seen(hand, Verdict.STOPPED)) is REFUSED
    hands.clock.advance(11)
    assert hands.judge(hands.seen(hand, Verdict.STOPPED)) is APPLIED
    assert hands.status(job) == "cancelled"


def test_only_a_dispatched_run_is_revoked(hands: Hands) -> None:
    _, hand = hands.started()
    hands.clock.advance(100)
    assert hands.judge(hands.seen(hand, Verdict.REVOKE)) is REFUSED
    assert hand.beat() is APPLIED


# --- who is charged ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", [Verdict.DIED, Verdict.EXPIRED])
def test_only_held_tasks_are_charged(hands: Hands, verdict: Verdict) -> None:
    job, hand = hands.started(3, window=1)
    if verdict is Verdict.DIED:
        hand.witnessed(verdict)
    else:
        hands.lose(hand)
    assert [task.crashes + task.losses for task in hands.tasks(job)] == [1, 0, 0]


def test_a_timeout_charges_its_culprit_only(hands: Hands) -> None:
    job, hand = hands.started(3)
    hand.witnessed(Verdict.TIMEOUT, culprit=hand.tasks[1])
    assert [(task.attempts, task.crashes, task.alone) for task in hands.tasks(job)] == [(0, 0, False), (1, 1, True), (0, 0, False)]


def test_suspects_run_alone(hands: Hands) -> None:
    """Those that were held; the others go on together, although all would fit into runs of two."""
    _, hand = hands.started(6, window=2)
    hands.limit(depth=3)
    hand.witnessed(Verdict.DIED)
    together = "select t.alone, r.tasks from ledgerq.task t join ledgerq.run r on r.id = t.run_id where t.status = 'queued' order by 1, 2"
    assert hands.rows(together) == [(False, 2), (False, 2), (True, 1), (True, 1)]
    hands.in_order()


def test_nobody_is_given_up_in_company(hands: Hands) -> None:
    hands.limit(max_crashes=1)
    job, hand = hands.started(2)
    hand.witnessed(Verdict.DIED)
    assert all(not task.status.is_terminal for task in hands.tasks(job))
    alone = hands.next()
    alone.start()
    alone.witnessed(Verdict.DIED)
    assert sorted(hands.statuses(job)) == ["failed", "queued"]


# --- cancelling ---------------------------------------------------------------------------------------------------------


def test_a_cancel_leaves_what_is_held(hands: Hands) -> None:
    """Its worker is told; what it completes before it stops counts."""
    job, hand = hands.started(3, window=1)
    hands.store.cancel_jobs([job], actor="a")
    assert hands.statuses(job) == ["queued", "cancelled", "cancelled"]
    assert hand.complete(*hand.tasks).finished
    assert hands.statuses(job)[0] == "completed"


def test_what_is_cancelled_does_not_come_back_from_a_lost_run(hands: Hands) -> None:
    job, hand = hands.started(2)
    hands.store.cancel_jobs([job], actor="a")
    hand.witnessed(Verdict.DIED)
    assert (hands.statuses(job), hands.status(job)) == (["cancelled", "cancelled"], "cancelled")


def test_a_lost_retry_is_answered_again(hands: Hands) -> None:
    job = hands.job()
    hands.store.cancel_jobs([job], actor="a")
    request = new_id()
    for _ in range(2):
        assert hands.store.retry_jobs([job], actor="a", request_id=request).jobs[0].disposition is APPLIED
    assert hands.rows("select count(*) from ledgerq.event where kind = 'retried'") == [(1,)]
    hands.store.cancel_jobs([job], actor="a")
    assert hands.store.retry_jobs([job], actor="a", request_id=request).jobs[0].disposition is APPLIED
    assert hands.status(job) == "cancelled"


# --- dispatching --------------------------------------------------------------------------------------------------------


def test_a_paused_queue_starts_nothing(hands: Hands) -> None:
    job = hands.job()
    (hand,) = hands.runs(1)
    hands.store.pause_queue("processing", actor="a")
    assert hand.start().disposition is Disposition.PAUSED
    assert (hands.store.dispatch("processing").runs, hands.store.dispatch_due().runs) == ((), ())
    assert hands.statuses(job) == ["pending"]


def test_the_depth_is_kept(hands: Hands) -> None:
    hands.job(5)
    hands.limit(run_size=1, depth=2)
    assert [len(hands.store.dispatch("processing").runs) for _ in range(2)] == [2, 0]


def test_nothing_goes_out_before_its_time(hands: Hands) -> None:
    job, hand = hands.started()
    hand.advance((hand.tasks[0], Retry("later", after_s=60)))
    assert hands.store.dispatch_due().runs == ()
    hands.clock.advance(61)
    assert len(hands.store.dispatch_due().runs) == 1
    assert hands.statuses(job) == ["queued"]


def test_caps_are_kept(hands: Hands) -> None:
    for tenant in ("a", "a", "b", "b"):
        hands.job(tenant=tenant)
    hands.limit(depth=10, run_size=1, max_concurrent_jobs=3, tenant_concurrent_jobs=1)
    hands.store.dispatch("processing")
    assert hands.rows("select tenant, count(*) from ledgerq.task where status = 'queued' group by 1 order by 1") == [("a", 1), ("b", 1)]
    hands.limit(tenant_concurrent_jobs=None)
    hands.store.dispatch("processing")
    assert hands.rows("select count(*) from ledgerq.task where status = 'queued'") == [(3,)]


def test_only_a_running_run_is_shed(hands: Hands) -> None:
    """One that waits in Redis keeps its tasks: it may start in this very moment."""
    job = hands.job(2)
    (hand,) = hands.runs(1)
    assert hands.store.shed(hand.run).disposition is SUPERSEDED
    assert hands.store.shed(uuid4()).disposition is Disposition.NOT_FOUND
    assert hands.statuses(job) == ["queued", "queued"]


def test_shedding_leaves_what_is_held(hands: Hands) -> None:
    job, hand = hands.started(3, window=1)
    assert [hands.store.shed(hand.run).released for _ in range(2)] == [2, 0]
    assert hands.statuses(job) == ["queued", "pending", "pending"]
    assert hand.complete(*hand.tasks, want=5).finished
    hands.in_order()


def test_an_id_stands_for_one_request(hands: Hands) -> None:
    request = JobRequest(type="work", tasks=(TaskRequest(key="1"),))
    other = request.model_copy(update={"tenant": "other"})
    asked = [hands.store.create_jobs([each]).jobs[0].disposition for each in (request, request, other)]
    assert asked == [APPLIED, APPLIED, Disposition.CONFLICT]


# --- money --------------------------------------------------------------------------------------------------------------


def test_usage_counts_once(hands: Hands) -> None:
    _, hand = hands.started(2)
    usage = Usage(id=UUID(int=9), provider="p", model="m", tokens=5)
    reports = [TaskReport(task=task.id, outcome=Completed(), usage=(usage,)) for task in hand.tasks]
    hands.store.advance_run(hand.run, delivery=hand.delivery, step=0, reports=reports, want=0)
    assert hands.rows("select tokens from ledgerq.usage") == [(5,)]
