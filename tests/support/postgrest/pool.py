"""Connections as `authenticator`: a fixed number, made when needed, lent to one request at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psycopg

from tests.support.postgrest.refusals import no_connection, no_connection_in_time
from tests.support.postgrest.safeupdate import Watch


@dataclass(slots=True, eq=False)
class Session:
    """One connection, outside of any transaction while nobody has it."""

    connection: psycopg.Connection
    watch: Watch | None
    flushed: bool = False

    @property
    def reusable(self) -> bool:
        idle = self.connection.info.transaction_status is psycopg.pq.TransactionStatus.IDLE
        return idle and not self.flushed and (self.watch is None or self.watch.unsafe is None)


@dataclass(slots=True)
class Pool:
    dsn: str
    size: int
    timeout: float
    """Seconds that a request waits for a connection."""
    safeupdate: bool
    _idle: list[Session] = field(default_factory=list)
    _lent: list[Session] = field(default_factory=list)
    _closed: bool = False
    _free: threading.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._free = threading.Semaphore(self.size)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Raises:
        Refusal: PGRST003, none is free in time; PGRST000, none can be made.
        """
        if not self._free.acquire(timeout=self.timeout):
            raise no_connection_in_time()
        try:
            session = self._take()
            try:
                yield session
            finally:
                self._give_back(session)
        finally:
            self._free.release()

    def flush(self) -> None:
        """No connection of before is lent again."""
        for session in tuple(self._lent):
            session.flushed = True
        self._close_idle()

    def close(self) -> None:
        """Cancel what runs, lend nothing any more, and return when every connection is closed."""
        self._closed = True
        while self._lent:
            for session in tuple(self._lent):
                with suppress(psycopg.Error):
                    session.connection.cancel_safe(timeout=2)
            time.sleep(0.01)
        self._close_idle()

    def _close_idle(self) -> None:
        while session := self._pop():
            session.connection.close()

    def _pop(self) -> Session | None:
        """In one step: threads meet here."""
        with suppress(IndexError):
            return self._idle.pop()
        return None

    def _take(self) -> Session:
        if self._closed:
            raise no_connection("the stand-in ends")
        session = self._pop() or self._make()
        self._lent.append(session)
        return session

    def _make(self) -> Session:
        try:
            connection = connect(self.dsn)
            return Session(connection, Watch(connection) if self.safeupdate else None)
        except psycopg.Error as error:
            raise no_connection(str(error)) from error

    def _give_back(self, session: Session) -> None:
        self._lent.remove(session)
        if session.reusable and not self._closed:
            self._idle.append(session)
        else:
            session.connection.close()


def connect(dsn: str) -> psycopg.Connection:
    """With prepared statements, as PostgREST has them; transactions are begun by statements."""
    return psycopg.connect(dsn, autocommit=True, prepare_threshold=0, connect_timeout=5, application_name="postgrest stand-in")
