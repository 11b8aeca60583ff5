"""An emptied ledger for each test (one database a module: making one takes longer than most tests), checked when the test is over."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.support.clock import LedgerClock
from tests.support.databases import Database
from tests.support.invariants import check_invariants
from tests.support.sql import connected
from tests.support.work import Work

EMPTY = b"""
delete from ledgerq.event where true;
delete from ledgerq.usage where true;
delete from ledgerq.job where true;
delete from ledgerq.run where true;
delete from ledgerq.generation where true;
delete from ledgerq.document where true;
delete from ledgerq.source where true;
delete from ledgerq.queue where true;
delete from ledgerq.queue_turn where true;
insert into ledgerq.queue (name) values ('processing');
insert into ledgerq.queue_turn (queue) values ('processing');
update ledgerq_test.clock set ahead = '0' where true;
"""


@pytest.fixture(scope="module")
def module_clock(module_database: Database) -> LedgerClock:
    return LedgerClock(module_database.dsn)


@pytest.fixture
def work(module_database: Database, module_clock: LedgerClock) -> Iterator[Work]:
    """The whole contract through one connection; the invariants hold at the end of every test."""
    with psycopg.connect(module_database.dsn, autocommit=True) as owner, connected(module_database.service_dsn) as sql:
        owner.execute(EMPTY)
        yield Work(sql=sql, clock=module_clock)
        check_invariants(owner)


@pytest.fixture
def other_dsn(module_database: Database) -> str:
    """For a second connection to the ledger of `work`."""
    return module_database.service_dsn
