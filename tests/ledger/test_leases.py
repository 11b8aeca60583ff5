"""heartbeat_run and shed: a run is kept by its owner, and gives back what nobody holds."""

from __future__ import annotations

from typing import Any

from ledgerq.ids import new_id
from tests.support.sql import Run, connected
from tests.support.work import Work, outcome, outcomes


def beat(work: Work, run: Run) -> dict[str, Any]:
    return work.sql.call("heartbeat_run", run=run.id, delivery=run.delivery)


def shed(work: Work, run: Run | str) -> dict[str, Any]:
    return work.sql.call("shed", run=run if isinstance(run, str) else run.id)


# --- heartbeat --------------------------------------------------------------------------------------------------------


def test_heartbeat_renews_the_lease(work: Work) -> None:
    _, run = work.running()
    before = work.run(run.id)
    work.clock.advance(5)
    assert beat(work, run) == {"disposition": "applied", "cancelled": [], "shed_wanted": False}
    after = work.run(run.id)
    assert after["heartbeat_at"] > before["heartbeat_at"]
    assert after["lease_until"] > before["lease_until"]
    assert (after["step"], after["status"]) == (0, "running")


def test_heartbeat_revives_a_lease_that_ended_and_was_not_judged(work: Work) -> None:
    _, run = work.running()
    work.clock.advance(100)
    assert work.verdict(run, "expired") == "suspected"
    assert beat(work, run)["disposition"] == "applied"
    assert work.run(run.id)["suspected_at"] is None
    work.clock.advance(10)
    assert work.verdict(run, "expired") == "refused"


def test_heartbeat_of_another_delivery_is_superseded(work: Work) -> None:
    _, run = work.running()
    before = work.run(run.id)
    work.clock.advance(5)
    assert beat(work, Run(work.sql, run.id)) == {"disposition": "superseded", "cancelled": [], "shed_wanted": False}
    assert work.run(run.id) == before


def test_heartbeat_of_a_run_that_is_over_is_superseded(work: Work) -> None:
    _, finished = work.running()
    finished.advance(*outcomes(finished))
    _, lost = work.running()
    work.lose(lost)
    assert [beat(work, run)["disposition"] for run in (finished, lost)] == ["superseded"] * 2
    assert beat(work, Run(work.sql, str(new_id())))["disposition"] == "superseded"


def test_heartbeat_tells_which_held_tasks_are_cancelled(work: Work) -> None:
    job, run = work.running(3, window=2)
    work.cancel(job)
    assert beat(work, run)["cancelled"] == [task["id"] for task in run.tasks]


def test_heartbeat_touches_no_job_and_no_task(work: Work, other_dsn: str) -> None:
    work.sql.run("set statement_timeout = '5s'")
    job, run = work.running(2)
    with connected(other_dsn, autocommit=False) as other:
        other.run("select from ledgerq.job where id = %s for update", job)
        other.run("select from ledgerq.task where job_id = %s for update", job)
        assert beat(work, run)["disposition"] == "applied"


def test_heartbeat_says_when_the_run_should_end_early(work: Work) -> None:
    _, run = work.running(3, window=1)
    assert not beat(work, run)["shed_wanted"]
    work.create(priority="urgent")
    assert beat(work, run)["shed_wanted"]


def test_pause_and_a_used_budget_are_reasons_to_end_early(work: Work) -> None:
    _, run = work.running(3, window=1)
    work.pause()
    assert beat(work, run)["shed_wanted"]
    work.resume()
    assert not beat(work, run)["shed_wanted"]
    work.clock.advance(601)
    assert beat(work, run)["shed_wanted"]


def test_urgent_work_that_a_cap_holds_back_is_no_reason(work: Work) -> None:
    _, run = work.running(3, window=1)
    work.limits(max_concurrent_jobs=1)
    work.create(priority="urgent")
    assert not beat(work, run)["shed_wanted"]


# --- shed -------------------------------------------------------------------------------------------------------------


