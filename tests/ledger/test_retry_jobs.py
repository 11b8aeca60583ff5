"""retry_jobs: what failed or was cancelled is done again; what completed stays."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from ledgerq.ids import new_id
from tests.support.work import Work, outcome, outcomes


def partial(work: Work, **fields: Any) -> str:
    """A job of three: one completed, one failed, one cancelled."""
    job, run = work.running(3, **fields)
    kinds = ("completed", "failed", "cancelled")
    run.advance(*(outcome(task, kind, error={"type": "E"}) for task, kind in zip(run.tasks, kinds, strict=True)))
    return job


def test_failed_and_cancelled_tasks_are_pending_again_and_completed_ones_stay(work: Work) -> None:
    job = partial(work)
    work.pause()
    (answer,) = work.retry(job)
    assert answer == {"id": job, "disposition": "applied", "job": job}
    assert (work.status(job), work.counts(job)) == ("pending", (3, 1, 0, 0))
    assert work.task_statuses(job) == ["completed", "pending", "pending"]
    row = work.job(job)
    assert [row[key] for key in ("finished_at", "started_at", "error", "result")] == [None] * 4
    assert {(task["attempts"], task["error"], task["finished_at"]) for task in work.tasks(job)[1:]} == {(0, None, None)}


def test_retried_job_goes_out_with_the_answer_and_can_complete(work: Work) -> None:
    job = partial(work)
    assert len(work.sql.call("retry_jobs", jobs=[job], request="r")["runs"]) == 1
    run = work.carrier(job, "k1")
    run.start()
    run.advance(*outcomes(run))
    assert (work.status(job), work.counts(job)) == ("completed", (3, 3, 0, 0))
    assert work.kinds(job) == ["created", "started", "failed", "cancelled", "ended", "retried", "started", "ended"]


def test_what_was_is_kept_in_the_event(work: Work) -> None:
    job = partial(work)
    before = work.job(job)
    work.retry(job)
    (event,) = work.events(job, "retried")
    assert event["actor"] == "ann"
    assert event["data"]["status"] == "partial"
    assert event["data"]["finished_at"] == before["finished_at"]


def test_crashes_and_losses_begin_anew_and_alone_is_kept(work: Work) -> None:
    work.limits(max_crashes=1)
    job, run = work.running()
    work.witness(run, "died")
    work.pause()
    work.retry(job)
    task = work.task(job)
    assert (task["crashes"], task["losses"], task["attempts"], task["alone"]) == (0, 0, 0, True)


def test_cancel_request_is_cleared_and_the_deadline_renewed(work: Work) -> None:
    job = work.create(deadline_s=60)
    before = work.job(job)["deadline_at"]
    work.cancel(job)
    work.clock.advance(100)
    work.retry(job)
    row = work.job(job)
    assert (row["cancel_requested_at"], row["deadline_at"] > before) == (None, True)
    run = work.carrier(job)
    run.start()
    run.advance(outcome(run.tasks[0], "returned", after_s=9))
    assert work.status(job) == "pending"


def test_repeated_request_is_applied_and_changes_nothing(work: Work) -> None:
    job = partial(work)
    request = str(new_id())
    first = work.retry(job, request=request)
    run = work.carrier(job, "k1")
    run.start()
    run.advance(*outcomes(run, "failed"))
    assert work.retry(job, request=request) == first
    assert work.status(job) == "partial"
    assert work.kinds(job).count("retried") == 1


def test_open_job_is_not_finished(work: Work) -> None:
    job, _ = work.running()
    assert work.retry(job)[0]["disposition"] == "not_finished"


def test_completed_job_has_nothing_to_retry(work: Work) -> None:
    job, run = work.running()
    run.advance(*outcomes(run))
    assert work.retry(job)[0]["disposition"] == "nothing_to_retry"
    assert work.status(job) == "completed"


def test_unknown_job_is_not_found(work: Work) -> None:
    assert work.retry(str(new_id()))[0]["disposition"] == "not_found"


def test_key_that_was_taken_meanwhile_makes_a_duplicate_that_names_the_holder(work: Work) -> None:
    job = partial(work, dedupe_key="k")
    holder = work.create(dedupe_key="k")
    (answer,) = work.retry(job)
    assert (answer["disposition"], answer["job"]) == ("duplicate", holder)
    assert (work.status(job), work.counts(job)) == ("partial", (3, 1, 1, 1))


def test_two_jobs_of_one_key_in_one_call_are_one_retry(work: Work) -> None:
    jobs = [partial(work, dedupe_key="k"), partial(work, dedupe_key="k")]
    answers = work.retry(*jobs)
    assert sorted(answer["disposition"] for answer in answers) == ["applied", "duplicate"]
    assert [answer["id"] for answer in answers] == jobs


def test_external_job_is_open_again_and_not_dispatched(work: Work) -> None:
    job = work.create(0, external=True)
    work.sql.call("fail_job", job=job, error={"type": "E"})
    assert work.sql.call("retry_jobs", jobs=[job], request="r") == {
        "jobs": [{"id": job, "disposition": "applied", "job": job}],
        "runs": [],
    }
    assert work.status(job) == "pending"
    assert work.sql.call("complete_job", job=job, result=None)["status"] == "completed"


def test_request_needs_an_id(work: Work) -> None:
    with pytest.raises(psycopg.Error, match="request: nothing") as caught:
        work.sql.call("retry_jobs", jobs=[work.create()])
    assert caught.value.sqlstate == "LQ001"


def test_progress_of_what_is_done_again_is_gone(work: Work) -> None:
    external = work.create(0, external=True)
    work.sql.call("update_job", job=external, status="in_progress", progress={"pages": 3})
    work.sql.call("fail_job", job=external, error={"type": "E"})
    job, run = work.running()
    task = run.tasks[0]["id"]
    run.advance(progress=[{"task": task, "data": "half"}])
    run.advance(outcome(task, "failed"))
    work.retry(external, job)
    assert (work.job(external)["progress"], work.task(job)["progress"]) == (None, None)
