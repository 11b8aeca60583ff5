"""The async face: the same methods over the same core."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from ledgerq.errors import InvalidInput
from ledgerq.lifecycle import JobStatus
from ledgerq.manager import AsyncJobManager, JobManager
from tests.support.lab import Lab


def public(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")}


def test_it_has_every_method_of_the_blocking_one() -> None:
    assert public(JobManager) - public(AsyncJobManager) == {"current_job"}


def test_a_job_from_a_coroutine(lab: Lab) -> None:
    async def story() -> None:
        jobs = AsyncJobManager(lab.jobs)
        crawl = await jobs.create_job("crawl", tenant="t")
        waiting = asyncio.create_task(jobs.wait_for(crawl.id, "30s"))
        await jobs.update_job_progress(crawl.id, progress={"pages": 1})
        assert [job.id async for job in jobs.list_jobs(tenant="t")] == [crawl.id]
        await jobs.complete_job(crawl.id, 7)
        assert (await waiting).result == 7
        with pytest.raises(InvalidInput):
            await jobs.create_job("Bad Type")

    asyncio.run(story())


def test_many_items_are_taken_step_by_step(lab: Lab) -> None:
    async def story() -> list[str]:
        jobs = AsyncJobManager(lab.jobs)
        job = await jobs.create_job("noop", tasks=[{"key": f"{n:03}"} for n in range(230)])
        return [task.key async for task in jobs.iter_tasks(job.id)]

    assert asyncio.run(story()) == [f"{n:03}" for n in range(230)]


def test_cancelling_a_wait_leaves_the_job_alone(lab: Lab) -> None:
    async def story() -> JobStatus:
        jobs = AsyncJobManager(lab.jobs)
        job = await jobs.create_job("noop")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(jobs.wait_for(job.id), 0.1)
        return await jobs.get_job_status(job.id)

    assert asyncio.run(story()) is JobStatus.QUEUED
