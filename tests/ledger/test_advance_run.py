"""advance_run: outcomes are acknowledged once, by the table of outcomes, and the window slides."""

from __future__ import annotations

from collections import Counter
from typing import Any

import psycopg
import pytest

from ledgerq.ids import new_id
from tests.support.sql import Run, begin, completed, connected, save, saved
from tests.support.sql import document as document_request
from tests.support.work import Work, job_request, outcome, outcomes

# --- what happened to a held task ------------------------------------------------------------------------------------


def test_completed_task_is_terminal_with_its_result(work: Work) -> None:
    job, run = work.running()
    answer = run.advance(outcome(run.tasks[0], result={"words": 3}, duration_s=1.5))
    assert (answer["disposition"], answer["finished"], answer["tasks"]) == ("applied", True, [])
    task = work.task(job)
    assert (task["status"], task["attempts"], task["result"], task["duration_s"]) == ("completed", 1, {"words": 3}, 1.5)
    assert work.sql.value("select finished_at - started_at = interval '1.5 s' from ledgerq.task")
    row = work.job(job)
    assert (row["status"], row["completed"], row["result"], row["finished_at"]) == ("completed", 1, {"words": 3}, task["finished_at"])


def test_progress_of_a_held_task_is_kept_and_shown(work: Work) -> None:
    job, run = work.running()
    said = [{"task": run.tasks[0]["id"], "data": {"page": 3}}]
    assert run.advance(progress=said)["disposition"] == "applied"
    assert work.task(job)["progress"] == {"page": 3}
    assert work.sql.call("job_get", job=job)["progress"] == {"page": 3}
    assert work.sql.call("job_tasks", job=job)["tasks"][0]["progress"] == {"page": 3}


def test_progress_of_a_task_that_is_not_held_changes_nothing(work: Work) -> None:
    job, run = work.running()
    task = run.tasks[0]["id"]
    run.advance(outcome(run.tasks[0]), progress=[{"task": task, "data": "late"}, {"task": 0, "data": "nobody's"}])
    assert (work.task(job)["status"], work.task(job)["progress"]) == ("completed", None)


@pytest.mark.parametrize("said", [[{"task": "one", "data": 1}], [3], [{"task": 1, "data": "x" * 17_000}]])
def test_progress_that_is_none_is_refused_by_name(work: Work, said: list[Any]) -> None:
    _job, run = work.running()
    with pytest.raises(psycopg.Error, match=r"progress\[0\]") as caught:
        run.advance(progress=said)
    assert caught.value.sqlstate == "LQ001"


def test_permanent_failure_is_terminal_at_the_first_attempt(work: Work) -> None:
    job, run = work.running()
    run.advance(outcome(run.tasks[0], "failed", error={"type": "DocumentError"}))
    task = work.task(job)
    assert (task["status"], task["attempts"], task["error"]) == ("failed", 1, {"type": "DocumentError"})
    assert (work.status(job), work.job(job)["error"]) == ("failed", {"type": "DocumentError"})
    (event,) = work.events(job, "failed")
    assert (event["cause"], event["task_id"], event["run_id"]) == ("permanent", task["id"], run.id)


def test_retry_is_charged_and_waits_for_its_backoff(work: Work) -> None:
    job, run = work.running()
    run.advance(outcome(run.tasks[0], "retry", after_s=30, error={"type": "Timeout"}))
    task = work.task(job)
    assert (task["status"], task["attempts"], task["run_id"], task["error"]) == ("pending", 1, None, {"type": "Timeout"})
    assert (work.status(job), work.dispatch()) == ("pending", [])
    work.clock.advance(31)
    assert len(work.dispatch()) == 1
    (event,) = work.events(job, "retry")
    assert (event["data"]["attempts"], event["data"]["error"]) == (1, {"type": "Timeout"})


def test_retry_without_a_wait_is_ready_at_once(work: Work) -> None:
    job, run = work.running()
    answer = run.advance(outcome(run.tasks[0], "retry"))
    assert (answer["finished"], len(answer["runs"]), work.status(job)) == (True, 1, "queued")


