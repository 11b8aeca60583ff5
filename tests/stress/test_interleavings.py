"""Two callers at once, in the one order that hurts: each test holds the first one's transaction open while the second calls.

What is proved here is that locks are taken, in which order, and that what is read before a wait is not believed after it.
"""

from __future__ import annotations

from uuid import UUID

import pytest

from ledgerq.models import Disposition, JobRequest, TaskRequest, Verdict
from ledgerq.outcomes import Completed, Retry
from tests.stress.hands import Hand, Hands, saving
from tests.support.interleaving import Interleaving

APPLIED, SUPERSEDED = Disposition.APPLIED, Disposition.SUPERSEDED


# --- a run has one owner --------------------------------------------------------------------------------------------


def test_two_deliveries_start_at_once(hands: Hands, both: Interleaving) -> None:
    hands.job()
    (mine,) = hands.runs(1)
    theirs = Hand(hands.store, mine.run)
    with both.begun() as early:
        assert mine.start(store=early).disposition is APPLIED
        late = both.meanwhile(lambda store: theirs.start(store=store))
        late.waits()
        early.commit()
        assert late.result().disposition is SUPERSEDED
    assert mine.complete(*mine.tasks).disposition is APPLIED


def test_the_same_delivery_starts_twice_at_once(hands: Hands, both: Interleaving) -> None:
    """The client gave up waiting for the first answer: the second one is the same."""
    hands.job(3)
    (mine,) = hands.runs(1)
    with both.begun() as early:
        first = mine.start(store=early, window=2)
        late = both.meanwhile(lambda store: mine.start(store=store, window=2))
        late.waits()
        early.commit()
        second = late.result()
    assert (second.disposition, second.step, second.tasks) == (APPLIED, first.step, first.tasks)
    assert len(second.tasks) == 2


def test_the_same_acknowledgement_twice_at_once(hands: Hands, both: Interleaving) -> None:
    job, hand = hands.started(4, window=2)
    outcomes = [(task, Completed()) for task in hand.tasks]
    with both.begun() as early:
        first = hand.advance(*outcomes, want=2, store=early)
        late = both.meanwhile(lambda store: hand.advance(*outcomes, want=2, step=0, store=store))
        late.waits()
        early.commit()
        second = late.result()
    assert (second.disposition, second.step, second.tasks, second.ignored) == (APPLIED, 1, first.tasks, ())
    assert hands.statuses(job) == ["completed", "completed", "queued", "queued"]
    hands.in_order()


def test_a_verdict_meets_an_acknowledgement(hands: Hands, both: Interleaving) -> None:
    """The owner was faster: what the steward saw is no longer so."""
    job, hand = hands.started(2)
    first, second = hand.tasks
    hands.clock.advance(100)
    hands.judge(hands.seen(hand, Verdict.EXPIRED))
    hands.clock.advance(100)
    verdict = hands.seen(hand, Verdict.EXPIRED)
    with both.begun() as early:
        hand.complete(first, store=early)
        late = both.meanwhile(lambda store: store.reconcile_runs([verdict], actor="steward").runs[0].disposition)
        late.waits()
        early.commit()
        assert late.result() is SUPERSEDED
    assert hand.complete(second).finished
    assert hands.status(job) == "completed"


def test_an_acknowledgement_meets_a_verdict(hands: Hands, both: Interleaving) -> None:
    """The verdict was faster: the owner is none any more, and nothing of what it says counts."""
    job, hand = hands.started(2)
    with both.begun() as early:
        assert hand.witnessed(Verdict.DIED, store=early) is APPLIED
        late = both.meanwhile(lambda store: hand.complete(*hand.tasks, store=store).disposition)
        late.waits()
        early.commit()
        assert late.result() is SUPERSEDED
    assert [(task.crashes, task.status.value in ("pending", "queued")) for task in hands.tasks(job)] == [(1, True), (1, True)]
    hands.in_order()


def test_a_heartbeat_meets_a_verdict(hands: Hands, both: Interleaving) -> None:
    _, hand = hands.started()
    with both.begun() as early:
        hand.witnessed(Verdict.DIED, store=early)
        late = both.meanwhile(lambda store: store.heartbeat_run(hand.run, delivery=hand.delivery).disposition)
        late.waits()
        early.commit()
        assert late.result() is SUPERSEDED
    assert hands.rows("select status from ledgerq.run where id = %s", hand.run) == [("lost",)]


