"""Calls about jobs and their tasks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from pydantic import TypeAdapter

from ledgerq.ids import new_id
from ledgerq.ledger.answers import EventPage, Expired, JobDeleted, Pruned
from ledgerq.ledger.calls import Calls, texts
from ledgerq.ledger.outcome_json import error_json, storable
from ledgerq.lifecycle import JobStatus, TaskStatus
from ledgerq.models import (
    Disposition,
    Event,
    Explanation,
    Job,
    JobChanged,
    JobPage,
    JobRequest,
    JobsChanged,
    JobsCreated,
    Json,
    JsonObject,
    TaskPage,
    TaskRequest,
    TasksAdded,
)
from ledgerq.outcomes import TaskError

_JOBS: Final = TypeAdapter(list[JobRequest])
_TASKS: Final = TypeAdapter(list[TaskRequest])


class JobCalls(Calls):
    """One method per function. All of them may be repeated."""

    def create_jobs(self, jobs: Sequence[JobRequest], *, dispatch: bool = True, actor: str | None = None) -> JobsCreated:
        """Create jobs, at most 1,000 with 5,000 tasks and 4 MiB in all, and dispatch what there is room for.

        The answer names the runs to push. Per job: `applied`, also when it is there already from the same request;
        `conflict` when another request has its id; `duplicate` when another open job has its dedupe key.

        Raises:
            InvalidInput, TooLarge, UnknownQueue: nothing was created; names the field.
            NotFound: a document or source that is named does not exist.
        """
        return self._ask(
            JobsCreated, "create_jobs", jobs=_JOBS.dump_python(list(jobs), mode="json", exclude_none=True), dispatch=dispatch, actor=actor
        )

    def add_tasks(self, job: UUID, tasks: Sequence[TaskRequest], *, dispatch: bool = True) -> TasksAdded:
        """Add tasks to a job that is not sealed; those whose key it has already are not added again."""
        return self._ask(
            TasksAdded, "add_tasks", job=job, tasks=_TASKS.dump_python(list(tasks), mode="json", exclude_none=True), dispatch=dispatch
        )

    def seal_job(self, job: UUID) -> JobChanged:
        """No more tasks will come: the job may end now."""
        return self._ask(JobChanged, "seal_job", job=job)

    def cancel_jobs(self, jobs: Sequence[UUID], *, actor: str, reason: str | None = None) -> JobsChanged:
        """Cancel: waiting tasks at once, those in work as soon as their workers hear of it.

        Nothing more of the jobs starts after the first of the calls that a big one takes; a steward finishes what is left undone.
        """
        while True:
            answer = self._ask(JobsChanged, "cancel_jobs", jobs=texts(jobs), actor=actor, reason=reason)
            if not answer.more:
                return answer

    def retry_jobs(self, jobs: Sequence[UUID], *, actor: str, request_id: UUID | None = None) -> JobsChanged:
        """Send failed and cancelled tasks around again. The same `request_id` again changes nothing more.

        Raises:
            TooLarge: more than 100,000 tasks would be done again; nothing was changed.
        """
        return self._ask(JobsChanged, "retry_jobs", jobs=texts(jobs), actor=actor, request=request_id or new_id())

    def update_job(
        self, job: UUID, *, status: JobStatus | None = None, details: JsonObject | None = None, progress: Json = None
    ) -> JobChanged:
        """Report on an external job: `details` are merged, `progress` replaces the one before."""
        cleaned = None if details is None else storable(details)
        return self._ask(JobChanged, "update_job", job=job, status=status, details=cleaned, progress=storable(progress))

    def complete_job(self, job: UUID, *, result: Json = None) -> JobChanged:
        """End an external job well."""
        return self._ask(JobChanged, "complete_job", job=job, result=storable(result))

    def fail_job(self, job: UUID, *, error: TaskError | str) -> JobChanged:
        """End an external job badly."""
        return self._ask(JobChanged, "fail_job", job=job, error=error_json(error))

    def expire_jobs(self, *, limit: int = 100, tasks: int | None = None) -> Expired:
        """Fail what still waits in jobs past their deadline, and go on with big cancels: at most so many jobs and (10,000) tasks."""
        return self._ask(Expired, "expire_jobs", limit=limit, tasks=tasks)

    def job_get(self, job: UUID) -> Job | None:
        """One job, or None."""
        return self._find(Job, "job_get", job=job)

    def job_as_of(self, job: UUID, at: datetime) -> Job | None:
        """The job as it was at that moment, from its columns and events; None before it was created."""
        return self._find(Job, "job_as_of", job=job, at=at)

    def job_list(
        self,
        *,
        tenant: str | None = None,
        owner: UUID | None = None,
        project: str | None = None,
        source: UUID | None = None,
        type: str | None = None,  # noqa: A002 - the word of the domain
        status: Sequence[JobStatus] | None = None,
        queue: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        after: str | None = None,
        limit: int = 50,
    ) -> JobPage:
        """Jobs, newest first, at most 500. `after` continues behind the `next` of the page before."""
        return self._ask(
            JobPage,
            "job_list",
            tenant=tenant,
            owner=owner,
            project=project,
            source=source,
            type=type,
            status=None if status is None else [entry.value for entry in status],
            queue=queue,
            created_after=created_after,
            created_before=created_before,
            after=after,
            limit=limit,
        )

    def job_tasks(self, job: UUID, *, status: TaskStatus | None = None, after: int | None = None, limit: int = 100) -> TaskPage:
        """Tasks of a job in the order they were added, at most 1,000."""
        return self._ask(TaskPage, "job_tasks", job=job, status=status, after=after, limit=limit)

    def job_history(self, job: UUID) -> tuple[Event, ...]:
        """What happened to the job, oldest first: the first 10,000 entries, which is all there is of most jobs."""
        return self.job_history_page(job).events

    def job_history_page(self, job: UUID, *, after: str | None = None, limit: int = 10_000) -> EventPage:
        """The same page by page, at most 10,000 entries each."""
        return self._ask(EventPage, "job_history", job=job, after=after, limit=limit)

    def explain(self, job: UUID) -> Explanation | None:
        """Why the job waits, or how it ended; None for an unknown one."""
        return self._find(Explanation, "explain", job=job)

    def delete_job(self, job: UUID, *, actor: str) -> Disposition:
        """Remove a finished job and its history: `applied`, `not_finished` or `not_found`. A big one takes several calls."""
        while True:
            answer = self._ask(JobDeleted, "delete_job", job=job, actor=actor)
            if not answer.more:
                return answer.disposition

    def prune(self, *, finished_before_s: float, limit: int = 1_000) -> Pruned:
        """Remove a batch of what finished longer ago than that. Unfinished work is never touched."""
        return self._ask(Pruned, "prune", finished_before_s=finished_before_s, limit=limit)
