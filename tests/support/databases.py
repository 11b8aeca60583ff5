"""Fresh ledgers in milliseconds: one migrated template per server, copied for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from secrets import token_hex
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from ledgerq.local.ports import LOOPBACK

if TYPE_CHECKING:
    from ledgerq.local.postgres import PostgresServer

TEMPLATE = "ledger_template"


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """One fresh database with the ledger in it."""

    name: str
    dsn: str
    """As `postgres`, who owns it and runs migrations; not a superuser."""
    service_dsn: str
    """As `ledgerq_service`: what services and workers connect as."""
    superuser_dsn: str
    authenticator_dsn: str
    """As `authenticator`, whom a Supabase project's Data API logs in as."""


@dataclass(slots=True)
class Databases:
    """Makes databases on one server."""

    server: PostgresServer
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _template_made: bool = False
    _authenticator_password: str = ""

    @contextmanager
    def fresh(self) -> Iterator[Database]:
        """A migrated database of its own, dropped at the end even while something is still connected to it."""
        self._make_template()
        name = f"ledger_{next(self._numbers)}"
        self.server.create_database(name, template=TEMPLATE)
        try:
            yield self._describe(name)
        finally:
            self.server.drop_database(name)

    @contextmanager
    def empty(self) -> Iterator[Database]:
        """A database with the shim and without a ledger: for tests of the migrations themselves."""
        name = f"empty_{next(self._numbers)}"
        self.server.create_database(name)
        try:
            yield self._describe(name)
        finally:
            self.server.drop_database(name)

    def _make_template(self) -> None:
        if self._template_made:
            return
        self.server.create_database(TEMPLATE)
        if find_spec("ledgerq.ledger") and find_spec("ledgerq.ledger.migrate"):
            import_module("ledgerq.ledger.migrate").migrate(self.server.dsn(database=TEMPLATE))
        self._template_made = True

    def _describe(self, name: str) -> Database:
        self._let_authenticator_in()
        return Database(
            name=name,
            dsn=self.server.dsn(database=name),
            service_dsn=self.server.service_dsn(name),
            superuser_dsn=self.server.superuser_dsn(name),
            authenticator_dsn=f"postgresql://authenticator:{self._authenticator_password}@{LOOPBACK}:{self.server.port}/{name}",
        )

    def _let_authenticator_in(self) -> None:
        """The role comes without a password: nothing of the embedded stack logs in as it."""
        if self._authenticator_password:
            return
        self._authenticator_password = token_hex(16)
        with psycopg.connect(self.server.superuser_dsn("postgres"), autocommit=True) as connection:
            statement = sql.SQL("alter role authenticator password {}")
            connection.execute(statement.format(sql.Literal(self._authenticator_password)))
