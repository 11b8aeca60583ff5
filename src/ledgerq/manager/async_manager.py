"""The job manager for async services: the same methods, awaitable.

There is one core, and it is blocking, as RQ is. Each call runs in one of a few threads; only waiting waits on the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from datetime import datetime
from functools import partial, wraps
from itertools import islice
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

from ledgerq.apps import load_app
from ledgerq.dispatch.connection import RedisClient
from ledgerq.durations import Duration, seconds
from ledgerq.handlers import Handlers
from ledgerq.ledger import LedgerStore
from ledgerq.lifecycle import JobStatus, TaskStatus
from ledgerq.manager.job_manager import JobManager
from ledgerq.manager.lanes import Lane, ended
from ledgerq.manager.opening import HasLedger, settings_from_env
from ledgerq.manager.requests import Id
from ledgerq.manager.waiting import Patience
from ledgerq.models import Job, TaskRecord
from ledgerq.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

CALLS_AT_ONCE: Final = 4
"""As many as the ledger's connections are where no settings say another number (`LEDGERQ_LEDGER_POOL_SIZE`)."""
ITEMS_A_STEP: Final = 100
"""Items that `list_jobs` and `iter_tasks` take from their blocking counterparts in one call."""
ANSWER_S: Final = 1.0
"""How much later than its timeout a wait may end, for an answer that is under way: with a timeout of 0 it still asks once."""
CLOSING_S: Final = 5.0
"""How long `close` waits for calls that have begun. A push to Redis takes 2.5 s at most."""


