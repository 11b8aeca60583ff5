"""Two calls at the same moment: each test holds one of them open, and lets the other run into it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from ledgerq.ids import new_id
from tests.support.sql import Run, Sql, connected
from tests.support.work import Work, job_request, outcome, outcomes

DEADLINE = 20.0


@dataclass(frozen=True, slots=True)
class Rival:
    """A second caller. `open` is its transaction, `commit` ends it; `blocked` starts a call of its own and returns once it waits."""

    sql: Sql
    watcher: Sql
    threads: ThreadPoolExecutor

    def commit(self) -> None:
        self.sql.connection.commit()

    def blocked(self, caller: Sql, function: str, **request: Any) -> Future[Any]:
        """The call, made by `caller` in a thread, after it has begun to wait for somebody's lock."""
        pid = caller.connection.info.backend_pid
        future = self.threads.submit(caller.call, function, **request)
        until = time.monotonic() + DEADLINE
        while not self.watcher.value("select cardinality(pg_blocking_pids(%s)) > 0", pid):
            assert not future.done(), f"{function} waited for nobody: {future.result()}"
            assert time.monotonic() < until, f"{function} neither waits nor ends"
        return future


@pytest.fixture
def rival(work: Work, other_dsn: str) -> Iterator[Rival]:
    with ThreadPoolExecutor(2) as threads, connected(other_dsn, autocommit=False) as sql, connected(other_dsn) as watcher:
        yield Rival(sql, watcher, threads)
        sql.connection.rollback()


def advance(run: Run, *given: dict[str, Any], want: int = 0) -> dict[str, Any]:
    return {"run": run.id, "delivery": run.delivery, "step": run.step, "outcomes": list(given), "want": want}


# --- runs ---------------------------------------------------------------------------------------------------------------


def test_of_two_deliveries_one_starts_the_run(work: Work, rival: Rival) -> None:
    work.create(3)
    work.limits(depth=1)
    (run,) = work.runs()
    first, second = Run(rival.sql, run.id), Run(work.sql, run.id)
    assert first.start()["disposition"] == "applied"
    waiting = rival.blocked(work.sql, "start_run", run=run.id, delivery=second.delivery)
    rival.commit()
    assert waiting.result(DEADLINE) == {"disposition": "superseded"}
    assert work.run(run.id)["delivery"] == first.delivery


def test_same_acknowledgement_twice_at_once_counts_once(work: Work, rival: Rival) -> None:
    job, run = work.running(3, window=2)
    request = advance(run, *outcomes(run), want=1)
    first = rival.sql.call("advance_run", **request)
    waiting = rival.blocked(work.sql, "advance_run", **request)
    rival.commit()
    second = waiting.result(DEADLINE)
    assert (second["step"], second["tasks"]) == (first["step"], first["tasks"])
    assert work.counts(job) == (3, 2, 0, 0)


def test_verdict_that_waited_for_an_acknowledgement_is_superseded(work: Work, rival: Rival) -> None:
    job, run = work.running(2, window=1)
    work.clock.advance(60)
    seen = work.run(run.id)
    fence = {"seen_status": "running", "seen_step": 0, "seen_heartbeat_at": seen["heartbeat_at"]}
    rival.sql.call("advance_run", **advance(run, *outcomes(run), want=1))
    waiting = rival.blocked(work.sql, "reconcile_runs", verdicts=[{"run": run.id, "verdict": "expired"} | fence])
    rival.commit()
    assert waiting.result(DEADLINE)["runs"][0]["disposition"] == "superseded"
    assert work.counts(job) == (2, 1, 0, 0)


def test_acknowledgement_that_waited_for_a_verdict_is_superseded(work: Work, rival: Rival) -> None:
    job, run = work.running(2)
    rival.sql.call("reconcile_runs", verdicts=[{"run": run.id, "verdict": "died", "delivery": run.delivery}])
    waiting = rival.blocked(work.sql, "advance_run", **advance(run, *outcomes(run)))
    rival.commit()
    assert waiting.result(DEADLINE) == {"disposition": "superseded"}
    assert work.counts(job) == (2, 0, 0, 0)


