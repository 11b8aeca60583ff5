"""add_tasks and seal_job: jobs that are larger than one call."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from ledgerq.ids import new_id
from tests.support.work import Work, job_request, outcomes


def add(work: Work, job: str, *keys: str, dispatch: bool = False) -> dict[str, Any]:
    return work.sql.call("add_tasks", job=job, tasks=[{"key": key} for key in keys], dispatch=dispatch)


def seal(work: Work, job: str) -> dict[str, Any]:
    return work.sql.call("seal_job", job=job)


def test_added_tasks_count_towards_the_total(work: Work) -> None:
    job = work.create(1, sealed=False)
    answer = add(work, job, "a", "b")
    assert answer == {"disposition": "applied", "added": 2, "total": 3, "runs": []}
    assert work.counts(job) == (3, 0, 0, 0)


def test_repeated_call_adds_nothing(work: Work) -> None:
    job = work.create(0, sealed=False)
    assert [add(work, job, "a", "b")["added"] for _ in range(2)] == [2, 0]
    assert work.counts(job)[0] == 2


def test_key_that_the_job_has_is_left_as_it_is(work: Work) -> None:
    job = work.create(1, sealed=False)
    assert (add(work, job, "k0", "new")["added"], work.counts(job)[0]) == (1, 2)
    assert work.tasks(job)[0]["payload"] == {"number": 0}


def test_added_tasks_go_out_at_once(work: Work) -> None:
    job = work.create(0, sealed=False)
    assert [run["tasks"] for run in add(work, job, "a", dispatch=True)["runs"]] == [1]


def test_tasks_of_a_scheduled_job_wait_like_the_others(work: Work) -> None:
    job = work.create(0, sealed=False, delay_s=60)
    assert add(work, job, "a", dispatch=True)["runs"] == []


def test_sealed_job_takes_no_more(work: Work) -> None:
    job = work.create(1)
    assert add(work, job, "a")["disposition"] == "sealed"
    assert work.counts(job)[0] == 1


def test_cancelled_job_takes_no_more(work: Work) -> None:
    job = work.create(1, sealed=False)
    work.cancel(job)
    assert (add(work, job, "a")["disposition"], work.status(job)) == ("sealed", "cancelled")


def test_unknown_job_is_not_found(work: Work) -> None:
    assert add(work, str(new_id()), "a")["disposition"] == "not_found"
    assert seal(work, str(new_id())) == {"disposition": "not_found", "status": None}


def test_unsealed_job_starts_at_once_and_cannot_end_before_it_is_sealed(work: Work) -> None:
    job, run = work.running(1, sealed=False)
    run.advance(*outcomes(run))
    assert (work.status(job), work.counts(job)) == ("pending", (1, 1, 0, 0))
    assert seal(work, job) == {"disposition": "applied", "status": "completed"}


def test_sealing_is_repeatable(work: Work) -> None:
    job = work.create(1, sealed=False)
    assert [seal(work, job)["status"] for _ in range(2)] == ["pending", "pending"]
    assert work.kinds(job) == ["created"]


def test_sealing_a_job_whose_tasks_run_leaves_it_running(work: Work) -> None:
    job, run = work.running(1, sealed=False)
    assert seal(work, job)["status"] == "in_progress"
    assert run.advance(*outcomes(run))["finished"]
    assert work.status(job) == "completed"


def test_mistakes_in_tasks_are_named(work: Work) -> None:
    job = work.create(0, sealed=False)
    for tasks, code, says in (
        ([{"key": 7}], "LQ001", "tasks[0].key: '7'"),
        ([{"key": "a", "payload": "x" * 70_000}], "LQ002", "tasks[0].payload"),
        ([{"key": "a", "document": str(new_id())}], "LQ005", "document: unknown"),
        ([{"key": str(number)} for number in range(5001)], "LQ002", "tasks: 5001"),
    ):
        with pytest.raises(psycopg.Error) as caught:
            work.sql.call("add_tasks", job=job, tasks=tasks)
        assert (caught.value.sqlstate, says in str(caught.value)) == (code, True)


def test_job_of_many_calls_is_one_job(work: Work) -> None:
    request = job_request(0, sealed=False)
    work.sql.call("create_jobs", jobs=[request])
    for page in range(4):
        add(work, request["id"], *(f"{page}-{number}" for number in range(1000)))
    assert seal(work, request["id"])["status"] == "pending"
    assert work.counts(request["id"]) == (4000, 0, 0, 0)
