"""dispatch: which tasks go out next, and in which runs."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from tests.support.sql import Run, connected
from tests.support.work import Work, job_request, outcome, outcomes


def packed(work: Work, ticket: dict[str, Any]) -> list[tuple[Any, ...]]:
    """(tenant, priority, key, job) of the run's tasks in their order."""
    return work.sql.rows("select tenant, priority, key, job_id::text from ledgerq.task where run_id = %s order by seq", ticket["run"])


def tenants(work: Work, ticket: dict[str, Any]) -> str:
    return "".join(row[0] for row in packed(work, ticket))


# --- room -----------------------------------------------------------------------------------------------------------


def test_few_tasks_are_spread_over_the_room(work: Work) -> None:
    work.create(16)
    assert [ticket["tasks"] for ticket in work.dispatch()] == [2] * 8


def test_many_tasks_fill_runs_up_to_their_size_and_the_surplus_stays_pending(work: Work) -> None:
    work.limits(depth=2, run_size=10)
    job = work.create(25)
    assert [ticket["tasks"] for ticket in work.dispatch()] == [10, 10]
    assert Counter(work.task_statuses(job)) == {"queued": 20, "pending": 5}


def test_second_dispatch_finds_less_room(work: Work) -> None:
    work.limits(depth=2, run_size=10)
    work.create(25)
    work.dispatch()
    assert work.dispatch() == []


def test_started_runs_leave_room(work: Work) -> None:
    work.limits(depth=1, run_size=1)
    work.create(2)
    (run,) = work.runs()
    assert work.dispatch() == []
    assert len(run.start()["runs"]) == 1


def test_job_with_a_packed_task_is_queued_and_knows_its_runs(work: Work) -> None:
    job = work.create(2)
    tickets = work.dispatch()
    assert work.status(job) == "queued"
    assert sorted(work.job(job)["run_ids"]) == sorted(ticket["run"] for ticket in tickets)


def test_paused_queue_sends_nothing_until_it_is_resumed(work: Work) -> None:
    work.create()
    work.pause()
    assert work.dispatch() == []
    assert len(work.resume()) == 1


def test_unknown_queue_is_an_error(work: Work) -> None:
    with pytest.raises(psycopg.Error) as caught:
        work.dispatch("nowhere")
    assert caught.value.sqlstate == "LQ003"


def test_queues_are_apart(work: Work) -> None:
    work.limits("other")
    work.create(queue="other")
    assert work.dispatch() == []
    assert [ticket["queue"] for ticket in work.dispatch("other")] == ["other"]


# --- due ------------------------------------------------------------------------------------------------------------


def test_task_goes_out_when_it_is_due_and_not_before(work: Work) -> None:
    work.create(delay_s=10)
    work.clock.advance(9)
    assert work.dispatch() == []
    work.clock.advance(2)
    assert len(work.dispatch()) == 1


def test_at_most_500_due_tasks_are_promoted_in_a_call(work: Work) -> None:
    work.limits(depth=10)
    job = work.create(600, delay_s=10)
    work.clock.advance(11)
    work.dispatch()
    assert Counter(work.task_statuses(job)) == {"queued": 500, "pending": 100}


def test_dispatch_due_serves_every_queue_and_tells_the_next_time(work: Work) -> None:
    work.limits("other")
    work.create(queue="other")
    work.create(delay_s=10)
    later = work.create(delay_s=100)
    work.clock.advance(11)
    answer = work.sql.call("dispatch_due")
    assert sorted(ticket["queue"] for ticket in answer["runs"]) == ["other", "processing"]
    assert (answer["next_due_at"], answer["busy"]) == (work.task(later)["due_at"], False)


def test_dispatch_due_passes_by_paused_queues(work: Work) -> None:
    work.create()
    work.pause()
    assert work.sql.call("dispatch_due") | {"now": None} == {"runs": [], "busy": False, "next_due_at": None, "now": None}


# --- cutting --------------------------------------------------------------------------------------------------------


