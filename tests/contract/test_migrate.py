"""Migrations: repeatable, safe to start at once, and of one mind with the Supabase CLI."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from ledgerq.errors import ConfigurationError, LedgerUnavailable, SchemaMismatch
from ledgerq.ledger.migrate import MigrationReport, migrate, pending, schema_version
from ledgerq.ledger.migration_files import Migration, shipped_migrations, split_statements
from ledgerq.local.postgres import PostgresServer
from tests.support.databases import Database, Databases
from tests.support.waiting import eventually

ALL = tuple(migration.version for migration in shipped_migrations())


@pytest.fixture
def empty(databases: Databases) -> Iterator[Database]:
    with databases.empty() as fresh:
        yield fresh


def test_from_nothing_to_now_and_again(empty: Database) -> None:
    assert schema_version(empty.dsn) is None
    assert pending(empty.dsn) == ALL
    assert migrate(empty.dsn) == MigrationReport(applied=ALL, version=ALL[-1])
    assert migrate(empty.dsn) == MigrationReport(applied=(), version=ALL[-1])
    assert (schema_version(empty.dsn), pending(empty.dsn)) == (ALL[-1], ())


def test_several_at_once(empty: Database) -> None:
    """Each migration is applied by exactly one of them, and all end with the whole ledger."""
    with ThreadPoolExecutor(4) as threads:
        reports = list(threads.map(migrate, [empty.dsn] * 4))
    assert sorted(version for report in reports for version in report.applied) == list(ALL)
    assert {report.version for report in reports} == {ALL[-1]}


def test_services_may_ask_but_not_change(database: Database) -> None:
    assert migrate(database.service_dsn).applied == ()
    with pytest.raises(ConfigurationError, match="database's owner"):
        migrate(database.service_dsn, migrations=(*shipped_migrations(), _migration("create table ledgerq.extra ()")))


def test_it_records_what_the_supabase_cli_records(database: Database) -> None:
    rows = _rows(database.dsn, "select version, name, statements from supabase_migrations.schema_migrations order by version")
    assert [(version, name) for version, name, _ in rows] == [(migration.version, migration.name) for migration in shipped_migrations()]
    assert all(statements and all(isinstance(entry, str) for entry in statements) for _, _, statements in rows)


def test_what_the_supabase_cli_applied_is_not_applied_again(empty: Database) -> None:
    """It runs the files as they are, and records them itself."""
    with psycopg.connect(empty.dsn) as connection:
        for migration in shipped_migrations():
            connection.execute(migration.script.encode())
    assert migrate(empty.dsn).applied == ()


def test_migrations_of_the_project_itself_are_left_alone(empty: Database) -> None:
    with psycopg.connect(empty.dsn, autocommit=True) as connection:
        connection.execute("create schema supabase_migrations")
        connection.execute("create table supabase_migrations.schema_migrations (version text not null primary key)")
        connection.execute("insert into supabase_migrations.schema_migrations values ('20200101000000')")
    assert migrate(empty.dsn).applied == ALL
    assert ("20200101000000",) in _rows(empty.dsn, "select version from supabase_migrations.schema_migrations")


def test_a_newer_ledger_is_refused(database: Database) -> None:
    for version in ("20300101000000", ALL[-1] + "x"):
        _execute(database.dsn, f"insert into ledgerq.schema_version (version, subject) values ('{version}', 'later')")
        with pytest.raises(SchemaMismatch, match=f"{version}.*newer.*upgrade the package"):
            migrate(database.dsn)
        with pytest.raises(SchemaMismatch):
            pending(database.dsn)
        _execute(database.dsn, f"delete from ledgerq.schema_version where version = '{version}'")
    assert migrate(database.dsn).applied == ()


def test_a_migration_that_fails_leaves_nothing(database: Database) -> None:
    broken = _migration("create table ledgerq.half (); create table ledgerq.half ()")
    with pytest.raises(SchemaMismatch, match=r'20990101000000_extra failed, and nothing of it was applied.*"half" already exists'):
        migrate(database.dsn, migrations=(*shipped_migrations(), broken))
    assert _rows(database.dsn, "select to_regclass('ledgerq.half')") == [(None,)]
    assert _rows(database.dsn, "select from supabase_migrations.schema_migrations where version = '20990101000000'") == []


def test_tables_in_use_are_waited_for_only_briefly(database: Database) -> None:
    """A migration that queues for a lock holds up every call behind it."""
    impatient = _migration("set local lock_timeout = '50ms'; alter table ledgerq.job add column extra int")
    with psycopg.connect(database.dsn) as reader:
        reader.execute("select from ledgerq.job")
        with pytest.raises(LedgerUnavailable, match=r"20990101000000_extra.*lock timeout"):
            migrate(database.dsn, migrations=(*shipped_migrations(), impatient))


def test_every_migration_says_that_it_was_applied() -> None:
    """Its own row in `schema_version` is what `migrate` goes by, whoever ran the file."""
    for migration in shipped_migrations():
        assert f"insert into ledgerq.schema_version (version, subject) values ('{migration.version}'" in migration.script, migration.name


def test_every_migration_that_makes_functions_ends_with_its_grants() -> None:
    """Default privileges leave execute on new functions with everyone."""
    for migration in shipped_migrations():
        if "create function" in migration.script or "create or replace function" in migration.script:
            assert "revoke execute on all functions in schema ledgerq from public, anon, authenticated" in migration.script, migration.name


# --- a plain PostgreSQL ------------------------------------------------------------------------------------------


@pytest.fixture
def plain(server_dir: Path) -> Iterator[PostgresServer]:
    """A server of its own, because roles belong to the whole server."""
    with PostgresServer(server_dir / "plain", fsync=False) as server:
        yield server


def test_a_plain_postgresql_is_told_what_to_do(plain: PostgresServer) -> None:
    """Without the roles nothing is changed; with `shim=True` a superuser makes them."""
    superuser = plain.superuser_dsn()
    _execute(superuser, _WITHOUT_ROLES)
    with pytest.raises(ConfigurationError, match=r"no role anon, authenticated, service_role.*ledgerq migrate --shim"):
        migrate(superuser)
    assert _rows(superuser, "select to_regnamespace('ledgerq')") == [(None,)]
    with pytest.raises(ConfigurationError, match="the shim: this role may not"):
        migrate(plain.dsn(), shim=True)
    assert migrate(superuser, shim=True).applied == ALL
    assert migrate(superuser, shim=True).applied == ()


_WITHOUT_ROLES = """
    drop schema if exists auth, realtime, extensions, storage cascade;
    alter role anon rename to anon_elsewhere;
    alter role authenticated rename to authenticated_elsewhere;
    alter role service_role rename to service_elsewhere;