def test_retry_fails_at_the_last_attempt(work: Work) -> None:
    job = work.create(max_attempts=2)
    for status in ("pending", "failed"):
        run = work.one_run()
        run.advance(outcome(run.tasks[0], "retry", error={"type": "Timeout"}, after_s=1))
        assert work.task(job)["status"] == status
        work.clock.advance(2)
    assert (work.task(job)["attempts"], work.status(job)) == (2, "failed")
    assert [event["cause"] for event in work.events(job, "failed")] == ["attempts"]


@pytest.mark.parametrize("kind", ["throttled", "returned"])
def test_what_is_free_is_not_charged(work: Work, kind: str) -> None:
    job, run = work.running(max_attempts=1)
    run.advance(outcome(run.tasks[0], kind, after_s=5))
    task = work.task(job)
    assert (task["status"], task["attempts"], task["crashes"], task["losses"]) == ("pending", 0, 0, 0)
    assert [event["kind"] for event in work.events(job, kind)] == [kind]


@pytest.mark.parametrize("asked", [{}, {"after_s": 0}, {"after_s": 0.2}])
def test_throttled_task_is_never_ready_at_once(work: Work, asked: dict[str, float]) -> None:
    job, run = work.running()
    assert run.advance(outcome(run.tasks[0], "throttled", **asked))["runs"] == []
    assert work.task(job)["due_at"]


@pytest.mark.parametrize("kind", ["throttled", "returned", "retry"])
def test_every_loop_ends_at_the_deadline_of_the_job(work: Work, kind: str) -> None:
    job, run = work.running(deadline_s=60)
    work.clock.advance(61)
    run.advance(outcome(run.tasks[0], kind, error={"type": "Busy"}))
    task = work.task(job)
    assert (task["status"], task["error"]["cause"], task["error"]["last"]) == ("failed", "deadline", {"type": "Busy"})
    assert [event["cause"] for event in work.events(job, "failed")] == ["deadline"]


def test_completed_is_completed_also_past_the_deadline(work: Work) -> None:
    job, run = work.running(deadline_s=60)
    work.clock.advance(61)
    run.advance(*outcomes(run))
    assert work.status(job) == "completed"


def test_cancelled_by_its_handler_is_cancelled(work: Work) -> None:
    job, run = work.running(2)
    work.cancel(job)
    run.advance(*outcomes(run, "cancelled"))
    assert (work.status(job), work.counts(job)) == ("cancelled", (2, 0, 0, 2))


@pytest.mark.parametrize("kind", ["retry", "throttled", "returned"])
def test_pending_becomes_cancelled_where_the_job_is_being_cancelled(work: Work, kind: str) -> None:
    job, run = work.running(max_attempts=5)
    assert work.cancel(job) == ["applied"]
    run.advance(outcome(run.tasks[0], kind, after_s=1))
    assert (work.task(job)["status"], work.status(job)) == ("cancelled", "cancelled")


def test_accepted_completed_wins_over_a_cancel_for_its_task(work: Work) -> None:
    job, run = work.running(2)
    work.cancel(job)
    run.advance(outcome(run.tasks[0]), outcome(run.tasks[1], "cancelled"))
    assert (work.status(job), work.counts(job)) == ("cancelled", (2, 1, 0, 1))


# --- terminal status -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "cancel", "status"),
    [
        (["completed", "completed"], False, "completed"),
        (["completed", "completed"], True, "completed"),
        (["completed", "failed"], False, "partial"),
        (["failed", "failed"], False, "failed"),
        (["failed", "cancelled"], False, "failed"),
        (["completed", "cancelled"], False, "partial"),
        (["completed", "cancelled"], True, "cancelled"),
        (["failed", "cancelled"], True, "cancelled"),
        (["failed", "failed"], True, "failed"),
    ],
)
def test_terminal_status_follows_from_the_counts_and_the_cancel(work: Work, kinds: list[str], cancel: bool, status: str) -> None:
    job, run = work.running(2)
    if cancel:
        work.cancel(job)
    run.advance(*(outcome(task, kind) for task, kind in zip(run.tasks, kinds, strict=True)))
    assert work.status(job) == status
    assert work.events(job, "ended")[0]["cause"] == status


