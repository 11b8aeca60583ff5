"""What a pass of the status sync does to real runs, with RQ's keys as they are after each accident."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from ledgerq.dispatch.observation import RqStatus
from ledgerq.errors import QueueUnavailable
from ledgerq.ledger.answers import QueueLimits
from ledgerq.lifecycle import JobStatus, TaskStatus
from ledgerq.models import RunTicket, Verdict
from ledgerq.sync.decide import MISFIRE_HOLD, PICKUP_GRACE
from ledgerq.sync.reconciler import Reconciler
from tests.support.lab import Lab

LIST = "rq:queue:processing"


def key(run: UUID) -> str:
    return f"rq:job:{run}"


def queued(lab: Lab, tasks: int = 1) -> tuple[UUID, UUID]:
    """A job and its one run, pushed."""
    if tasks > 1:
        lab.jobs.save_queue("processing", QueueLimits(depth=1))
    job = lab.jobs.create_job("noop", tasks=[{"key": str(n)} for n in range(tasks)])
    return job.id, job.run_ids[0]


def started(lab: Lab, tasks: int = 1) -> tuple[UUID, UUID]:
    """A job and its one run, running somewhere, taken from RQ's list."""
    job, run = queued(lab, tasks)
    lab.store.start_run(run, delivery=uuid4(), window=tasks, worker="w7", execution_id="e1")
    lab.redis.lrem(LIST, 0, str(run))
    lab.redis.hset(key(run), "status", "started")
    return job, run


def status(lab: Lab, job: UUID) -> JobStatus:
    return lab.jobs.get_job(job).status


def test_a_healthy_queue_is_not_touched_and_rq_is_not_even_asked(lab: Lab) -> None:
    queued(lab)
    report = lab.reconciler.run_once()
    assert (report.live, report.observed, report.applied) == (1, 0, ())


def test_what_waits_in_the_list_waits_as_long_as_it_takes(lab: Lab) -> None:
    queued(lab)
    lab.clock.advance(3_600)
    report = lab.reconciler.run_once()
    assert (report.observed, report.applied, report.pushed_again) == (1, (), 0)


def test_after_flushall_the_same_run_is_pushed_again_once(lab: Lab) -> None:
    _, run = queued(lab)
    lab.flush_redis()
    assert lab.reconciler.run_once().pushed_again == 0, "the push may still be on its way"
    lab.clock.advance(6)
    assert lab.reconciler.run_once().pushed_again == 1
    assert lab.redis.lrange(LIST, 0, -1) == [str(run).encode()]
    assert lab.reconciler.run_once().pushed_again == 0


def test_an_id_that_fell_out_of_the_list_goes_out_under_a_fresh_one(lab: Lab) -> None:
    """A worker died between RQ's pop and the start: its hash says queued, and no list has it."""
    job, run = queued(lab)
    lab.redis.lmove(LIST, f"{LIST}:intermediate", "LEFT", "RIGHT")
    lab.clock.advance(6)
    assert lab.reconciler.run_once().applied == ()
    lab.clock.advance(PICKUP_GRACE.total_seconds())
    report = lab.reconciler.run_once()
    assert report.verdicts == {Verdict.REVOKE: 1}
    assert report.dispatched == 1
    fresh = lab.jobs.get_job(job).run_ids[0]
    assert fresh != run
    assert lab.redis.lrange(LIST, 0, -1) == [str(fresh).encode()]


def test_a_worker_that_cannot_start_runs_is_named_and_held_back(lab: Lab) -> None:
    job, run = queued(lab)
    lab.redis.lpop(LIST)
    lab.redis.hset(key(run), mapping={"status": "failed", "worker_name": "w7"})
    lab.clock.advance(10)
    report = lab.reconciler.run_once()
    assert (report.applied, [misfire.run for misfire in report.misfires]) == ((), [run])
    lab.clock.advance(MISFIRE_HOLD.total_seconds())
    report = lab.reconciler.run_once()
    assert report.verdicts == {Verdict.REVOKE: 1}
    assert report.applied[0].evidence["rule"] == "misfired"
    assert status(lab, job) is JobStatus.QUEUED
    assert lab.jobs.get_job(job).run_ids[0] != run


def test_one_verdict_that_the_ledger_cannot_take_stops_no_other(lab: Lab) -> None:
    runs = [queued(lab)[1] for _ in range(3)]
    lab.redis.delete(LIST)
    for run in runs:
        lab.redis.hset(key(run), mapping={"status": "failed", "worker_name": "w7"})
    lab.redis.hset(key(runs[1]), "worker_name", "w" * 70_000)
    lab.clock.advance(MISFIRE_HOLD.total_seconds() + 1)
    report = lab.reconciler.run_once(dispatch=False)
    assert {verdict.run for verdict in report.applied} == {runs[0], runs[2]}
    assert report.refused == 1


def test_a_job_that_no_worker_can_start_ends_at_its_deadline(lab: Lab) -> None:
    job = lab.jobs.create_job("noop", deadline="1h")
    for _ in range(3):
        run = lab.jobs.get_job(job.id).run_ids[0]
        lab.redis.delete(LIST)
        lab.redis.hset(key(run), "status", "failed")
        lab.clock.advance(1_300)
        assert lab.steward.run_once().failures == {}
    done = lab.jobs.get_job(job.id)
    assert (done.status, done.error["cause"]) == (JobStatus.FAILED, "deadline")


