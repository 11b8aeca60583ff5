"""The ledger's clock in a test's hands: real time plus what the test added."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import psycopg

INSTALL: Final = b"""
create schema if not exists ledgerq_test;
create table if not exists ledgerq_test.clock (ahead interval not null);
insert into ledgerq_test.clock select interval '0' where not exists (select from ledgerq_test.clock);
grant usage on schema ledgerq_test to service_role;
grant select on ledgerq_test.clock to service_role;
create or replace function ledgerq.clock() returns timestamptz language sql volatile set search_path = ''
as $$ select pg_catalog.clock_timestamp() + (select c.ahead from ledgerq_test.clock c) $$;
"""


class LedgerClock:
    """Replaces `ledgerq.clock()` in one test database. `dsn` is the owner's."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._run(INSTALL)

    def advance(self, seconds: float) -> None:
        """Let that many seconds pass for the ledger, at once."""
        self._run(b"update ledgerq_test.clock set ahead = ahead + %s", timedelta(seconds=seconds))

    def _run(self, statement: bytes, *values: object) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(statement, values or None)