def test_end_is_told_once_with_all_counts(work: Work) -> None:
    job, run = work.running(3, window=1)
    run.advance(outcome(run.tasks[0]), want=2)
    run.advance(outcome(run.tasks[0]), outcome(run.tasks[1], "failed"))
    assert work.kinds(job) == ["created", "started", "progressed", "failed", "ended"]
    (progressed,) = work.events(job, "progressed")
    (ended,) = work.events(job, "ended")
    assert progressed["data"] == {"completed": 1, "failed": 0, "cancelled": 0}
    assert ended["data"] | {"window": None} == {
        "status": "partial",
        "total": 3,
        "completed": 2,
        "failed": 1,
        "cancelled": 0,
        "window": None,
    }


# --- the window slides ------------------------------------------------------------------------------------------------


def test_window_slides_by_what_is_wanted(work: Work) -> None:
    job, run = work.running(5, window=2)
    answer = run.advance(outcome(run.tasks[1]), want=2)
    assert [task["key"] for task in answer["tasks"]] == ["k0", "k2", "k3"]
    assert (answer["step"], answer["finished"], work.run(run.id)["handed"]) == (1, False, 4)
    assert work.status(job) == "in_progress"


def test_nothing_wanted_hands_out_nothing(work: Work) -> None:
    _, run = work.running(3, window=1)
    answer = run.advance(outcome(run.tasks[0]), want=0)
    assert (answer["tasks"], answer["finished"]) == ([], False)
    assert [task["key"] for task in run.advance(want=1)["tasks"]] == ["k1"]


def test_last_outcome_finishes_the_run_and_brings_the_next(work: Work) -> None:
    work.limits(depth=1, run_size=1)
    work.create(2)
    (run,) = work.runs()
    (following,) = run.start()["runs"]
    assert run.advance(*outcomes(run)) | {"runs": None} == {
        "disposition": "applied",
        "step": 1,
        "finished": True,
        "tasks": [],
        "cancelled": [],
        "ignored": [],
        "stale": [],
        "remove": [],
        "runs": None,
    }
    assert work.run(run.id)["status"] == "finished"
    assert Run(work.sql, following["run"]).start()["disposition"] == "applied"


def test_hand_out_passes_over_what_was_cancelled_meanwhile(work: Work) -> None:
    work.limits(depth=1)
    first, gone, last = work.create(), work.create(3), work.create()
    (run,) = work.runs()
    run.start(window=1)
    work.cancel(gone)
    answer = run.advance(*outcomes(run), want=1)
    assert [task["job"] for task in answer["tasks"]] == [last]
    assert (work.status(first), work.status(gone)) == ("completed", "cancelled")


def test_run_with_nothing_left_but_cancelled_tasks_is_finished(work: Work) -> None:
    work.limits(depth=1)
    first, gone = work.create(), work.create(3)
    (run,) = work.runs()
    run.start(window=1)
    work.cancel(gone)
    assert run.advance(*outcomes(run), want=0)["finished"]
    assert work.status(first) == "completed"


def test_job_of_many_tasks_that_waits_for_a_retry_is_pending(work: Work) -> None:
    job, run = work.running(2)
    run.advance(outcome(run.tasks[0]), outcome(run.tasks[1], "retry", after_s=9))
    assert (work.status(job), work.counts(job)) == ("pending", (2, 1, 0, 0))


def test_many_jobs_are_counted_each_for_itself(work: Work) -> None:
    work.limits(depth=1)
    jobs = [work.create(2) for _ in range(20)]
    (run,) = work.runs()
    run.start()
    run.advance(*(outcome(task, "completed" if task["key"] == "k0" else "failed") for task in run.tasks))
    assert Counter(work.status(job) for job in jobs) == {"partial": 20}


# --- fences -----------------------------------------------------------------------------------------------------------


def test_lost_reply_is_answered_again_without_effect(work: Work) -> None:
    job, run = work.running(3, window=2)
    first = run.advance(outcome(run.tasks[0]), want=1)
    run.step = 0
    again = run.advance(outcome(first["tasks"][0], "failed"), want=1)
    assert (again["disposition"], again["step"], again["tasks"]) == ("applied", 1, first["tasks"])
    assert work.counts(job) == (3, 1, 0, 0)


