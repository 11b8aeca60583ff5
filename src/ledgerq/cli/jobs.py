"""`jobs list|show|watch|create|cancel|retry|delete`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ledgerq.cli.exit_codes import ExitCode, exit_code_of
from ledgerq.cli.files import shown
from ledgerq.cli.jobs_show import show_job
from ledgerq.cli.options import AsJson, DataDir, Debug, ForTenant, JobId, JobIds, QueueName, Tenant, typed_text
from ledgerq.cli.output import Output, problem, short_time
from ledgerq.cli.session import Session, check_pushed, check_queue, open_session
from ledgerq.cli.validation import describe_validation
from ledgerq.cli.watch import Watched
from ledgerq.cli.watch import watch as watch_jobs
from ledgerq.errors import InvalidInput, LedgerqError, NotFound, WrongState
from ledgerq.lifecycle import JobStatus

if TYPE_CHECKING:
    from ledgerq.manager import CreatedJob
    from ledgerq.models import Job, TaskRequest

ACTOR = "command line"

app = typer.Typer(help="Create jobs, look at them, and change what becomes of them.", no_args_is_help=True)


@app.command("list")
def list_jobs(
    status: Annotated[list[JobStatus] | None, typer.Option("--status", "-s", help="Only jobs of this status; may be repeated.")] = None,
    type: Annotated[str | None, typer.Option("--type", callback=typed_text, help="Only jobs of this type.")] = None,  # noqa: A002
    tenant: Tenant = None,
    project: Annotated[str | None, typer.Option("--project", callback=typed_text, help="Only jobs with this label.")] = None,
    source: Annotated[str | None, typer.Option("--source", callback=typed_text, help="Only jobs of this source (its id).")] = None,
    queue: QueueName = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=500)] = 20,
    after: Annotated[str | None, typer.Option("--after", callback=typed_text, help="Continue behind the `next` of the last list.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Jobs, newest first."""
    with open_session(data_dir, as_json=as_json, debug=debug) as session:
        check_queue(session, queue)
        page = session.jobs.job_page(
            status=status or None, type=type, tenant=tenant, project=project, source=source, queue=queue, limit=limit, after=after
        )
        session.output.document(page)
        rows = [(job.id, job.type, job.status, _counts(job), job.tenant, short_time(job.created_at)) for job in page.jobs]
        session.output.table(("job", "type", "status", "tasks", "tenant", "created"), rows, empty="there are no such jobs")
        if page.next:
            session.output.print(f"more: --after {page.next}")


@app.command()
def show(job: JobId, data_dir: DataDir = None, as_json: AsJson = False, debug: Debug = False) -> None:
    """One job: how it stands and why, its failed tasks, and its history."""
    with open_session(data_dir, as_json=as_json, debug=debug) as session:
        session.jobs.get_job_status(job)  # brings the ledger up to date with RQ first
        show_job(session.output, session.jobs, job)


@app.command()
def watch(jobs: JobIds, data_dir: DataDir = None, as_json: AsJson = False, debug: Debug = False) -> int:
    """Show the progress of jobs until they have ended. Exit 0 when all completed, 3 otherwise."""
    with open_session(data_dir, as_json=as_json, debug=debug) as session:
        return _watch(session, [session.jobs.get_job(job) for job in jobs])