def test_run_carries_one_type(work: Work) -> None:
    work.limits(depth=2)
    for _ in range(3):
        work.create(type="a")
        work.create(type="b")
    tickets = work.dispatch()
    assert sorted((ticket["type"], ticket["tasks"]) for ticket in tickets) == [("a", 3), ("b", 3)]
    assert tickets[0]["description"].startswith("a: 3 tasks of 3 jobs")


def test_at_most_as_many_runs_as_there_is_room_even_for_many_types(work: Work) -> None:
    work.limits(depth=2)
    for name in "abc":
        work.create(type=name)
    assert len(work.dispatch()) == 2


def test_task_that_must_be_alone_is_a_run_by_itself(work: Work) -> None:
    job, run = work.running(3)
    work.witness(run, "died")
    work.limits(depth=8)
    fresh = work.create(2)
    sizes = {ticket["tasks"]: ticket for ticket in work.dispatch()}
    assert all(task["alone"] for task in work.tasks(job))
    assert work.sql.value("select max(r.tasks) from ledgerq.run r join ledgerq.task t on t.run_id = r.id where t.alone") == 1
    assert sizes[1]
    assert work.task_statuses(fresh) == ["queued", "queued"]


def test_run_is_cut_by_bytes(work: Work) -> None:
    work.limits(depth=4, run_size=500)
    jobs = [job_request([{"key": f"{call}-{number}", "payload": "x" * 60_000} for number in range(60)]) for call in range(5)]
    for job in jobs:
        work.sql.call("create_jobs", jobs=[job], dispatch=False)
    work.limits(depth=2)
    assert [ticket["tasks"] for ticket in work.dispatch()] == [140, 10]


def test_ticket_names_at_most_ten_jobs(work: Work) -> None:
    work.limits(depth=1)
    for _ in range(12):
        work.create()
    (ticket,) = work.dispatch()
    assert (len(ticket["job_ids"]), ticket["tasks"], ticket["description"]) == (10, 12, "noop: 12 tasks of 12 jobs")


def test_backstop_is_budget_and_longest_task_and_a_minute(work: Work) -> None:
    work.limits(depth=1)
    work.create(timeout_s=10)
    work.create(timeout_s=1000)
    assert [ticket["timeout_s"] for ticket in work.dispatch()] == [600 + 1000 + 60]


# --- order and fairness -----------------------------------------------------------------------------------------------


def test_oldest_first_inside_a_tenant(work: Work) -> None:
    work.limits(depth=1)
    jobs = [work.create(2) for _ in range(3)]
    (ticket,) = work.dispatch()
    assert [row[3] for row in packed(work, ticket)] == [job for job in jobs for _ in range(2)]


def test_task_that_came_back_keeps_its_place(work: Work) -> None:
    work.limits(run_size=1)
    first, run = work.running()
    work.create()
    run.advance(outcome(run.tasks[0], "returned"))
    assert work.status(first) == "queued"


def test_tenants_take_turns_inside_a_run(work: Work) -> None:
    work.limits(depth=1, run_size=6)
    work.create(10, tenant="a")
    work.create(2, tenant="b")
    work.create(2, tenant="c")
    (ticket,) = work.dispatch()
    assert tenants(work, ticket) == "abcabc"


def test_tenant_that_floods_fills_only_what_the_others_leave(work: Work) -> None:
    work.limits(depth=1, run_size=8)
    work.create(20, tenant="a")
    work.create(1, tenant="b")
    (ticket,) = work.dispatch()
    assert tenants(work, ticket) == "abaaaaaa"


def test_turn_goes_on_where_the_last_dispatch_ended(work: Work) -> None:
    work.limits(depth=1, run_size=1)
    for tenant in "abc":
        work.create(3, tenant=tenant)
    (ticket,) = work.dispatch()
    served = tenants(work, ticket)
    for _ in range(8):
        (ticket,) = Run(work.sql, ticket["run"]).start()["runs"]
        served += tenants(work, ticket)
    assert served == "abcabcabc"


def test_turn_goes_on_inside_a_round(work: Work) -> None:
    work.limits(depth=1, run_size=3)
    for tenant in "ab":
        work.create(3, tenant=tenant)
    (ticket,) = work.dispatch()
    (following,) = Run(work.sql, ticket["run"]).start()["runs"]
    assert (tenants(work, ticket), tenants(work, following)) == ("aba", "bab")


