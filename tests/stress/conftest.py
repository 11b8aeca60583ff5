"""An empty ledger with a clock in hand, and two callers of it at once."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from ledgerq.ledger import LedgerStore
from ledgerq.ledger.postgres import PostgresTransport
from tests.stress.hands import Hands
from tests.support.clock import LedgerClock
from tests.support.databases import Database, Databases
from tests.support.interleaving import Interleaving


@pytest.fixture(scope="module")
def shared(databases: Databases) -> Iterator[tuple[Database, LedgerClock]]:
    with databases.fresh() as fresh:
        yield fresh, LedgerClock(fresh.dsn)


@pytest.fixture
def hands(shared: tuple[Database, LedgerClock]) -> Iterator[Hands]:
    """One database for all tests of a module, emptied before each."""
    database, clock = shared
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute(EMPTY)
        clock.advance(3_600)
        with LedgerStore(PostgresTransport(database.service_dsn, timeout_s=5)) as store:
            yield Hands(store=store, clock=clock, database=database, owner=connection)


@pytest.fixture
def both(hands: Hands) -> Iterator[Interleaving]:
    made = Interleaving(hands.database.service_dsn)
    yield made
    made.close()


EMPTY = b"""
    update ledgerq_test.clock set ahead = interval '0';
    delete from ledgerq.event; delete from ledgerq.usage; delete from ledgerq.job; delete from ledgerq.run;
    delete from ledgerq.generation; delete from ledgerq.document; delete from ledgerq.source;
    delete from ledgerq.queue; delete from ledgerq.queue_turn;
    insert into ledgerq.queue (name, depth) values ('processing', 1);
    insert into ledgerq.queue_turn (queue) values ('processing');
"""
