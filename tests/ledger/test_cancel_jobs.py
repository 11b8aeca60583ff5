"""cancel_jobs: what waits is cancelled at once, what is held is told."""

from __future__ import annotations

import psycopg
import pytest

from ledgerq.ids import new_id
from tests.support.sql import connected
from tests.support.work import Work, outcome, outcomes


def test_waiting_job_is_cancelled_at_once(work: Work) -> None:
    job = work.create(3)
    assert work.cancel(job) == ["applied"]
    row = work.job(job)
    assert (row["status"], row["cancel_actor"], row["cancel_reason"]) == ("cancelled", "ann", "enough")
    assert (work.counts(job), work.kinds(job)) == ((3, 0, 0, 3), ["created", "cancel_requested", "ended"])


def test_scheduled_job_is_cancelled_at_once(work: Work) -> None:
    job = work.create(delay_s=60)
    work.cancel(job)
    assert (work.status(job), work.task(job)["due_at"]) == ("cancelled", None)


def test_unhanded_tasks_are_cancelled_and_held_ones_are_left_to_their_worker(work: Work) -> None:
    job, run = work.running(3, window=1)
    assert work.cancel(job) == ["applied"]
    assert (work.task_statuses(job), work.status(job)) == (["queued", "cancelled", "cancelled"], "in_progress")
    assert run.advance(outcome(run.tasks[0], "cancelled"))["finished"]
    assert work.status(job) == "cancelled"


def test_tasks_of_runs_that_have_not_started_are_cancelled(work: Work) -> None:
    job = work.create(3)
    (run, *_) = work.runs()
    work.cancel(job)
    assert work.status(job) == "cancelled"
    assert run.start()["disposition"] == "empty"


def test_cancelling_again_is_applied(work: Work) -> None:
    held, _ = work.running()
    waiting = work.create()
    assert [work.cancel(held, waiting) for _ in range(2)] == [["applied", "applied"]] * 2
    assert work.kinds(held).count("cancel_requested") == 1


@pytest.mark.parametrize("kind", ["completed", "failed"])
def test_job_that_is_over_is_too_late(work: Work, kind: str) -> None:
    job, run = work.running()
    run.advance(*outcomes(run, kind))
    assert work.cancel(job) == ["too_late"]
    assert (work.status(job), work.job(job)["cancel_requested_at"]) == (kind, None)


def test_unknown_job_is_not_found(work: Work) -> None:
    known = work.create()
    unknown = str(new_id())
    answer = work.sql.call("cancel_jobs", jobs=[unknown, known])["jobs"]
    assert answer == [
        {"id": unknown, "disposition": "not_found", "status": None},
        {"id": known, "disposition": "applied", "status": "cancelled"},
    ]


def test_task_that_completed_before_is_counted_and_the_job_is_cancelled(work: Work) -> None:
    job, run = work.running(2)
    run.advance(outcome(run.tasks[0]), outcome(run.tasks[1], "returned", after_s=9))
    work.cancel(job)
    assert (work.status(job), work.counts(job)) == ("cancelled", (2, 1, 0, 1))


def test_unsealed_job_is_sealed_and_over(work: Work) -> None:
    empty, grown = work.create(0, sealed=False), work.create(2, sealed=False)
    work.cancel(empty, grown)
    assert [(work.status(job), work.job(job)["sealed"]) for job in (empty, grown)] == [("cancelled", True)] * 2


def test_external_job_is_cancelled(work: Work) -> None:
    job = work.create(0, external=True)
    work.cancel(job)
    assert (work.status(job), work.counts(job)) == ("cancelled", (1, 0, 0, 1))


def test_other_jobs_of_the_run_go_on(work: Work) -> None:
    work.limits(depth=1)
    gone, stays = work.create(2), work.create(2)
    (run,) = work.runs()
    run.start(window=1)
    work.cancel(gone)
    assert (work.status(stays), work.task_statuses(stays)) == ("queued", ["queued", "queued"])


def test_it_never_waits_for_a_run(work: Work, other_dsn: str) -> None:
    work.sql.run("set statement_timeout = '5s'")
    job, run = work.running(2, window=1)
    with connected(other_dsn, autocommit=False) as other:
        other.run("select from ledgerq.run where id = %s for update", run.id)
        assert work.cancel(job) == ["applied"]


def test_mistakes_are_named(work: Work) -> None:
    for jobs, code in ((["x"], "LQ001"), ("x", "LQ001"), ([str(new_id())] * 1001, "LQ002"), ([None], "LQ001")):
        with pytest.raises(psycopg.Error) as caught:
            work.sql.call("cancel_jobs", jobs=jobs)
        assert caught.value.sqlstate == code


def test_no_jobs_are_no_mistake(work: Work) -> None:
    assert work.cancel() == []