def test_heartbeat_that_waited_counts_from_when_it_was_let_in(work: Work, rival: Rival) -> None:
    _, run = work.running()
    rival.sql.run("select from ledgerq.run where id = %s for no key update", run.id)
    waiting = rival.blocked(work.sql, "heartbeat_run", run=run.id, delivery=run.delivery)
    work.clock.advance(30)
    let_in = rival.watcher.value("select ledgerq.clock()")
    rival.commit()
    assert waiting.result(DEADLINE)["disposition"] == "applied"
    assert work.sql.value("select heartbeat_at >= %s and lease_until >= %s::timestamptz + interval '20 s' from ledgerq.run", let_in, let_in)


# --- cancel -------------------------------------------------------------------------------------------------------------


def test_what_a_cancel_takes_is_not_handed_out_by_the_advance_that_waited_for_it(work: Work, rival: Rival) -> None:
    job, run = work.running(3, window=1)
    rival.sql.call("cancel_jobs", jobs=[job])
    waiting = rival.blocked(work.sql, "advance_run", **advance(run, *outcomes(run), want=2))
    rival.commit()
    answer = waiting.result(DEADLINE)
    assert (answer["tasks"], answer["finished"]) == ([], True)
    assert (work.status(job), work.counts(job)) == ("cancelled", (3, 1, 0, 2))


def test_what_is_handed_out_first_is_left_to_its_worker_by_the_cancel_that_waited(work: Work, rival: Rival) -> None:
    job, run = work.running(3, window=1)
    answer = rival.sql.call("advance_run", **advance(run, *outcomes(run), want=1))
    waiting = rival.blocked(work.sql, "cancel_jobs", jobs=[job])
    rival.commit()
    assert waiting.result(DEADLINE)["jobs"][0]["disposition"] == "applied"
    assert work.task_statuses(job) == ["completed", "queued", "cancelled"]
    run.step = 1
    assert run.advance(want=0)["cancelled"] == [answer["tasks"][0]["id"]]


def test_task_that_a_dispatch_was_packing_is_cancelled_all_the_same(work: Work, rival: Rival) -> None:
    job = work.create(3)
    assert rival.sql.call("dispatch", queue="processing")["runs"]
    waiting = rival.blocked(work.sql, "cancel_jobs", jobs=[job])
    rival.commit()
    waiting.result(DEADLINE)
    assert (work.status(job), work.task_statuses(job)) == ("cancelled", ["cancelled"] * 3)


def test_task_that_another_dispatch_skipped_over_a_locked_job_is_cancelled_too(work: Work, rival: Rival) -> None:
    """The dispatch locks tasks, not the job: it commits between the cancel's lock of the job and its look at the tasks."""
    job = work.create(2)
    rival.sql.run("select from ledgerq.job where id = %s for no key update", job)
    assert work.dispatch()
    rival.sql.call("cancel_jobs", jobs=[job])
    rival.commit()
    assert (work.status(job), work.task_statuses(job)) == ("cancelled", ["cancelled"] * 2)


# --- creators -------------------------------------------------------------------------------------------------------------


def test_same_job_created_twice_at_once_is_one_job(work: Work, rival: Rival) -> None:
    request = job_request(2)
    rival.sql.call("create_jobs", jobs=[request])
    waiting = rival.blocked(work.sql, "create_jobs", jobs=[request])
    rival.commit()
    assert waiting.result(DEADLINE)["jobs"] == [{"id": request["id"], "job": request["id"], "disposition": "applied"}]
    assert work.counts(request["id"]) == (2, 0, 0, 0)


def test_of_two_jobs_of_one_key_the_second_is_a_duplicate(work: Work, rival: Rival) -> None:
    first, second = job_request(dedupe_key="k"), job_request(dedupe_key="k")
    rival.sql.call("create_jobs", jobs=[first])
    waiting = rival.blocked(work.sql, "create_jobs", jobs=[second])
    rival.commit()
    assert waiting.result(DEADLINE)["jobs"] == [{"id": second["id"], "job": first["id"], "disposition": "duplicate"}]


