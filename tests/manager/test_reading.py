"""Lists, pages, tasks, history, explanations, and waiting."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import cast
from uuid import uuid4

import pytest

from ledgerq.errors import InvalidInput, LedgerUnavailable
from ledgerq.lifecycle import JobStatus, TaskStatus
from ledgerq.manager.job_manager import JobManager
from ledgerq.manager.waiting import LEDGER_AWAY_S, Waiter
from ledgerq.models import Job, JobRequest, TaskRequest
from tests.support.lab import Lab


def test_jobs_are_listed_newest_first_by_what_they_are(lab: Lab) -> None:
    owner = uuid4()
    first = lab.jobs.create_job("noop", tenant="a", project="p")
    second = lab.jobs.create_job("noop", tenant="b", owner=owner)
    third = lab.jobs.create_job("crawl", tenant="b")
    assert [job.id for job in lab.jobs.list_jobs()] == [third.id, second.id, first.id]
    assert [job.id for job in lab.jobs.list_jobs(tenant="b", type="noop")] == [second.id]
    assert [job.id for job in lab.jobs.list_jobs(owner=owner)] == [second.id]
    assert [job.id for job in lab.jobs.list_jobs(project="p", status=JobStatus.QUEUED)] == [first.id]
    assert [job.id for job in lab.jobs.list_jobs(status=[JobStatus.PENDING, JobStatus.CANCELLED])] == [third.id]
    with pytest.raises(InvalidInput, match="status: 'waiting' is none of pending"):
        lab.jobs.job_page(status=cast("JobStatus", "waiting"))


def test_lists_longer_than_a_page_are_read_through(lab: Lab) -> None:
    lab.jobs.create_jobs([JobRequest(type="noop", tasks=(TaskRequest(key="a"),)) for _ in range(230)])
    listed = [job.id for job in lab.jobs.list_jobs()]
    assert len(listed) == len(set(listed)) == 230
    page = lab.jobs.job_page(limit=200)
    assert [len(page.jobs), len(lab.jobs.job_page(limit=200, after=page.next).jobs)] == [200, 30]


def test_tasks_are_read_through_in_order(lab: Lab) -> None:
    job = lab.jobs.create_job("noop", tasks=[{"key": f"{n:04}"} for n in range(2_100)])
    assert [task.key for task in lab.jobs.iter_tasks(job.id)] == [f"{n:04}" for n in range(2_100)]
    page = lab.jobs.job_tasks(job.id, status=TaskStatus.PENDING, limit=10)
    assert (len(page.tasks), page.next is not None) == (10, True)


def test_every_waiting_job_says_why_and_what_to_do(lab: Lab) -> None:
    lab.jobs.pause_queue()
    paused = lab.jobs.explain_job(lab.jobs.create_job("noop").id)
    assert "paused" in paused.sentence
    assert paused.next_action


def test_a_job_as_it_was(lab: Lab) -> None:
    job = lab.jobs.create_job("noop")
    lab.clock.advance(100)
    lab.jobs.cancel_job(job.id)
    before = lab.jobs.job_as_of(job.id, job.created_at + timedelta(seconds=50))
    assert before is not None
    assert not before.status.is_terminal
    assert lab.jobs.job_as_of(job.id, job.created_at - timedelta(seconds=1)) is None
    with pytest.raises(InvalidInput, match="no time zone"):
        lab.jobs.job_as_of(job.id, datetime(2026, 1, 1))  # noqa: DTZ001 - naive on purpose


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def patient(lab: Lab, clock: Clock) -> JobManager:
    return JobManager.from_parts(
        lab.store, lab.dispatcher, lab.reconciler, None, lab.settings, waiter=Waiter(clock=clock, pause=clock.pause)
    )


def test_waiting_ends_with_the_job(lab: Lab) -> None:
    job = lab.jobs.create_job("crawl")
    clock = Clock()
    clock.pause = lambda seconds: (Clock.pause(clock, seconds), clock.now > 1 and lab.jobs.complete_job(job.id))  # type: ignore[method-assign]
    assert patient(lab, clock).wait_for(job.id, "1h").status is JobStatus.COMPLETED


def test_waiting_gives_up_after_its_timeout_and_the_job_goes_on(lab: Lab) -> None:
    job = lab.jobs.create_job("noop")
    clock = Clock()
    with pytest.raises(TimeoutError, match=f"job {job.id} is still queued after 10 s"):
        patient(lab, clock).wait_for(job.id, 10)
    assert clock.now == pytest.approx(10)
    assert clock.pauses == sorted(clock.pauses[:-1]) + clock.pauses[-1:]
    assert max(clock.pauses) <= 2
    assert lab.jobs.get_job_status(job.id) is JobStatus.QUEUED


def test_a_ledger_that_is_away_for_a_moment_only_delays_the_answer(lab: Lab) -> None:
    job = lab.jobs.cancel_job(lab.jobs.create_job("noop").id)
    answers: list[Job | Exception] = [LedgerUnavailable("restarting")] * 5 + [lab.jobs.get_job(job.id)]

    def read() -> Job:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    clock = Clock()
    assert Waiter(clock=clock, pause=clock.pause).until_finished(read, None).status is JobStatus.CANCELLED
    answers[:] = [LedgerUnavailable("gone")] * 1_000
    with pytest.raises(LedgerUnavailable):
        Waiter(clock=clock, pause=clock.pause).until_finished(read, None)
    assert clock.now > LEDGER_AWAY_S
