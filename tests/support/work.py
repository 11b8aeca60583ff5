"""Short ways to a starting point in the ledger, and to look at what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ledgerq.ids import new_id
from tests.support.clock import LedgerClock
from tests.support.sql import Run, Sql

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The functions of the ledger, called as a service, a worker, a steward or a caller would."""

    sql: Sql
    clock: LedgerClock

    # --- callers ---------------------------------------------------------------------------------------------------

    def create(self, tasks: int = 1, *, dispatch: bool = False, **fields: Any) -> str:
        """One job of so many tasks, `k0` and on; its id."""
        request = job_request(tasks, **fields)
        (answer,) = self.sql.call("create_jobs", jobs=[request], dispatch=dispatch, actor="test")["jobs"]
        assert answer["disposition"] == "applied"
        return request["id"]

    def cancel(self, *jobs: str) -> list[str]:
        answer = self.sql.call("cancel_jobs", jobs=list(jobs), actor="ann", reason="enough")
        return [each["disposition"] for each in answer["jobs"]]

    def retry(self, *jobs: str, request: str | None = None) -> list[Row]:
        return self.sql.call("retry_jobs", jobs=list(jobs), actor="ann", request=request or str(new_id()))["jobs"]

    # --- workers ---------------------------------------------------------------------------------------------------

    def dispatch(self, queue: str = "processing") -> list[Row]:
        return self.sql.call("dispatch", queue=queue)["runs"]

    def runs(self, queue: str = "processing") -> list[Run]:
        """What dispatch packs now, not started."""
        return [Run(self.sql, ticket["run"]) for ticket in self.dispatch(queue)]

    def one_run(self, window: int = 100) -> Run:
        """All that is ready in a single run, in a worker's hands."""
        self.limits(depth=1)
        (run,) = self.runs()
        assert run.start(window)["disposition"] == "applied"
        return run

    def running(self, tasks: int = 1, *, window: int = 100, **fields: Any) -> tuple[str, Run]:
        """A job and its only run, in a worker's hands."""
        job = self.create(tasks, **fields)
        return job, self.one_run(window)

    def carrier(self, job: str, key: str = "k0") -> Run:
        """The run that carries the task now, not started by us."""
        return Run(
            self.sql, self.sql.value("select run_id::text from ledgerq.task where job_id = %s and key = %s and status = 'queued'", job, key)
        )

    # --- operators -------------------------------------------------------------------------------------------------

    def limits(self, queue: str = "processing", **limits: Any) -> Row:
        return self.sql.call("save_queue", queue=queue, **limits)

    def pause(self) -> None:
        self.sql.call("pause_queue", queue="processing", actor="ann")

    def resume(self) -> list[Row]:
        return self.sql.call("resume_queue", queue="processing", actor="ann")["runs"]

    def verdict(self, run: Run | str, verdict: str, **fields: Any) -> str:
        """A verdict by what is seen now, unless the fields say otherwise."""
        run_id = run if isinstance(run, str) else run.id
        seen = self.run(run_id)
        fence = {"seen_status": seen["status"], "seen_step": seen["step"], "seen_heartbeat_at": seen["heartbeat_at"]}
        given = {"run": run_id, "verdict": verdict} | fence | fields
        return self.sql.call("reconcile_runs", actor="test", verdicts=[given])["runs"][0]["disposition"]

    def witness(self, run: Run, verdict: str, **fields: Any) -> str:
        """A verdict of the keeper, who knows the delivery."""
        given = {"run": run.id, "verdict": verdict, "delivery": run.delivery} | fields
        return self.sql.call("reconcile_runs", actor="keeper", verdicts=[given])["runs"][0]["disposition"]

    def lose(self, run: Run) -> None:
        """Its lease ends, and is sighted twice."""
        self.clock.advance(60)
        assert self.verdict(run, "expired") == "suspected"
        self.clock.advance(6)
        assert self.verdict(run, "expired") == "applied"

    # --- what became of it -----------------------------------------------------------------------------------------

    def job(self, job: str) -> Row:
        return self.sql.value("select to_jsonb(j) from ledgerq.job j where j.id = %s", job)

    def status(self, job: str) -> str:
        return self.job(job)["status"]

    def counts(self, job: str) -> tuple[int, int, int, int]:
        """total, completed, failed, cancelled."""
        row = self.job(job)
        return row["total"], row["completed"], row["failed"], row["cancelled"]

    def tasks(self, job: str) -> list[Row]:
        """In the order of their ids, which is that of their creation."""
        return [row[0] for row in self.sql.rows("select to_jsonb(t) from ledgerq.task t where t.job_id = %s order by t.id", job)]

    def task(self, job: str) -> Row:
        (task,) = self.tasks(job)
        return task

    def task_statuses(self, job: str) -> list[str]:
        return [task["status"] for task in self.tasks(job)]

    def run(self, run: str) -> Row:
        return self.sql.value("select to_jsonb(r) from ledgerq.run r where r.id = %s", run)

    def events(self, job: str, *kinds: str) -> list[Row]:
        found = self.sql.rows("select to_jsonb(e) from ledgerq.event e where e.job_id = %s order by e.id", job)
        return [row[0] for row in found if not kinds or row[0]["kind"] in kinds]

    def kinds(self, job: str) -> list[str]:
        return [event["kind"] for event in self.events(job)]


def job_request(tasks: int | list[Row] = 1, **fields: Any) -> Row:
    given = [{"key": f"k{number}", "payload": {"number": number}} for number in range(tasks)] if isinstance(tasks, int) else tasks
    return {"id": str(new_id()), "type": "noop", "queue": "processing", "tasks": given} | fields


def outcome(task: Row | int, kind: str = "completed", **fields: Any) -> Row:
    return {"task": task if isinstance(task, int) else task["id"], "kind": kind} | fields


def outcomes(run: Run, kind: str = "completed", **fields: Any) -> list[Row]:
    """The same for all that the run holds."""
    return [outcome(task, kind, **fields) for task in run.tasks]
