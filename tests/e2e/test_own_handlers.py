"""A user's own handlers, in a file outside the package, under the stock `rq worker`."""

from __future__ import annotations

import pytest

from ledgerq.lifecycle import JobStatus, TaskStatus
from tests.support.lab import Lab

pytestmark = pytest.mark.processes


def test_a_handler_of_ones_own_runs_under_the_stock_worker(lab: Lab) -> None:
    app = lab.app("""
        @handlers.resource
        def greeting():
            yield "hello"

        @handlers.handler("greet")
        def greet(task, context, greeting):
            context.progress({"half": True})
            return Completed({"said": f"{greeting} {task.payload}"})
    """)
    job = lab.jobs.create_job("greet", "world")
    said = lab.work(app)
    done = lab.jobs.get_job(job.id)
    assert (done.status, done.result) == (JobStatus.COMPLETED, {"said": "hello world"}), said
    kinds = [event.kind for event in lab.jobs.job_history(job.id)]
    assert [kind for kind in kinds if not kind.startswith("run_")] == ["created", "started", "ended"]


def test_many_jobs_flow_through_one_worker_without_a_steward(lab: Lab) -> None:
    app = lab.app("""
        @handlers.handler("square")
        def square(task):
            return Completed(task.payload ** 2)
    """)
    jobs = [lab.jobs.create_job("square", n) for n in range(30)]
    lab.work(app)
    assert [lab.jobs.get_job(job.id).result for job in jobs] == [n**2 for n in range(30)]


def test_every_outcome_ends_where_it_should(lab: Lab) -> None:
    app = lab.app("""
        @handlers.handler("mixed")
        def mixed(task, context):
            match task.payload:
                case "returns": return None
                case "completed": return Completed(1)
                case "failed": return Failed("no good")
                case "raises": raise ValueError("bad input")
                case "transient": raise ConnectionError("away")
                case "exits": raise SystemExit(3)
                case "prints": print("noise"); return None
                case "nonsense": return 42
    """)
    kinds = ["returns", "completed", "failed", "raises", "transient", "exits", "prints", "nonsense"]
    job = lab.jobs.create_job("mixed", tasks=[{"key": kind, "payload": kind} for kind in kinds], max_attempts=2)
    said = lab.work(app)
    by_key = {task.key: task for task in lab.jobs.iter_tasks(job.id)}
    ended = {key: task.status for key, task in by_key.items()}
    assert ended["transient"] is TaskStatus.PENDING, said
    assert {key for key, status in ended.items() if status is TaskStatus.COMPLETED} == {"returns", "completed", "prints"}, said
    assert {key for key, status in ended.items() if status is TaskStatus.FAILED} >= {"failed", "raises", "nonsense"}, said
    assert "bad input" in str(by_key["raises"].error)
    lab.clock.advance(600)
    assert lab.steward.run_once().failures == {}
    lab.work(app)
    final = lab.jobs.get_job(job.id)
    assert (final.status, final.completed) == (JobStatus.PARTIAL, 3)
    assert next(task for task in lab.jobs.iter_tasks(job.id) if task.key == "transient").attempts == 2


def test_a_type_that_this_worker_does_not_know_waits_for_one_that_does(lab: Lab) -> None:
    """As in the middle of a deployment: it costs no attempt, and the job says what it waits for."""
    job = lab.jobs.create_job("novelty", 1)
    lab.work(lab.app(""))
    waiting = next(lab.jobs.iter_tasks(job.id))
    assert (waiting.status, waiting.attempts) == (TaskStatus.PENDING, 0)
    assert "novelty" in lab.jobs.explain_job(job.id).model_dump_json()
    lab.clock.advance(60)
    lab.steward.run_once()
    lab.work(lab.app("@handlers.handler('novelty')\ndef novelty(task): return Completed(task.payload)"))
    assert lab.jobs.get_job_status(job.id) is JobStatus.COMPLETED
