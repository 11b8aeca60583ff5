"""What was seen before a lock is looked at again under it, and nobody changes what another one holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import psycopg

from ledgerq.ledger.answers import GarbageGone
from ledgerq.models import Disposition, Verdict
from ledgerq.outcomes import Completed, DocumentEffect, Failed
from tests.stress.hands import Hand, Hands
from tests.support.interleaving import Early, Interleaving

APPLIED, TOO_LATE = Disposition.APPLIED, Disposition.TOO_LATE
DAY = 86_400


# --- between a look and a lock ---------------------------------------------------------------------------------------


@contextmanager
def gate(hands: Hands, both: Interleaving, table: str) -> Iterator[Early]:
    """Who reads the table as `gated` stops there, with what it saw, until the one that this gives commits."""
    with psycopg.connect(hands.database.superuser_dsn, autocommit=True) as superuser:
        superuser.execute(_CLOSE.replace(b"TABLE", table.encode()))
        try:
            with both.begun() as early:
                early.connection.execute("select pg_advisory_xact_lock(4242)")
                yield early
        finally:
            superuser.execute(_OPEN.replace(b"TABLE", table.encode()))


_CLOSE = b"""
    create role gated nologin nobypassrls;
    grant service_role to gated;
    grant gated to ledgerq_service;
    create function ledgerq_test.gate() returns boolean language plpgsql volatile as $$
    begin perform pg_catalog.pg_advisory_xact_lock_shared(4242); return true; end $$;
    grant execute on function ledgerq_test.gate() to public;
    create policy gate on ledgerq.TABLE as restrictive for select to gated using (ledgerq_test.gate());
"""
_OPEN = b"""
    drop policy gate on ledgerq.TABLE;
    drop function ledgerq_test.gate();
    drop role gated;