def test_lost_reply_of_the_last_advance_says_finished(work: Work) -> None:
    job, run = work.running()
    given = outcomes(run)
    run.advance(*given)
    run.step = 0
    again = run.advance(*given)
    assert (again["disposition"], again["finished"], again["step"], again["tasks"]) == ("applied", True, 1, [])
    assert work.counts(job) == (1, 1, 0, 0)


def test_step_from_the_past_is_superseded(work: Work) -> None:
    _, run = work.running(3, window=1)
    run.advance(*outcomes(run), want=1)
    run.advance(*outcomes(run), want=1)
    run.step = 0
    assert run.advance() == {"disposition": "superseded"}


def test_step_from_the_future_is_an_error(work: Work) -> None:
    _, run = work.running()
    run.step = 1
    with pytest.raises(psycopg.Error, match="step: 1 is ahead of the run, which is at 0") as caught:
        run.advance(*outcomes(run))
    assert caught.value.sqlstate == "LQ004"


def test_advance_of_a_finished_run_at_its_last_step_is_superseded(work: Work) -> None:
    _, run = work.running()
    run.advance(*outcomes(run))
    assert run.advance() == {"disposition": "superseded"}


def test_other_delivery_changes_nothing(work: Work) -> None:
    job, run = work.running()
    zombie = Run(work.sql, run.id, tasks=run.tasks)
    assert zombie.advance(*outcomes(run)) == {"disposition": "superseded"}
    assert work.counts(job) == (1, 0, 0, 0)


def test_delivery_of_a_lost_run_changes_nothing(work: Work) -> None:
    job, run = work.running()
    work.lose(run)
    assert run.advance(*outcomes(run)) == {"disposition": "superseded"}
    assert (work.counts(job), work.task(job)["losses"]) == ((1, 0, 0, 0), 1)


def test_unknown_run_is_not_found(work: Work) -> None:
    assert Run(work.sql, str(new_id())).advance() == {"disposition": "not_found"}


def test_expired_lease_that_nobody_judged_is_no_obstacle(work: Work) -> None:
    job, run = work.running(2, window=1)
    work.clock.advance(100)
    assert work.verdict(run, "expired") == "suspected"
    work.create(1)  # so that nobody who is free has nothing to take
    assert run.advance(*outcomes(run), want=1)["disposition"] == "applied"
    row = work.run(run.id)
    assert (row["suspected_at"], row["status"]) == (None, "running")
    assert work.sql.value("select lease_until - heartbeat_at = interval '20 s' from ledgerq.run")
    assert work.counts(job) == (2, 1, 0, 0)


def test_task_that_the_run_does_not_hold_is_ignored(work: Work) -> None:
    work.limits(depth=2)
    work.create(2)
    first, second = work.runs()
    first.start()
    second.start()
    answer = first.advance(*outcomes(second), outcome(10**12))
    assert sorted(answer["ignored"]) == sorted([second.tasks[0]["id"], 10**12])
    assert work.sql.value("select count(*) from ledgerq.task where status = 'queued'") == 2


def test_task_that_is_not_handed_out_yet_is_ignored(work: Work) -> None:
    job, run = work.running(2, window=1)
    later = work.tasks(job)[1]["id"]
    assert run.advance(outcome(later), want=0)["ignored"] == [later]
    assert work.counts(job) == (2, 0, 0, 0)


def test_outcome_of_a_task_that_was_acknowledged_before_is_ignored(work: Work) -> None:
    job, run = work.running(2)
    done = run.tasks[0]["id"]
    run.advance(outcome(done))
    assert run.advance(outcome(done, "failed"))["ignored"] == [done]
    assert work.counts(job) == (2, 1, 0, 0)


def test_same_task_twice_in_one_call_counts_once(work: Work) -> None:
    job, run = work.running()
    run.advance(outcome(run.tasks[0]), outcome(run.tasks[0]))
    assert work.counts(job) == (1, 1, 0, 0)