def test_two_stewards_say_the_same(hands: Hands, both: Interleaving) -> None:
    job, hand = hands.started()
    hands.clock.advance(100)
    hands.judge(hands.seen(hand, Verdict.EXPIRED))
    hands.clock.advance(100)
    verdict = hands.seen(hand, Verdict.EXPIRED)
    with both.begun() as early:
        assert early.reconcile_runs([verdict], actor="one").runs[0].disposition is APPLIED
        late = both.meanwhile(lambda store: store.reconcile_runs([verdict], actor="other").runs[0].disposition)
        late.waits()
        early.commit()
        assert late.result() is APPLIED
    assert hands.tasks(job)[0].losses == 1


def test_shed_passes_by_a_run_that_is_busy(hands: Hands, both: Interleaving) -> None:
    _, hand = hands.started(4, window=1)
    with both.begun() as early:
        hand.advance(want=1, store=early)
        assert both.meanwhile(lambda store: store.shed(hand.run)).result().released == 0
        early.commit()
    assert len(hand.advance(want=10).tasks) == 4


# --- counters are added under the job's lock ---------------------------------------------------------------------------


def test_two_runs_acknowledge_tasks_of_one_job(hands: Hands, both: Interleaving) -> None:
    job = hands.job(2)
    one, other = hands.runs(2)
    one.start()
    other.start()
    with both.begun() as early:
        one.complete(*one.tasks, store=early)
        late = both.meanwhile(lambda store: other.complete(*other.tasks, store=store))
        late.waits()
        early.commit()
        assert late.result().disposition is APPLIED
    assert hands.status(job) == "completed"
    hands.in_order()


def test_the_last_outcome_meets_the_seal(hands: Hands, both: Interleaving) -> None:
    """Whoever comes second ends the job."""
    job, hand = hands.started(sealed=False)
    with both.begun() as early:
        early.seal_job(job)
        late = both.meanwhile(lambda store: hand.complete(*hand.tasks, store=store))
        late.waits()
        early.commit()
        late.result()
    assert hands.status(job) == "completed"


def test_a_cancel_meets_an_acknowledgement(hands: Hands, both: Interleaving) -> None:
    """What was completed before stays so; what would have gone back is cancelled instead."""
    job, hand = hands.started(2)
    done, again = hand.tasks
    with both.begun() as early:
        hand.advance((done, Completed()), store=early)
        late = both.meanwhile(lambda store: store.cancel_jobs([job], actor="a").jobs[0].disposition)
        late.waits()
        early.commit()
        assert late.result() is APPLIED
    hand.advance((again, Retry()))
    assert hands.statuses(job) == ["completed", "cancelled"]
    assert hands.status(job) == "cancelled"
    hands.in_order()


def test_a_cancel_meets_the_end_of_its_job(hands: Hands, both: Interleaving) -> None:
    """What is said of the job is read after the wait."""
    job, hand = hands.started()
    with both.begun() as early:
        hand.complete(*hand.tasks, store=early)
        late = both.meanwhile(lambda store: store.cancel_jobs([job], actor="a").jobs[0])
        late.waits()
        early.commit()
        assert late.result().disposition is Disposition.TOO_LATE
    assert hands.status(job) == "completed"


def test_an_acknowledgement_meets_a_cancel(hands: Hands, both: Interleaving) -> None:
    job, hand = hands.started(2)
    done, again = hand.tasks
    with both.begun() as early:
        early.cancel_jobs([job], actor="a")
        late = both.meanwhile(lambda store: hand.advance((done, Completed()), (again, Retry()), store=store))
        late.waits()
        early.commit()
        assert late.result().disposition is APPLIED
    assert hands.statuses(job) == ["completed", "cancelled"]
    hands.in_order()


def test_a_start_meets_a_cancel(hands: Hands, both: Interleaving) -> None:
    job = hands.job(2)
    (hand,) = hands.runs(1)
    with both.begun() as early:
        early.cancel_jobs([job], actor="a")
        late = both.meanwhile(lambda store: hand.start(store=store))
        late.waits()
        early.commit()
        assert late.result().disposition is Disposition.EMPTY
    assert hands.status(job) == "cancelled"
    hands.in_order()


def test_a_start_meets_a_cancel_of_a_job_in_progress(hands: Hands, both: Interleaving) -> None:
    """Nothing of the job has to be changed by this start, and yet it waits: what is being cancelled is not handed out."""
    job = hands.job(2)
    one, other = hands.runs(2)
    one.start()
    with both.begun() as early:
        early.cancel_jobs([job], actor="a")
        late = both.meanwhile(lambda store: other.start(store=store))
        late.waits()
        early.commit()
        assert late.result().disposition is Disposition.EMPTY
    assert one.complete(*one.tasks).finished
    hands.in_order()


