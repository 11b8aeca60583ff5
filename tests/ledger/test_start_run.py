"""start_run: which delivery of a run is real, and what it is handed."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from ledgerq.ids import new_id
from tests.support.sql import Run
from tests.support.work import Work, job_request, outcomes


def started(work: Work, tasks: int = 3, **fields: Any) -> tuple[str, Run]:
    """A job in one dispatched run."""
    job = work.create(tasks, **fields)
    work.limits(depth=1)
    (run,) = work.runs()
    return job, run


def test_first_delivery_is_applied_and_holds_its_window(work: Work) -> None:
    job, run = started(work)
    answer = run.start(window=2)
    assert (answer["disposition"], answer["step"]) == ("applied", 0)
    assert (answer["lease_s"], answer["heartbeat_s"], answer["cancel_grace_s"]) == (20, 5, 10)
    assert [task["key"] for task in answer["tasks"]] == ["k0", "k1"]
    row = work.run(run.id)
    assert (row["status"], row["handed"], row["delivery"], row["worker"], row["execution_id"]) == ("running", 2, run.delivery, "w1", "e1")
    assert (row["host"], row["pid"], row["heartbeat_at"]) == ("h1", 7, row["started_at"])
    assert (work.status(job), work.kinds(job)) == ("in_progress", ["created", "started"])


def test_task_is_handed_with_all_that_its_handler_needs(work: Work) -> None:
    owner = str(new_id())
    job, run = started(work, 1, tenant="t", owner=owner, timeout_s=5, max_attempts=9)
    (task,) = run.start()["tasks"]
    assert task | {"id": 0} == {
        "id": 0,
        "job": job,
        "tenant": "t",
        "owner": owner,
        "type": "noop",
        "key": "k0",
        "document": None,
        "payload": {"number": 0},
        "attempts": 0,
        "max_attempts": 9,
        "crashes": 0,
        "losses": 0,
        "timeout_s": 5,
        "cancelled": False,
    }


def test_lost_reply_is_answered_again_with_what_is_held(work: Work) -> None:
    _, run = started(work)
    first = run.start(window=2)
    again = run.start(window=2)
    assert (again["disposition"], again["tasks"]) == ("applied", first["tasks"])
    assert work.run(run.id)["handed"] == 2


def test_repeat_after_progress_shows_the_present_step(work: Work) -> None:
    _, run = started(work)
    run.start(window=2)
    run.advance(*outcomes(run), want=1)
    again = run.start(window=2)
    assert (again["step"], [task["key"] for task in again["tasks"]]) == (1, ["k2"])


def test_second_delivery_is_superseded(work: Work) -> None:
    _, run = started(work)
    run.start()
    assert Run(work.sql, run.id).start() == {"disposition": "superseded"}
    assert work.run(run.id)["delivery"] == run.delivery


@pytest.mark.parametrize("end", ["finished", "lost", "revoked"])
def test_run_that_is_over_starts_no_more(work: Work, end: str) -> None:
    _, run = started(work)
    if end == "revoked":
        assert work.verdict(run, "revoke") == "applied"
    else:
        run.start()
        if end == "finished":
            assert run.advance(*outcomes(run))["finished"]
        else:
            work.witness(run, "died")
    assert work.run(run.id)["status"] == end
    assert run.start() == {"disposition": "superseded"}
    assert Run(work.sql, run.id).start() == {"disposition": "superseded"}


def test_unknown_run_is_not_found(work: Work) -> None:
    assert Run(work.sql, str(new_id())).start() == {"disposition": "not_found"}


def test_paused_queue_takes_the_run_back(work: Work) -> None:
    job, run = started(work)
    work.pause()
    assert run.start()["disposition"] == "paused"
    assert (work.run(run.id)["status"], work.run(run.id)["cause"]) == ("revoked", "paused")
    assert (work.status(job), work.task_statuses(job)) == ("pending", ["pending"] * 3)


def test_run_whose_tasks_were_all_cancelled_is_empty_and_makes_room(work: Work) -> None:
    job, run = started(work)
    work.cancel(job)
    work.create()
    answer = run.start()
    assert (answer["disposition"], answer["tasks"], len(answer["runs"])) == ("empty", [], 1)
    assert (work.run(run.id)["status"], work.run(run.id)["cause"]) == ("revoked", "empty")


def test_window_passes_over_what_was_cancelled(work: Work) -> None:
    work.limits(depth=1)
    gone, stays = work.create(3), work.create(1)
    (run,) = work.runs()
    work.cancel(gone)
    assert [task["job"] for task in run.start(window=1)["tasks"]] == [stays]


def test_next_runs_come_when_few_are_waiting(work: Work) -> None:
    work.limits(depth=4, run_size=1)
    work.create(10)
    runs = work.runs()
    assert [len(run.start()["runs"]) for run in runs[:3]] == [0, 0, 3]


def test_window_is_bounded_by_bytes(work: Work) -> None:
    work.limits(depth=1)
    work.sql.call("create_jobs", jobs=[job_request([{"key": str(n), "payload": "x" * 60_000} for n in range(60)])], dispatch=False)
    (run,) = work.runs()
    assert len(run.start(window=60)["tasks"]) == 35


def test_job_is_started_once(work: Work) -> None:
    work.limits(depth=2)
    job = work.create(2)
    first, second = work.runs()
    first.start()
    begun = work.job(job)["started_at"]
    work.clock.advance(5)
    second.start()
    assert work.job(job)["started_at"] == begun
    assert work.kinds(job).count("started") == 1


def test_mistakes_are_named(work: Work) -> None:
    for request, says in (
        ({"run": "x", "delivery": str(new_id())}, "run: 'x' is not a uuid"),
        ({"run": str(new_id())}, "delivery: nothing is not a uuid"),
        ({"run": str(new_id()), "delivery": str(new_id()), "window": 0}, "window: '0'"),
    ):
        with pytest.raises(psycopg.Error) as caught:
            work.sql.call("start_run", **request)
        assert (caught.value.sqlstate, says in str(caught.value)) == ("LQ001", True)
