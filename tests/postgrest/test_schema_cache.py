"""What the stand-in knows of the database: which schemas, and what was in them when it looked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
from psycopg import Connection
from supabase import Client, PostgrestAPIError

from tests.postgrest.conftest import Connect
from tests.support.databases import Database
from tests.support.postgrest import PostgrestServer, serve_postgrest
from tests.support.waiting import eventually


@pytest.fixture
def owner(exposed: Database) -> Iterator[Connection]:
    with psycopg.connect(exposed.dsn, autocommit=True) as connection:
        yield connection


def code_of(client: Client, function: str) -> str | None:
    """The error's code; None where there is none."""
    try:
        client.rpc(function, {}).execute()
    except PostgrestAPIError as error:
        return error.code
    return None


def test_a_new_function_is_unknown_until_the_cache_is_read_again(exposed: Database, owner: Connection, connect: Connect) -> None:
    with serve_postgrest(exposed, listen=False) as server:
        client = connect(server)
        owner.execute("create function public.newcomer() returns int language sql as 'select 1'")
        owner.execute("notify pgrst, 'reload schema'")
        assert code_of(client, "newcomer") == "PGRST202", "it does not listen"
        server.reload_schema()
        assert code_of(client, "newcomer") is None
        owner.execute("drop function public.newcomer")
        assert code_of(client, "newcomer") == "42883", "the cache still has it, the database does not"


def test_a_notification_has_the_cache_read_again(owner: Connection, server: PostgrestServer, service: Client) -> None:
    before = server.reloads
    owner.execute("create function public.announced() returns int language sql as 'select 1'")
    assert code_of(service, "announced") == "PGRST202"
    owner.execute("notify pgrst, 'reload schema'")
    eventually(lambda: server.reloads > before)
    assert code_of(service, "announced") is None


def test_a_lost_ear_is_replaced(exposed: Database, owner: Connection, connect: Connect) -> None:
    """And since something may have been said meanwhile, the cache is read again."""
    with serve_postgrest(exposed) as server, psycopg.connect(exposed.superuser_dsn, autocommit=True) as superuser:
        before = server.reloads
        owner.execute("create function public.unheard() returns int language sql as 'select 1'")
        ended = superuser.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and query = 'listen pgrst'"
        )
        assert ended.rowcount >= 1
        eventually(lambda: server.reloads > before)
        assert code_of(connect(server), "unheard") is None


def test_new_settings_of_a_role_wait_for_a_notification(exposed: Database, connect: Connect) -> None:
    with serve_postgrest(exposed) as server, psycopg.connect(exposed.superuser_dsn, autocommit=True) as superuser:
        client = connect(server, "anon_key")

        def timeout() -> str:
            return client.rpc("inside", {}).execute().data["statement_timeout"]

        try:
            superuser.execute("alter role anon set statement_timeout = '4s'")
            assert timeout() == "3s"
            superuser.execute("notify pgrst, 'reload config'")
            eventually(lambda: timeout() == "4s")
        finally:
            superuser.execute("alter role anon set statement_timeout = '3s'")


def test_the_ledger_is_called_in_its_own_schema(server: PostgrestServer, connect: Connect) -> None:
    arguments: Any = {"request": {}}
    assert isinstance(connect(server, schema="ledgerq").rpc("moment", arguments).execute().data, dict)
    assert code_of(connect(server), "moment") == "PGRST202", "the first of the schemas is the default one"


@pytest.mark.parametrize(("method", "header"), [("GET", "Accept-Profile"), ("POST", "Content-Profile")])
def test_a_schema_is_chosen_by_the_header_of_the_method(raw: httpx.Client, method: str, header: str) -> None:
    other = "Accept-Profile" if header == "Content-Profile" else "Content-Profile"
    response = raw.request(method, "/rpc/add", params={"a": "1"} if method == "GET" else None, json={"a": 1}, headers={other: "nowhere"})
    assert response.json() == 11
    refused = raw.request(method, "/rpc/add", json={"a": 1}, headers={header: "extensions"})
    assert refused.status_code == 406
    assert refused.json() == {
        "code": "PGRST106",
        "message": "Invalid schema: extensions",
        "details": None,
        "hint": "Only the following schemas are exposed: public, graphql_public, ledgerq",
    }


def test_older_releases_say_it_in_other_words(exposed: Database, connect: Connect) -> None:
    with serve_postgrest(exposed, schemas=("public",), older_schema_error=True) as server, pytest.raises(PostgrestAPIError) as refused:
        connect(server, schema="ledgerq").rpc("moment", {}).execute()
    assert (refused.value.code, refused.value.message) == ("PGRST106", "The schema must be one of the following: public")
