"""Jobs that something outside does: a crawl."""

from __future__ import annotations

import pytest

from ledgerq.errors import InvalidInput, TooLarge, WrongState
from ledgerq.handlers import Handlers
from ledgerq.lifecycle import JobStatus
from ledgerq.models import Disposition
from tests.support.lab import Lab


def test_a_crawl_from_its_start_to_its_end(lab: Lab) -> None:
    crawl = lab.jobs.create_job("crawl", details={"crawl_id": "c1"})
    assert (crawl.status, crawl.external, crawl.run_ids) == (JobStatus.PENDING, True, ())
    assert lab.redis.keys("*") == []
    lab.jobs.update_job(crawl.id, status=JobStatus.IN_PROGRESS, details={"pages": 10})
    lab.jobs.update_job_progress(crawl.id, progress={"done": 4})
    now = lab.jobs.get_job(crawl.id)
    assert (now.status, now.details, now.progress) == (JobStatus.IN_PROGRESS, {"crawl_id": "c1", "pages": 10}, {"done": 4})
    assert lab.jobs.complete_job(crawl.id, {"saved": 10}).disposition is Disposition.APPLIED
    done = lab.jobs.get_job(crawl.id)
    assert (done.status, done.result) == (JobStatus.COMPLETED, {"saved": 10})


def test_a_report_may_be_repeated_and_may_be_too_late(lab: Lab) -> None:
    crawl = lab.jobs.create_job("crawl")
    for _ in range(2):
        assert lab.jobs.fail_job(crawl.id, ConnectionError("site is gone")).disposition is Disposition.APPLIED
    late = lab.jobs.complete_job(crawl.id)
    assert (late.disposition, late.status) == (Disposition.TOO_LATE, JobStatus.FAILED)
    error = lab.jobs.get_job(crawl.id).error
    assert (error["type"], error["message"]) == ("ConnectionError", "site is gone")


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_a_terminal_status_ends_the_job(lab: Lab, status: str) -> None:
    crawl = lab.jobs.create_job("crawl")
    assert lab.jobs.update_job(crawl.id, status=status).status == status
    assert lab.jobs.get_job_status(crawl.id) == status


def test_only_the_ledger_sets_the_other_statuses(lab: Lab) -> None:
    crawl = lab.jobs.create_job("crawl")
    with pytest.raises(InvalidInput, match="status: 'queued'"):
        lab.jobs.update_job(crawl.id, status=JobStatus.QUEUED)
    with pytest.raises(InvalidInput, match="status: 'done'"):
        lab.jobs.update_job(crawl.id, status="done")


def test_what_workers_do_is_not_reported_by_others(lab: Lab) -> None:
    job = lab.jobs.create_job("noop")
    for report in (lab.jobs.complete_job, lambda job: lab.jobs.fail_job(job, "x"), lambda job: lab.jobs.update_job(job, progress={})):
        with pytest.raises(WrongState, match=str(job.id)):
            report(job.id)


def test_types_of_ones_own_may_be_external(lab: Lab) -> None:
    handlers = Handlers()
    handlers.external("review")
    assert lab.manager(handlers).create_job("review").external


def test_what_is_reported_is_checked(lab: Lab) -> None:
    crawl = lab.jobs.create_job("crawl")
    with pytest.raises(InvalidInput, match="result: not JSON"):
        lab.jobs.complete_job(crawl.id, {"x": object()})
    with pytest.raises(TooLarge, match="progress"):
        lab.jobs.update_job(crawl.id, progress={"text": "x" * 70_000})
    deep: list[object] = []
    for _ in range(500):
        deep = [deep]
    with pytest.raises(InvalidInput, match="nested too deep"):
        lab.jobs.update_job_progress(crawl.id, progress={"deep": deep})
    assert lab.jobs.get_job_status(crawl.id) is JobStatus.PENDING
