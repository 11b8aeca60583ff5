"""A real Supabase project in the place of the stand-in, where the environment names one that is there for tests only.

    LEDGERQ_TEST_SUPABASE_URL   its address
    LEDGERQ_TEST_SUPABASE_KEY   its secret key
    LEDGERQ_TEST_DATABASE_URL   its direct connection string, as `postgres`: tests look into tables and add functions of their own

Its schema `ledgerq` is dropped and made anew, many times. It has one ledger, so run one test at a time:
`scripts/test --numprocesses 1 tests/contract tests/e2e -k supabase`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import psycopg
import pytest

from ledgerq.ledger.migrate import migrate
from tests.support.databases import Database

NAMES: Final = ("LEDGERQ_TEST_SUPABASE_URL", "LEDGERQ_TEST_SUPABASE_KEY", "LEDGERQ_TEST_DATABASE_URL")
REMOVE: Final = b"""
    drop schema if exists ledgerq cascade;
    drop schema if exists ledgerq_test cascade;
    do $$ begin
      if to_regclass('supabase_migrations.schema_migrations') is not null then
        delete from supabase_migrations.schema_migrations where version like '20261122%';
      end if;
    end $$;
"""


@dataclass(slots=True)
class Project:
    url: str
    key: str
    dsn: str
    _in_use: bool = False

    @contextmanager
    def fresh(self) -> Iterator[Database]:
        """Its database with a new, empty ledger. Skips the test when another fixture of it has the ledger."""
        if self._in_use:
            pytest.skip("a project has one ledger, and this test takes two")
        self._in_use = True
        try:
            self._run(REMOVE)
            migrate(self.dsn)
            self._run(b"notify pgrst, 'reload schema'")
            yield Database(name="postgres", dsn=self.dsn, service_dsn=self.dsn, superuser_dsn=self.dsn, authenticator_dsn=self.dsn)
        finally:
            self._in_use = False

    def _run(self, statements: bytes) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(statements)


def named_project() -> Project | None:
    """The one that the environment names.

    Raises:
        RuntimeError: it names a part of it only.
    """
    given = [os.environ.get(name, "") for name in NAMES]
    if not any(given):
        return None
    if not all(given):
        raise RuntimeError(f"a project for tests takes all of {', '.join(NAMES)}")
    return Project(*given)


PROJECT: Final = named_project()
