"""Two callers whose transactions overlap just as a test says.

with first.begun() as early:                  # early's calls are made and not committed
    early.cancel_jobs([job], actor="a")
    late = first.meanwhile(lambda store: store.advance_run(…))
    late.waits()                              # it is blocked by early's locks now (or `late.result()`: it is not)
    early.commit()
late.result()
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import psycopg
from psycopg.types.json import Jsonb

from ledgerq.ledger import LedgerStore
from ledgerq.ledger.errors_table import ServerFault, error_for
from ledgerq.models import Json

T = TypeVar("T")
LONGEST_S = 10.0


class OpenTransaction:
    """A transport whose calls stay uncommitted until somebody says so. Repeats nothing."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def call(self, function: str, arguments: Mapping[str, Json]) -> Json:
        statement = f"select ledgerq.{function}(%s)".encode()
        try:
            row = self._connection.execute(statement, (Jsonb(dict(arguments)),)).fetchone()
        except psycopg.Error as error:
            raise error_for(function, ServerFault(error.sqlstate or "", str(error))) from error
        return None if row is None else row[0]

    def close(self) -> None:
        self._connection.close()


class Early(LedgerStore):
    """The one who came first. What it did is seen by others after `commit`."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        super().__init__(OpenTransaction(connection))
        self.connection = connection

    def commit(self) -> None:
        self.connection.commit()


@dataclass(frozen=True, slots=True)
class Late(Generic[T]):
    """The one who came second, in a thread and a transaction of its own."""

    _future: Future[T]
    _pid: int
    _admin: psycopg.Connection[Any]

    def waits(self) -> None:
        """Return as soon as it is blocked by a lock; AssertionError when it is not, because it finished or for too long."""
        patience = threading.Event()
        for _ in range(int(LONGEST_S / 0.01)):
            row = self._admin.execute("select cardinality(pg_blocking_pids(%s)) > 0", (self._pid,)).fetchone()
            if row == (True,):
                return
            assert not self._future.done(), f"it did not wait, it answered {self._future.result()}"
            patience.wait(0.01)
        raise AssertionError("it neither waits nor ends")

    def result(self) -> T:
        """Its answer; AssertionError when it still waits."""
        try:
            return self._future.result(LONGEST_S)
        except TimeoutError:
            raise AssertionError("it still waits") from None


class Interleaving:
    """Overlapping callers of one ledger."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._threads = ThreadPoolExecutor(4)
        self._connections: list[psycopg.Connection[Any]] = []
        self._admin = self._connect(autocommit=True)

    @contextmanager
    def begun(self) -> Iterator[Early]:
        """The first caller. What it did not commit is rolled back."""
        connection = self._connect(autocommit=False)
        try:
            yield Early(connection)
        finally:
            connection.rollback()

    def meanwhile(self, call: Callable[[LedgerStore], T], *, role: str | None = None) -> Late[T]:
        """The second caller, in a transaction that commits at its end; in another role than its login's if one is given."""
        connection = self._connect(autocommit=True)
        if role is not None:
            connection.execute(f"set role {role}".encode())
        future = self._threads.submit(call, LedgerStore(OpenTransaction(connection)))
        return Late(future, connection.info.backend_pid, self._admin)

    def is_locked(self, table: str, row: object) -> bool:
        """Whether somebody holds the row for an update."""
        found = self._admin.execute(
            f"select id from ledgerq.{table} where id = %s for no key update skip locked".encode(), (row,)
        ).fetchone()
        return found is None

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        self._threads.shutdown()

    def _connect(self, *, autocommit: bool) -> psycopg.Connection[Any]:
        connection = psycopg.connect(self._dsn, autocommit=autocommit)
        self._connections.append(connection)
        return connection
