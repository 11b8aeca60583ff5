"""What `jobs show` says of one job."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from ledgerq.cli.output import Output, short_seconds, short_time
from ledgerq.lifecycle import TaskStatus

if TYPE_CHECKING:
    from ledgerq.manager import JobManager
    from ledgerq.models import Event, Explanation, Job, Json, TaskRecord

FAILED_SHOWN: Final = 50
EVENTS_SHOWN: Final = 50


def show_job(output: Output, jobs: JobManager, job_id: str) -> None:
    """JSON: `{"job", "explain", "failed_tasks", "history"}`."""
    job, explanation, history = jobs.get_job(job_id), jobs.explain_job(job_id), jobs.job_history(job_id)
    failed = list(islice(jobs.iter_tasks(job_id, status=TaskStatus.FAILED), FAILED_SHOWN)) if job.failed else []
    output.document({"job": job, "explain": explanation, "failed_tasks": failed, "history": history})
    if output.as_json:
        return
    _show_sentence(output, explanation)
    _show_facts(output, job)
    _show_failed(output, job, failed)
    _show_history(output, history)


def error_line(error: Json) -> str:
    """A task's error as one line: its message, or whatever there is."""
    if isinstance(error, dict):
        return str(error.get("message") or error.get("type") or error)
    return "" if error is None else str(error)


def _show_sentence(output: Output, explanation: Explanation) -> None:
    output.text(explanation.sentence)
    if explanation.next_action:
        output.text(f"Next: {explanation.next_action}")


def _show_facts(output: Output, job: Job) -> None:
    took = None if job.started_at is None or job.finished_at is None else (job.finished_at - job.started_at).total_seconds()
    facts: list[tuple[str, object]] = [
        ("job", job.id),
        ("type", job.type),
        ("status", job.status),
        ("tasks", f"{job.completed} completed, {job.failed} failed, {job.cancelled} cancelled, of {job.total}"),
        ("queue", f"{job.queue}, priority {job.priority}"),
        ("tenant", job.tenant),
        ("project", job.project),
        ("source", job.source),
        ("RQ job", job.rq_job_id),
        ("created", short_time(job.created_at)),
        ("not before", short_time(job.due_at)),
        ("started", short_time(job.started_at)),
        ("finished", short_time(job.finished_at)),
        ("took", short_seconds(took)),
        ("result", job.result),
        ("error", error_line(job.error)),
    ]
    output.text("")
    output.table(("", ""), [fact for fact in facts if fact[1] is not None and fact[1] != ""], empty="")


def _show_failed(output: Output, job: Job, failed: list[TaskRecord]) -> None:
    if not failed:
        return
    output.text("\nFailed tasks" + (f" (the first {len(failed)} of {job.failed})" if job.failed > len(failed) else ""))
    rows = [(task.uri or task.key, task.attempts, task.crashes, error_line(task.error)) for task in failed]
    output.table(("task", "attempts", "crashes", "error"), rows, empty="")


def _show_history(output: Output, history: tuple[Event, ...]) -> None:
    left = len(history) - EVENTS_SHOWN
    output.text("\nHistory" + (f" (the last {EVENTS_SHOWN} events of {len(history)})" if left > 0 else ""))
    rows = [
        (short_time(event.at), event.kind.replace("_", " "), event.task, event.cause, event.actor, _in_words(event.data))
        for event in history[-EVENTS_SHOWN:]
    ]
    output.table(("at", "what", "task", "cause", "by", ""), rows, empty="nothing has happened yet")


def _in_words(data: Json) -> str:
    if not isinstance(data, dict):
        return "" if data is None else str(data)
    said = ((name.replace("_", " "), error_line(value)) for name, value in data.items() if value is not None and value is not False)
    return ", ".join(name if value == "True" else f"{name} {value}" for name, value in said)
