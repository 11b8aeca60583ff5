"""reconcile_runs: verdicts are fenced by what was seen, allowed by what is so, and charged by the table."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from ledgerq.ids import new_id
from tests.support.sql import Run
from tests.support.work import Work, outcome, outcomes


def charges(work: Work, job: str) -> list[tuple[Any, ...]]:
    """(status, attempts, crashes, losses, alone) of each task."""
    return [(task["status"], task["attempts"], task["crashes"], task["losses"], task["alone"]) for task in work.tasks(job)]


FREE = ("pending", 0, 0, 0, False)

# --- revoke -----------------------------------------------------------------------------------------------------------


def test_revoked_run_gives_its_tasks_back(work: Work) -> None:
    job = work.create(2)
    work.limits(depth=1)
    (run,) = work.runs()
    work.pause()
    assert work.verdict(run, "revoke") == "applied"
    row = work.run(run.id)
    assert (row["status"], row["verdict"], row["actor"]) == ("revoked", "revoke", "test")
    assert (charges(work, job), work.status(job)) == ([FREE, FREE], "pending")


def test_what_was_revoked_goes_out_under_a_fresh_id(work: Work) -> None:
    work.create()
    (run,) = work.runs()
    seen = {"seen_status": "dispatched", "seen_step": 0, "seen_heartbeat_at": None}
    answer = work.sql.call("reconcile_runs", verdicts=[{"run": run.id, "verdict": "revoke"} | seen])
    assert [ticket["run"] != run.id for ticket in answer["to_push"]] == [True]


def test_running_run_is_not_revoked(work: Work) -> None:
    _, run = work.running()
    assert work.verdict(run, "revoke") == "refused"


def test_revoke_of_what_started_since_it_was_seen_is_superseded(work: Work) -> None:
    work.create()
    (run,) = work.runs()
    run.start()
    assert work.verdict(run, "revoke", seen_status="dispatched", seen_heartbeat_at=None) == "superseded"
    assert work.run(run.id)["status"] == "running"


# --- died -------------------------------------------------------------------------------------------------------------


def test_witnessed_death_charges_a_crash_to_what_was_held_and_nothing_else(work: Work) -> None:
    job, run = work.running(3, window=2)
    work.pause()
    assert work.witness(run, "died", evidence={"signal": 9}) == "applied"
    assert charges(work, job) == [("pending", 0, 1, 0, True), ("pending", 0, 1, 0, True), FREE]
    row = work.run(run.id)
    assert (row["status"], row["cause"], row["evidence"]) == ("lost", "died", {"signal": 9})
    assert [event["cause"] for event in work.events(job, "crash")] == ["died"] * 2
    assert work.status(job) == "pending"


def test_innocents_are_cleared_and_the_fatal_task_fails_at_its_third_crash(work: Work) -> None:
    job, run = work.running(2)
    work.limits(depth=8)
    work.witness(run, "died")
    innocent = work.carrier(job, "k1")
    innocent.start()
    innocent.advance(*outcomes(innocent))
    for _ in range(2):
        fatal = work.carrier(job, "k0")
        fatal.start()
        work.witness(fatal, "died", evidence={"signal": 11})
    assert charges(work, job) == [("failed", 0, 3, 0, True), ("completed", 1, 1, 0, True)]
    assert (work.status(job), work.counts(job)) == ("partial", (2, 1, 1, 0))
    error = work.tasks(job)[0]["error"]
    assert (error["type"], error["evidence"], error["cause"]) == ("WorkerDied", {"signal": 11}, "crash")


def test_death_in_company_never_fails_a_task(work: Work) -> None:
    work.limits(max_crashes=1)
    job, run = work.running(2)
    work.witness(run, "died")
    assert [row[0] for row in charges(work, job)] == ["queued", "pending"]
    fatal = work.carrier(job)
    fatal.start()
    work.witness(fatal, "died")
    assert charges(work, job)[0] == ("failed", 0, 2, 0, True)


def test_death_of_the_only_held_task_counts_as_alone(work: Work) -> None:
    work.limits(max_crashes=1)
    job, run = work.running(3, window=1)
    work.pause()
    work.witness(run, "died")
    assert charges(work, job) == [("failed", 0, 1, 0, True), FREE, FREE]


def failure_in_rq(work: Work, run: Run, execution: str = "e1") -> str:
    return work.verdict(run, "died", evidence={"execution_id": execution})


def test_failure_in_rq_counts_only_when_the_ledger_has_been_silent_too(work: Work) -> None:
    _, run = work.running()
    assert failure_in_rq(work, run) == "refused"
    work.clock.advance(9)
    assert failure_in_rq(work, run) == "refused"
    work.clock.advance(2)
    assert failure_in_rq(work, run) == "applied"


def test_failure_in_rq_of_another_execution_is_refused(work: Work) -> None:
    _, run = work.running()
    work.clock.advance(60)
    assert failure_in_rq(work, run, "other") == "refused"
    assert work.verdict(run, "died") == "refused"


def test_dispatched_run_did_not_die(work: Work) -> None:
    work.create()
    (run,) = work.runs()
    assert failure_in_rq(work, run) == "refused"


# --- timeout ----------------------------------------------------------------------------------------------------------


def test_timeout_charges_the_culprit_and_frees_the_others(work: Work) -> None:
    job, run = work.running(3, window=2)
    work.pause()
    assert work.witness(run, "timeout", culprit=run.tasks[1]["id"]) == "applied"
    assert charges(work, job) == [FREE, ("pending", 1, 1, 0, True), FREE]
    assert [(event["kind"], event["cause"]) for event in work.events(job, "timeout", "returned")] == [
        ("returned", "timeout"),
        ("timeout", "timeout"),
    ]


def test_timeout_of_the_last_attempt_fails_the_task(work: Work) -> None:
    job, run = work.running(1, max_attempts=1)
    work.witness(run, "timeout", culprit=run.tasks[0]["id"])
    assert charges(work, job) == [("failed", 1, 1, 0, True)]
    assert (work.status(job), work.task(job)["error"]["type"]) == ("failed", "TaskTimeout")


def test_timeout_alone_at_the_bound_of_crashes_fails_the_task(work: Work) -> None:
    work.limits(max_crashes=2)
    job, run = work.running(1, max_attempts=9)
    for _ in range(2):
        work.witness(run, "timeout", culprit=run.tasks[0]["id"])
        if work.task(job)["status"] == "queued":
            run = work.carrier(job)
            run.start()
    assert charges(work, job) == [("failed", 2, 2, 0, True)]


def test_culprit_must_be_held_by_the_run(work: Work) -> None:
    job, run = work.running(2, window=1)
    later = work.tasks(job)[1]["id"]
    assert [work.witness(run, verdict, culprit=later) for verdict in ("timeout", "cancel_kill")] == ["refused"] * 2
    assert work.witness(run, "timeout", culprit=10**12) == "refused"


def test_only_a_direct_witness_may_say_timeout_or_cancel_kill(work: Work) -> None:
    job, run = work.running()
    work.cancel(job)
    work.clock.advance(60)
    assert [work.verdict(run, verdict, culprit=run.tasks[0]["id"]) for verdict in ("timeout", "cancel_kill")] == ["refused"] * 2


# --- cancel_kill ------------------------------------------------------------------------------------------------------


def test_cancel_kill_cancels_the_culprit_and_frees_the_others(work: Work) -> None:
    work.limits(depth=1)
    gone, stays = work.create(), work.create(2)
    (run,) = work.runs()
    run.start(window=2)
    work.pause()
    work.cancel(gone)
    assert work.witness(run, "cancel_kill", culprit=run.tasks[0]["id"]) == "applied"
    assert (work.status(gone), charges(work, gone)) == ("cancelled", [("cancelled", 0, 0, 0, False)])
    assert (work.status(stays), charges(work, stays)) == ("pending", [FREE, FREE])


def test_cancel_kill_needs_a_cancel_request(work: Work) -> None:
    _, run = work.running()
    assert work.witness(run, "cancel_kill", culprit=run.tasks[0]["id"]) == "refused"


# --- stopped ----------------------------------------------------------------------------------------------------------


def test_stopping_the_run_of_a_single_job_cancels_it(work: Work) -> None:
    work.limits(depth=1, run_size=3)
    job = work.create(5)
    (run,) = work.runs()
    run.start(window=2)
    work.clock.advance(11)
    assert work.verdict(run, "stopped") == "applied"
    assert (work.status(job), work.counts(job)) == ("cancelled", (5, 0, 0, 5))
    assert (work.job(job)["cancel_reason"], work.run(run.id)["cause"]) == ("stopped in RQ", "stopped")


def test_stopping_a_run_of_several_jobs_frees_them(work: Work) -> None:
    work.limits(depth=1)
    jobs = [work.create(), work.create()]
    (run,) = work.runs()
    run.start()
    work.pause()
    work.clock.advance(11)
    assert work.verdict(run, "stopped") == "applied"
    assert [charges(work, job) for job in jobs] == [[FREE], [FREE]]


def test_stop_counts_only_when_the_ledger_has_been_silent_too(work: Work) -> None:
    _, run = work.running()
    work.clock.advance(9)
    assert work.verdict(run, "stopped") == "refused"


# --- expired ----------------------------------------------------------------------------------------------------------


def test_expired_lease_is_applied_at_the_second_sighting(work: Work) -> None:
    job, run = work.running(3, window=2)
    work.pause()
    work.clock.advance(21)
    assert work.verdict(run, "expired") == "suspected"
    work.clock.advance(4)
    assert work.verdict(run, "expired") == "suspected"
    work.clock.advance(2)
    assert work.verdict(run, "expired") == "applied"
    assert charges(work, job) == [("pending", 0, 0, 1, True), ("pending", 0, 0, 1, True), FREE]
    assert [event["kind"] for event in work.events(job, "loss")] == ["loss"] * 2


def test_lease_that_lasts_is_not_expired(work: Work) -> None:
    _, run = work.running()
    work.clock.advance(19)
    assert work.verdict(run, "expired") == "refused"
    assert work.run(run.id)["suspected_at"] is None


def test_database_that_has_just_started_waits_a_lease(work: Work) -> None:
    """Nobody could tell it that they live while it was away."""
    work.limits(lease_s=80_000, heartbeat_s=5)
    _, run = work.running()
    work.sql.run("update ledgerq.run set lease_until = ledgerq.clock() - interval '1 s' where id = %s", run.id)
    assert work.verdict(run, "expired") == "refused"
    work.clock.advance(80_001)
    assert work.verdict(run, "expired") == "suspected"


def test_heartbeat_between_the_sightings_starts_over(work: Work) -> None:
    _, run = work.running()
    work.clock.advance(21)
    work.verdict(run, "expired")
    work.sql.call("heartbeat_run", run=run.id, delivery=run.delivery)
    work.clock.advance(21)
    assert work.verdict(run, "expired") == "suspected"


def test_task_is_failed_at_the_sixth_loss(work: Work) -> None:
    job, run = work.running()
    for _ in range(6):
        work.lose(run)
        if work.task(job)["status"] == "queued":
            run = work.carrier(job)
            run.start()
    assert charges(work, job) == [("failed", 0, 0, 6, True)]
    assert (work.status(job), work.task(job)["error"]["cause"]) == ("failed", "lost")


# --- wherever pending is written ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", ["died", "expired", "timeout"])
def test_pending_becomes_cancelled_where_the_job_is_being_cancelled(work: Work, verdict: str) -> None:
    job, run = work.running(2)
    work.cancel(job)
    if verdict == "expired":
        work.lose(run)
    else:
        assert work.witness(run, verdict, culprit=run.tasks[0]["id"]) == "applied"
    assert (work.status(job), work.counts(job)) == ("cancelled", (2, 0, 0, 2))


def test_jobs_of_an_ended_run_go_out_again_with_the_answer(work: Work) -> None:
    _, run = work.running(2)
    answer = work.sql.call("reconcile_runs", verdicts=[{"run": run.id, "verdict": "died", "delivery": run.delivery}])
    assert [ticket["tasks"] for ticket in answer["to_push"]] == [1]


# --- fences -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", [{"seen_status": "dispatched"}, {"seen_step": 1}, {"seen_heartbeat_at": "2020-01-01T00:00:00Z"}])
def test_verdict_about_what_has_changed_since_it_was_seen_is_superseded(work: Work, changed: dict[str, Any]) -> None:
    _, run = work.running()
    work.clock.advance(60)
    assert work.verdict(run, "expired", **changed) == "superseded"
    assert work.run(run.id)["suspected_at"] is None


def test_advance_between_seeing_and_judging_supersedes_the_verdict(work: Work) -> None:
    job, run = work.running(2, window=1)
    work.clock.advance(60)
    seen = work.run(run.id)
    run.advance(*outcomes(run), want=1)
    assert work.verdict(run, "expired", seen_step=seen["step"], seen_heartbeat_at=seen["heartbeat_at"]) == "superseded"
    assert work.counts(job) == (2, 1, 0, 0)


def test_direct_witness_is_fenced_by_the_delivery_alone(work: Work) -> None:
    _, run = work.running(2, window=1)
    run.advance(*outcomes(run), want=1)
    other = Run(work.sql, run.id)
    assert work.witness(other, "died") == "superseded"
    assert work.witness(run, "died", seen_step=99) == "applied"


def test_same_verdict_about_an_ended_run_is_applied_again_and_changes_nothing(work: Work) -> None:
    job, run = work.running(2)
    work.pause()
    assert [work.witness(run, "died") for _ in range(3)] == ["applied"] * 3
    assert charges(work, job) == [("pending", 0, 1, 0, True)] * 2
    assert work.witness(run, "timeout", culprit=run.tasks[0]["id"]) == "superseded"


def test_finished_run_is_superseded(work: Work) -> None:
    job, run = work.running()
    run.advance(*outcomes(run))
    assert work.witness(run, "died") == "superseded"
    assert (work.status(job), work.run(run.id)["status"]) == ("completed", "finished")


def test_unknown_run_is_not_found(work: Work) -> None:
    given = {"run": str(new_id()), "verdict": "revoke", "seen_status": "dispatched", "seen_step": 0}
    assert work.sql.call("reconcile_runs", verdicts=[given])["runs"] == [{"run": given["run"], "disposition": "not_found"}]


def test_zombie_of_a_judged_run_changes_nothing(work: Work) -> None:
    job, run = work.running(2)
    held = run.tasks
    work.lose(run)
    run.tasks = held
    assert run.advance(*outcomes(run)) == {"disposition": "superseded"}
    again = work.carrier(job)
    again.start()
    again.advance(*outcomes(again, "failed"))
    assert work.counts(job) == (2, 0, 1, 0)


# --- several at once ----------------------------------------------------------------------------------------------------


def test_many_runs_are_judged_in_one_call_each_for_itself(work: Work) -> None:
    work.limits(depth=3)
    job = work.create(3)
    first, second, third = work.runs()
    first.start()
    second.start()
    second.advance(outcome(second.tasks[0]))
    verdicts = [
        {"run": first.id, "verdict": "died", "delivery": first.delivery},
        {"run": second.id, "verdict": "died", "delivery": second.delivery},
        {"run": third.id, "verdict": "revoke", "seen_status": "dispatched", "seen_step": 0, "seen_heartbeat_at": None},
        {"run": third.id, "verdict": "died", "delivery": str(new_id())},
    ]
    answer = work.sql.call("reconcile_runs", verdicts=verdicts)
    assert {each["run"]: each["disposition"] for each in answer["runs"]} == {
        first.id: "applied",
        second.id: "superseded",
        third.id: "applied",
    }
    assert work.counts(job) == (3, 1, 0, 0)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"verdict": "gone"}, "verdict: 'gone'"),
        ({"verdict": "timeout"}, "culprit: nothing"),
        ({"run": "x"}, "run: 'x'"),
        ({"delivery": "x"}, "delivery: 'x'"),
        ({"seen_heartbeat_at": "yesterday"}, "seen_heartbeat_at: 'yesterday'"),
        ({"evidence": []}, "evidence"),
    ],
)
def test_mistakes_are_named(work: Work, wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        work.sql.call("reconcile_runs", verdicts=[{"run": str(new_id()), "verdict": "died"} | wrong])
    assert (caught.value.sqlstate, says in str(caught.value)) == ("LQ001", True)


def test_at_most_100_verdicts_a_call(work: Work) -> None:
    with pytest.raises(psycopg.Error) as caught:
        work.sql.call("reconcile_runs", verdicts=[{"run": str(new_id()), "verdict": "died"}] * 101)
    assert caught.value.sqlstate == "LQ002"


def test_error_of_a_task_is_small_whatever_the_evidence(work: Work) -> None:
    """With the run it stands in full."""
    work.limits(max_crashes=1)
    job, run = work.running()
    evidence = {"stderr": "x" * 60_000}
    assert work.witness(run, "died", evidence=evidence) == "applied"
    error = work.task(job)["error"]
    assert (work.status(job), error["cause"], len(json.dumps(error)) < 8_192) == ("failed", "crash", True)
    assert error["evidence"]["left_out_bytes"] > 60_000
    assert work.run(run.id)["evidence"] == evidence