def test_a_hand_out_meets_a_cancel_of_another_job(hands: Hands, both: Interleaving) -> None:
    """The job of the task that is handed out next is locked too, not only that of the task that is acknowledged."""
    first, second = hands.job(), hands.job()
    (hand,) = hands.runs(1)
    hand.start(window=1)
    with both.begun() as early:
        early.cancel_jobs([second], actor="a")
        late = both.meanwhile(lambda store: hand.complete(*hand.tasks, want=1, store=store))
        late.waits()
        early.commit()
        assert late.result().tasks == ()
    assert (hands.status(first), hands.status(second)) == ("completed", "cancelled")
    hands.in_order()


def test_a_verdict_meets_a_cancel(hands: Hands, both: Interleaving) -> None:
    """What would have gone back is cancelled instead, and counted once."""
    job, hand = hands.started(3, window=1)
    with both.begun() as early:
        early.cancel_jobs([job], actor="a")
        late = both.meanwhile(lambda store: hand.witnessed(Verdict.DIED, store=store))
        late.waits()
        early.commit()
        assert late.result() is APPLIED
    assert hands.status(job) == "cancelled"
    hands.in_order()


def test_the_seal_meets_the_last_outcome(hands: Hands, both: Interleaving) -> None:
    job, hand = hands.started(sealed=False)
    with both.begun() as early:
        hand.complete(*hand.tasks, store=early)
        late = both.meanwhile(lambda store: store.seal_job(job).status)
        late.waits()
        early.commit()
        assert late.result() == "completed"


def test_a_hand_out_meets_a_cancel(hands: Hands, both: Interleaving) -> None:
    """Tasks that were cancelled while the hand-out waited for their job are not handed out."""
    job, hand = hands.started(3, window=1)
    with both.begun() as early:
        early.cancel_jobs([job], actor="a")
        late = both.meanwhile(lambda store: hand.complete(*hand.tasks, want=2, store=store))
        late.waits()
        early.commit()
        answer = late.result()
    assert (answer.tasks, answer.finished) == ((), True)
    assert hands.statuses(job) == ["completed", "cancelled", "cancelled"]
    hands.in_order()


def test_a_cancel_meets_a_dispatch(hands: Hands, both: Interleaving) -> None:
    """The task was pending when the cancel began, and is in a run when its lock is free: it is un-handed, so it is cancelled."""
    job = hands.job(2)
    with both.begun() as early:
        assert early.dispatch("processing").runs
        late = both.meanwhile(lambda store: store.cancel_jobs([job], actor="a").jobs[0].status)
        late.waits()
        early.commit()
        assert late.result() == "cancelled"
    assert hands.statuses(job) == ["cancelled", "cancelled"]
    hands.in_order()


def test_a_retry_meets_itself(hands: Hands, both: Interleaving) -> None:
    job = hands.job()
    hands.store.cancel_jobs([job], actor="a")
    request = UUID(int=5)
    with both.begun() as early:
        early.retry_jobs([job], actor="a", request_id=request)
        late = both.meanwhile(lambda store: store.retry_jobs([job], actor="a", request_id=request).jobs[0].disposition)
        late.waits()
        early.commit()
        assert late.result() is APPLIED
    assert hands.rows("select count(*) from ledgerq.event where kind = 'retried'") == [(1,)]
    hands.in_order()


def test_deadlines_pass_by_a_job_that_is_busy(hands: Hands, both: Interleaving) -> None:
    job = hands.job(deadline_s=1)
    hands.clock.advance(10)
    with both.begun() as early:
        early.cancel_jobs([job], actor="a")
        assert both.meanwhile(lambda store: store.expire_jobs()).result().expired == ()
    assert hands.store.expire_jobs().expired == (job,)


# --- the order of locks -------------------------------------------------------------------------------------------------


def test_jobs_are_locked_in_the_order_of_their_ids(hands: Hands, both: Interleaving) -> None:
    """Whoever waits for the second holds the first already, in whatever order they were named: so nobody waits in a circle."""
    low, high = sorted([hands.job(), hands.job()])
    with both.begun() as early:
        early.cancel_jobs([high], actor="a")
        late = both.meanwhile(lambda store: store.cancel_jobs([high, low], actor="b"))
        late.waits()
        assert both.is_locked("job", low)
        early.commit()
        late.result()