def test_key_whose_holder_vanishes_goes_to_the_one_who_waited(work: Work, rival: Rival) -> None:
    second = job_request(dedupe_key="k")
    rival.sql.call("create_jobs", jobs=[job_request(dedupe_key="k")])
    waiting = rival.blocked(work.sql, "create_jobs", jobs=[second])
    rival.sql.connection.rollback()
    assert waiting.result(DEADLINE)["jobs"][0]["disposition"] == "applied"
    assert work.status(second["id"]) == "queued"


def test_creators_whose_keys_cross_wait_in_one_order(work: Work, rival: Rival, other_dsn: str) -> None:
    """By ids the one would take a before b, the other b before a: each would wait for the other."""
    low, high = sorted((str(new_id()), str(new_id())))
    lower, higher = sorted((str(new_id()), str(new_id())))
    forth = [job_request(id=low, dedupe_key="a"), job_request(id=high, dedupe_key="b")]
    back = [job_request(id=lower, dedupe_key="b"), job_request(id=higher, dedupe_key="a")]
    with connected(other_dsn, autocommit=False) as holder:
        # Both are in the middle of their inserts, waiting for a, which the holder gives up.
        holder.call("create_jobs", jobs=[job_request(dedupe_key="a")], dispatch=False)
        rival.sql.connection.autocommit = True
        one = rival.blocked(rival.sql, "create_jobs", jobs=forth, dispatch=False)
        two = rival.blocked(work.sql, "create_jobs", jobs=back, dispatch=False)
        holder.connection.rollback()
        answers = [future.result(DEADLINE)["jobs"] for future in (one, two)]
    assert sorted([job["disposition"] for job in answer] for answer in answers) == [["applied"] * 2, ["duplicate"] * 2]


def test_retry_of_a_job_whose_key_is_being_taken_is_a_duplicate(work: Work, rival: Rival) -> None:
    job, run = work.running(dedupe_key="k")
    run.advance(*outcomes(run, "failed"))
    holder = job_request(dedupe_key="k")
    rival.sql.call("create_jobs", jobs=[holder], dispatch=False)
    waiting = rival.blocked(work.sql, "retry_jobs", jobs=[job], request="r")
    rival.commit()
    assert waiting.result(DEADLINE)["jobs"] == [{"id": job, "disposition": "duplicate", "job": holder["id"]}]


def test_two_retries_at_once_are_one(work: Work, rival: Rival) -> None:
    job, run = work.running()
    run.advance(*outcomes(run, "failed"))
    rival.sql.call("retry_jobs", jobs=[job], request="r")
    waiting = rival.blocked(work.sql, "retry_jobs", jobs=[job], request="r")
    rival.commit()
    assert waiting.result(DEADLINE)["jobs"][0]["disposition"] == "applied"
    assert work.kinds(job).count("retried") == 1


def test_task_added_while_the_job_is_being_sealed_is_refused(work: Work, rival: Rival) -> None:
    job = work.create(1, sealed=False)
    rival.sql.call("seal_job", job=job)
    waiting = rival.blocked(work.sql, "add_tasks", job=job, tasks=[{"key": "late"}])
    rival.commit()
    assert waiting.result(DEADLINE)["disposition"] == "sealed"
    assert work.counts(job)[0] == 1


# --- the order of locks -----------------------------------------------------------------------------------------------------


def test_acknowledgements_over_the_same_jobs_in_other_orders_do_not_deadlock(work: Work, rival: Rival, other_dsn: str) -> None:
    work.limits(depth=2, run_size=2)
    jobs = sorted(work.create(2, tenant=tenant) for tenant in "ab")
    first, second = work.runs()
    first.start()
    second.start()
    rival.sql.run("select from ledgerq.job where id = %s for no key update", jobs[0])
    forth = rival.blocked(work.sql, "advance_run", **advance(first, *(outcome(task) for task in first.tasks)))
    with connected(other_dsn) as third:
        back = rival.blocked(third, "advance_run", **advance(second, *(outcome(task) for task in reversed(second.tasks))))
        rival.commit()
        assert [future.result(DEADLINE)["disposition"] for future in (forth, back)] == ["applied"] * 2
    assert [work.status(job) for job in jobs] == ["completed"] * 2