def test_cancelled_tasks_that_are_held_are_named(work: Work) -> None:
    work.limits(depth=1)
    stays, gone = work.create(), work.create()
    (run,) = work.runs()
    run.start()
    work.cancel(gone)
    answer = run.advance(want=0)
    assert answer["cancelled"] == [task["id"] for task in answer["tasks"] if task["job"] == gone]
    assert [task["cancelled"] for task in answer["tasks"]] == [task["job"] == gone for task in answer["tasks"]]
    assert work.status(stays) == "in_progress"


@pytest.mark.parametrize(
    "wrong",
    [
        {"task": "1"},
        {"kind": "done"},
        {"kind": None},
        {"after_s": "soon"},
        {"duration_s": "long"},
        {"effects": {"a": 1}},
    ],
)
def test_mistakes_in_outcomes_are_named_and_nothing_is_applied(work: Work, wrong: dict[str, Any]) -> None:
    job, run = work.running(2)
    with pytest.raises(psycopg.Error, match=r"outcomes\[1\]") as caught:
        run.advance(outcome(run.tasks[0]), outcome(run.tasks[1]) | wrong)
    assert caught.value.sqlstate == "LQ001"
    assert work.counts(job) == (2, 0, 0, 0)


# --- runs end early ---------------------------------------------------------------------------------------------------


def given_back(work: Work, job: str, run: Run) -> bool:
    row = work.run(run.id)
    return row["size"] == row["handed"] and Counter(work.task_statuses(job))["queued"] <= 1


def test_worker_that_yields_is_handed_no_more(work: Work) -> None:
    job, run = work.running(5, window=2)
    work.pause()
    answer = work.sql.call(
        "advance_run", run=run.id, delivery=run.delivery, step=0, outcomes=[outcome(run.tasks[0])], want=5, **{"yield": True}
    )
    assert [task["key"] for task in answer["tasks"]] == ["k1"]
    assert work.task_statuses(job) == ["completed", "queued", "pending", "pending", "pending"]
    assert given_back(work, job, run)


def test_what_a_run_gave_back_goes_out_at_once(work: Work) -> None:
    job, run = work.running(5, window=1)
    answer = work.sql.call("advance_run", run=run.id, delivery=run.delivery, step=0, outcomes=[], want=5, **{"yield": True})
    assert sum(ticket["tasks"] for ticket in answer["runs"]) == 4
    assert work.task_statuses(job) == ["queued"] * 5


def test_pause_takes_effect_at_the_next_advance(work: Work) -> None:
    job, run = work.running(3, window=1)
    work.pause()
    answer = run.advance(*outcomes(run))
    assert (answer["finished"], answer["runs"]) == (True, [])
    assert work.task_statuses(job) == ["completed", "pending", "pending"]
    assert work.status(job) == "pending"


def test_used_budget_ends_the_run(work: Work) -> None:
    work.limits(run_budget_s=60)
    job, run = work.running(3, window=1)
    work.clock.advance(61)
    answer = run.advance(*outcomes(run))
    assert (answer["finished"], sum(ticket["tasks"] for ticket in answer["runs"])) == (True, 2)
    assert work.task_statuses(job) == ["completed", "queued", "queued"]


def test_urgent_work_makes_others_give_way(work: Work) -> None:
    job, run = work.running(3, window=1)
    urgent = work.create(priority="urgent")
    answer = run.advance(*outcomes(run))
    assert answer["finished"]
    assert next(ticket["at_front"] for ticket in answer["runs"])
    assert work.status(urgent) == "queued"
    assert work.task_statuses(job)[0] == "completed"


def test_urgent_run_in_redis_makes_others_give_way_until_it_is_started(work: Work) -> None:
    work.limits(depth=2)
    work.create(4)
    run, other = work.runs()
    run.start(window=1)
    work.create(priority="urgent")
    (urgent,) = work.runs()
    assert run.advance(want=1)["tasks"] == run.tasks
    assert work.run(run.id)["size"] == 1
    urgent.start()
    assert other.start(window=1)["disposition"] == "applied"
    assert len(other.advance(want=1)["tasks"]) == 2


