"""expire_jobs: nothing waits for ever."""

from __future__ import annotations

from tests.support.work import Work, outcome, outcomes


def expire(work: Work, limit: int = 100) -> list[str]:
    return work.sql.call("expire_jobs", limit=limit)["expired"]


def test_waiting_tasks_fail_when_the_deadline_of_their_job_has_passed(work: Work) -> None:
    job = work.create(2, deadline_s=60)
    assert expire(work) == []
    work.clock.advance(61)
    assert expire(work) == [job]
    assert (work.status(job), work.counts(job)) == ("failed", (2, 0, 2, 0))
    assert work.job(job)["error"]["cause"] == "deadline"
    assert work.events(job, "ended")[0]["actor"] == "expire_jobs"


def test_repeat_finds_nothing_more(work: Work) -> None:
    work.create(deadline_s=60)
    work.clock.advance(61)
    assert [len(expire(work)) for _ in range(2)] == [1, 0]


def test_last_error_of_a_task_is_kept(work: Work) -> None:
    job, run = work.running(deadline_s=60)
    run.advance(outcome(run.tasks[0], "retry", after_s=100, error={"type": "Busy"}))
    work.clock.advance(61)
    expire(work)
    assert work.task(job)["error"]["last"] == {"type": "Busy"}


def test_tasks_in_a_run_are_left_to_it(work: Work) -> None:
    unhanded, _ = work.running(2, deadline_s=60, window=1)
    held, run = work.running(2, deadline_s=60)
    work.clock.advance(61)
    assert expire(work) == []
    assert work.task_statuses(unhanded) == ["queued", "queued"]
    run.advance(*outcomes(run))
    assert work.status(held) == "completed"


def test_external_job_fails_at_its_deadline(work: Work) -> None:
    job = work.create(0, external=True, deadline_s=60)
    work.clock.advance(61)
    assert (expire(work), work.status(job)) == ([job], "failed")


def test_job_that_was_never_sealed_is_ended_and_not_as_completed(work: Work) -> None:
    job, run = work.running(2, sealed=False, deadline_s=60)
    run.advance(*outcomes(run))
    empty = work.create(0, sealed=False, deadline_s=60)
    work.clock.advance(61)
    assert sorted(expire(work)) == sorted([job, empty])
    assert (work.status(job), work.status(empty)) == ("partial", "failed")
    assert work.job(job)["error"]["type"] == "NeverSealed"


def test_at_most_so_many_jobs_a_call_those_that_are_longest_over_first(work: Work) -> None:
    late, later = work.create(deadline_s=60), work.create(deadline_s=50)
    work.clock.advance(61)
    assert [expire(work, 1), expire(work, 1)] == [[later], [late]]
