"""The async face on real servers: the same core, shared by any number of coroutines and loops."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest
import redis
from structlog.contextvars import bound_contextvars

from ledgerq.errors import InvalidInput, NotFound, WrongState
from ledgerq.lifecycle import JobStatus
from ledgerq.local.valkey import ValkeyServer
from ledgerq.logs import FIELDS
from ledgerq.manager import AsyncJobManager, async_manager
from tests.manager.test_lanes import Work, forked
from tests.support.databases import Database
from tests.support.lab import Lab, laboratory

THREADS = 5
"""The ledger's connections, and one for those who wait for a job."""


@pytest.fixture(scope="module")
def shared(module_database: Database, valkey: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One laboratory for all tests here: each has jobs of its own."""
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    with laboratory(module_database, valkey.url, tmp_path_factory.mktemp("async")) as lab:
        yield lab


@pytest.fixture
def jobs(shared: Lab) -> Iterator[AsyncJobManager]:
    manager = AsyncJobManager.from_settings(shared.settings)
    yield manager
    asyncio.run(manager.close())


def threads_of_ours() -> int:
    return sum(thread.name.startswith("AsyncJobManager") for thread in threading.enumerate())


def test_a_job_from_a_coroutine(jobs: AsyncJobManager) -> None:
    async def story() -> None:
        crawl = await jobs.create_job("crawl", tenant="t")
        waiting = asyncio.create_task(jobs.wait_for(crawl.id, "30s"))
        await jobs.update_job_progress(crawl.id, progress={"pages": 1})
        assert [job.id async for job in jobs.list_jobs(tenant="t")] == [crawl.id]
        await jobs.complete_job(crawl.id, 7)
        assert (await waiting).result == 7
        with pytest.raises(InvalidInput):
            await jobs.create_job("Bad Type")

    asyncio.run(story())


def test_many_items_are_taken_step_by_step(jobs: AsyncJobManager) -> None:
    async def story() -> list[str]:
        job = await jobs.create_job("noop", tasks=[{"key": f"{n:03}"} for n in range(230)])
        return [task.key async for task in jobs.iter_tasks(job.id)]

    assert asyncio.run(story()) == [f"{n:03}" for n in range(230)]


def test_five_hundred_coroutines_at_once(jobs: AsyncJobManager) -> None:
    ids = [uuid4() for _ in range(500)]
    seen: list[int] = []

    async def one(job: UUID) -> JobStatus:
        await jobs.create_job("crawl", id=job)
        seen.append(threads_of_ours())
        return await jobs.get_job_status(job)

    async def story() -> list[JobStatus]:
        return await asyncio.gather(*map(one, ids))

    assert asyncio.run(story()) == [JobStatus.PENDING] * 500
    assert max(seen) <= THREADS


def test_two_hundred_that_wait_are_in_nobodys_way(jobs: AsyncJobManager) -> None:
    async def story() -> None:
        crawl = await jobs.create_job("crawl")
        waiting = [asyncio.create_task(jobs.wait_for(crawl.id, "60s")) for _ in range(200)]
        other = [await jobs.get_job_status(crawl.id) for _ in range(20)]
        assert other == [JobStatus.PENDING] * 20
        assert not any(task.done() for task in waiting)
        assert threads_of_ours() <= THREADS
        await jobs.complete_job(crawl.id)
        assert {job.status for job in await asyncio.gather(*waiting)} == {JobStatus.COMPLETED}

    asyncio.run(story())


def test_while_all_threads_of_those_who_wait_are_held_up_calls_go_on(jobs: AsyncJobManager, monkeypatch: pytest.MonkeyPatch) -> None:
    held_up = Work()
    monkeypatch.setattr(jobs._blocking, "current_job", lambda _: held_up())

    async def story() -> None:
        crawl = await jobs.create_job("crawl")
        waiting = [asyncio.create_task(jobs.wait_for(crawl.id)) for _ in range(20)]
        await held_up.has_begun()
        assert (await jobs.get_job(crawl.id)).id == crawl.id
        with pytest.raises(TimeoutError, match="the ledger did not say in 0 s"):
            await jobs.wait_for(crawl.id, 0)
        for task in waiting:
            task.cancel()
        held_up.may_end.set()

    monkeypatch.setattr(async_manager, "ANSWER_S", 0.01)
    asyncio.run(story())


def test_a_wait_gives_up_after_its_timeout_or_when_it_is_cancelled_and_the_job_goes_on(jobs: AsyncJobManager) -> None:
    async def story() -> None:
        job = await jobs.create_job("crawl")
        with pytest.raises(TimeoutError, match=f"job {job.id} is still pending after 0 s"):
            await jobs.wait_for(job.id, 0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(jobs.wait_for(job.id), 0.1)
        with pytest.raises(NotFound):
            await jobs.wait_for(uuid4())
        assert await jobs.get_job_status(job.id) is JobStatus.PENDING

    asyncio.run(story())


def test_a_creation_that_was_cancelled_may_have_taken_effect_and_is_asked_for_again(jobs: AsyncJobManager) -> None:
    """Cancelled at any moment: the same request again is the same job."""

    async def story() -> None:
        for steps in range(12):
            job = uuid4()
            creating = asyncio.create_task(jobs.create_job("noop", id=job))
            for _ in range(steps):
                await asyncio.sleep(0)
            creating.cancel()
            await asyncio.wait([creating])  # cancelled, or done already
            created = await jobs.create_job("noop", id=job)
            assert (created.id, created.total) == (job, 1)

    asyncio.run(story())


def test_one_manager_serves_loops_after_each_other_and_beside_each_other(jobs: AsyncJobManager) -> None:
    async def story() -> set[JobStatus]:
        crawls = await asyncio.gather(*(jobs.create_job("crawl") for _ in range(10)))
        return {await jobs.get_job_status(crawl.id) for crawl in crawls}

    assert asyncio.run(story()) == {JobStatus.PENDING}
    with ThreadPoolExecutor(2) as threads:
        assert [run.result(60) for run in [threads.submit(asyncio.run, story()) for _ in range(2)]] == [{JobStatus.PENDING}] * 2
    assert threads_of_ours() <= THREADS


def test_a_loop_that_ends_in_the_middle_of_calls_leaves_the_manager_usable(jobs: AsyncJobManager) -> None:
    async def left_behind() -> UUID:
        crawl = await jobs.create_job("crawl")
        calls = [asyncio.create_task(jobs.get_job_status(crawl.id)) for _ in range(50)]
        await asyncio.wait([*calls, asyncio.create_task(jobs.wait_for(crawl.id))], return_when=asyncio.FIRST_COMPLETED)
        return crawl.id

    crawl = asyncio.run(left_behind())
    assert asyncio.run(jobs.get_job(crawl)).id == crawl


def test_a_child_of_a_process_that_used_it_may_use_it(jobs: AsyncJobManager) -> None:
    crawl = asyncio.run(jobs.create_job("crawl"))
    child = forked(lambda: asyncio.run(jobs.get_job_status(crawl.id)) is JobStatus.PENDING)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert asyncio.run(jobs.get_job_status(crawl.id)) is JobStatus.PENDING


def test_what_the_caller_bound_is_in_the_log(jobs: AsyncJobManager, caplog: pytest.LogCaptureFixture) -> None:
    async def asked_by(request: str) -> None:
        with bound_contextvars(request=request):
            crawl = await jobs.create_job("crawl")
            await jobs.complete_job(crawl.id)

    async def story() -> None:
        await asyncio.gather(asked_by("first"), asked_by("second"))

    with caplog.at_level(logging.INFO, logger="ledgerq.manager"):
        asyncio.run(story())
    ends = [getattr(record, FIELDS) for record in caplog.records if "external job ended" in record.getMessage()]
    assert sorted(said["request"] for said in ends) == ["first", "second"]


CALLS: list[Callable[[AsyncJobManager], Awaitable[object]]] = [
    lambda jobs: jobs.create_job("noop"),
    lambda jobs: jobs.get_job_status(uuid4()),
    lambda jobs: jobs.wait_for(uuid4()),
    lambda jobs: anext(jobs.list_jobs()),
    lambda jobs: anext(jobs.iter_tasks(uuid4())),
    lambda jobs: jobs.save_queue("another"),
]


@pytest.mark.parametrize("call", CALLS)
def test_a_closed_manager_says_so(shared: Lab, call: Callable[[AsyncJobManager], Awaitable[object]]) -> None:
    async def story() -> None:
        async with AsyncJobManager.from_settings(shared.settings) as jobs:
            await jobs.queue_stats()
        with pytest.raises(WrongState, match="this AsyncJobManager was closed"):
            await call(jobs)
        await jobs.close()

    asyncio.run(story())


def test_closing_ends_those_who_wait_and_lets_a_call_finish(shared: Lab) -> None:
    async def story() -> None:
        jobs = AsyncJobManager.from_settings(shared.settings)
        crawl = await jobs.create_job("crawl")
        waiting = [asyncio.create_task(jobs.wait_for(crawl.id)) for _ in range(5)]
        work = Work()
        finishing = asyncio.create_task(jobs._calls.call(work))
        await work.has_begun()
        closing = asyncio.create_task(jobs.close())
        with pytest.raises(WrongState):
            await asyncio.gather(*waiting)
        assert not closing.done()
        work.may_end.set()
        await closing
        assert await finishing == "done"
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(story())


@asynccontextmanager
async def held_up(jobs: AsyncJobManager) -> AsyncIterator[Work]:
    """A call of the manager goes on inside."""
    work = Work()
    call = asyncio.create_task(jobs._calls.call(work))
    await work.has_begun()
    try:
        yield work
    finally:
        work.may_end.set()
        await call


def test_leaving_it_closes_it_also_when_the_leaving_is_cancelled(shared: Lab) -> None:
    jobs = AsyncJobManager.from_settings(shared.settings)
    entered = asyncio.Event()

    async def service() -> None:
        async with jobs:
            entered.set()
            await asyncio.Event().wait()

    async def story() -> None:
        task = asyncio.create_task(service())
        await entered.wait()
        async with held_up(jobs):
            task.cancel()  # the service ends, and its manager waits for the call
            await asyncio.sleep(0)
            assert jobs._calls._closed
            assert not jobs._blocking._closed
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert jobs._blocking._closed

    asyncio.run(story())


def test_closing_does_not_wait_for_ever(shared: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_manager, "CLOSING_S", 0.05)

    async def story() -> None:
        jobs = AsyncJobManager.from_settings(shared.settings)
        async with held_up(jobs) as work:
            await jobs.close()
            assert not work.done.is_set()

    asyncio.run(story())
