"""The ways to a test ledger: directly, and through the API of a Supabase project: of a real one where the environment names it
(see `project`), else of the stand-in for PostgREST."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, Literal

from ledgerq.ledger import Transport, open_transport
from ledgerq.settings import Settings
from tests.support.databases import Database, Databases
from tests.support.postgrest import serve_postgrest
from tests.support.project import PROJECT
from tests.support.proxy import Proxy, proxied

Kind = Literal["postgres", "supabase"]
KINDS: Final[tuple[Kind, ...]] = ("postgres", "supabase")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What has to be known of a ledger to call it."""

    kind: Kind
    address: str
    """A connection string, or the URL of a project."""
    key: str | None = None
    """The project's."""
    login: str
    """The role that sessions of the database belong to."""

    @property
    def environment(self) -> dict[str, str]:
        """The variables that name it."""
        if self.key is None:
            return {"DATABASE_URL": self.address}
        return {"SUPABASE_URL": self.address, "SUPABASE_SERVICE_ROLE_KEY": self.key}

    def settings(self, **others: object) -> Settings:
        """Settings that name it, and nothing of the environment."""
        where = {"database_url": self.address} if self.key is None else {"supabase_url": self.address, "supabase_key": self.key}
        return Settings.model_validate({**where, **others})

    def transport(self, *, timeout_s: float = 5.0) -> Transport:
        """A new transport; close it."""
        return open_transport(self.settings(ledger_timeout_s=timeout_s))

    @contextmanager
    def through_proxy(self) -> Iterator[tuple[Way, Proxy]]:
        """The same through a network that loses what it is told to lose."""
        with proxied(self.address) as (address, proxy):
            yield replace(self, address=address), proxy


def direct_way(database: Database) -> Way:
    """As services and workers connect that have a connection string."""
    return Way(kind="postgres", address=database.service_dsn, login="ledgerq_service")


@contextmanager
def ledger_for(kind: Kind, databases: Databases) -> Iterator[Database]:
    """A fresh ledger that this way leads to."""
    with PROJECT.fresh() if kind == "supabase" and PROJECT else databases.fresh() as database:
        yield database


@contextmanager
def open_way(kind: Kind, database: Database) -> Iterator[Way]:
    """One way to that database."""
    if kind == "postgres":
        yield direct_way(database)
        return
    if PROJECT and database.dsn == PROJECT.dsn:
        yield Way(kind=kind, address=PROJECT.url, key=PROJECT.key, login="authenticator")
        return
    with serve_postgrest(database) as server:
        yield Way(kind=kind, address=server.url, key=server.service_key, login="authenticator")