def test_a_failure_of_the_recorded_execution_is_a_death_when_the_ledger_is_silent(lab: Lab) -> None:
    job, run = started(lab, tasks=2)
    lab.redis.hset(key(run), "status", "failed")
    lab.redis.xadd(f"rq:results:{run}", {"type": "2", "execution_id": "e1", "created_at": "0"})
    lab.clock.advance(9)
    assert lab.reconciler.run_once().applied == ()
    lab.clock.advance(2)
    assert lab.reconciler.run_once().verdicts == {Verdict.DIED: 1}
    tasks = [(task.status, task.crashes, task.alone) for task in lab.jobs.iter_tasks(job)]
    assert tasks == [(TaskStatus.QUEUED, 1, True), (TaskStatus.PENDING, 1, True)], "they run alone from now on, one after the other"


def test_a_failure_of_another_execution_charges_nobody(lab: Lab) -> None:
    _, run = started(lab)
    lab.redis.hset(key(run), "status", "failed")
    lab.redis.xadd(f"rq:results:{run}", {"type": "2", "execution_id": "e2", "created_at": "0"})
    lab.clock.advance(12)
    assert lab.reconciler.run_once().applied == ()


def test_finished_in_rq_never_ends_a_run(lab: Lab) -> None:
    job, run = started(lab)
    lab.redis.hset(key(run), "status", "finished")
    lab.clock.advance(15)
    assert lab.reconciler.run_once().applied == ()
    assert status(lab, job) is JobStatus.IN_PROGRESS


def test_an_ended_lease_is_applied_at_the_second_sighting(lab: Lab) -> None:
    """FLUSHALL with the worker dead as well: nothing in RQ says anything, so the lease decides."""
    job, run = started(lab)
    lab.flush_redis()
    lab.clock.advance(21)
    report = lab.reconciler.run_once()
    assert (report.applied, report.suspected) == ((), (run,))
    lab.clock.advance(5)
    report = lab.reconciler.run_once()
    assert report.verdicts == {Verdict.EXPIRED: 1}
    task = next(lab.jobs.iter_tasks(job))
    assert (task.losses, task.crashes, task.alone) == (1, 0, True)
    assert status(lab, job) is JobStatus.QUEUED, "it went out again at once"


def test_a_heartbeat_between_the_sightings_clears_the_suspicion(lab: Lab) -> None:
    job = lab.jobs.create_job("noop")
    run, delivery = job.run_ids[0], uuid4()
    lab.store.start_run(run, delivery=delivery, window=1)
    lab.flush_redis()
    lab.clock.advance(21)
    assert lab.reconciler.run_once().suspected == (run,)
    lab.store.heartbeat_run(run, delivery=delivery)
    lab.clock.advance(9)
    assert lab.reconciler.run_once().suspected == ()


def test_stopped_by_a_person_means_the_job_when_the_run_carries_just_one(lab: Lab) -> None:
    job, run = started(lab, tasks=3)
    lab.redis.hset(key(run), "status", "stopped")
    lab.clock.advance(11)
    assert lab.reconciler.run_once().verdicts == {Verdict.STOPPED: 1}
    assert status(lab, job) is JobStatus.CANCELLED


def test_of_two_observers_one_is_superseded(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    _, run = queued(lab)
    lab.redis.hset(key(run), "status", RqStatus.CANCELED)
    lab.clock.advance(6)
    page = lab.store.live_runs()
    assert lab.reconciler.run_once().verdicts == {Verdict.REVOKE: 1}
    monkeypatch.setattr(lab.store, "live_runs", lambda **_: page)
    late = Reconciler(lab.store, lab.run_queue, lab.dispatcher).run_once()
    assert late.verdicts in ({}, {Verdict.REVOKE: 1}), "the same verdict again is answered as applied and changes nothing"
    assert sum(1 for _ in lab.jobs.list_jobs(status=JobStatus.QUEUED)) == 1


class NoRedis:
    """RQ cannot be asked, nor pushed to."""

    def observe(self, runs: object) -> dict[UUID, object]:
        raise QueueUnavailable("Redis is away")

    def push_again(self, ticket: RunTicket) -> None:
        raise AssertionError("not asked for while Redis is away")


def test_without_redis_leases_are_judged_and_nothing_else(lab: Lab) -> None:
    _, lost = started(lab)
    queued(lab)
    lab.clock.advance(21)
    blind = Reconciler(lab.store, NoRedis(), lab.dispatcher)
    report = blind.run_once()
    assert (report.suspected, report.applied, report.degraded) == ((lost,), (), "Redis is away")


def test_reading_one_job_reconciles_it(lab: Lab) -> None:
    job, _ = started(lab)
    other, _ = started(lab)
    for pushed in lab.store.live_runs().runs:
        lab.redis.hset(key(pushed.run), "status", "stopped")
    lab.clock.advance(11)
    assert lab.jobs.get_job_status(job) is JobStatus.CANCELLED
    assert status(lab, other) is JobStatus.IN_PROGRESS


def test_all_pages_are_looked_at(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledgerq.sync.reconciler.PAGE", 2)
    for _ in range(5):
        queued(lab)
    lab.flush_redis()
    lab.clock.advance(6)
    assert lab.reconciler.run_once().pushed_again == 5


def test_a_reader_of_single_jobs_remembers_a_bounded_number_of_runs(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledgerq.sync.reconciler.MOST_WATCHED", 2)
    runs = [queued(lab)[1] for _ in range(5)]
    lab.clock.advance(6)
    for run in runs:
        lab.reconciler.sync_runs([run])
    assert list(lab.reconciler._watched) == runs[-2:]