def test_urgent_runs_do_not_give_way_to_each_other(work: Work) -> None:
    _, run = work.running(3, window=1, priority="urgent")
    work.create(priority="urgent")
    assert [task["key"] for task in run.advance(*outcomes(run), want=1)["tasks"]] == ["k1"]


def test_given_back_tasks_of_a_cancelled_job_are_cancelled(work: Work, other_dsn: str) -> None:
    """A dispatch that packed the task while the cancel passed by leaves it un-handed; it must not wait again."""
    work.limits(depth=1)
    job = work.create(2)
    (run,) = work.runs()
    run.start(window=1)
    work.sql.run("update ledgerq.job set cancel_requested_at = now() where id = %s", job)
    work.pause()
    run.advance(outcome(run.tasks[0], "cancelled"))
    assert work.task_statuses(job) == ["cancelled", "cancelled"]
    assert work.status(job) == "cancelled"


# --- effects ----------------------------------------------------------------------------------------------------------


def on_document(work: Work) -> tuple[str, Run, str, dict[str, Any]]:
    known = saved(work.sql)
    request = job_request([{"key": "a", "document": known}])
    work.sql.call("create_jobs", jobs=[request], dispatch=False)
    return request["id"], work.one_run(), known, begin(work.sql, known)


def test_document_flips_with_the_acknowledgement(work: Work) -> None:
    job, run, known, begun = on_document(work)
    run.advance(completed(run.tasks[0]["id"], begun))
    assert work.status(job) == "completed"
    assert work.sql.value("select live_generation from ledgerq.document where id = %s", known) == begun["generation"]


def test_outcome_for_an_older_revision_is_stale_and_done_again_uncharged(work: Work) -> None:
    job, run, known, begun = on_document(work)
    save(work.sql, document_request("changed"))
    task = work.task(job)
    answer = run.advance(completed(task["id"], begun))
    assert (answer["stale"], answer["finished"]) == ([task["id"]], True)
    task = work.task(job)
    assert (task["attempts"], task["result"]) == (0, None)
    assert [event["kind"] for event in work.events(job, "stale")] == ["stale"]
    assert work.sql.value("select live_generation from ledgerq.document where id = %s", known) is None
    assert len(answer["runs"]) == 1


def test_outcome_for_a_deleted_document_is_cancelled_and_its_points_are_removed(work: Work) -> None:
    job, run, known, begun = on_document(work)
    work.sql.call("delete_documents", documents=[known], actor="ann")
    answer = run.advance(completed(run.tasks[0]["id"], begun))
    assert (work.task(job)["status"], work.task(job)["attempts"]) == ("cancelled", 0)
    assert [(each["document"], each["generation"]) for each in answer["remove"]] == [(known, begun["generation"])]
    assert [event["cause"] for event in work.events(job, "cancelled")] == ["document_deleted"]


def test_ignored_outcome_flips_nothing(work: Work) -> None:
    job, run, known, begun = on_document(work)
    work.cancel(job)
    work.sql.run("update ledgerq.task set status = 'cancelled', finished_at = now() where job_id = %s", job)
    work.sql.run("update ledgerq.job set status = 'cancelled', cancelled = 1, finished_at = now() where id = %s", job)
    answer = run.advance(completed(run.tasks[0]["id"], begun))
    assert answer["ignored"]
    assert work.sql.value("select live_generation from ledgerq.document where id = %s", known) is None


# --- locks ------------------------------------------------------------------------------------------------------------


def test_only_the_jobs_of_named_and_next_tasks_are_locked(work: Work, other_dsn: str) -> None:
    work.sql.run("set statement_timeout = '5s'")
    work.limits(depth=1)
    jobs = [work.create() for _ in range(4)]
    (run,) = work.runs()
    run.start(window=2)
    with connected(other_dsn, autocommit=False) as other:
        other.run("select from ledgerq.job where id = any(%s::uuid[]) for no key update", [jobs[1], jobs[3]])
        answer = run.advance(outcome(run.tasks[0]), want=1)
    assert [task["job"] for task in answer["tasks"]] == jobs[1:3]
    assert work.status(jobs[0]) == "completed"
