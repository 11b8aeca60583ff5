"""What is particular to a project: its kinds of keys, which schemas it exposes, and a schema cache of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID, uuid4

import httpx
import jwt
import psycopg
import pytest
import redis.asyncio
from supabase import ClientOptions, create_client

from ledgerq import AsyncJobManager, DataService
from ledgerq.errors import ConfigurationError
from ledgerq.ledger import LedgerStore, Transport
from ledgerq.ledger.supabase import SupabaseTransport
from ledgerq.lifecycle import JobStatus
from ledgerq.models import DocumentRequest, JobRequest, TaskRequest
from ledgerq.settings import Settings
from postgrest import APIError, SyncPostgrestClient
from tests.support.databases import Database
from tests.support.postgrest import PostgrestServer, serve_postgrest


@pytest.fixture(scope="module")
def project(module_database: Database) -> Iterator[PostgrestServer]:
    with serve_postgrest(module_database) as server:
        yield server


def schema_version(transport: Transport) -> object:
    try:
        health = transport.call("health", {})
    finally:
        transport.close()
    return health["schema_version"] if isinstance(health, dict) else None


@pytest.mark.parametrize("kind", ["service_key", "secret_key"])
def test_both_kinds_of_keys_open_it(project: PostgrestServer, kind: str) -> None:
    assert schema_version(SupabaseTransport(project.url, getattr(project, kind)))


@pytest.mark.parametrize(
    "key",
    [
        jwt.encode({"role": "service_role"}, "the secret of another project, as long as it should be", algorithm="HS256"),
        "sb_secret_N7UND0UgjKTVK-Uodkm0Hg_xSvEMPvz",
    ],
)
def test_another_projects_keys_do_not(project: PostgrestServer, key: str) -> None:
    with pytest.raises(ConfigurationError, match="SUPABASE_SERVICE_ROLE_KEY"):
        schema_version(SupabaseTransport(project.url, key))


def test_a_key_of_a_role_that_nobody_knows_here(project: PostgrestServer) -> None:
    """A token that the project signed, for a role that may not: nothing that could be seen in it beforehand."""
    key = project.token("authenticator")
    with pytest.raises(ConfigurationError):
        schema_version(SupabaseTransport(project.url, key))


def test_a_schema_that_is_not_exposed(module_database: Database) -> None:
    with (
        serve_postgrest(module_database, schemas=("public", "graphql_public")) as hidden,
        pytest.raises(ConfigurationError, match="Exposed schemas"),
    ):
        schema_version(SupabaseTransport(hidden.url, hidden.secret_key))


def test_a_call_right_after_a_migration_waits_for_the_cache(module_database: Database) -> None:
    """PostgREST hears of new functions a moment late, and knows nothing of them until then."""
    with serve_postgrest(module_database, listen=False) as project, ThreadPoolExecutor(1) as threads:
        transport = SupabaseTransport(project.url, project.secret_key)
        transport.call("health", {})
        with psycopg.connect(module_database.dsn, autocommit=True) as connection:
            connection.execute("create function ledgerq.newborn(request jsonb) returns jsonb language sql as $$ select request $$")
            connection.execute("grant execute on function ledgerq.newborn(jsonb) to service_role")
        call = threads.submit(transport.call, "newborn", {"first": "cry"})
        project.reload_schema()
        assert call.result(30) == {"first": "cry"}
        transport.close()


# --- what users and services see through it ---------------------------------------------------------------------------

READABLE = ("job", "task", "event", "document", "source")


@pytest.fixture
def as_user(project: PostgrestServer) -> Iterator[Callable[[UUID | None], SyncPostgrestClient]]:
    """supabase-py as a browser's counterpart would use it: the anon key, and the user's own token."""

    with httpx.Client() as http:

        def client(user: UUID | None) -> SyncPostgrestClient:
            headers = {} if user is None else {"Authorization": f"Bearer {project.token('authenticated', sub=user)}"}
            return create_client(
                project.url, project.anon_key, ClientOptions(schema="ledgerq", headers=headers, httpx_client=http)
            ).postgrest

        yield client


def test_users_read_their_own_rows_and_write_none(project: PostgrestServer, as_user: Callable[[UUID | None], SyncPostgrestClient]) -> None:
    ann, ben = uuid4(), uuid4()
    with LedgerStore(SupabaseTransport(project.url, project.secret_key)) as store:
        for owner in (ann, ben):
            source = uuid4()
            store.save_source(source, kind="crawl", owner=owner)
            document = DocumentRequest.inline("page:1", "text", content_type="text/plain")
            store.save_documents([document], source=source, owner=owner)
            store.create_jobs([JobRequest(type="welcome", owner=owner, tasks=[TaskRequest(key="only")])])
    for table in READABLE:
        rows = as_user(ann).from_(table).select("*").execute().data
        assert rows, table
        assert {row["owner_id"] for row in rows} == {str(ann)}, table
    refused = [
        lambda rest: rest.from_("job").insert({"type": "mine"}).execute(),
        lambda rest: rest.from_("job").update({"type": "mine"}).eq("owner_id", str(ann)).execute(),
        lambda rest: rest.from_("job").delete().eq("owner_id", str(ann)).execute(),
        lambda rest: rest.from_("run").select("*").execute(),
        lambda rest: rest.rpc("cancel_jobs", {"request": {}}).execute(),
    ]
    for attempt in refused:
        with pytest.raises(APIError) as caught:
            attempt(as_user(ann))
        assert caught.value.code == "42501"
    with pytest.raises(APIError):
        as_user(None).from_("job").select("*").execute()


def test_an_async_service_creates_and_follows_a_job(project: PostgrestServer, redis_url: str) -> None:
    """As the specification writes it, with nothing but the project's address and its key."""
    settings = Settings.model_validate({"supabase_url": project.url, "supabase_key": project.secret_key})

    async def story() -> tuple[JobStatus, int, int]:
        redis_client = redis.asyncio.Redis.from_url(redis_url)
        with DataService.from_settings(settings) as data:
            source = uuid4()
            data.save_source(source, kind="crawl")
            saved = data.save_documents([DocumentRequest.inline("page:1", "text", content_type="text/plain")], source=source)
            async with AsyncJobManager(data_service=data, redis_client=redis_client) as jobs:
                job = await jobs.create_processing_job(source_id=source, document_ids=saved)
                at_once = await asyncio.gather(*(jobs.get_job_status(job.id) for _ in range(50)))
                await jobs.cancel_job(job.id)
                ended = await jobs.wait_for(job.id, "30s")
        await redis_client.aclose()
        return ended.status, ended.total, len(at_once)

    assert asyncio.run(story()) == (JobStatus.CANCELLED, 1, 50)
