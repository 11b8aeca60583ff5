"""save_queue, pause_queue, resume_queue, live_runs."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.support.work import Work


def test_queue_processing_exists_from_the_start_with_the_defaults(work: Work) -> None:
    queue = work.limits()["queue"]
    expected: dict[str, Any] = {
        "queue": "processing",
        "depth": 8,
        "run_size": 100,
        "lease_s": 20,
        "heartbeat_s": 5,
        "run_budget_s": 600,
        "cancel_grace_s": 10,
        "max_crashes": 3,
        "max_losses": 6,
        "timeout_s": 300,
        "max_attempts": 3,
        "deadline_s": 604800,
        "max_concurrent_jobs": None,
        "tenant_concurrent_jobs": None,
        "paused": False,
    }
    assert {key: queue[key] for key in expected} == expected


def test_only_what_is_named_changes_and_null_lifts_a_cap(work: Work) -> None:
    work.limits("other", depth=3, max_concurrent_jobs=2)
    assert work.limits("other", run_size=7)["queue"]["max_concurrent_jobs"] == 2
    changed = work.limits("other", max_concurrent_jobs=None, depth=None)["queue"]
    assert (changed["depth"], changed["run_size"], changed["max_concurrent_jobs"]) == (3, 7, None)


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"depth": 0}, "depth: '0'"),
        ({"run_size": 501}, "run_size: '501'"),
        ({"lease_s": 5, "heartbeat_s": 3}, "lease_s: '5' is not at least twice heartbeat_s"),
        ({"depht": 3}, "depht: '3' is not a limit of a queue"),
        ({"max_attempts": 0}, "max_attempts: '0'"),
    ],
)
def test_mistakes_are_named(work: Work, limits: dict[str, Any], says: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        work.limits(**limits)
    assert (caught.value.sqlstate, says in str(caught.value)) == ("LQ001", True)


def test_name_of_a_queue_is_checked(work: Work) -> None:
    with pytest.raises(psycopg.Error, match="queue: 'Big Jobs'"):
        work.limits("Big Jobs")


def test_pause_and_resume_are_told_once_with_their_actor(work: Work) -> None:
    for function in ("pause_queue", "pause_queue", "resume_queue", "resume_queue"):
        assert work.sql.call(function, queue="processing", actor="ann")["disposition"] == "applied"
    assert work.sql.rows("select kind, actor, data from ledgerq.event order by id") == [
        ("paused", "ann", {"queue": "processing"}),
        ("resumed", "ann", {"queue": "processing"}),
    ]


@pytest.mark.parametrize("function", ["pause_queue", "resume_queue"])
def test_unknown_queue_is_an_error(work: Work, function: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        work.sql.call(function, queue="nowhere")
    assert caught.value.sqlstate == "LQ003"


def test_live_runs_show_what_the_status_sync_needs(work: Work) -> None:
    job, run = work.running(2)
    (seen,) = work.sql.call("live_runs")["runs"]
    row = work.run(run.id)
    assert {key: seen[key] for key in ("run", "queue", "type", "status", "step", "worker", "execution_id", "delivery")} == {
        "run": run.id,
        "queue": "processing",
        "type": "noop",
        "status": "running",
        "step": 0,
        "worker": "w1",
        "execution_id": "e1",
        "delivery": run.delivery,
    }
    assert (seen["heartbeat_at"], seen["lease_until"], seen["single_job"]) == (row["heartbeat_at"], row["lease_until"], True)
    assert (seen["heartbeat_s"], seen["lease_s"], seen["suspected_at"]) == (5, 20, None)
    assert (seen["ticket"]["run"], seen["ticket"]["job_ids"], seen["ticket"]["tasks"]) == (run.id, [job], 2)


def test_live_runs_are_paged_by_id_and_leave_out_what_is_over(work: Work) -> None:
    work.limits(run_size=1)
    work.create(5)
    runs = work.runs()
    work.pause()
    assert work.verdict(runs[0], "revoke") == "applied"
    expected = sorted(run.id for run in runs[1:])
    first = [run["run"] for run in work.sql.call("live_runs", limit=3)["runs"]]
    assert first == expected[:3]
    assert [run["run"] for run in work.sql.call("live_runs", after=first[-1])["runs"]] == expected[3:]
    assert work.sql.call("live_runs", queue="other")["runs"] == []