def test_runs_are_locked_in_the_order_of_their_ids_and_before_any_job(hands: Hands, both: Interleaving) -> None:
    job = hands.job(2)
    low, high = sorted(hands.runs(2), key=lambda hand: hand.run)
    verdicts = [hands.seen(hand, Verdict.REVOKE) for hand in (high, low)]
    with both.begun() as early:
        high.start(store=early)
        late = both.meanwhile(lambda store: store.reconcile_runs(verdicts, actor="s"))
        late.waits()
        assert both.is_locked("run", low.run)
        early.commit()
        late.result()
    with both.begun() as early:
        high.complete(*high.tasks, store=early)
        late_shed = both.meanwhile(lambda store: high.witnessed(Verdict.DIED, store=store))
        late_shed.waits()
        assert both.is_locked("job", job)
        early.commit()
        assert late_shed.result() is SUPERSEDED


def test_jobs_named_and_jobs_handed_out_are_locked_together(hands: Hands, both: Interleaving) -> None:
    """Two runs that each name a job of the other's next hand-out would wait for each other if those were locked one after the other."""
    high = hands.job(id=UUID(int=2**128 - 1))
    low = hands.job(id=UUID(int=1))
    (hand,) = hands.runs(1)
    assert hand.start(window=1).tasks[0].job == high
    with both.begun() as early:
        early.cancel_jobs([low], actor="a")
        late = both.meanwhile(lambda store: hand.complete(*hand.tasks, want=1, store=store))
        late.waits()
        assert not both.is_locked("job", high)
        early.commit()
        assert late.result().finished


def test_documents_are_locked_in_the_order_of_their_ids(hands: Hands, both: Interleaving) -> None:
    low, high = sorted([hands.document("a"), hands.document("b")])
    with both.begun() as early:
        early.delete_documents([high], actor="a")
        late = both.meanwhile(lambda store: store.begin_documents([high, low], config_digest="c"))
        late.waits()
        assert both.is_locked("document", low)
        early.commit()
        late.result()


# --- dispatching waits for nobody -----------------------------------------------------------------------------------------


def test_two_dispatches_never_take_the_same_task(hands: Hands, both: Interleaving) -> None:
    job = hands.job(3)
    hands.limit(run_size=2)
    with both.begun() as early:
        (first,) = early.dispatch("processing").runs
        (second,) = both.meanwhile(lambda store: store.dispatch("processing")).result().runs
        early.commit()
    assert (first.tasks, second.tasks) == (2, 1)
    assert hands.statuses(job) == ["queued"] * 3
    hands.in_order()


def test_a_dispatch_finds_nothing_where_all_is_taken(hands: Hands, both: Interleaving) -> None:
    hands.job()
    with both.begun() as early:
        assert early.dispatch("processing").runs
        assert both.meanwhile(lambda store: store.dispatch("processing")).result().runs == ()
        early.commit()


def test_a_dispatch_does_not_wait_for_a_job(hands: Hands, both: Interleaving) -> None:
    """A job that somebody holds keeps its status; its start corrects it."""
    job = hands.job(sealed=False)
    with both.begun() as early:
        early.seal_job(job)
        (ticket,) = both.meanwhile(lambda store: store.dispatch("processing")).result().runs
        early.commit()
    hand = Hand(hands.store, ticket.run)
    hand.start()
    assert hands.status(job) == "in_progress"
    hands.in_order()


def test_a_dispatch_does_not_wait_for_the_cursor(hands: Hands, both: Interleaving) -> None:
    hands.job(2, tenant="a")
    hands.limit(run_size=1)
    with both.begun() as early:
        early.dispatch("processing")
        assert len(both.meanwhile(lambda store: store.dispatch("processing")).result().runs) == 1
        early.commit()


def test_a_dispatch_does_not_wait_to_promote(hands: Hands, both: Interleaving) -> None:
    late_job = hands.job()
    hands.owner.execute("update ledgerq.task set due_at = ledgerq.clock() where job_id = %s", (late_job,))
    with both.begun() as early:
        early.connection.execute("select from ledgerq.task where job_id = %s for update", (late_job,))
        assert both.meanwhile(lambda store: store.dispatch("processing")).result().busy is False
        early.commit()


def test_caps_are_counted_by_one_at_a_time(hands: Hands, both: Interleaving) -> None:
    hands.job()
    hands.job()
    hands.limit(max_concurrent_jobs=1, run_size=1)
    with both.begun() as early:
        assert len(early.dispatch("processing").runs) == 1
        late = both.meanwhile(lambda store: store.dispatch("processing")).result()
        early.commit()
    assert (late.runs, late.busy) == ((), True)
    assert hands.store.dispatch("processing").runs == ()


