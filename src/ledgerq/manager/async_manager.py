"""The job manager for async services: the same methods, awaitable.

There is one core, and it is blocking, as RQ is. Each call runs in a thread; only waiting waits on the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from itertools import islice
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

from ledgerq.durations import Duration, seconds
from ledgerq.handlers import Handlers
from ledgerq.lifecycle import TaskStatus
from ledgerq.manager.job_manager import JobManager
from ledgerq.manager.requests import Id
from ledgerq.manager.waiting import Patience
from ledgerq.models import Job, TaskRecord
from ledgerq.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

ITEMS_A_STEP: Final = 100
"""Items that `list_jobs` and `iter_tasks` take from their blocking counterparts in one thread call."""


def _in_thread(
    method: Callable[Concatenate[JobManager, P], R],
) -> Callable[Concatenate[AsyncJobManager, P], Coroutine[Any, Any, R]]:
    async def call(self: AsyncJobManager, *args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.to_thread(method, self.blocking, *args, **kwargs)

    call.__name__, call.__doc__ = method.__name__, method.__doc__
    return call


class AsyncJobManager:
    """Jobs asked for, looked at and steered from a coroutine. Every method is documented at `JobManager`.

    async with AsyncJobManager.from_env() as jobs:
        job = await jobs.create_processing_job(source_id, document_ids)
        await jobs.wait_for(job.id)
    """

    def __init__(self, blocking: JobManager) -> None:
        self.blocking = blocking

    @classmethod
    def from_env(cls) -> Self:
        """See `JobManager.from_env`."""
        return cls(JobManager.from_env())

    @classmethod
    def from_settings(cls, settings: Settings, *, handlers: Handlers | None = None) -> Self:
        """See `JobManager.from_settings`."""
        return cls(JobManager.from_settings(settings, handlers=handlers))

    save_source = _in_thread(JobManager.save_source)
    save_documents = _in_thread(JobManager.save_documents)
    create_job = _in_thread(JobManager.create_job)
    create_jobs = _in_thread(JobManager.create_jobs)
    create_processing_job = _in_thread(JobManager.create_processing_job)
    enqueue_document_processing = _in_thread(JobManager.enqueue_document_processing)
    add_tasks = _in_thread(JobManager.add_tasks)
    seal_job = _in_thread(JobManager.seal_job)

    get_job = _in_thread(JobManager.get_job)
    get_job_status = _in_thread(JobManager.get_job_status)
    job_page = _in_thread(JobManager.job_page)
    job_tasks = _in_thread(JobManager.job_tasks)
    job_history = _in_thread(JobManager.job_history)
    job_as_of = _in_thread(JobManager.job_as_of)
    explain_job = _in_thread(JobManager.explain_job)
    processing_details = _in_thread(JobManager.processing_details)
    queue_stats = _in_thread(JobManager.queue_stats)
    worker_stats = _in_thread(JobManager.worker_stats)

    cancel_job = _in_thread(JobManager.cancel_job)
    retry_job = _in_thread(JobManager.retry_job)
    delete_job = _in_thread(JobManager.delete_job)
    pause_queue = _in_thread(JobManager.pause_queue)
    resume_queue = _in_thread(JobManager.resume_queue)
    save_queue = _in_thread(JobManager.save_queue)
    configure_queue = _in_thread(JobManager.configure_queue)

    update_job = _in_thread(JobManager.update_job)
    update_job_progress = _in_thread(JobManager.update_job_progress)
    complete_job = _in_thread(JobManager.complete_job)
    fail_job = _in_thread(JobManager.fail_job)

    close = _in_thread(JobManager.close)

    async def wait_for(self, job_id: Id, timeout: Duration | None = None) -> Job:  # noqa: ASYNC109 - the job's, not the coroutine's
        """See `JobManager.wait_for`. Cancelling the coroutine ends the wait, and not the job."""
        patience = Patience(time.monotonic, None if timeout is None else seconds(timeout, name="timeout"))
        while True:
            answer = await asyncio.to_thread(patience.ask, lambda: self.blocking.current_job(job_id))
            if isinstance(answer, Job):
                return answer
            await asyncio.sleep(answer)

    async def list_jobs(self, **filters: Any) -> AsyncIterator[Job]:
        """See `JobManager.list_jobs`, which names the filters."""
        jobs = self.blocking.list_jobs(**filters)
        async for job in _through(lambda: _some(jobs)):
            yield job

    async def iter_tasks(self, job_id: Id, *, status: TaskStatus | None = None) -> AsyncIterator[TaskRecord]:
        """See `JobManager.iter_tasks`."""
        tasks = await asyncio.to_thread(self.blocking.iter_tasks, job_id, status=status)
        async for task in _through(lambda: _some(tasks)):
            yield task

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _through(step: Callable[[], Sequence[T]]) -> AsyncIterator[T]:
    while items := await asyncio.to_thread(step):
        for item in items:
            yield item


def _some(items: Iterator[T]) -> list[T]:
    return list(islice(items, ITEMS_A_STEP))