"""


# --- cutting scripts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "statements"),
    [
        ("select 1; select 2", ["select 1", "select 2"]),
        ("select ';'; select \"a;b\"", ["select ';'", 'select "a;b"']),
        ("select 'it''s; so';", ["select 'it''s; so'"]),
        ("-- one; two\nselect 1; /* three; */ select 2;", ["-- one; two\nselect 1", "/* three; */ select 2"]),
        ("do $$ begin a; b; end $$; select 1", ["do $$ begin a; b; end $$", "select 1"]),
        ("do $body$ x; $$ y; $$ $body$;", ["do $body$ x; $$ y; $$ $body$"]),
        (" ;; \n", []),
    ],
)
def test_scripts_are_cut_at_the_ends_of_statements(script: str, statements: list[str]) -> None:
    assert split_statements(script) == statements


def test_our_scripts_cut_and_joined_are_the_same_ledger(empty: Database) -> None:
    """What is recorded could be run instead of the file."""
    with psycopg.connect(empty.dsn) as connection:
        for migration in shipped_migrations():
            for statement in migration.statements:
                connection.execute(statement.encode())
    assert schema_version(empty.dsn) == ALL[-1]


def _migration(script: str) -> Migration:
    return Migration(version="20990101000000", name="extra", script=script)


def _execute(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


def _rows(dsn: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


# --- as a superuser ------------------------------------------------------------------------------------------------


def test_what_a_superuser_migrates_belongs_to_postgres(empty: Database) -> None:
    """Whoever migrates next is not a superuser."""
    assert migrate(empty.superuser_dsn, shim=True).applied == ALL
    owners = _rows(
        empty.dsn,
        "select distinct owner::regrole::text from ("
        " select relowner from pg_class where relnamespace in ('ledgerq'::regnamespace, 'supabase_migrations'::regnamespace)"
        " union select proowner from pg_proc where pronamespace = 'ledgerq'::regnamespace"
        " union select nspowner from pg_namespace where nspname in ('ledgerq', 'supabase_migrations')) o (owner)",
    )
    assert owners == [("postgres",)]
    next_one = _migration("alter table ledgerq.job add column extra int")
    assert migrate(empty.dsn, migrations=(*shipped_migrations(), next_one)).applied == (next_one.version,)


def test_two_databases_of_one_server_get_the_shim_at_once(empty: Database, databases: Databases) -> None:
    """Roles are the server's: who meets another one tries again."""
    with databases.empty() as other, psycopg.connect(other.superuser_dsn) as early, ThreadPoolExecutor(1) as threads:
        early.execute("alter role anon set statement_timeout = '3s'")
        late = threads.submit(migrate, empty.superuser_dsn, shim=True, migrations=())
        with psycopg.connect(empty.superuser_dsn, autocommit=True) as admin:
            eventually(lambda: admin.execute(_BLOCKED, (early.info.backend_pid,)).fetchone() == (1,), what="the second shim waits")
        early.commit()
        assert late.result(30).applied == ()


_BLOCKED = "select count(*) from pg_stat_activity where %s = any (pg_blocking_pids(pid))"


def test_calls_of_the_service_are_bounded(empty: Database) -> None:
    for setting in ("statement_timeout", "lock_timeout"):
        assert _rows(empty.service_dsn, f"show {setting}") == [("8s",)]