def test_more_than_32_tenants_are_served_in_turn(work: Work) -> None:
    work.limits(depth=1, run_size=40)
    for number in range(50):
        work.create(2, tenant=f"t{number:02}")
    first = Run(work.sql, work.dispatch()[0]["run"])
    (second,) = first.start()["runs"]
    served = {row[0] for row in packed(work, {"run": first.id})} | {row[0] for row in packed(work, second)}
    assert served == {f"t{number:02}" for number in range(50)}


def test_higher_class_goes_first(work: Work) -> None:
    work.limits(depth=1, run_size=3)
    work.create(priority="low")
    work.create(priority="high")
    work.create(priority="normal")
    (ticket,) = work.dispatch()
    assert [row[1] for row in packed(work, ticket)] == [2, 1, 0]


def test_every_fourth_pick_is_from_the_classes_below(work: Work) -> None:
    work.limits(depth=1, run_size=16)
    for priority in ("high", "normal", "low"):
        work.create(40, priority=priority)
    (ticket,) = work.dispatch()
    assert Counter(row[1] for row in packed(work, ticket)) == {2: 12, 1: 3, 0: 1}


def test_every_fourth_pick_also_when_they_go_out_one_by_one(work: Work) -> None:
    work.limits(depth=1, run_size=1)
    work.create(100, priority="high")
    work.create(100, priority="normal")
    (ticket,) = work.dispatch()
    served: list[int] = []
    for _ in range(16):
        served.append(packed(work, ticket)[0][1])
        (ticket,) = Run(work.sql, ticket["run"]).start()["runs"]
    assert Counter(served) == {2: 12, 1: 4}


def test_class_without_rivals_gets_all(work: Work) -> None:
    work.limits(depth=1, run_size=10)
    work.create(10, priority="low")
    assert [ticket["tasks"] for ticket in work.dispatch()] == [10]


def test_urgent_tasks_have_runs_of_their_own_that_go_to_the_front(work: Work) -> None:
    work.limits(depth=2)
    work.create(2)
    work.create(1, priority="urgent")
    tickets = work.dispatch()
    assert [(ticket["at_front"], ticket["tasks"]) for ticket in tickets] == [(True, 1), (False, 2)]


# --- caps -----------------------------------------------------------------------------------------------------------


def open_jobs(work: Work) -> int:
    return work.sql.value("select count(distinct job_id) from ledgerq.task where status = 'queued'")


def test_at_most_so_many_jobs_of_a_queue_are_in_runs(work: Work) -> None:
    work.limits(max_concurrent_jobs=2)
    jobs = [work.create(2) for _ in range(4)]
    work.dispatch()
    assert [work.status(job) for job in jobs] == ["queued", "queued", "pending", "pending"]
    assert work.dispatch() == []


def test_job_that_is_in_a_run_may_go_on_under_its_cap(work: Work) -> None:
    work.limits(max_concurrent_jobs=1, depth=2, run_size=1)
    job = work.create(3)
    work.create()
    assert len(work.dispatch()) == 2
    assert work.task_statuses(job) == ["queued", "queued", "pending"]


def test_next_job_goes_out_when_one_is_over(work: Work) -> None:
    work.limits(max_concurrent_jobs=1)
    first, second = work.create(), work.create()
    (run,) = work.runs()
    run.start()
    answer = run.advance(*outcomes(run))
    assert (work.status(first), work.status(second), len(answer["runs"])) == ("completed", "queued", 1)


def test_cap_of_a_tenant_leaves_the_others_alone(work: Work) -> None:
    work.limits(tenant_concurrent_jobs=1)
    a = [work.create(tenant="a") for _ in range(2)]
    b = [work.create(tenant="b") for _ in range(2)]
    work.dispatch()
    assert [work.status(job) for job in a + b] == ["queued", "pending", "queued", "pending"]