def test_unhanded_tasks_go_back_unchanged(work: Work) -> None:
    job, run = work.running(5, window=2)
    assert shed(work, run) == {"disposition": "applied", "released": 3, "runs": []}
    tasks = work.tasks(job)
    assert [task["status"] for task in tasks] == ["queued", "queued", "pending", "pending", "pending"]
    assert {(task["attempts"], task["crashes"], task["losses"], task["alone"]) for task in tasks} == {(0, 0, 0, False)}
    row = work.run(run.id)
    assert (row["size"], row["handed"], row["step"], row["status"]) == (2, 2, 0, "running")
    assert work.status(job) == "in_progress"


def test_job_whose_tasks_were_all_unhanded_is_pending_again(work: Work) -> None:
    work.limits(depth=1)
    first, second = work.create(), work.create()
    (run,) = work.runs()
    run.start(window=1)
    shed(work, run)
    assert (work.status(first), work.status(second)) == ("in_progress", "pending")


def test_shedding_again_gives_back_nothing_more(work: Work) -> None:
    _, run = work.running(5, window=2)
    assert [shed(work, run)["released"] for _ in range(2)] == [3, 0]


def test_run_goes_on_after_a_shed(work: Work) -> None:
    job, run = work.running(5, window=2)
    shed(work, run)
    answer = run.advance(*outcomes(run), want=5)
    assert (answer["disposition"], answer["finished"], work.counts(job)) == ("applied", True, (5, 2, 0, 0))


def test_only_running_runs_shed(work: Work) -> None:
    work.limits(depth=1)
    work.create(3)
    (run,) = work.runs()
    assert shed(work, run) == {"disposition": "superseded", "released": 0, "runs": []}
    run.start()
    run.advance(*outcomes(run))
    assert shed(work, run) == {"disposition": "superseded", "released": 0, "runs": []}
    assert shed(work, str(new_id())) == {"disposition": "not_found", "released": 0, "runs": []}


def test_shed_passes_by_a_run_that_is_locked(work: Work, other_dsn: str) -> None:
    work.sql.run("set statement_timeout = '5s'")
    _, run = work.running(3, window=1)
    with connected(other_dsn, autocommit=False) as other:
        other.run("select from ledgerq.run where id = %s for no key update", run.id)
        assert shed(work, run) == {"disposition": "superseded", "released": 0, "runs": []}


def test_unhanded_tasks_of_a_cancelled_job_are_cancelled(work: Work) -> None:
    job, run = work.running(3, window=1)
    work.sql.run("update ledgerq.job set cancel_requested_at = now() where id = %s", job)
    assert shed(work, run)["released"] == 2
    assert (work.task_statuses(job), work.counts(job)) == (["queued", "cancelled", "cancelled"], (3, 0, 0, 2))


def test_what_others_could_do_is_asked_back_from_a_slow_run(work: Work) -> None:
    work.create(10)
    run = work.one_run(window=2)
    assert beat(work, run)["shed_wanted"] is False, "what is quick is done before anybody else could begin"
    work.clock.advance(5)
    assert beat(work, run)["shed_wanted"] is True
    work.limits(depth=4)
    answer = work.sql.call("shed", run=run.id, dispatch=True)
    assert (answer["released"], sum(ticket["tasks"] for ticket in answer["runs"]), len(answer["runs"])) == (8, 8, 4)
    assert beat(work, run)["shed_wanted"] is False, "there is something to take now, and nothing to give"


def test_a_slow_run_keeps_its_tasks_while_others_find_work(work: Work) -> None:
    work.create(10)
    run = work.one_run(window=2)
    work.clock.advance(5)
    work.create(1)
    assert beat(work, run)["shed_wanted"] is False, "something is ready"
    assert len(work.dispatch()) == 1
    assert beat(work, run)["shed_wanted"] is False, "a run waits in Redis"


def test_an_acknowledgement_of_a_slow_run_gives_back_too(work: Work) -> None:
    work.create(10)
    run = work.one_run(window=2)
    work.clock.advance(5)
    answer = run.advance(outcome(run.tasks[0]))
    assert (len(answer["tasks"]), sum(ticket["tasks"] for ticket in answer["runs"])) == (1, 8)
