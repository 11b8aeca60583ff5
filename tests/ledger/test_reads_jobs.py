"""Reading jobs: one, pages, tasks, history, and how it was at a moment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from ledgerq.ids import new_id
from tests.support.clock import LedgerClock
from tests.support.databases import Database
from tests.support.sql import Run, Sql, connected, job, lose, saved


@pytest.fixture
def sql(database: Database) -> Iterator[Sql]:
    with connected(database.service_dsn) as connection:
        yield connection


@pytest.fixture
def clock(database: Database) -> LedgerClock:
    return LedgerClock(database.dsn)


def started(sql: Sql, *keys: str, **fields: Any) -> tuple[str, Run]:
    """A job whose tasks are all in one worker's hands."""
    sql.run("update ledgerq.queue set depth = 1 where name = 'processing'")
    created = job(sql, *({"key": key} for key in keys), **fields)
    run = Run(sql, created["runs"][0]["run"])
    run.start()
    return created["id"], run


def done(task: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"task": task["id"], "kind": "completed"} | fields


FAILED = {"kind": "failed", "error": {"type": "ValueError", "message": "no good"}}


# --- one ----------------------------------------------------------------------------------------------------------


def test_job_comes_back_as_it_was_asked_for(sql: Sql) -> None:
    owner = str(uuid4())
    given = {
        "tenant": "t",
        "owner": owner,
        "project": "p",
        "priority": "high",
        "details": {"a": 1},
        "dedupe_key": "k",
        "max_attempts": 7,
        "timeout_s": 12.5,
        "deadline_s": 1000,
    }
    found = sql.call("job_get", job=job(sql, {"key": "a"}, **given)["id"])
    assert {key: found[key] for key in given} == given
    assert (found["type"], found["queue"], found["status"], found["total"]) == ("process", "processing", "queued", 1)
    assert len(found["run_ids"]) == 1
    assert sql.call("job_get", job=str(uuid4())) is None


@pytest.mark.parametrize("function", ["job_get", "job_tasks", "job_history", "job_as_of", "explain", "delete_job"])
@pytest.mark.parametrize("given", [None, "x", 7])
def test_job_must_be_named(sql: Sql, function: str, given: Any) -> None:
    with pytest.raises(psycopg.Error, match="job: ") as caught:
        sql.call(function, job=given)
    assert caught.value.sqlstate == "LQ001"


# --- many ---------------------------------------------------------------------------------------------------------


def ids(sql: Sql, **filters: Any) -> list[str]:
    """All pages of two."""
    found: list[str] = []
    after = None
    while True:
        page = sql.call("job_list", limit=2, after=after, **filters)
        assert len(page["jobs"]) <= 2
        found += [each["id"] for each in page["jobs"]]
        after = page["next"]
        if after is None:
            return found


def test_list_is_newest_first_and_pages_without_a_gap(sql: Sql) -> None:
    sql.run("update ledgerq.queue set depth = 1")
    created = [job(sql, {"key": "a"})["id"] for _ in range(7)]
    assert ids(sql) == created[::-1]


def test_jobs_of_one_moment_are_paged_without_a_gap(sql: Sql) -> None:
    """A bulk of jobs has one creation time: the page's place is time and id."""
    many = [{"id": str(new_id()), "type": "x", "queue": "processing", "tasks": [{"key": "a"}]} for _ in range(9)]
    sql.call("create_jobs", jobs=many, actor="test")
    assert ids(sql) == sorted((each["id"] for each in many), reverse=True)