def test_capped_dispatch_that_another_is_in_the_middle_of_says_busy(work: Work, other_dsn: str) -> None:
    work.limits(max_concurrent_jobs=1)
    first, second = work.create(), work.create()
    with connected(other_dsn, autocommit=False) as other:
        assert len(other.call("dispatch", queue="processing")["runs"]) == 1
        assert work.sql.call("dispatch", queue="processing") == {"runs": [], "busy": True}
        other.connection.commit()
    assert work.sql.call("dispatch", queue="processing") == {"runs": [], "busy": False}
    assert (work.status(first), work.status(second)) == ("queued", "pending")


# --- locks ----------------------------------------------------------------------------------------------------------


def test_it_passes_by_what_others_have_locked_and_waits_for_nobody(work: Work, other_dsn: str) -> None:
    work.sql.run("set statement_timeout = '5s'")
    job = work.create(2)
    with connected(other_dsn, autocommit=False) as other:
        other.run("select from ledgerq.job where id = %s for no key update", job)
        other.run("select from ledgerq.task where job_id = %s and key = 'k0' for no key update", job)
        other.run("select from ledgerq.queue_turn for no key update")
        assert [ticket["tasks"] for ticket in work.dispatch()] == [1]
        assert (work.task_statuses(job), work.status(job)) == (["pending", "queued"], "pending")
    run = Run(work.sql, work.sql.value("select id::text from ledgerq.run"))
    run.start()
    assert (work.status(job), work.job(job)["run_ids"][-1]) == ("in_progress", run.id)


def test_two_dispatches_at_once_never_take_the_same_task(work: Work, other_dsn: str) -> None:
    job = work.create(8)
    with connected(other_dsn, autocommit=False) as other:
        other.run("update ledgerq.queue set depth = 4 where name = 'processing'")
        other.connection.commit()
        first = other.call("dispatch", queue="processing")["runs"]
        second = work.dispatch()
        other.connection.commit()
    assert sum(ticket["tasks"] for ticket in first + second) == 8
    assert work.task_statuses(job) == ["queued"] * 8


def test_every_run_of_a_job_is_named_by_it_from_its_dispatch(work: Work) -> None:
    work.limits(depth=2, run_size=2)
    job = work.create(6)
    first, second = work.runs()
    first.start()
    assert work.status(job) == "in_progress"
    third, *none = work.runs()
    assert (none, set(work.job(job)["run_ids"])) == ([], {first.id, second.id, third.id})
    assert work.job(job)["run_ids"][0] == third.id
    assert work.status(job) == "in_progress"


def test_what_two_ends_set_free_under_a_cap_goes_out(work: Work, other_dsn: str) -> None:
    work.limits(depth=4, run_size=1, tenant_concurrent_jobs=1)
    first, second = (work.carrier(job) for job in [work.create(tenant=tenant, dispatch=True) for tenant in "ab"])
    waiting = work.create(tenant="b", dispatch=True)
    assert work.status(waiting) == "pending"
    assert {run.start()["disposition"] for run in (first, second)} == {"applied"}
    with connected(other_dsn, autocommit=False) as other, ThreadPoolExecutor(1) as thread:
        early = Run(other, first.id, first.delivery, tasks=first.tasks).advance(outcome(first.tasks[0]))
        late = thread.submit(second.advance, outcome(second.tasks[0]))
        with pytest.raises(TimeoutError):
            late.result(timeout=0.3)
        other.connection.commit()
        assert (early["runs"], len(late.result(timeout=10)["runs"]), work.status(waiting)) == ([], 1, "queued")


def test_dispatch_due_passes_by_queues_without_room(work: Work) -> None:
    """However many of them there are: here one, which is first by name and fills the limit."""
    work.limits("a", depth=1)
    work.limits("b")
    work.create(queue="a", dispatch=True)
    for queue in ("a", "b"):
        work.create(queue=queue)
    assert [run["queue"] for run in work.sql.call("dispatch_due", limit=1)["runs"]] == ["b"]


def test_dispatch_due_promotes_where_there_is_no_room(work: Work) -> None:
    """Else the time that it tells would have passed for ever, and a steward would never rest."""
    work.limits(depth=1)
    work.create(1, dispatch=True)
    work.create(1, delay_s=10)
    work.clock.advance(11)
    assert work.sql.call("dispatch_due")["next_due_at"] is None
