"""The transports that the contract is checked on. A further one is one more entry of `TRANSPORTS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest

from ledgerq.ledger import LedgerStore, Transport
from ledgerq.ledger.postgres import PostgresTransport
from tests.support.databases import Database, Databases
from tests.support.probes import install_probes
from tests.support.proxy import Proxy, proxied

TRANSPORTS: dict[str, Callable[[str], Transport]] = {
    "postgres": lambda dsn: PostgresTransport(dsn, timeout_s=5),
}


@pytest.fixture(params=sorted(TRANSPORTS))
def make_transport(request: pytest.FixtureRequest) -> Callable[[str], Transport]:
    return TRANSPORTS[request.param]


@pytest.fixture(scope="module")
def probed(databases: Databases) -> Iterator[Database]:
    """A ledger with the probes in it, for all tests of a module."""
    with databases.fresh() as fresh:
        install_probes(fresh.dsn)
        yield fresh


@pytest.fixture
def transport(make_transport: Callable[[str], Transport], probed: Database) -> Iterator[Transport]:
    made = make_transport(probed.service_dsn)
    yield made
    made.close()


@pytest.fixture
def lossy(make_transport: Callable[[str], Transport], probed: Database) -> Iterator[tuple[Transport, Proxy]]:
    """The same through a network that loses what it is told to lose."""
    with proxied(probed.service_dsn) as (dsn, proxy):
        made = make_transport(dsn)
        yield made, proxy
        made.close()


@pytest.fixture(scope="module")
def shared(databases: Databases) -> Iterator[Database]:
    with databases.fresh() as fresh:
        yield fresh


@pytest.fixture
def ledger(shared: Database) -> Database:
    """An empty ledger: one database for all tests of a module, emptied before each."""
    with psycopg.connect(shared.dsn, autocommit=True) as connection:
        connection.execute(EMPTY.encode())
    return shared


@pytest.fixture
def store(make_transport: Callable[[str], Transport], ledger: Database) -> Iterator[LedgerStore]:
    with LedgerStore(make_transport(ledger.service_dsn)) as opened:
        yield opened


EMPTY = """
    truncate ledgerq.job, ledgerq.task, ledgerq.run, ledgerq.event, ledgerq.usage, ledgerq.document, ledgerq.generation, ledgerq.source,
      ledgerq.queue, ledgerq.queue_turn, ledgerq.webhook_event;
    insert into ledgerq.queue (name) values ('processing');
    insert into ledgerq.queue_turn (queue) values ('processing');
"""