def test_filters(sql: Sql) -> None:
    owner, source = str(uuid4()), sql.call("save_source", id=str(new_id()), kind="folder", tenant="t")["source"]
    sql.call("save_queue", queue="other")
    plain = job(sql, {"key": "a"})["id"]
    special = job(
        sql, {"key": "a"}, tenant="t", owner=owner, project="p", source=source, type="crawl", queue="other", external=True, tasks=[]
    )["id"]
    for name, value in {"tenant": "t", "owner": owner, "project": "p", "source": source, "type": "crawl", "queue": "other"}.items():
        assert ids(sql, **{name: value}) == [special], name
    assert ids(sql, tenant="") == [plain]
    assert ids(sql, status=["queued"]) == [plain]
    assert ids(sql, status="pending") == [special]
    assert ids(sql, status=["completed", "failed"]) == []
    between = sql.call("job_get", job=special)["created_at"]
    assert ids(sql, created_after=between) == [special]
    assert ids(sql, created_before=between) == [plain]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"after": "yesterday"}, "after: 'yesterday'"),
        ({"status": ["done"]}, "status: .*done"),
        ({"limit": 501}, "limit: '501'"),
        ({"limit": 0}, "limit: '0'"),
        ({"owner": "ann"}, "owner: 'ann'"),
        ({"created_after": "2026-01-01T00:00:00"}, "created_after: '2026-01-01T00:00:00'"),
    ],
)
def test_list_names_what_is_wrong(sql: Sql, wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(psycopg.Error, match=named) as caught:
        sql.call("job_list", **wrong)
    assert caught.value.sqlstate == "LQ001"


def test_each_question_has_its_index(database: Database, sql: Sql) -> None:
    """A page reads its own rows and no others, whatever lies around them."""
    sql.run(
        "insert into ledgerq.job (id, tenant, owner_id, type, queue, request_digest, max_attempts, timeout_s, deadline_s,"
        " deadline_at, created_at)"
        " select gen_random_uuid(), 't' || n % 50, case when n % 100 = 0 then '019a0000-0000-7000-8000-000000000001'::uuid end, 'x',"
        " 'processing', '', 1, 1, 1, now(), now() + n * interval '1 second' from generate_series(1, 5000) n"
    )
    with connected(database.dsn) as owner:
        owner.run("analyze ledgerq.job")
    for filters, index in [
        ({}, "job_by_time"),
        ({"tenant": "t1"}, "job_by_tenant"),
        ({"owner": "019a0000-0000-7000-8000-000000000001"}, "job_by_owner"),
    ]:
        before = sql.value("select coalesce(idx_tup_read, 0) from pg_stat_user_indexes where indexrelname = %s", index)
        assert len(sql.call("job_list", limit=20, **filters)["jobs"]) == 20
        sql.run("select pg_stat_force_next_flush()")
        read = sql.value("select idx_tup_read from pg_stat_user_indexes where indexrelname = %s", index) - before
        assert 20 <= read <= 25, index


# --- tasks --------------------------------------------------------------------------------------------------------


def test_tasks_page_in_order_with_what_became_of_them(sql: Sql) -> None:
    one = saved(sql, uri="one.md")
    sql.run("update ledgerq.queue set depth = 1")
    created = job(sql, {"key": "a", "document": one}, {"key": "b"}, {"key": "c"})
    run = Run(sql, created["runs"][0]["run"])
    run.start()
    run.advance(done(run.tasks[0], result={"n": 1}, duration_s=2.5), {"task": run.tasks[1]["id"]} | FAILED)
    first = sql.call("job_tasks", job=created["id"], limit=2)
    second = sql.call("job_tasks", job=created["id"], limit=2, after=first["next"])
    tasks = first["tasks"] + second["tasks"]
    assert second["next"] is None
    assert [(each["key"], each["status"]) for each in tasks] == [("a", "completed"), ("b", "failed"), ("c", "queued")]
    assert (tasks[0]["uri"], tasks[0]["document"], tasks[0]["result"], tasks[0]["duration_s"]) == ("one.md", one, {"n": 1}, 2.5)
    assert (tasks[1]["error"]["message"], tasks[1]["attempts"], tasks[1]["uri"]) == ("no good", 1, None)
    failed = sql.call("job_tasks", job=created["id"], status="failed")
    assert [each["key"] for each in failed["tasks"]] == ["b"]


def test_a_page_of_tasks_is_bounded_by_bytes(sql: Sql) -> None:
    created, run = started(sql, *(f"{n:03}" for n in range(100)))
    noise = sql.value("select string_agg(md5(n::text), '') from generate_series(1, 1900) n")
    run.advance(*(done(task, result=noise) for task in run.tasks))
    keys, pages, after = [], 0, None
    while after is not None or pages == 0:
        page = sql.call("job_tasks", job=created, limit=1000, after=after)
        assert len(str(page)) < 6_000_000
        keys += [each["key"] for each in page["tasks"]]
        after, pages = page["next"], pages + 1
    assert keys == [f"{n:03}" for n in range(100)]
    assert pages > 1


# --- history ------------------------------------------------------------------------------------------------------


def kinds(sql: Sql, job_id: str) -> list[str]:
    return [each["kind"] for each in sql.call("job_history", job=job_id)["events"]]


def test_history_of_a_job_that_went_well(sql: Sql) -> None:
    created, run = started(sql, "a", "b")
    run.advance(done(run.tasks[0]))
    run.advance(done(run.tasks[0]))
    told = kinds(sql, created)
    # Two entries of one transaction have one time; which comes first says nothing.
    assert sorted(told[2:4]) == ["run_started", "started"]
    assert told[:2] + told[4:] == ["created", "run_dispatched", "progressed", "ended", "run_ended"]
    events = sql.call("job_history", job=created)["events"]
    assert [each["at"] for each in events] == sorted(each["at"] for each in events)
    assert next(each for each in events if each["kind"] == "run_started")["data"] == {"worker": "w1", "host": "h1", "pid": 7}
    assert events[-1]["run"] == run.id


def test_history_tells_losses_and_verdicts(sql: Sql, clock: LedgerClock) -> None:
    created, run = started(sql, "a")
    lose(sql, clock, run)
    told = {(each["kind"], each["cause"], each["actor"]) for each in sql.call("job_history", job=created)["events"]}
    assert {("loss", "expired", "test"), ("run_ended", "expired", "test")} <= told


def test_history_pages_without_a_gap(sql: Sql) -> None:
    created, run = started(sql, "a", "b", "c")
    while run.tasks:
        run.advance(done(run.tasks[0]))
    whole = sql.call("job_history", job=created)["events"]
    paged: list[Any] = []
    after = None
    while True:
        page = sql.call("job_history", job=created, limit=2, after=after)
        paged += page["events"]
        after = page["next"]
        if after is None:
            break
    assert paged == whole
    assert len(whole) > 6


# --- as of --------------------------------------------------------------------------------------------------------


def test_a_job_as_it_was_at_each_moment_of_its_life(sql: Sql, clock: LedgerClock) -> None:
    def moment() -> str:
        clock.advance(1)
        now = sql.call("moment")["now"]
        clock.advance(1)
        return now

    before = moment()
    sql.call("pause_queue", queue="processing", actor="test")
    sql.run("update ledgerq.queue set depth = 1")
    created = job(sql, {"key": "a"}, {"key": "b"})["id"]
    at = {"pending": moment()}
    runs = sql.call("resume_queue", queue="processing", actor="test")["runs"]
    at["queued"] = moment()
    run = Run(sql, runs[0]["run"])
    run.start()
    at["in_progress"] = moment()
    run.advance(done(run.tasks[0]))
    at["half"] = moment()
    run.advance({"task": run.tasks[0]["id"]} | FAILED)
    at["partial"] = moment()
    sql.call("retry_jobs", jobs=[created], actor="test", request="r1")
    at["retried"] = moment()

    def seen(name: str) -> tuple[str, int, int]:
        found = sql.call("job_as_of", job=created, at=at[name])
        assert found["total"] == 2
        assert (found["finished_at"] is not None) == (name == "partial")
        return found["status"], found["completed"], found["failed"]

    assert {name: seen(name) for name in at} == {
        "pending": ("pending", 0, 0),
        "queued": ("queued", 0, 0),
        "in_progress": ("in_progress", 0, 0),
        "half": ("in_progress", 1, 0),
        "partial": ("partial", 1, 1),
        "retried": ("queued", 1, 0),
    }
    assert sql.call("job_as_of", job=created, at=before) is None


def test_as_of_now_is_the_job(sql: Sql) -> None:
    created, run = started(sql, "a", "b")
    run.advance(done(run.tasks[0]))
    now = sql.call("job_get", job=created)
    as_of = sql.call("job_as_of", job=created, at="2999-01-01T00:00:00Z")
    assert {key: as_of[key] for key in now} == now


def test_as_of_wants_a_time_with_its_zone(sql: Sql) -> None:
    created, _ = started(sql, "a")
    for wrong in (None, "2026-01-01T00:00:00", "now"):
        with pytest.raises(psycopg.Error, match="at: ") as caught:
            sql.call("job_as_of", job=created, at=wrong)
        assert caught.value.sqlstate == "LQ001"
