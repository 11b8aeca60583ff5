"""What is particular to a project: its kinds of keys, which schemas it exposes, and a schema cache of its own."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import jwt
import psycopg
import pytest

from ledgerq.errors import ConfigurationError
from ledgerq.ledger import Transport
from ledgerq.ledger.supabase import SupabaseTransport
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
