"""Fixtures: the servers (per session) and what a test gets of them.

postgres, postgres15, valkey, vector_server     running servers, shared by the session
databases, databases15                          makers of fresh databases on them
database, module_database                       one fresh database with the ledger, per test or per module
ledger_dsn, service_dsn                         its DSN as `postgres` (owner) and as `ledgerq_service`
redis_url                                       an empty Redis database
collection_name                                 a name for a collection that nobody else uses
server_dir                                      an empty directory that servers may use as their data directory
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
import redis
from psycopg import sql

from ledgerq.local.binaries import installed_postgres
from ledgerq.local.postgres import OWNER, SERVICE, SUPERUSER, PostgresServer
from ledgerq.local.valkey import ValkeyServer
from ledgerq.local.vectors import VectorServer
from tests.support.databases import Database, Databases
from tests.support.directories import server_directory


@pytest.fixture(scope="session")
def session_dir() -> Iterator[Path]:
    with server_directory("session") as directory:
        yield directory


@pytest.fixture
def server_dir() -> Iterator[Path]:
    with server_directory("test") as directory:
        yield directory


@pytest.fixture(scope="session")
def postgres(session_dir: Path) -> Iterator[PostgresServer]:
    """The embedded PostgreSQL."""
    with PostgresServer(session_dir / "postgres", fsync=False) as server:
        log_in_quickly(server)
        yield server


@pytest.fixture(scope="session")
def postgres15(session_dir: Path) -> Iterator[PostgresServer]:
    """The oldest PostgreSQL that is supported, where it is installed."""
    bin_dir = installed_postgres(15)
    if bin_dir is None:
        pytest.skip("PostgreSQL 15 is not installed (apt install postgresql-15)")
    with PostgresServer(session_dir / "postgres15", fsync=False, bin_dir=bin_dir) as server:
        yield server


def log_in_quickly(server: PostgresServer) -> None:
    """Passwords that are hashed once, not 4,096 times: each of many thousand connections takes 4 ms less (PostgreSQL 16 and later)."""
    with psycopg.connect(server.superuser_dsn(), autocommit=True) as admin:
        admin.execute("set scram_iterations = 1")
        for role in (OWNER, SERVICE, SUPERUSER):
            password = urlsplit(server.dsn(role)).password or ""
            admin.execute(sql.SQL("alter role {} password {}").format(sql.Identifier(role), sql.Literal(password)))


@pytest.fixture(scope="session")
def databases(postgres: PostgresServer) -> Databases:
    return Databases(server=postgres)


@pytest.fixture(scope="session")
def databases15(postgres15: PostgresServer) -> Databases:
    return Databases(server=postgres15)


@pytest.fixture
def database(databases: Databases) -> Iterator[Database]:
    with databases.fresh() as fresh:
        yield fresh


@pytest.fixture(scope="module")
def module_database(databases: Databases) -> Iterator[Database]:
    """For tests that only read, or that keep apart by tenant."""
    with databases.fresh() as fresh:
        yield fresh


@pytest.fixture
def ledger_dsn(database: Database) -> str:
    return database.dsn


@pytest.fixture
def service_dsn(database: Database) -> str:
    return database.service_dsn


@pytest.fixture(scope="session")
def valkey(session_dir: Path) -> Iterator[ValkeyServer]:
    with ValkeyServer(session_dir / "valkey") as server:
        yield server


@pytest.fixture
def redis_url(valkey: ValkeyServer) -> str:
    """Database 0, emptied before the test."""
    with redis.Redis.from_url(valkey.url) as client:
        client.flushall()
    return valkey.url


@pytest.fixture(scope="session")
def vector_server(session_dir: Path) -> Iterator[VectorServer]:
    """Shared by the session: a test takes a collection name of its own."""
    with VectorServer(session_dir / "vectors") as server:
        yield server


@pytest.fixture
def collection_name() -> str:
    return f"test_{uuid4().hex}"
