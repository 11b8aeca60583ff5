"""Cancelling, retrying, deleting, pausing; queues and their limits."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest
from pydantic import ValidationError

from ledgerq.errors import InvalidInput, NotFound, UnknownQueue, WrongState
from ledgerq.ledger import TaskReport
from ledgerq.ledger.answers import QueueLimits
from ledgerq.lifecycle import JobStatus
from ledgerq.models import Disposition
from ledgerq.outcomes import Completed, Failed, Outcome
from ledgerq.settings import ProcessingConfig
from tests.support.lab import Lab


def run_through(lab: Lab, job: UUID, outcome: Outcome) -> None:
    """Start every run of the job and answer all its tasks alike."""
    for run in lab.jobs.get_job(job).run_ids:
        delivery = uuid4()
        started = lab.store.start_run(run, delivery=delivery, window=100)
        reports = [TaskReport(task=task.id, outcome=outcome) for task in started.tasks]
        lab.store.advance_run(run, delivery=delivery, step=0, reports=reports, want=0)


def test_a_waiting_job_is_cancelled_at_once_and_again_without_effect(lab: Lab) -> None:
    job = lab.jobs.create_job("noop")
    answer = lab.jobs.cancel_job(job.id, reason="not wanted", actor="operator")
    assert (answer.disposition, answer.status) == (Disposition.APPLIED, JobStatus.CANCELLED)
    assert lab.jobs.cancel_job(str(job.id)).disposition is Disposition.APPLIED
    requested = next(event for event in lab.jobs.job_history(job.id) if event.kind == "cancel_requested")
    assert (requested.actor, requested.cause) == ("operator", "not wanted")


def test_a_finished_job_is_too_late_to_cancel(lab: Lab) -> None:
    job = lab.jobs.create_job("noop")
    run_through(lab, job.id, Completed(1))
    answer = lab.jobs.cancel_job(job.id)
    assert (answer.disposition, answer.status) == (Disposition.TOO_LATE, JobStatus.COMPLETED)


def test_a_failed_job_is_retried_once_per_request(lab: Lab) -> None:
    job = lab.jobs.create_job("noop")
    assert lab.jobs.retry_job(job.id).disposition is Disposition.NOT_FINISHED
    run_through(lab, job.id, Failed("no good"))
    assert lab.jobs.get_job_status(job.id) is JobStatus.FAILED
    request = uuid4()
    assert lab.jobs.retry_job(job.id, request_id=request).disposition is Disposition.APPLIED
    assert lab.jobs.get_job_status(job.id) is JobStatus.QUEUED
    assert lab.jobs.retry_job(job.id, request_id=request).disposition is Disposition.APPLIED
    again = lab.jobs.get_job(job.id)
    assert lab.redis.lrange("rq:queue:processing", 0, -1)[-1].decode() == again.rq_job_id
    assert len(again.run_ids) == 2


def test_what_completed_has_nothing_to_retry(lab: Lab) -> None:
    job = lab.jobs.create_job("noop")
    run_through(lab, job.id, Completed(1))
    assert lab.jobs.retry_job(job.id).disposition is Disposition.NOTHING_TO_RETRY


def test_a_retry_meets_whoever_holds_its_key_by_now(lab: Lab) -> None:
    job = lab.jobs.create_job("noop", dedupe_key="k")
    run_through(lab, job.id, Failed("no good"))
    holder = lab.jobs.create_job("noop", dedupe_key="k")
    answer = lab.jobs.retry_job(job.id)
    assert (answer.disposition, answer.job) == (Disposition.DUPLICATE, holder.id)


def test_only_what_is_finished_can_be_deleted(lab: Lab) -> None:
    job = lab.jobs.create_job("noop")
    with pytest.raises(WrongState, match="cancel it"):
        lab.jobs.delete_job(job.id)
    lab.jobs.cancel_job(job.id)
    lab.jobs.delete_job(job.id)
    with pytest.raises(NotFound):
        lab.jobs.get_job(job.id)


@pytest.mark.parametrize("verb", ["cancel_job", "retry_job", "delete_job", "complete_job", "explain_job", "job_history", "wait_for"])
def test_an_unknown_job_is_named(lab: Lab, verb: str) -> None:
    unknown = uuid4()
    with pytest.raises(NotFound, match=str(unknown)):
        getattr(lab.jobs, verb)(unknown)
    with pytest.raises(InvalidInput, match="job_id: 'x' is no UUID"):
        getattr(lab.jobs, verb)("x")


def test_a_paused_queue_sends_nothing_out_until_it_is_resumed(lab: Lab) -> None:
    lab.jobs.pause_queue(actor="operator")
    job = lab.jobs.create_job("noop")
    assert (job.status, lab.redis.llen("rq:queue:processing")) == (JobStatus.PENDING, 0)
    assert lab.jobs.queue_stats("processing")[0].paused
    lab.jobs.resume_queue()
    assert (lab.jobs.get_job_status(job.id), lab.redis.llen("rq:queue:processing")) == (JobStatus.QUEUED, 1)
    with pytest.raises(UnknownQueue):
        lab.jobs.pause_queue("nowhere")


def test_a_queue_of_ones_own_has_limits_of_its_own(lab: Lab) -> None:
    lab.jobs.save_queue("mails", QueueLimits(depth=1, run_size=2))
    job = lab.jobs.create_job("mail", tasks=[{"key": str(n)} for n in range(5)], queue="mails")
    assert lab.redis.llen("rq:queue:mails") == 1
    assert (job.queue, lab.jobs.queue_stats("mails")[0].ready) == ("mails", 3)
    with pytest.raises(InvalidInput, match="lease"):
        lab.jobs.save_queue("mails", QueueLimits(lease_s=1, heartbeat_s=5))


def test_a_processing_config_becomes_limits_of_the_queue(lab: Lab) -> None:
    lab.jobs.configure_queue(ProcessingConfig(batch_size=2, max_retries=4, max_concurrent_jobs=1))
    first = lab.jobs.create_job("noop", tasks=[{"key": str(n)} for n in range(4)])
    second = lab.jobs.create_job("noop")
    assert first.max_attempts == 5
    assert (first.status, second.status) == (JobStatus.QUEUED, JobStatus.PENDING), "one job at a time"
    with pytest.raises(ValidationError, match="batch_size"):
        ProcessingConfig(batch_size=900)
