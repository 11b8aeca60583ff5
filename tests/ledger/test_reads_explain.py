"""explain: every job that waits, and every job that ended, says why in one sentence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from tests.support.clock import LedgerClock
from tests.support.databases import Database
from tests.support.sql import Run, Sql, connected, job, judge, lose


@pytest.fixture
def sql(database: Database) -> Iterator[Sql]:
    with connected(database.service_dsn) as connection:
        connection.run("update ledgerq.queue set depth = 1")
        yield connection


@pytest.fixture
def clock(database: Database) -> LedgerClock:
    return LedgerClock(database.dsn)


def explained(sql: Sql, job_id: str, cause: str, *words: str, next_action: str | None = None) -> dict[str, Any]:
    """The explanation, after a look whether it is one."""
    found = sql.call("explain", job=job_id)
    assert found["cause"] == cause, found
    assert re.fullmatch(r"[A-Z].*\.", found["sentence"]), found
    assert "%" not in found["sentence"], found
    for word in words:
        assert word in found["sentence"], found
    if next_action is not None:
        assert next_action in found["next_action"], found
    return found


def started(sql: Sql, *keys: str, **fields: Any) -> tuple[str, Run]:
    created = job(sql, *({"key": key} for key in keys), **fields)
    run = Run(sql, created["runs"][0]["run"])
    run.start()
    return created["id"], run


def error(message: str = "no good") -> dict[str, str]:
    return {"type": "ValueError", "message": message}


def test_unknown_job_has_no_explanation(sql: Sql) -> None:
    assert sql.call("explain", job=str(uuid4())) is None


# --- waiting ------------------------------------------------------------------------------------------------------


def test_scheduled(sql: Sql) -> None:
    created = job(sql, {"key": "a"}, delay_s=3600)["id"]
    explained(sql, created, "scheduled", "in 59 min", " UTC")


def test_waiting_for_a_retry_with_when_and_the_last_error(sql: Sql) -> None:
    created, run = started(sql, "a", max_attempts=5)
    run.advance({"task": run.tasks[0]["id"], "kind": "retry", "after_s": 90, "error": error("the server was busy")})
    found = explained(sql, created, "retry", "in 89 s", "1 of 5 attempts", "ValueError: the server was busy")
    assert found["evidence"]["error"] == error("the server was busy")


def test_asked_to_wait(sql: Sql) -> None:
    created, run = started(sql, "a")
    run.advance({"task": run.tasks[0]["id"], "kind": "throttled", "after_s": 90, "error": error("429")})
    explained(sql, created, "throttled", "in 89 s", "429", next_action="no attempt")


def test_paused(sql: Sql) -> None:
    waiting_in_redis = job(sql, {"key": "a"})["id"]
    sql.call("pause_queue", queue="processing", actor="ann")
    waiting = job(sql, {"key": "a"})["id"]
    for each in (waiting, waiting_in_redis):
        explained(sql, each, "paused", "Queue processing", "by ann", next_action="Resume")


def test_a_paused_queue_says_so_to_nobody_whose_time_has_not_come_otherwise(sql: Sql) -> None:
    created, _ = started(sql, "a")
    sql.call("pause_queue", queue="processing", actor="ann")
    explained(sql, created, "running")


def test_beyond_the_depth(sql: Sql) -> None:
    job(sql, {"key": "a"})
    created = job(sql, {"key": "a"})["id"]
    explained(sql, created, "depth", "1 run waits of queue processing", next_action="No worker is busy")


def test_caps(sql: Sql) -> None:
    sql.run("update ledgerq.queue set depth = 8")
    sql.call("save_queue", queue="processing", max_concurrent_jobs=2, tenant_concurrent_jobs=1)
    job(sql, {"key": "a"}, tenant="a")
    explained(sql, job(sql, {"key": "a"}, tenant="a")["id"], "tenant_cap", "Tenant 'a'", "1 job of")
    job(sql, {"key": "a"}, tenant="b")
    explained(sql, job(sql, {"key": "a"}, tenant="c")["id"], "queue_cap", "2 jobs", next_action="max_concurrent_jobs")


def test_ready_and_nobody_dispatches(sql: Sql) -> None:
    created = sql.call(
        "create_jobs",
        dispatch=False,
        actor="test",
        jobs=[{"id": str(uuid4()), "type": "x", "queue": "processing", "tasks": [{"key": "a"}]}],
    )["jobs"][0]["id"]
    explained(sql, created, "ready", next_action="ledgerq steward")


def test_due_and_nobody_dispatches(sql: Sql, clock: LedgerClock) -> None:
    created = job(sql, {"key": "a"}, delay_s=60)["id"]
    clock.advance(61)
    explained(sql, created, "ready", next_action="ledgerq steward")


# --- on its way ---------------------------------------------------------------------------------------------------


def test_no_worker_ever(sql: Sql, clock: LedgerClock) -> None:
    created = job(sql, {"key": "a"})["id"]
    clock.advance(45)
    found = explained(sql, created, "no_worker", "45 s ago", "no worker has ever started a run", next_action="rq worker -S json")
    assert found["evidence"]["waiting_s"] >= 45


def test_workers_are_busy(sql: Sql, clock: LedgerClock) -> None:
    started(sql, "a")
    created = job(sql, {"key": "a"})["id"]
    explained(sql, created, "workers_busy", "1 worker is busy", "0 runs are before it")


def test_workers_were_there_once(sql: Sql, clock: LedgerClock) -> None:
    _, run = started(sql, "a")
    run.advance({"task": run.tasks[0]["id"], "kind": "completed"})
    created = job(sql, {"key": "a"})["id"]
    explained(sql, created, "dispatched", "waiting in Redis")
    clock.advance(7300)
    explained(sql, created, "no_worker", "none is busy", "2 h ago", next_action="rq worker")


def test_running(sql: Sql, clock: LedgerClock) -> None:
    created, _ = started(sql, "a", "b")
    found = explained(sql, created, "running", "Worker w1 (host h1, process 7)", "2 tasks")
    assert found["next_action"] is None
    clock.advance(12)
    explained(sql, created, "running", "12 s ago, which is late", next_action="another worker")


def test_behind_in_a_busy_run(sql: Sql) -> None:
    sql.call("pause_queue", queue="processing", actor="test")
    first, second = job(sql, {"key": "a"})["id"], job(sql, {"key": "a"})["id"]
    run = Run(sql, sql.call("resume_queue", queue="processing", actor="test")["runs"][0]["run"])
    run.start(window=1)
    explained(sql, first, "running")
    explained(sql, second, "behind", "worker w1")


def test_silent_worker(sql: Sql, clock: LedgerClock) -> None:
    created, run = started(sql, "a")
    clock.advance(30)
    explained(sql, created, "suspected", "Worker w1", "30 s", next_action="ledgerq steward")
    assert judge(sql, run, "expired") == "suspected"
    explained(sql, created, "suspected", "at its next look")
    sql.call("heartbeat_run", run=run.id, delivery=run.delivery)
    explained(sql, created, "running")


# --- not ours to move ---------------------------------------------------------------------------------------------


def test_unsealed(sql: Sql) -> None:
    created, run = started(sql, "a", sealed=False)
    run.advance({"task": run.tasks[0]["id"], "kind": "completed"})
    explained(sql, created, "unsealed", "All 1 task that it has are done", next_action="seal_job")
    explained(sql, job(sql, sealed=False)["id"], "unsealed")


def test_external(sql: Sql) -> None:
    created = job(sql, type="crawl", external=True)["id"]
    explained(sql, created, "external", "Waiting for the crawl outside to report", next_action="fail or cancel")
    sql.call("update_job", job=created, status="in_progress")
    explained(sql, created, "external", "The crawl is under way outside")


def test_cancel_requested(sql: Sql, clock: LedgerClock) -> None:
    created, _ = started(sql, "a")
    sql.call("cancel_jobs", jobs=[created], actor="ann", reason="wrong files")
    clock.advance(3)
    explained(sql, created, "cancel_requested", "by ann 3 s ago", "worker w1 still holds 1 task", next_action="10 s")


def test_deadline_passed(sql: Sql, clock: LedgerClock) -> None:
    created = job(sql, {"key": "a"}, delay_s=10, deadline_s=100)["id"]
    clock.advance(200)
    explained(sql, created, "deadline_passed", next_action="ledgerq steward")


# --- ended --------------------------------------------------------------------------------------------------------


def test_completed(sql: Sql) -> None:
    created, run = started(sql, "a", "b")
    run.advance(*({"task": task["id"], "kind": "completed"} for task in run.tasks))
    assert explained(sql, created, "completed", "2 tasks")["next_action"] is None
    explained(sql, job(sql)["id"], "completed", "It had no tasks")


def test_failed_and_partial(sql: Sql) -> None:
    created, run = started(sql, "a")
    run.advance({"task": run.tasks[0]["id"], "kind": "failed", "error": error("100% wrong: %s")})
    found = sql.call("explain", job=created)
    assert (found["cause"], "ValueError: 100% wrong: %s" in found["sentence"]) == ("permanent", True)
    assert "1 of 1 task failed (a) after 1 attempt" in found["sentence"]
    created, run = started(sql, "a", "b", "c")
    first, *others = [task["id"] for task in run.tasks]
    run.advance(
        {"task": first, "kind": "completed"},
        *({"task": task, "kind": "failed", "error": error()} for task in others),
    )
    found = explained(sql, created, "permanent", "Finished in part", "2 of 3 tasks failed, the first of them b", next_action="retry")
    assert found["evidence"]["key"] == "b"


def test_attempts_used_up(sql: Sql) -> None:
    created, run = started(sql, "a", max_attempts=1)
    run.advance({"task": run.tasks[0]["id"], "kind": "retry", "error": error()})
    explained(sql, created, "attempts", "1 attempt: ValueError: no good", next_action="retry the job")


def test_deadline(sql: Sql, clock: LedgerClock) -> None:
    created = job(sql, {"key": "a"}, delay_s=10, deadline_s=100)["id"]
    clock.advance(200)
    sql.call("expire_jobs", limit=10)
    explained(sql, created, "deadline", "the deadline of the job passed", next_action="new deadline")


def test_never_sealed(sql: Sql, clock: LedgerClock) -> None:
    created = job(sql, sealed=False, deadline_s=100)["id"]
    clock.advance(200)
    sql.call("expire_jobs", limit=10)
    explained(sql, created, "abandoned", "before it was sealed", next_action="seal_job")


def test_worker_died_and_was_lost_too_often(sql: Sql, clock: LedgerClock) -> None:
    sql.call("save_queue", queue="processing", max_crashes=1, max_losses=1)
    created, run = started(sql, "a")
    lose(sql, clock, run)
    explained(sql, created, "lost", "1 lost lease:", next_action="killed or cut off")
    created, run = started(sql, "a")
    verdict = {"run": run.id, "verdict": "died", "delivery": run.delivery, "evidence": {"signal": 9}}
    sql.call("reconcile_runs", verdicts=[verdict], actor="keeper")
    explained(sql, created, "crash", "1 crash of its worker:", next_action="memory")
    created, run = started(sql, "a", max_attempts=1)
    culprit = run.tasks[0]["id"]
    verdict = {"run": run.id, "verdict": "timeout", "delivery": run.delivery, "culprit": culprit, "evidence": {}}
    sql.call("reconcile_runs", verdicts=[verdict], actor="keeper")
    explained(sql, created, "timeout", next_action="longer")


def test_cancelled(sql: Sql) -> None:
    created = job(sql, {"key": "a"})["id"]
    sql.call("cancel_jobs", jobs=[created], actor="ann", reason="wrong files")
    explained(sql, created, "cancelled", "by ann", "(wrong files)", "1 of 1 task did not complete", next_action="retry")


def test_what_must_not_happen_is_said(database: Database, sql: Sql) -> None:
    created = job(sql, {"key": "a"})["id"]
    with connected(database.dsn) as owner:
        owner.run("delete from ledgerq.task where true")
    explained(sql, created, "inconsistent", next_action="report")
