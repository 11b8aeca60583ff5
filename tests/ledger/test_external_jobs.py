"""update_job, complete_job, fail_job: jobs that something outside does and reports."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from ledgerq.ids import new_id
from tests.support.work import Work


def crawl(work: Work, **fields: Any) -> str:
    return work.create(0, external=True, type="crawl", **fields)


def test_update_moves_it_to_in_progress_once(work: Work) -> None:
    job = crawl(work)
    answers = [work.sql.call("update_job", job=job, status="in_progress") for _ in range(2)]
    assert answers == [{"disposition": "applied", "status": "in_progress"}] * 2
    assert work.kinds(job) == ["created", "started"]


def test_details_are_merged_and_progress_is_replaced(work: Work) -> None:
    job = crawl(work, details={"a": 1, "b": 1})
    work.sql.call("update_job", job=job, details={"b": 2}, progress={"done": 1})
    work.sql.call("update_job", job=job, progress={"left": 3})
    row = work.job(job)
    assert (row["details"], row["progress"], row["status"]) == ({"a": 1, "b": 2}, {"left": 3}, "pending")


def test_complete_ends_it_with_its_result(work: Work) -> None:
    job = crawl(work)
    assert work.sql.call("complete_job", job=job, result={"pages": 3}) == {"disposition": "applied", "status": "completed"}
    assert (work.job(job)["result"], work.counts(job)) == ({"pages": 3}, (1, 1, 0, 0))


def test_fail_ends_it_with_its_error(work: Work) -> None:
    job = crawl(work)
    assert work.sql.call("fail_job", job=job, error={"type": "Blocked"}) == {"disposition": "applied", "status": "failed"}
    assert (work.job(job)["error"], work.counts(job)) == ({"type": "Blocked"}, (1, 0, 1, 0))


def test_repeat_is_applied_and_the_contrary_is_too_late(work: Work) -> None:
    job = crawl(work)
    answers = [work.sql.call("complete_job", job=job, result=None)["disposition"] for _ in range(2)]
    assert answers == ["applied", "applied"]
    assert work.sql.call("fail_job", job=job, error={}) == {"disposition": "too_late", "status": "completed"}
    assert work.sql.call("update_job", job=job, status="in_progress") == {"disposition": "too_late", "status": "completed"}


def test_cancelled_job_is_too_late_to_complete(work: Work) -> None:
    job = crawl(work)
    work.cancel(job)
    assert work.sql.call("complete_job", job=job, result=None) == {"disposition": "too_late", "status": "cancelled"}


@pytest.mark.parametrize("function", ["update_job", "complete_job", "fail_job"])
def test_other_jobs_are_not_external(work: Work, function: str) -> None:
    job = work.create()
    assert work.sql.call(function, job=job) == {"disposition": "not_external", "status": "pending"}
    assert work.sql.call(function, job=str(new_id())) == {"disposition": "not_found", "status": None}


def test_mistakes_are_named(work: Work) -> None:
    job = crawl(work)
    for function, fields, code, says in (
        ("update_job", {"status": "completed"}, "LQ001", "status: 'completed'"),
        ("update_job", {"details": [1]}, "LQ001", "details"),
        ("update_job", {"progress": {"x": "x" * 70_000}}, "LQ002", "progress"),
        ("complete_job", {"result": "x" * 70_000}, "LQ002", "result"),
        ("fail_job", {"error": {"m": "x" * 9_000}}, "LQ002", "error"),
    ):
        with pytest.raises(psycopg.Error) as caught:
            work.sql.call(function, job=job, **fields)
        assert (caught.value.sqlstate, says in str(caught.value)) == (code, True)
    assert work.status(job) == "pending"
