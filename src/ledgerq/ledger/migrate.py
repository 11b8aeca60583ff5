"""Bring a database's ledger to this version. The Supabase CLI (`supabase db push`) does the same, and both agree on what is done."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import psycopg

from ledgerq.errors import ConfigurationError, LedgerqError, SchemaMismatch
from ledgerq.ledger.errors_table import ServerFault, error_for
from ledgerq.ledger.migration_files import Migration, shim_script, shipped_migrations
from ledgerq.ledger.postgres.connections import Address, Connection

_EXPECTED_ROLES: Final = ("anon", "authenticated", "service_role")
_TAKE_TURNS: Final = b"""
    set local lock_timeout = '60s';
    select pg_advisory_xact_lock(hashtextextended('ledgerq.migrate', 0));
    set local lock_timeout = '10s';
"""
"""One at a time. The lock belongs to the transaction, so it works through a pooler. Tables are waited for only briefly:
whoever waits for one exclusively holds up every call behind it."""
_AS_OWNER: Final = b"""
    select set_config('role', 'postgres', true) from pg_roles
    where rolname = session_user and rolsuper and to_regrole('postgres') is not null
"""
"""What a superuser makes would be his, and the next migration, made by `postgres`, could not touch it."""
_SHIM_ATTEMPTS: Final = 10
_MET_ANOTHER: Final = frozenset({"XX000", "42710", "23505"})
"""Roles belong to the cluster: two databases of one that get the shim at once write the same rows."""
_RECORD_TABLE: Final = b"""
    create schema if not exists supabase_migrations;
    create table if not exists supabase_migrations.schema_migrations (version text not null primary key);
    alter table supabase_migrations.schema_migrations add column if not exists statements text[];
    alter table supabase_migrations.schema_migrations add column if not exists name text;
"""
_RECORD: Final = b"""
    insert into supabase_migrations.schema_migrations (version, statements, name) values (%s, %s, %s)
    on conflict (version) do update set statements = excluded.statements, name = excluded.name
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationReport:
    """What `migrate` did."""

    applied: tuple[str, ...]
    """Versions that this call applied, in order; those that another one applied meanwhile are not among them."""
    version: str
    """The ledger's version now."""


def migrate(dsn: str, *, shim: bool = False, migrations: Sequence[Migration] | None = None) -> MigrationReport:
    """Apply what is missing, each migration in a transaction of its own. Safe to repeat and to start several times at once.

    `shim=True` first gives a plain PostgreSQL what a Supabase project has; that needs a superuser.

    Raises:
        SchemaMismatch: the ledger is newer than this package, or a migration failed (nothing of it is left).
        ConfigurationError: the database is no Supabase project and has no shim, or the role may not create a schema.
        LedgerUnavailable: there is no connection, or the tables were locked for too long.
    """
    ours = tuple(migrations) if migrations is not None else shipped_migrations()
    with _connected(dsn) as connection:
        if shim:
            _put_shim(connection)
        _require_supabase(connection)
        waiting = _pending(ours, _applied(connection))
        done = tuple(migration.version for migration in waiting if _apply(connection, ours, migration))
    return MigrationReport(applied=done, version=ours[-1].version if ours else "")


def schema_version(dsn: str) -> str | None:
    """The ledger's version in that database: its newest migration, or None when it has no ledger."""
    with _connected(dsn) as connection:
        return max(_applied(connection), default=None)


def pending(dsn: str) -> tuple[str, ...]:
    """Versions that `migrate` would apply.

    Raises:
        SchemaMismatch: the ledger is newer than this package.
    """
    with _connected(dsn) as connection:
        return tuple(migration.version for migration in _pending(shipped_migrations(), _applied(connection)))


@contextmanager
def _connected(dsn: str) -> Generator[Connection]:
    address = Address.parse(dsn, timeout_s=60)
    try:
        with address.open() as connection:
            yield connection
    except ServerFault as fault:
        raise error_for(address.place, fault) from fault


def _require_supabase(connection: Connection) -> None:
    row = connection.execute(
        "select array(select role from unnest(%s::text[]) role where to_regrole(role) is null)", (list(_EXPECTED_ROLES),)
    ).fetchone()
    missing: object = row[0] if row is not None else None
    if isinstance(missing, list) and missing:
        names = ", ".join(map(str, missing))  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType] - a text[]
        raise ConfigurationError(
            f"this database has no role {names}: it is no Supabase project."
            " Run `ledgerq migrate --shim` once as a superuser to give a plain PostgreSQL what the ledger needs of one"
        )


def _applied(connection: Connection) -> frozenset[str]:
    """Each migration writes its own row in its own transaction, whoever ran it: nothing else says so as surely."""
    if connection.execute("select to_regclass('ledgerq.schema_version') is null").fetchone() == (True,):
        return frozenset()
    return frozenset(str(row[0]) for row in connection.execute("select version from ledgerq.schema_version").fetchall())


def _pending(ours: Sequence[Migration], applied: frozenset[str]) -> list[Migration]:
    unknown = applied - {migration.version for migration in ours}
    if unknown:
        raise SchemaMismatch(
            f"this database's ledger ({max(unknown)}) is newer than this ledgerq ({ours[-1].version if ours else 'none'});"
            " upgrade the package"
        )
    return [migration for migration in ours if migration.version not in applied]


def _apply(connection: Connection, ours: Sequence[Migration], migration: Migration) -> bool:
    """Whether it was applied here; somebody else may have come first."""
    with _explained(connection, f"migration {migration.version}_{migration.name}", migration.script), connection.transaction():
        connection.execute(_TAKE_TURNS)
        connection.execute(_AS_OWNER)
        if migration not in _pending(ours, _applied(connection)):
            return False
        connection.execute(migration.script.encode())
        connection.execute(_RECORD_TABLE)
        connection.execute(_RECORD, (migration.version, migration.statements, migration.name))
    return True


def _put_shim(connection: Connection) -> None:
    script = shim_script()
    with _explained(connection, "the shim", script):
        for attempt in range(1, _SHIM_ATTEMPTS + 1):
            try:
                with connection.transaction():
                    connection.execute(_TAKE_TURNS)
                    connection.execute(script.encode())
            except psycopg.Error as error:
                if error.sqlstate not in _MET_ANOTHER or attempt == _SHIM_ATTEMPTS:
                    raise
                time.sleep(0.05 * attempt)
            else:
                return


@contextmanager
def _explained(connection: Connection, what: str, script: str) -> Generator[None]:
    try:
        yield
    except psycopg.Error as error:
        # A pooler says XX000 of a connection that it lost.
        lost = connection.broken or error.sqlstate is None
        fault = ServerFault("08006" if lost else str(error.sqlstate), error.diag.message_primary or str(error))
        raise _failure(what + _line(script, error), fault) from error


def _line(script: str, error: psycopg.Error) -> str:
    position = error.diag.statement_position
    return f", line {script.count(chr(10), 0, int(position)) + 1}," if position and script else ""


def _failure(what: str, fault: ServerFault) -> LedgerqError:
    if fault.sqlstate == "42501":
        return ConfigurationError(f"{what}: this role may not change the ledger; connect as the database's owner (`postgres`) ({fault})")
    if fault.sqlstate.startswith(("08", "57", "55", "53", "40")):
        return error_for(what, fault)
    return SchemaMismatch(f"{what} failed, and nothing of it was applied: {fault}")
