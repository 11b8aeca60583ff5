"""PgBouncer in front of the embedded PostgreSQL, where it is installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg

from ledgerq.local.accounts import give, in_sight, server_account
from ledgerq.local.child import Child, Command
from ledgerq.local.ports import free_port
from tests.support.databases import Database

CONFIGURATION = """
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
default_pool_size = {sessions}
server_round_robin = 1
ignore_startup_parameters = extra_float_digits
"""


def installed_pgbouncer() -> str | None:
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")


@contextmanager
def bounced(program: str, database: Database, directory: Path, *, sessions: int) -> Iterator[Database]:
    """The same database through PgBouncer in transaction mode, with so many sessions for each role."""
    port = free_port()
    account = server_account()
    with in_sight(directory, account) as sight:
        _write(directory, sight.path, database, port, sessions)
        for path in (directory, *directory.iterdir()):
            give(path, account)
        child = Child(
            Command(
                name="PgBouncer",
                argv=(program, str(sight.path / "pgbouncer.ini")),
                cwd=directory,
                log=directory / "pgbouncer.log",
                account=account,
                descriptors=sight.descriptors,
            )
        )
        child.start()
    through = _described(database, port)
    try:
        child.wait_ready(lambda: _answers(through.service_dsn), 30)
        yield through
    finally:
        child.stop()


def _write(directory: Path, seen_as: Path, database: Database, port: int, sessions: int) -> None:
    parts = urlsplit(database.dsn)
    users = directory / "users.txt"
    accounts = [urlsplit(dsn) for dsn in (database.dsn, database.service_dsn)]
    users.write_text("".join(f'"{each.username}" "{each.password}"\n' for each in accounts))
    configuration = CONFIGURATION.format(host=parts.hostname, port=parts.port, own_port=port, users=seen_as / users.name, sessions=sessions)
    (directory / "pgbouncer.ini").write_text(configuration)


def _described(database: Database, port: int) -> Database:
    return replace(database, dsn=_at(database.dsn, port), service_dsn=_at(database.service_dsn, port))


def _at(dsn: str, port: int) -> str:
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}"))


def _answers(dsn: str) -> bool:
    try:
        with psycopg.connect(dsn, connect_timeout=2) as connection:
            connection.execute("select 1", prepare=False)
    except psycopg.Error:
        return False
    return True