# --- creating -----------------------------------------------------------------------------------------------------------


def test_two_creators_want_one_key(hands: Hands, both: Interleaving) -> None:
    requests = [JobRequest(type="work", tasks=(TaskRequest(key="1"),), dedupe_key="k") for _ in range(2)]
    with both.begun() as early:
        early.create_jobs([requests[0]])
        late = both.meanwhile(lambda store: store.create_jobs([requests[1]]).jobs[0])
        late.waits()
        early.commit()
        given = late.result()
    assert (given.disposition, given.job) == (Disposition.DUPLICATE, requests[0].id)


def test_the_same_creation_twice_at_once(hands: Hands, both: Interleaving) -> None:
    request = JobRequest(type="work", tasks=(TaskRequest(key="1"),))
    with both.begun() as early:
        early.create_jobs([request])
        late = both.meanwhile(lambda store: store.create_jobs([request]).jobs[0].disposition)
        late.waits()
        early.commit()
        assert late.result() is APPLIED
    assert hands.rows("select total from ledgerq.job") == [(1,)]


def test_tasks_are_added_by_two_at_once(hands: Hands, both: Interleaving) -> None:
    job = hands.job(1, sealed=False)
    with both.begun() as early:
        early.add_tasks(job, [TaskRequest(key="a"), TaskRequest(key="b")])
        late = both.meanwhile(lambda store: store.add_tasks(job, [TaskRequest(key="b"), TaskRequest(key="c")]))
        late.waits()
        early.commit()
        answer = late.result()
    assert (answer.added, answer.total) == (1, 4)
    hands.in_order()


# --- documents ------------------------------------------------------------------------------------------------------------


def test_a_flip_meets_new_content(hands: Hands, both: Interleaving) -> None:
    """The revision changed while the acknowledgement waited: what it made is stale, and is made again."""
    document = hands.document()
    hand = hands.working_on(document)
    (task,) = hand.tasks
    effect = hands.effect(document)
    with both.begun() as early:
        assert early.save_documents([saving("a", "new text")])[0].revision == 2
        late = both.meanwhile(lambda store: hand.advance((task, Completed(None, (effect,))), store=store))
        late.waits()
        early.commit()
        assert late.result().stale == (task.id,)
    assert hands.rows("select live_generation from ledgerq.document") == [(None,)]
    hands.in_order()


def test_a_flip_meets_a_deletion(hands: Hands, both: Interleaving) -> None:
    document = hands.document()
    hand = hands.working_on(document)
    effect = hands.effect(document)
    with both.begun() as early:
        early.delete_documents([document], actor="a")
        late = both.meanwhile(lambda store: hand.advance((hand.tasks[0], Completed(None, (effect,))), store=store))
        late.waits()
        early.commit()
        late.result()
    assert hands.rows("select live_generation from ledgerq.document") == [(None,)]
    assert hands.rows("select status from ledgerq.task") == [("cancelled",)]


def test_two_begin_the_same_document(hands: Hands, both: Interleaving) -> None:
    """One number for both, so that they write the same points."""
    document = hands.document()
    with both.begun() as early:
        (first,) = early.begin_documents([document], config_digest="c")
        late = both.meanwhile(lambda store: store.begin_documents([document], config_digest="c"))
        late.waits()
        early.commit()
        (second,) = late.result()
    assert first.generation == second.generation


@pytest.mark.parametrize("order", [1, -1])
def test_two_jobs_flip_one_document(hands: Hands, both: Interleaving, order: int) -> None:
    """Whoever began later wins, in whatever order they end."""
    document = hands.document()
    hands.job(tasks=[{"key": "1", "document": str(document)}, {"key": "2", "document": str(document)}])
    made = [(hand, hands.effect(document, config=config)) for hand, config in zip(hands.runs(2), "ab", strict=True)]
    for hand, _ in made:
        hand.start()
    (one, first), (other, second) = made[::order]
    with both.begun() as early:
        one.advance((one.tasks[0], Completed(None, (first,))), store=early)
        late = both.meanwhile(lambda store: other.advance((other.tasks[0], Completed(None, (second,))), store=store))
        late.waits()
        early.commit()
        late.result()
    newest = max(first.generation, second.generation)
    assert hands.rows("select live_generation from ledgerq.document") == [(newest,)]
    hands.in_order()
