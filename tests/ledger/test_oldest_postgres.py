"""The oldest supported PostgreSQL runs the same life of a job; skipped by name where it is not installed."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.support.clock import LedgerClock
from tests.support.databases import Databases
from tests.support.invariants import check_invariants
from tests.support.sql import begin, completed, connected, saved
from tests.support.work import Work, job_request, outcome, outcomes


@pytest.fixture
def work15(databases15: Databases) -> Iterator[Work]:
    with databases15.fresh() as database, connected(database.service_dsn) as sql:
        yield Work(sql=sql, clock=LedgerClock(database.dsn))
        with psycopg.connect(database.dsn, autocommit=True) as owner:
            check_invariants(owner)


def test_job_of_every_outcome_ends_as_it_should(work15: Work) -> None:
    job, run = work15.running(4)
    kinds = ("completed", "failed", "retry", "returned")
    run.advance(*(outcome(task, kind) for task, kind in zip(run.tasks, kinds, strict=True)))
    carrier = work15.carrier(job, "k2")
    carrier.start()
    carrier.advance(*outcomes(carrier))
    assert (work15.status(job), work15.counts(job)) == ("partial", (4, 3, 1, 0))


def test_death_loss_and_cancel_are_judged_the_same(work15: Work) -> None:
    job, run = work15.running(2, window=1)
    assert work15.witness(run, "died") == "applied"
    again = work15.carrier(job)
    again.start()
    work15.lose(again)
    assert (work15.tasks(job)[0]["crashes"], work15.tasks(job)[0]["losses"]) == (1, 1)
    assert work15.cancel(job) == ["applied"]
    assert work15.status(job) == "cancelled"
    assert work15.retry(job)[0]["disposition"] == "applied"


def test_caps_turns_and_deadlines_hold(work15: Work) -> None:
    work15.limits(tenant_concurrent_jobs=1)
    jobs = [work15.create(tenant=tenant, deadline_s=60) for tenant in "aabb"]
    work15.dispatch()
    assert [work15.status(job) for job in jobs] == ["queued", "pending", "queued", "pending"]
    work15.clock.advance(61)
    assert sorted(work15.sql.call("expire_jobs")["expired"]) == sorted([jobs[1], jobs[3]])


def test_document_flips_with_its_task(work15: Work) -> None:
    known = saved(work15.sql)
    work15.sql.call("create_jobs", jobs=[job_request([{"key": "a", "document": known}])], dispatch=False)
    run = work15.one_run()
    begun = begin(work15.sql, known)
    run.advance(completed(run.tasks[0]["id"], begun))
    assert work15.sql.value("select live_generation from ledgerq.document") == begun["generation"]


def test_changes_are_numbered_and_announced(work15: Work) -> None:
    owner = "00000000-0000-7000-8000-000000000001"
    job, run = work15.running(2, owner=owner)
    run.advance(*outcomes(run))
    work15.sql.call("delete_job", job=job, actor="ann")
    told = "select (payload ->> 'sequence')::int, payload ->> 'status' from realtime.messages where topic = %s order by 1"
    assert work15.sql.rows(told, f"ledgerq:owner:{owner}") == [
        (0, "pending"),
        (1, "queued"),
        (2, "in_progress"),
        (3, "completed"),
        (4, None),
    ]
