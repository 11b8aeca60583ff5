"""Knowing how work stands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Final, TypeVar
from uuid import UUID

from ledgerq.durations import Duration, seconds
from ledgerq.errors import InvalidInput
from ledgerq.ledger.answers import WorkerStats
from ledgerq.lifecycle import JobStatus, TaskStatus
from ledgerq.manager.base import ManagerBase
from ledgerq.manager.requests import Id, as_uuid
from ledgerq.models import Event, Explanation, Job, JobPage, ProcessingJobDetails, QueueStats, TaskPage, TaskRecord

JOBS_A_PAGE: Final = 100
TASKS_A_PAGE: Final = 1_000
DETAILED_DOCUMENTS: Final = 1_000
"""Documents that `processing_details` lists."""

T = TypeVar("T")


class Reading(ManagerBase):
    """Reads jobs. What is said is the ledger's word; readers of one job reconcile it with RQ on the way when it looks stale."""

    def get_job_status(self, job_id: Id) -> JobStatus:
        """Where the job is now.

        When a run of it has not started long after it was pushed, or the ledger has not heard of it for two heartbeats, RQ is
        asked and what can be decided is decided before answering. A Redis that is away only means the ledger's word as it is.

        Raises:
            NotFound: there is no such job.
        """
        return self.current_job(job_id).status

    def current_job(self, job_id: Id) -> Job:
        """The whole job, brought up to date in the same way.

        Raises:
            NotFound: there is no such job.
        """
        job = self.get_job(job_id)
        if self._reconciler is None or job.status.is_terminal or job.external:
            return job
        changed = self._reconciler.sync_runs(job.run_ids).applied
        return self.get_job(job.id) if changed else job

    def wait_for(self, job_id: Id, timeout: Duration | None = None) -> Job:
        """The job once it is finished, whatever came of it.

        Raises:
            NotFound: there is no such job.
            TimeoutError: it is not finished after `timeout`; it goes on all the same.
            LedgerUnavailable: the ledger was away for a minute.
        """
        timeout_s = None if timeout is None else seconds(timeout, name="timeout")
        return self._waiter.until_finished(lambda: self.current_job(job_id), timeout_s)

    def job_page(
        self,
        *,
        tenant: str | None = None,
        owner: Id | None = None,
        project: str | None = None,
        source: Id | None = None,
        type: str | None = None,  # noqa: A002 - the word of the domain
        status: Sequence[JobStatus] | JobStatus | None = None,
        queue: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        after: str | None = None,
        limit: int = JOBS_A_PAGE,
    ) -> JobPage:
        """At most `limit` (500) jobs, newest first; `page.next` continues behind them.

        Raises:
            InvalidInput: names the filter and the value.
        """
        return self._store.job_list(
            tenant=tenant,
            owner=None if owner is None else as_uuid(owner, "owner"),
            project=project,
            source=None if source is None else as_uuid(source, "source"),
            type=type,
            status=_statuses(status),
            queue=queue,
            created_after=created_after,
            created_before=created_before,
            after=after,
            limit=limit,
        )

    def list_jobs(
        self,
        *,
        tenant: str | None = None,
        owner: Id | None = None,
        project: str | None = None,
        source: Id | None = None,
        type: str | None = None,  # noqa: A002
        status: Sequence[JobStatus] | JobStatus | None = None,
        queue: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> Iterator[Job]:
        """All jobs that fit, newest first, read page by page as they are taken."""

        def page(after: str | None) -> tuple[Sequence[Job], str | None]:
            found = self.job_page(
                tenant=tenant,
                owner=owner,
                project=project,
                source=source,
                type=type,
                status=status,
                queue=queue,
                created_after=created_after,
                created_before=created_before,
                after=after,
            )
            return found.jobs, found.next

        return _through_pages(page)

    def job_tasks(self, job_id: Id, *, status: TaskStatus | None = None, after: int | None = None, limit: int = TASKS_A_PAGE) -> TaskPage:
        """At most `limit` (1,000) tasks in the order they were added; `page.next` continues behind them.

        Raises:
            NotFound: there is no such job.
        """
        job = self.get_job(job_id)
        return self._store.job_tasks(job.id, status=status, after=after, limit=limit)

    def iter_tasks(self, job_id: Id, *, status: TaskStatus | None = None) -> Iterator[TaskRecord]:
        """All tasks of the job, read page by page as they are taken.

        Raises:
            NotFound: there is no such job.
        """
        job = self.get_job(job_id).id

        def page(after: int | None) -> tuple[Sequence[TaskRecord], int | None]:
            found = self._store.job_tasks(job, status=status, after=after, limit=TASKS_A_PAGE)
            return found.tasks, found.next

        return _through_pages(page)

    def job_history(self, job_id: Id) -> tuple[Event, ...]:
        """What happened to the job, oldest first.

        Raises:
            NotFound: there is no such job.
        """
        return self._store.job_history(self.get_job(job_id).id)

    def job_as_of(self, job_id: Id, at: datetime) -> Job | None:
        """The job as it was at that moment; None before it was created, and where there is no such job.

        Raises:
            InvalidInput: the time has no zone, or is no time.
        """
        if not isinstance(at, datetime):  # pyright: ignore[reportUnnecessaryIsInstance] - callers err
            raise InvalidInput(f"at: {at!r} is no datetime")
        if at.tzinfo is None:
            raise InvalidInput(f"at: {at.isoformat()} has no time zone")
        return self._store.job_as_of(as_uuid(job_id, "job_id"), at)

    def explain_job(self, job_id: Id) -> Explanation:
        """One sentence: why the job waits or how it ended, and what to do next.

        Raises:
            NotFound: there is no such job.
        """
        job = as_uuid(job_id, "job_id")
        explanation = self._store.explain(job)
        if explanation is None:
            raise self._unknown(job)
        return explanation

    def processing_details(self, job_id: Id) -> ProcessingJobDetails:
        """Counts of a processing job, with its first 1,000 documents. Reads all its tasks, page by page.

        Raises:
            NotFound: there is no such job.
        """
        job = self.get_job(job_id)
        documents: list[UUID] = []
        chunks = 0
        for task in self.iter_tasks(job.id):
            chunks += _chunks(task)
            if task.document is not None and len(documents) < DETAILED_DOCUMENTS:
                documents.append(task.document)
        return ProcessingJobDetails(
            source_id=job.source,
            document_ids=tuple(documents),
            chunk_count=chunks,
            processed_count=job.completed,
            error_count=job.failed,
        )

    def queue_stats(self, queue: str | None = None) -> tuple[QueueStats, ...]:
        """Counts of one queue, or of all.

        Raises:
            UnknownQueue: there is none of that name.
        """
        return self._store.queue_stats(queue)

    def worker_stats(self) -> tuple[WorkerStats, ...]:
        """Workers that hold runs now, as the ledger knows them."""
        return self._store.worker_stats()


C = TypeVar("C", str, int)


def _statuses(wanted: Sequence[JobStatus] | JobStatus | None) -> list[JobStatus] | None:
    if wanted is None:
        return None
    try:
        return [JobStatus(one) for one in ((wanted,) if isinstance(wanted, str) else wanted)]
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"status: {wanted!r} is none of {', '.join(JobStatus)}") from error


def _through_pages(page: Callable[[C | None], tuple[Sequence[T], C | None]]) -> Iterator[T]:
    after: C | None = None
    while True:
        items, after = page(after)
        yield from items
        if after is None:
            return


def _chunks(task: TaskRecord) -> int:
    """What the handler of documents reports as its result: an object with a count of chunks."""
    counted = task.result.get("chunks") if isinstance(task.result, dict) else None
    return counted if isinstance(counted, int) else 0
