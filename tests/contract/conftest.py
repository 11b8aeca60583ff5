"""The ways to the ledger that the contract is checked on. A further one is one more of `ways.KINDS`."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from ledgerq.ledger import LedgerStore, Transport
from tests.support.databases import Database, Databases
from tests.support.probes import install_probes
from tests.support.proxy import Proxy
from tests.support.ways import KINDS, Kind, Way, ledger_for, open_way


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture(scope="module")
def probed(kind: Kind, databases: Databases) -> Iterator[Database]:
    """A ledger with the probes in it, for all tests of a module."""
    with ledger_for(kind, databases) as fresh:
        install_probes(fresh.dsn)
        yield fresh


@pytest.fixture(scope="module")
def way(kind: Kind, probed: Database) -> Iterator[Way]:
    with open_way(kind, probed) as opened:
        yield opened


@pytest.fixture
def transport(way: Way) -> Iterator[Transport]:
    made = way.transport()
    yield made
    made.close()


@pytest.fixture
def lossy(way: Way) -> Iterator[tuple[Transport, Proxy]]:
    """The same through a network that loses what it is told to lose."""
    with way.through_proxy() as (through, proxy):
        made = through.transport()
        yield made, proxy
        made.close()


@pytest.fixture(scope="module")
def shared(kind: Kind, databases: Databases) -> Iterator[Database]:
    with ledger_for(kind, databases) as fresh:
        yield fresh


@pytest.fixture(scope="module")
def shared_way(kind: Kind, shared: Database) -> Iterator[Way]:
    with open_way(kind, shared) as opened:
        yield opened


@pytest.fixture
def ledger(shared: Database) -> Database:
    """An empty ledger: one database for all tests of a module, emptied before each."""
    with psycopg.connect(shared.dsn, autocommit=True) as connection:
        connection.execute(EMPTY.encode())
    return shared


@pytest.fixture
def store(shared_way: Way, ledger: Database) -> Iterator[LedgerStore]:
    del ledger  # emptied
    with LedgerStore(shared_way.transport()) as opened:
        yield opened


EMPTY = """
    truncate ledgerq.job, ledgerq.task, ledgerq.run, ledgerq.event, ledgerq.usage, ledgerq.document, ledgerq.generation, ledgerq.source,
      ledgerq.queue, ledgerq.queue_turn, ledgerq.webhook_event;
    insert into ledgerq.queue (name) values ('processing');
    insert into ledgerq.queue_turn (queue) values ('processing');
"""
