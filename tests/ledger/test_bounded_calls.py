"""Big jobs are cancelled, expired and removed in slices: no call grows with the size of a job."""

from __future__ import annotations

import psycopg
import pytest

from tests.support.work import Work, outcome

DAY = 86_400


def cancel_slice(work: Work, *jobs: str, tasks: int) -> bool:
    """Whether there is more."""
    return work.sql.call("cancel_jobs", jobs=list(jobs), actor="ann", reason="enough", tasks=tasks)["more"]


# --- cancelling ------------------------------------------------------------------------------------------------------


def test_a_cancel_in_slices_is_asked_for_at_once_and_goes_on_when_repeated(work: Work) -> None:
    jobs = [work.create(3), work.create(2)]
    assert [cancel_slice(work, *jobs, tasks=2) for _ in range(3)] == [True, True, False]
    assert [(work.status(job), work.counts(job)) for job in jobs] == [("cancelled", (3, 0, 0, 3)), ("cancelled", (2, 0, 0, 2))]
    assert [work.kinds(job).count("cancel_requested") for job in jobs] == [1, 1]
    assert work.job(jobs[0])["cancel_actor"] == "ann"


def test_nothing_of_a_job_goes_out_while_it_is_being_cancelled(work: Work) -> None:
    job = work.create(5, priority="high")
    stays = work.create(1)
    assert cancel_slice(work, job, tasks=1)
    assert [run["job_ids"] for run in work.dispatch()] == [[stays]]
    assert work.task_statuses(job).count("pending") == 4
    cancel_slice(work, job, tasks=10)


def test_unhanded_tasks_are_cancelled_in_slices_too(work: Work) -> None:
    job, run = work.running(4, window=1)
    assert [cancel_slice(work, job, tasks=2) for _ in range(2)] == [True, False]
    assert work.task_statuses(job) == ["queued", "cancelled", "cancelled", "cancelled"]
    run.advance(outcome(run.tasks[0]))
    assert work.status(job) == "cancelled"


def test_a_steward_finishes_a_cancel_that_its_caller_left(work: Work) -> None:
    job = work.create(5, deadline_s=60)
    cancel_slice(work, job, tasks=1)
    why = work.sql.call("explain", job=job)
    assert (why["cause"], "1 of 5 tasks are cancelled" in why["sentence"]) == ("cancelling", True)
    work.clock.advance(61)
    answers = [work.sql.call("expire_jobs", tasks=2) for _ in range(3)]
    assert answers == [{"expired": [], "more": more} for more in (True, True, False)]
    assert (work.status(job), work.counts(job)) == ("cancelled", (5, 0, 0, 5))


# --- deadlines -------------------------------------------------------------------------------------------------------


def test_a_big_job_expires_in_slices(work: Work) -> None:
    job = work.create(5, deadline_s=60)
    work.clock.advance(61)
    assert work.sql.call("expire_jobs", tasks=2) == {"expired": [job], "more": True}
    assert (work.status(job), work.counts(job)) == ("pending", (5, 0, 2, 0))
    assert [work.sql.call("expire_jobs", tasks=2)["more"] for _ in range(2)] == [True, False]
    assert (work.status(job), work.counts(job)) == ("failed", (5, 0, 5, 0))
    assert work.sql.call("expire_jobs", tasks=2) == {"expired": [], "more": False}


def test_only_what_waits_expires(work: Work) -> None:
    """Other tasks of the same job are in a worker's hands, and may still complete."""
    job, run = work.running(2, deadline_s=60)
    waits, held = run.tasks
    run.advance(outcome(waits, "retry", after_s=100))
    work.clock.advance(61)
    assert work.sql.call("expire_jobs")["expired"] == [job]
    assert work.task_statuses(job) == ["failed", "queued"]
    run.advance(outcome(held))
    assert (work.status(job), work.counts(job)) == ("partial", (2, 1, 1, 0))


# --- doing again -----------------------------------------------------------------------------------------------------


def test_more_than_a_call_can_do_again_is_refused_and_nothing_is_changed(work: Work) -> None:
    small, big = work.create(), work.create()
    work.cancel(small, big)
    work.sql.run("update ledgerq.job set total = 100001, cancelled = 100001 where id = %s", big)
    with pytest.raises(psycopg.Error, match="jobs: 100002 tasks to do again, at most 100000") as caught:
        work.retry(small, big)
    assert (caught.value.sqlstate, work.status(small)) == ("LQ002", "cancelled")
    assert work.retry(small)[0]["disposition"] == "applied"
    work.sql.call("delete_job", job=big, actor="ann")


# --- removing --------------------------------------------------------------------------------------------------------


def cancelled(work: Work, tasks: int) -> str:
    job = work.create(tasks)
    work.cancel(job)
    return job


def test_a_big_job_is_deleted_in_slices_and_cannot_be_retried_meanwhile(work: Work) -> None:
    job = cancelled(work, 5)
    answers = [work.sql.call("delete_job", job=job, actor="ann", tasks=3)]
    assert work.retry(job)[0]["disposition"] == "not_found"
    answers += [work.sql.call("delete_job", job=job, actor="ann", tasks=3) for _ in range(2)]
    assert [(answer["disposition"], answer.get("more")) for answer in answers] == [
        ("applied", True),
        ("applied", False),
        ("not_found", None),
    ]
    assert work.tasks(job) == []
    assert work.sql.value("select count(*) from ledgerq.event where kind = 'deleted'") == 1


def test_a_job_that_is_half_removed_is_pruned_however_young_it_is(work: Work) -> None:
    young = cancelled(work, 2)
    job = cancelled(work, 5)
    work.sql.call("delete_job", job=job, actor="ann", tasks=3)
    assert work.sql.call("prune", finished_before_s=DAY) | {"runs": 0} == {
        "jobs": 1, "events": 0, "runs": 0, "webhooks": 0, "usage": 0, "more": False,
    }  # fmt: skip
    assert (work.tasks(job), work.status(young)) == ([], "cancelled")


def test_a_job_that_is_more_than_a_batch_is_pruned_in_several(work: Work) -> None:
    job = cancelled(work, 2)
    work.sql.run("insert into ledgerq.event (job_id, kind) select %s, 'note' from generate_series(1, 20000)", job)
    work.clock.advance(DAY)
    answers = [work.sql.call("prune", finished_before_s=60) for _ in range(3)]
    assert [(answer["jobs"], answer["more"]) for answer in answers] == [(0, True), (1, False), (0, False)]
    assert work.sql.value("select count(*) from ledgerq.event where job_id = %s", job) == 0