"""


def test_a_job_that_was_retried_since_it_was_seen_is_not_pruned(hands: Hands, both: Interleaving) -> None:
    job = hands.job()
    hands.store.cancel_jobs([job], actor="a")
    hands.clock.advance(DAY)
    with gate(hands, both, "job") as early:
        early.retry_jobs([job], actor="a")
        late = both.meanwhile(lambda store: store.prune(finished_before_s=1).jobs, role="gated")
        late.waits()
        early.commit()
        assert late.result() == 0
    assert hands.statuses(job) == ["queued"]


def test_a_job_that_ended_since_it_was_seen_does_not_expire(hands: Hands, both: Interleaving) -> None:
    job = hands.job(deadline_s=1)
    hands.clock.advance(10)
    with gate(hands, both, "job") as early:
        early.cancel_jobs([job], actor="a")
        late = both.meanwhile(lambda store: store.expire_jobs().expired, role="gated")
        late.waits()
        early.commit()
        assert late.result() == ()
    assert hands.status(job) == "cancelled"


def test_garbage_that_another_sweeper_took_is_not_taken_again(hands: Hands, both: Interleaving) -> None:
    document = hands.document()
    hands.effect(document)
    hands.clock.advance(DAY)
    with gate(hands, both, "generation") as early:
        assert len(early.garbage()) == 1
        late = both.meanwhile(lambda store: store.garbage(), role="gated")
        late.waits()
        early.commit()
        assert late.result() == ()


# --- counters are added under the job's lock -------------------------------------------------------------------------


def two_runs_of_one_job(hands: Hands) -> tuple[UUID, Hand, Hand]:
    """Each with two tasks, the first one started."""
    job = hands.job(4)
    one, other = hands.runs(2)
    one.start(window=2)
    return job, one, other


def test_shedding_waits_for_who_counts(hands: Hands, both: Interleaving) -> None:
    job, one, other = two_runs_of_one_job(hands)
    other.start(window=1)
    with both.begun() as early:
        one.complete(one.tasks[0], store=early)
        late = both.meanwhile(lambda store: store.shed(other.run).released)
        late.waits()
        early.commit()
        assert late.result() == 1
    assert hands.statuses(job).count("completed") == 1
    hands.in_order()


def test_a_start_in_a_paused_queue_waits_for_who_counts(hands: Hands, both: Interleaving) -> None:
    _, one, other = two_runs_of_one_job(hands)
    hands.store.pause_queue("processing", actor="a")
    with both.begun() as early:
        one.complete(one.tasks[0], store=early)
        late = both.meanwhile(lambda store: other.start(store=store).disposition)
        late.waits()
        early.commit()
        assert late.result() is Disposition.PAUSED
    hands.in_order()


def test_a_report_on_an_external_job_meets_its_cancel(hands: Hands, both: Interleaving) -> None:
    job = hands.job(0, external=True, tasks=())
    with both.begun() as early:
        early.cancel_jobs([job], actor="a")
        late = both.meanwhile(lambda store: store.update_job(job, progress={"pages": 1}).disposition)
        late.waits()
        early.commit()
        assert late.result() is TOO_LATE


def test_the_end_of_an_external_job_meets_its_cancel(hands: Hands, both: Interleaving) -> None:
    job = hands.job(0, external=True, tasks=())
    with both.begun() as early:
        early.cancel_jobs([job], actor="a")
        late = both.meanwhile(lambda store: store.complete_job(job).disposition)
        late.waits()
        early.commit()
        assert late.result() is TOO_LATE
    hands.in_order()


def test_a_deletion_meets_a_retry(hands: Hands, both: Interleaving) -> None:
    job = hands.job()
    hands.store.cancel_jobs([job], actor="a")
    with both.begun() as early:
        early.retry_jobs([job], actor="a")
        late = both.meanwhile(lambda store: store.delete_job(job, actor="a"))
        late.waits()
        early.commit()
        assert late.result() is Disposition.NOT_FINISHED
    assert hands.statuses(job) == ["queued"]


def test_a_count_of_points_waits_for_who_builds(hands: Hands, both: Interleaving) -> None:
    document = hands.document()
    hands.effect(document)
    with both.begun() as early:
        early.begin_documents([document], config_digest="c")
        late = both.meanwhile(lambda store: store.garbage_gone([GarbageGone(document=document, generation=1, remaining=0)]))
        late.waits()
        early.commit()
        late.result()


def test_going_on_with_a_cancel_passes_by_a_job_that_is_busy(hands: Hands, both: Interleaving) -> None:
    """Its caller may be at the next slice in this very moment."""
    job = hands.job(3)
    hands.rows("select ledgerq.cancel_jobs(jsonb_build_object('jobs', jsonb_build_array(%s::text), 'tasks', 1))", job)
    with both.begun() as early:
        early.connection.execute("select from ledgerq.job where id = %s for no key update", (job,))
        assert both.meanwhile(lambda store: store.expire_jobs()).result().expired == ()
        assert hands.statuses(job).count("pending") == 2
        early.commit()
    hands.store.expire_jobs()
    assert hands.status(job) == "cancelled"


# --- what an outcome may do ------------------------------------------------------------------------------------------


def flipped(hands: Hands, hand: Hand, task: int, effect: DocumentEffect) -> bool:
    """Whether points became live by an outcome that is ignored."""
    assert hand.advance((task, Completed(None, (effect,)))).ignored == (task,)
    return hands.rows("select count(*) from ledgerq.document where live_generation is not null") == [(1,)]


def test_a_task_that_is_not_handed_out_flips_nothing(hands: Hands) -> None:
    job = hands.job(tasks=[{"key": "1"}, {"key": "2", "document": str(hands.document())}])
    (hand,) = hands.runs(1)
    hand.start(window=1)
    unhanded = hands.tasks(job)[1]
    assert unhanded.document is not None
    assert not flipped(hands, hand, unhanded.id, hands.effect(unhanded.document))


def test_a_task_of_another_run_flips_nothing(hands: Hands) -> None:
    document = hands.document()
    hands.job(tasks=[{"key": "1"}, {"key": "2", "document": str(document)}])
    mine, theirs = hands.runs(2)
    mine.start()
    theirs.start()
    assert not flipped(hands, mine, theirs.tasks[0].id, hands.effect(document))


def test_a_task_that_is_done_flips_nothing(hands: Hands) -> None:
    document = hands.document()
    hands.job(tasks=[{"key": "1", "document": str(document)}, {"key": "2"}])
    (hand,) = hands.runs(1)
    hand.start()
    done, effect = hand.tasks[0], hands.effect(document)
    hand.advance((done, Failed("no")))
    assert not flipped(hands, hand, done.id, effect)


# --- the rest --------------------------------------------------------------------------------------------------------


def test_an_external_job_is_never_dispatched(hands: Hands) -> None:
    """Also beside others that are, of the same tenant and class."""
    external = hands.job(0, external=True, tasks=())
    ordinary = hands.job()
    assert [run.job_ids for run in hands.store.dispatch("processing").runs] == [(ordinary,)]
    assert hands.statuses(external) == ["pending"]


def test_who_is_killed_for_a_cancel_is_held(hands: Hands) -> None:
    """The job of the culprit is being cancelled, but another run holds it."""
    job = hands.job(2)
    mine, theirs = hands.runs(2)
    mine.start()
    theirs.start()
    hands.store.cancel_jobs([job], actor="a")
    assert mine.witnessed(Verdict.CANCEL_KILL, culprit=theirs.tasks[0]) is Disposition.REFUSED


def test_a_person_who_stops_a_run_stops_its_job(hands: Hands) -> None:
    """Told by the keeper, who saw it happen and needs no silence: nothing is charged, nothing goes out again."""
    job, hand = hands.started(2, window=1)
    assert hand.witnessed(Verdict.STOPPED) is APPLIED
    assert hands.status(job) == "cancelled"
    assert [(task.attempts, task.crashes, task.losses) for task in hands.tasks(job)] == [(0, 0, 0)] * 2
    assert hands.store.dispatch("processing").runs == ()


def test_a_run_is_as_long_as_what_it_kept(hands: Hands) -> None:
    """After a shed by itself and by another: nothing behind its size is looked for."""
    _, hand = hands.started(3, window=1)
    hands.store.shed(hand.run)
    assert size(hands, hand) == 1
    _, yielding = hands.started(3, window=1)
    yielding.advance(give_back=True)
    assert size(hands, yielding) == 1


def size(hands: Hands, hand: Hand) -> int:
    ((found,),) = hands.rows("select size from ledgerq.run where id = %s", hand.run)
    return found


def test_an_advance_is_a_heartbeat(hands: Hands) -> None:
    _, hand = hands.started(2)
    before = hands.live(hand).heartbeat_at
    hands.clock.advance(7)
    hand.complete(hand.tasks[0])
    after = hands.live(hand).heartbeat_at
    assert before is not None
    assert after is not None
    assert (after - before).total_seconds() >= 7


def test_a_run_with_tasks_that_are_not_handed_out_goes_on(hands: Hands) -> None:
    job, hand = hands.started(2, window=1)
    assert not hand.complete(*hand.tasks, want=0).finished
    assert len(hand.advance(want=1).tasks) == 1
    assert hands.statuses(job) == ["completed", "queued"]


def test_a_job_that_may_grow_does_not_end(hands: Hands) -> None:
    job, hand = hands.started(sealed=False)
    hand.complete(*hand.tasks)
    assert hands.status(job) == "pending"
    hands.store.seal_job(job)
    assert hands.status(job) == "completed"


def test_a_job_that_was_handed_out_past_its_lock_has_started_when_it_ends(hands: Hands, both: Interleaving) -> None:
    gone, job = hands.job(), hands.job()
    (hand,) = hands.runs(1)
    with both.begun() as busy, both.begun() as early:
        busy.connection.execute("select from ledgerq.job where id = %s for no key update", (job,))
        early.cancel_jobs([gone], actor="a")
        late = both.meanwhile(lambda store: hand.start(window=1, store=store).tasks)
        late.waits()
        early.commit()
        assert [task.job for task in late.result()] == [job]
    hand.complete(*hand.tasks)
    found = hands.store.job_get(job)
    assert found is not None
    assert (found.status.value, found.started_at) == ("completed", found.finished_at)
