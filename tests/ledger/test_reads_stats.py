"""Queues, workers, health."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.support.clock import LedgerClock
from tests.support.databases import Database
from tests.support.sql import Run, Sql, connected, job, judge


@pytest.fixture
def sql(database: Database) -> Iterator[Sql]:
    with connected(database.service_dsn) as connection:
        connection.run("update ledgerq.queue set depth = 1")
        yield connection


@pytest.fixture
def clock(database: Database) -> LedgerClock:
    return LedgerClock(database.dsn)


def stats(sql: Sql, queue: str = "processing") -> dict[str, object]:
    (found,) = sql.call("queue_stats", queue=queue)["queues"]
    return found


def test_an_idle_queue(sql: Sql) -> None:
    found = stats(sql)
    assert (found["queue"], found["paused"], found["depth"]) == ("processing", False, 1)
    assert [found[each] for each in ("dispatched", "running", "ready", "due_later", "in_progress", "queued")] == [0] * 6
    assert (found["oldest_ready_s"], found["last_started_at"], found["next_due_at"]) == (None, None, None)


def test_where_tasks_are(sql: Sql, clock: LedgerClock) -> None:
    first = Run(sql, job(sql, *({"key": str(n)} for n in range(5)))["runs"][0]["run"])
    first.start(window=2)
    job(sql, {"key": "dispatched"}, tenant="b")
    clock.advance(30)
    job(sql, {"key": "ready"}, {"key": "ready too"}, tenant="c")
    clock.advance(10)
    job(sql, {"key": "later"}, delay_s=100)
    sql.call("pause_queue", queue="processing", actor="ann")
    found = stats(sql)
    assert (found["running"], found["dispatched"]) == (1, 1)
    assert (found["in_progress"], found["queued"]) == (2, 3 + 1)
    assert (found["ready"], found["due_later"], found["ready_more"]) == (2, 1, False)
    assert 10 <= float(str(found["oldest_ready_s"])) < 30
    assert (found["paused"], found["paused_by"]) == (True, "ann")


def test_all_queues_or_one_and_unknown_is_an_error(sql: Sql) -> None:
    sql.call("save_queue", queue="other")
    assert [each["queue"] for each in sql.call("queue_stats")["queues"]] == ["other", "processing"]
    assert stats(sql, "other")["depth"] == 8
    with pytest.raises(psycopg.Error, match="'nope'") as caught:
        stats(sql, "nope")
    assert caught.value.sqlstate == "LQ003"


def test_counting_stops_at_ten_thousand(sql: Sql) -> None:
    sql.call("pause_queue", queue="processing", actor="ann")
    created = job(sql, sealed=False)["id"]
    for due in ("null", "now() + interval '1 day'"):
        sql.run(
            "insert into ledgerq.task (job_id, key, queue, tenant, priority, due_at)"
            f" select %s, {'1' if due == 'null' else '2'} || '-' || n, 'processing', '', 1, {due} from generate_series(1, 10050) n",
            created,
        )
    found = stats(sql)
    assert [found[each] for each in ("ready", "ready_more", "due_later", "due_later_more")] == [10_000, True, 10_000, True]


def test_workers(sql: Sql, clock: LedgerClock) -> None:
    assert sql.call("worker_stats")["workers"] == []
    run = Run(sql, job(sql, {"key": "a"}, {"key": "b"})["runs"][0]["run"])
    run.start(window=1)
    (worker,) = sql.call("worker_stats")["workers"]
    assert {key: worker[key] for key in ("worker", "host", "pid", "queue", "runs", "held", "suspected")} == {
        "worker": "w1",
        "host": "h1",
        "pid": 7,
        "queue": "processing",
        "runs": 1,
        "held": 1,
        "suspected": False,
    }
    clock.advance(60)
    judge(sql, run, "expired")
    assert sql.call("worker_stats")["workers"][0]["suspected"] is True
    clock.advance(60)
    judge(sql, run, "expired")
    after = sql.call("worker_stats")
    assert after["workers"] == []
    assert [(each["worker"], each["runs"], each["lost"]) for each in after["recent"]] == [("w1", 1, 1)]


def test_health(sql: Sql) -> None:
    found = sql.call("health")
    assert found["schema_version"] == sql.value("select max(version) from ledgerq.schema_version")
    assert sql.value("select %s::timestamptz < %s::timestamptz", found["started_at"], found["now"])
    assert found["server_version"].startswith(sql.value("show server_version").split(".")[0])