@app.command()
def create(
    type: Annotated[str, typer.Argument(metavar="TYPE", callback=typed_text, help="A type with a handler (LEDGERQ_APP).")],  # noqa: A002
    payload: Annotated[str | None, typer.Option("--payload", callback=typed_text, help="What the handler is given, as JSON.")] = None,
    tasks: Annotated[Path | None, typer.Option("--tasks", help='A file of tasks, one a line: {"key": …, "payload": …}.')] = None,
    tenant: ForTenant = "",
    project: Annotated[str | None, typer.Option("--project", callback=typed_text, help="A label to list by.")] = None,
    queue: QueueName = None,
    priority: Annotated[str, typer.Option("--priority", help="low, normal, high or urgent.")] = "normal",
    dedupe_key: Annotated[
        str | None, typer.Option("--dedupe-key", callback=typed_text, help="While an unfinished job has this key, that one stands.")
    ] = None,
    due_at: Annotated[str | None, typer.Option("--due-at", help="Not before this time: ISO 8601 with a zone.")] = None,
    delay: Annotated[str | None, typer.Option("--delay", help="Not before this long from now: 90s, 5m, 1h, 2d.")] = None,
    max_attempts: Annotated[int | None, typer.Option("--max-attempts", help="Answered tries of each task.")] = None,
    timeout: Annotated[str | None, typer.Option("--timeout", help="Of each task: 90s, 5m, 1h.")] = None,
    deadline: Annotated[str | None, typer.Option("--deadline", help="What still waits after this long is failed.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Until it has ended, as `jobs watch` does.")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """Create a job of one of your own types."""
    with open_session(data_dir, as_json=as_json, debug=debug) as session:
        made = session.jobs_with_app.create_job(
            type,
            None if payload is None else _json(payload, "--payload"),
            tasks=None if tasks is None else _read_tasks(tasks),
            tenant=tenant,
            project=project,
            queue=queue,
            priority=priority,
            dedupe_key=dedupe_key,
            due_at=None if due_at is None else _moment(due_at),
            delay=delay,
            max_attempts=max_attempts,
            timeout=timeout,
            deadline=deadline,
        )
        check_pushed(made.degraded, [made.id])
        _tell_created(session.output, made)
        if wait:
            return _watch(session, [made])
        session.output.document({"job": made})
    return ExitCode.OK


@app.command()
def cancel(
    jobs: JobIds,
    reason: Annotated[str | None, typer.Option("--reason", callback=typed_text, help="Kept in the history.")] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> int:
    """Cancel jobs: waiting tasks at once, those being worked on as soon as their workers hear of it."""
    with open_session(data_dir, as_json=as_json, debug=debug) as session:

        def act(job: str) -> str:
            answer = session.jobs.cancel_job(job, reason=reason, actor=ACTOR)
            if answer.disposition != "applied":
                raise WrongState(f"job {job} is {answer.status}: it has ended, so it cannot be cancelled")
            return "cancelled" if answer.status == "cancelled" else "will be cancelled as soon as its workers hear of it"

        return _each(session.output, jobs, act)


@app.command()
def retry(jobs: JobIds, data_dir: DataDir = None, as_json: AsJson = False, debug: Debug = False) -> int:
    """Send the failed and cancelled tasks of finished jobs around again."""
    with open_session(data_dir, as_json=as_json, debug=debug) as session:

        def act(job: str) -> str:
            answer = session.jobs.retry_job(job, actor=ACTOR)
            if answer.disposition != "applied":
                raise WrongState(f"job {job} {_NOT_RETRIED.get(answer.disposition, answer.disposition)}")
            return "goes around again"

        return _each(session.output, jobs, act)


@app.command()
def delete(jobs: JobIds, data_dir: DataDir = None, as_json: AsJson = False, debug: Debug = False) -> int:
    """Remove finished jobs with their tasks and history."""
    with open_session(data_dir, as_json=as_json, debug=debug) as session:

        def act(job: str) -> str:
            session.jobs.delete_job(job, actor=ACTOR)
            return "deleted"

        return _each(session.output, jobs, act)


_NOT_RETRIED: Final = {
    "not_finished": "has not ended yet: cancel it first, or wait",
    "nothing_to_retry": "has nothing to retry: all of it completed",
    "duplicate": "is not retried: an unfinished job holds its dedupe key by now",
}


def _each(output: Output, jobs: Sequence[str], act: Callable[[str], str]) -> int:
    """Do it to every job; one that cannot be had does not keep the others from it. The code is the first problem's."""
    first: LedgerqError | None = None
    results: list[dict[str, object]] = []
    for job in jobs:
        try:
            done = act(job)
        except (InvalidInput, NotFound, WrongState) as error:
            first = first or error
            results.append({"id": job, "applied": False, "error": problem(error)})
            output.complain(str(error))
        else:
            results.append({"id": job, "applied": True, "error": None})
            output.print(f"{job}: {done}")
    output.document({"jobs": results} | ({} if first is None else {"error": problem(first)}))
    return ExitCode.OK if first is None else exit_code_of(first)


def _watch(session: Session, jobs: Sequence[Job]) -> int:
    ended = watch_jobs(session.jobs, [Watched(title=f"{job.type} {job.id}", job=job) for job in jobs])
    session.output.document({"jobs": ended})
    session.output.table(("job", "status", "tasks"), [(job.id, job.status, _counts(job)) for job in ended], empty="")
    return ExitCode.OK if all(job.status == "completed" for job in ended) else ExitCode.SOME_FAILED


def _tell_created(output: Output, made: CreatedJob) -> None:
    stands = "an unfinished job holds this dedupe key: " if made.disposition == "duplicate" else ""
    output.print(f"{stands}{made.id} ({made.status})")
    if made.degraded:
        output.note(f"accepted, and will be pushed later: {made.degraded}")


def _counts(job: Job) -> str:
    failed = f", {job.failed} failed" if job.failed else ""
    return f"{job.done} of {job.total}{failed}"


def _json(text: str, name: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"{name}: not JSON: {error}") from None
    except RecursionError:
        raise InvalidInput(f"{name}: is nested too deeply") from None


def _read_tasks(path: Path) -> Iterator[TaskRequest]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InvalidInput(f"--tasks: cannot read {shown(path)}: {error}") from None
    return (_task(line, f"{shown(path)}, line {number}") for number, line in enumerate(lines, start=1) if line.strip())


def _task(line: str, name: str) -> TaskRequest:
    """The task that a line stands for; what is wrong with it is said with the line's name."""
    from pydantic import ValidationError

    from ledgerq.models import TaskRequest

    value = _json(line, name)
    if not isinstance(value, dict):
        raise InvalidInput(f'{name}: is no object {{"key": …, "payload": …}}')
    try:
        return TaskRequest.model_validate(value)
    except ValidationError as error:
        raise InvalidInput(f"{name}: {describe_validation(error)}") from None


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(f"--due-at: {text!r} is no time; write it like 2031-05-04T09:30:00+02:00") from None
