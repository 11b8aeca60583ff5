"""One database and one stand-in for each module, and clients of it: the real supabase-py, and httpx for what that cannot send."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from supabase import Client, ClientOptions, create_client

from tests.support.databases import Database
from tests.support.postgrest import PostgrestServer, serve_postgrest

Connect = Callable[..., Client]
PLAIN = {"verify": False, "timeout": 30}
"""There is no TLS here, and reading certificates takes longer than any of these tests."""


@pytest.fixture(scope="module")
def exposed(module_database: Database) -> Database:
    """With the functions and tables of `exposed.sql` in `public`."""
    with psycopg.connect(module_database.dsn, autocommit=True) as connection:
        connection.execute(Path(__file__).with_name("exposed.sql").read_bytes())
    return module_database


@pytest.fixture(scope="module")
def server(exposed: Database) -> Iterator[PostgrestServer]:
    with serve_postgrest(exposed) as running:
        yield running


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(**PLAIN) as client:
        yield client


@pytest.fixture(scope="module")
def connect(http: httpx.Client) -> Connect:
    """A client of supabase-py for a stand-in: `key` by name or as it is, `token` of a user."""

    def client_of(server: PostgrestServer, key: str = "service_key", *, schema: str = "public", token: str = "") -> Client:
        options = ClientOptions(schema=schema, httpx_client=http, auto_refresh_token=False, persist_session=False)
        if token:
            options.headers["Authorization"] = f"Bearer {token}"
        return create_client(server.url, getattr(server, key, key), options)

    return client_of


@pytest.fixture
def service(server: PostgrestServer, connect: Connect) -> Client:
    """As `service_role`."""
    return connect(server)


@pytest.fixture
def anonymous(server: PostgrestServer, connect: Connect) -> Client:
    return connect(server, "anon_key")


@pytest.fixture(scope="module")
def raw(server: PostgrestServer) -> Iterator[httpx.Client]:
    """Plain HTTP with the key of `service_role`."""
    with httpx.Client(base_url=f"{server.url}/rest/v1", headers={"apikey": server.service_key}, **PLAIN) as client:
        yield client
