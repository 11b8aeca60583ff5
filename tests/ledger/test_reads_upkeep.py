"""prune and delete_job: finished work is forgotten, unfinished work never."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

from tests.support.clock import LedgerClock
from tests.support.databases import Database
from tests.support.sql import Run, Sql, connected, job, saved

DAY = 86_400


@pytest.fixture
def sql(database: Database) -> Iterator[Sql]:
    with connected(database.service_dsn) as connection:
        connection.run("update ledgerq.queue set depth = 1")
        yield connection


@pytest.fixture
def clock(database: Database) -> LedgerClock:
    return LedgerClock(database.dsn)


def finished(sql: Sql, *keys: str) -> str:
    created = job(sql, *({"key": key} for key in keys or ("a",)))
    run = Run(sql, created["runs"][0]["run"])
    run.start()
    run.advance(*({"task": task["id"], "kind": "completed"} for task in run.tasks))
    return created["id"]


def left(sql: Sql) -> dict[str, int]:
    return {table: sql.value(f"select count(*) from ledgerq.{table}") for table in ("job", "task", "run", "event")}


def test_what_finished_long_ago_goes_with_all_that_belongs_to_it(sql: Sql, clock: LedgerClock) -> None:
    finished(sql, "a", "b")
    clock.advance(DAY)
    young = finished(sql)
    answer = sql.call("prune", finished_before_s=DAY / 2)
    assert answer == {"jobs": 1, "events": 0, "runs": 1, "webhooks": 0, "usage": 0, "more": False}
    assert sql.call("job_get", job=young)["status"] == "completed"
    assert left(sql) == {"job": 1, "task": 1, "run": 1, "event": 3}


def test_unfinished_work_is_never_touched(sql: Sql, clock: LedgerClock) -> None:
    run = Run(sql, job(sql, {"key": "running"})["runs"][0]["run"])
    run.start()
    job(sql, {"key": "dispatched"})
    job(sql, {"key": "ready"})
    job(sql, {"key": "later"}, delay_s=DAY)
    job(sql, sealed=False)
    job(sql, type="crawl", external=True)
    before = left(sql)
    clock.advance(1000 * DAY)
    assert sql.call("prune", finished_before_s=0)["jobs"] == 0
    assert left(sql) == before


def test_history_of_a_job_that_goes_on_for_ever_is_bounded(sql: Sql, clock: LedgerClock) -> None:
    created = job(sql, {"key": "a"}, max_attempts=1000, deadline_s=100 * DAY)
    for _ in range(5):
        run = Run(sql, sql.value("select run_id::text from ledgerq.task"))
        run.start()
        answer = run.advance({"task": run.tasks[0]["id"], "kind": "retry", "error": {"type": "X", "message": "x"}})
        assert answer["runs"]
    clock.advance(DAY)
    answer = sql.call("prune", finished_before_s=DAY / 2, limit=3)
    assert (answer["jobs"], answer["events"], answer["runs"], answer["more"]) == (0, 3, 3, True)
    sql.call("prune", finished_before_s=DAY / 2)
    kinds = [event["kind"] for event in sql.call("job_history", job=created["id"])["events"]]
    assert kinds == ["created", "started", "run_dispatched"]
    run = Run(sql, sql.value("select run_id::text from ledgerq.task"))
    assert run.start()["disposition"] == "applied", "what it needs to go on is still there"


def test_batches(sql: Sql, clock: LedgerClock) -> None:
    for _ in range(5):
        finished(sql)
    clock.advance(DAY)
    answers = [sql.call("prune", finished_before_s=1, limit=2) for _ in range(4)]
    assert [(each["jobs"], each["more"]) for each in answers] == [(2, True), (2, True), (1, False), (0, False)]


def test_big_jobs_go_one_at_a_time(sql: Sql, clock: LedgerClock) -> None:
    for _ in range(3):
        finished(sql)
    # They say that they have 30,000 tasks; the tasks themselves would only take time.
    sql.run("update ledgerq.job set total = 30000, completed = 30000 where true")
    clock.advance(DAY)
    answers = [sql.call("prune", finished_before_s=1) for _ in range(4)]
    assert [(each["jobs"], each["more"]) for each in answers] == [(1, True), (1, True), (1, False), (0, False)]


def test_job_that_is_being_retried_stays(database: Database, sql: Sql, clock: LedgerClock) -> None:
    created = job(sql, {"key": "a"})["id"]
    sql.call("cancel_jobs", jobs=[created], actor="test", reason="")
    clock.advance(DAY)
    with connected(database.service_dsn, autocommit=False) as other:
        other.call("retry_jobs", jobs=[created], actor="test", request="r1")
        assert sql.call("prune", finished_before_s=1)["jobs"] == 0
        other.connection.commit()
    assert sql.call("prune", finished_before_s=1)["jobs"] == 0
    assert sql.call("job_get", job=created)["status"] == "pending"


def test_prune_wants_an_age(sql: Sql) -> None:
    for wrong in (None, -1, "a day"):
        with pytest.raises(psycopg.Error, match="finished_before_s") as caught:
            sql.call("prune", finished_before_s=wrong)
        assert caught.value.sqlstate == "LQ001"


def test_delete_job(sql: Sql) -> None:
    unfinished = job(sql, sealed=False)["id"]
    over = finished(sql, "a", "b")
    document = saved(sql)
    assert sql.call("delete_job", job=unfinished, actor="ann") == {"disposition": "not_finished", "status": "pending"}
    assert sql.call("delete_job", job=over, actor="ann") == {"disposition": "applied", "more": False}
    assert sql.call("delete_job", job=over, actor="ann") == {"disposition": "not_found"}
    assert sql.call("delete_job", job=str(uuid4()), actor="ann") == {"disposition": "not_found"}
    assert sql.call("job_get", job=over) is None
    assert sql.value("select count(*) from ledgerq.task where job_id = %s", over) == 0
    (trace,) = sql.rows("select actor, data ->> 'job', data ->> 'status' from ledgerq.event where kind = 'deleted'")
    assert trace == ("ann", over, "completed")
    assert sql.call("document_get", document=document)["status"] == "pending"


def test_webhook_events_that_were_dealt_with_go_and_those_that_wait_stay(sql: Sql, clock: LedgerClock) -> None:
    statuses = ["received", "processed", "ignored", "failed"]
    for status in statuses:
        sql.run("insert into ledgerq.webhook_event (provider, event_key, body, status) values ('p', %s, '{}', %s)", status, status)
    assert sql.call("prune", finished_before_s=DAY)["webhooks"] == 0
    clock.advance(2 * DAY)
    assert [sql.call("prune", finished_before_s=DAY, limit=2)["webhooks"] for _ in range(3)] == [2, 1, 0]
    assert sql.rows("select status from ledgerq.webhook_event") == [("received",)]


def test_a_document_is_purged_without_touching_tasks_that_mention_it(database: Database, sql: Sql, clock: LedgerClock) -> None:
    """Their jobs may be in the hands of a prune, which goes from jobs to tasks."""
    one = saved(sql)
    over = job(sql, {"key": "a", "document": one})["id"]
    sql.call("cancel_jobs", jobs=[over], actor="test")
    sql.call("delete_documents", documents=[one], actor="test")
    clock.advance(DAY)
    with connected(database.service_dsn, autocommit=False) as other:
        assert other.call("prune", finished_before_s=1)["jobs"] == 1
        sql.run("set lock_timeout = '2s'")
        sql.call("garbage")
        assert sql.call("document_get", document=one) is None
        other.connection.commit()
