"""The poolers that everything here runs through: ours, which changes the session after each transaction, and PgBouncer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ledgerq.ledger import Transport
from ledgerq.ledger.postgres import PostgresTransport
from tests.pooler.bouncer import bounced, installed_pgbouncer
from tests.support.databases import Database, Databases
from tests.support.directories import server_directory
from tests.support.pooler import pooled
from tests.support.probes import install_probes

SESSIONS = 3
"""Fewer than there are clients."""


@contextmanager
def through(kind: str, database: Database) -> Iterator[Database]:
    """The same database, by addresses of a pooler in transaction mode."""
    if kind == "ours":
        with pooled(database.dsn, sessions=SESSIONS) as owners, pooled(database.service_dsn, sessions=SESSIONS) as services:
            yield replace(database, dsn=owners.dsn, service_dsn=services.dsn)
        return
    program = installed_pgbouncer()
    if program is None:
        pytest.skip("PgBouncer is not installed (apt install pgbouncer)")
    with server_directory("pgbouncer") as directory, bounced(program, database, Path(directory), sessions=SESSIONS) as found:
        yield found


@pytest.fixture(scope="module")
def probed(databases: Databases) -> Iterator[Database]:
    """A ledger with the probes in it, reached directly."""
    with databases.fresh() as fresh:
        install_probes(fresh.dsn)
        yield fresh


@pytest.fixture(scope="module")
def ours(probed: Database) -> Iterator[Database]:
    with through("ours", probed) as found:
        yield found


@pytest.fixture(scope="module")
def pgbouncer(probed: Database) -> Iterator[Database]:
    with through("pgbouncer", probed) as found:
        yield found


@pytest.fixture(params=["ours", "pgbouncer"])
def pooler(request: pytest.FixtureRequest) -> Database:
    """The probed database by way of each of them."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def transport(pooler: Database) -> Iterator[Transport]:
    made = PostgresTransport(pooler.service_dsn, pool_size=8)
    yield made
    made.close()
