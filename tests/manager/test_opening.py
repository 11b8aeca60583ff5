"""A manager on what a service has already: its data service, and its client of Redis."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import redis
import redis.asyncio
from supabase import create_client

from ledgerq import AsyncJobManager, DataService, DocumentRequest, Handlers, JobManager
from ledgerq.errors import InvalidInput, WrongState
from ledgerq.lifecycle import JobStatus
from ledgerq.settings import Settings
from tests.support.lab import Lab
from tests.support.waiting import eventually

NOWHERE = Settings.model_validate({"database_url": "postgresql://nobody@127.0.0.1:1/none", "redis_url": "redis://127.0.0.1:1/0"})
CLIENTS: list[Callable[[str], Any]] = [
    lambda url: redis.Redis.from_url(url, decode_responses=True),
    lambda url: redis.asyncio.Redis.from_url(url, decode_responses=True),
]
FACES: list[Any] = [JobManager, AsyncJobManager]


@pytest.mark.parametrize("client", CLIENTS)
def test_the_blocking_face(lab: Lab, client: Callable[[str], Any]) -> None:
    data, mine = DataService(lab.store), client(lab.redis_url)
    source = uuid4()
    data.save_source(source, tenant="acme")
    documents = data.save_documents([DocumentRequest.inline("note:1", "text")], source=source, tenant="acme")
    with JobManager(data_service=data, redis_client=mine, settings=lab.settings) as jobs:
        job = jobs.create_processing_job(source_id=source, document_ids=documents)
        assert job.degraded is None
        assert jobs.get_job_status(job.id) is JobStatus.QUEUED
    with pytest.raises(WrongState, match="this JobManager was closed"):
        jobs.get_job_status(job.id)
    assert lab.redis.llen("rq:queue:processing") == 1
    assert data.get_document(documents[0]).uri == "note:1", "the data service stays open"


@pytest.mark.parametrize("client", CLIENTS)
def test_the_awaitable_face(lab: Lab, client: Callable[[str], Any]) -> None:
    data = DataService(lab.store)

    async def story() -> None:
        mine = client(lab.redis_url)
        jobs = AsyncJobManager(data_service=data, redis_client=mine)
        source = await jobs.save_source(uuid4())
        documents = await jobs.save_documents([DocumentRequest.inline("note:1", "text")], source=source)
        job = await jobs.create_processing_job(source_id=source, document_ids=documents)
        assert job.degraded is None
        assert await jobs.get_job_status(job.id) is JobStatus.QUEUED
        await jobs.close()
        with pytest.raises(WrongState, match="this AsyncJobManager was closed"):
            await jobs.get_job_status(job.id)
        answer = mine.ping()
        assert await answer if isinstance(mine, redis.asyncio.Redis) else answer, "the caller's client stays open"
        await (mine.aclose() if isinstance(mine, redis.asyncio.Redis) else asyncio.to_thread(mine.close))
        assert data.get_document(documents[0]).uri == "note:1", "the data service stays open"

    asyncio.run(story())


def test_the_connection_it_made_itself_is_closed_with_it(lab: Lab) -> None:
    mine = redis.Redis.from_url(lab.redis_url, client_name=f"service-{uuid4().hex}")

    def connections() -> int:
        return sum(client["name"] == mine.connection_pool.connection_kwargs["client_name"] for client in lab.redis.client_list())

    with mine, JobManager(DataService(lab.store), mine) as jobs:
        jobs.create_job("noop")
        assert connections() == 1, "the caller's client has not connected at all"
        jobs.close()
        eventually(lambda: connections() == 0, what="its connection is gone")


@pytest.mark.parametrize("face", FACES)
def test_settings_and_handlers_are_used_when_they_are_given(lab: Lab, face: Any) -> None:
    lab.jobs.save_queue("other")
    handlers = Handlers()
    handlers.handler("known", max_attempts=9)(lambda task: None)
    settings = lab.settings.model_copy(update={"queue": "other", "ledger_pool_size": 2})
    jobs = face(DataService(lab.store), redis.Redis.from_url(lab.redis_url), handlers=handlers, settings=settings)
    if isinstance(jobs, AsyncJobManager):
        assert jobs._calls._threads == 2
        job = asyncio.run(jobs.create_job("known"))
        asyncio.run(jobs.close())
    else:
        job = jobs.create_job("known")
        jobs.close()
    assert (job.queue, job.max_attempts) == ("other", 9)


def test_the_awaitable_face_of_a_manager_leaves_it_open(lab: Lab) -> None:
    async def story() -> None:
        async with AsyncJobManager.from_blocking(lab.jobs) as jobs:
            await jobs.queue_stats()

    asyncio.run(story())
    assert lab.jobs.queue_stats()


@pytest.mark.parametrize("face", FACES)
def test_nothing_is_connected_before_the_first_call(face: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        redis_url = f"redis://127.0.0.1:{port}/0"
        where = Settings.model_validate({"database_url": f"postgresql://nobody@127.0.0.1:{port}/none", "redis_url": redis_url})
        face(DataService.from_settings(where), redis.Redis.from_url(redis_url))
        face(DataService.from_settings(where).store, redis.asyncio.Redis.from_url(redis_url))
        face.from_settings(where)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody waits to be let in
            listener.accept()


class Theirs:
    """A data service of a user that keeps rows by itself."""

    def __init__(self, store: object) -> None:
        self.store = store


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(
    "data",
    [None, "postgresql://…", create_client("https://x.supabase.co", "sb_secret_x"), Theirs(store=None)],
    ids=lambda it: type(it).__name__,
)
def test_what_has_no_ledger_is_refused(face: Any, data: object) -> None:
    with pytest.raises(InvalidInput, match=f"data_service: {type(data).__name__} has no ledger; give ledgerq.DataService.from_env"):
        face(data_service=data, redis_client=redis.Redis())


@pytest.mark.parametrize("face", FACES)
def test_a_data_service_of_ones_own_that_has_the_ledger_will_do(face: Any) -> None:
    assert face(Theirs(DataService.from_settings(NOWHERE).store), redis.Redis())


@pytest.mark.parametrize("face", FACES)
def test_what_is_no_client_is_refused(face: Any) -> None:
    with pytest.raises(InvalidInput, match=r"redis_client: NoneType is no client of one Redis server; give a redis\.Redis"):
        face(data_service=DataService.from_settings(NOWHERE), redis_client=None)