def _in_thread(
    method: Callable[Concatenate[JobManager, P], R],
) -> Callable[Concatenate[AsyncJobManager, P], Coroutine[Any, Any, R]]:
    @wraps(method)
    async def call(self: AsyncJobManager, *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._calls.call(partial(method, self._blocking, *args, **kwargs))  # pyright: ignore[reportPrivateUsage] - this is its method

    call.__module__, call.__qualname__ = __name__, f"AsyncJobManager.{method.__name__}"
    return call


class AsyncJobManager:
    """Jobs asked for, looked at and steered from a coroutine: `JobManager`'s methods, awaitable.

        async with AsyncJobManager.from_env() as jobs:
            job = await jobs.create_processing_job(source_id, document_ids)
            await jobs.wait_for(job.id)

    Any number of coroutines may share one, in any number of event loops, and calls beyond the ledger's connections wait their
    turn. Cancelling an await returns at once: a call that had not begun never will; one that had may take effect or not, as when
    a reply is lost.
    """

    def __init__(
        self,
        data_service: HasLedger | LedgerStore,
        redis_client: RedisClient,
        *,
        handlers: Handlers | None = None,
        settings: Settings | None = None,
    ) -> None:
        """Build one on what a service has already. Nothing is connected before the first call; `close` it.

        Args:
            data_service: has the ledger (`DataService`). It stays yours: closing the manager does not close it.
            redis_client: blocking or not, it only says where Redis is, and who we are there. It stays yours and is never used: RQ's
                commands need a client that neither decodes replies nor tries twice, so the manager makes one to the same server.
            handlers: the registry whose types are known and whose defaults apply; without it every type is let through.
            settings: as for `JobManager`; `ledger_pool_size` calls are made at once (4 without settings).

        Raises:
            InvalidInput: one of them is something else; says what to give.
        """
        blocking = JobManager(data_service, redis_client, handlers=handlers, settings=settings)
        self._stand_on(blocking, CALLS_AT_ONCE if settings is None else settings.ledger_pool_size, is_ours=True)

    @classmethod
    def from_env(cls) -> Self:
        """Open one from environment variables (see `Settings`); `LEDGERQ_APP`, when it is set, names the known types.

        Raises:
            ConfigurationError: a variable cannot be read, there is no ledger named, or the app cannot be loaded.
        """
        settings = settings_from_env()
        return cls.from_settings(settings, handlers=load_app(settings.app) if settings.app else None)

    @classmethod
    def from_settings(cls, settings: Settings, *, handlers: Handlers | None = None) -> Self:
        """Open one on the services that the settings name. Nothing is connected before the first call; `close` it.

        Raises:
            ConfigurationError: the settings name no ledger.
        """
        manager = cls.__new__(cls)
        manager._stand_on(JobManager.from_settings(settings, handlers=handlers), settings.ledger_pool_size, is_ours=True)  # noqa: SLF001 - cls's
        return manager

    @classmethod
    def from_blocking(cls, manager: JobManager, *, calls_at_once: int = CALLS_AT_ONCE) -> Self:
        """The awaitable face of a manager that stays yours: closing this one does not close it."""
        made = cls.__new__(cls)
        made._stand_on(manager, calls_at_once, is_ours=False)  # noqa: SLF001 - cls's
        return made

    def _stand_on(self, blocking: JobManager, calls_at_once: int, *, is_ours: bool) -> None:
        self._blocking = blocking
        self._is_ours = is_ours
        self._calls = Lane(type(self).__name__, threads=calls_at_once)
        # Those who wait ask in a lane of their own: hundreds of them do not delay a call, also while the ledger is away.
        self._asks = Lane(type(self).__name__, threads=1)

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
    current_job = _in_thread(JobManager.current_job)
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

    async def wait_for(self, job_id: Id, timeout: Duration | None = None) -> Job:  # noqa: ASYNC109 - the job's, not the coroutine's
        """The job once it is finished, whatever came of it. Cancelling the coroutine ends the wait, and not the job.

        Raises:
            NotFound: there is no such job.
            TimeoutError: it is not finished after `timeout`; it goes on all the same.
            LedgerUnavailable: the ledger was away for a minute.
        """
        patience = Patience(time.monotonic, None if timeout is None else seconds(timeout, name="timeout"))
        read = partial(self._blocking.current_job, job_id)
        while True:
            answer = await self._ask(patience, read)
            if isinstance(answer, Job):
                return answer
            await asyncio.sleep(answer)

    async def list_jobs(
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
    ) -> AsyncIterator[Job]:
        """All jobs that fit, newest first, read page by page as they are taken."""
        jobs = self._blocking.list_jobs(
            tenant=tenant,
            owner=owner,
            project=project,
            source=source,
            type=type,
            status=status,
            queue=queue,
            created_after=created_after,
            created_before=created_before,
        )
        async for job in self._through(jobs):
            yield job

    async def iter_tasks(self, job_id: Id, *, status: TaskStatus | None = None) -> AsyncIterator[TaskRecord]:
        """All tasks of the job, read page by page as they are taken.

        Raises:
            NotFound: there is no such job.
        """
        tasks = await self._calls.call(partial(self._blocking.iter_tasks, job_id, status=status))
        async for task in self._through(tasks):
            yield task

    async def close(self) -> None:
        """Close the connections that the manager opened itself. Calls that begin later raise `WrongState`.

        Calls that have begun are waited for, 5 s at most; those that still wait their turn raise `WrongState`.
        """
        begun = [*self._calls.close(), *self._asks.close()]
        try:
            await ended(begun, patience_s=CLOSING_S)
        finally:
            if self._is_ours:
                self._blocking.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _ask(self, patience: Patience, read: Callable[[], Job]) -> Job | float:
        """One question of a wait. Its timeout holds, but for a moment, also while the ledger is away and many wait."""
        left_s = patience.left_s
        cut = asyncio.timeout(None if left_s is None else max(left_s, 0) + ANSWER_S)
        try:
            async with cut:
                return await self._asks.call(partial(patience.ask, read))
        except TimeoutError:
            if cut.expired():
                raise patience.late() from None
            raise

    async def _through(self, items: Iterator[T]) -> AsyncIterator[T]:
        while some := await self._calls.call(lambda: list(islice(items, ITEMS_A_STEP))):
            for item in some:
                yield item
