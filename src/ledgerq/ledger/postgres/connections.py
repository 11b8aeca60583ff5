"""Connections that are opened when they are needed, kept for the next call, and never shared across a fork.

Not psycopg's pool: that one works with threads of its own, which do not survive a fork and cost a short-lived horse
more than its one connection.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Semaphore
from time import monotonic
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import ConnStatus, TransactionStatus

from ledgerq.errors import ConfigurationError, LedgerqError, LedgerUnavailable, WrongState
from ledgerq.ledger.errors_table import ServerFault, error_for, refusal_of

Connection = psycopg.Connection[tuple[object, ...]]

LONGEST_IDLE_S: Final = 240.0
"""Connections unused for longer are not used again: NAT gateways and load balancers forget them silently after 5 minutes or so."""


@dataclass(slots=True)
class _OfOneProcess:
    places: Semaphore
    idle: deque[tuple[Connection, float]] = field(default_factory=deque[tuple[Connection, float]])


class Connections:
    """At most `size` connections a process, opened by `open_one`, the one used last given out first."""

    def __init__(self, open_one: Callable[[], Connection], *, size: int) -> None:
        self._open_one = open_one
        self._size = size
        self._by_process: dict[int, _OfOneProcess] = {}
        self._closed = False

    @contextmanager
    def borrow(self, *, timeout_s: float) -> Generator[Connection]:
        """A connection for one call. It is kept afterwards if it is still good and idle, whatever happened.

        Raises:
            LedgerUnavailable: all are in use for that long.
        """
        mine = self._mine()
        if not mine.places.acquire(timeout=timeout_s):
            raise LedgerUnavailable(
                f"all {self._size} connections to the ledger are in use for {timeout_s:g} s; raise LEDGERQ_LEDGER_POOL_SIZE"
            )
        try:
            connection = self._take(mine)
            try:
                yield connection
            finally:
                self._give_back(mine, connection)
        finally:
            mine.places.release()

    def close(self) -> None:
        """Close this process's idle connections; those in use are closed when they come back."""
        self._closed = True
        self._close_idle(self._mine())

    def _mine(self) -> _OfOneProcess:
        """What this process opened. A child finds nothing under its pid, and leaves its parent's connections alone:
        they stay referenced, because closing one would end the parent's session. `setdefault` is atomic, where a lock
        might have been held by another thread at the fork.
        """
        pid = os.getpid()
        return self._by_process.get(pid) or self._by_process.setdefault(pid, _OfOneProcess(Semaphore(self._size)))

    def _take(self, mine: _OfOneProcess) -> Connection:
        if self._closed:
            raise WrongState("this way to the ledger was closed")
        while True:
            try:
                connection, since = mine.idle.pop()
            except IndexError:
                return self._open_one()
            if monotonic() - since < LONGEST_IDLE_S:
                return connection
            connection.close()

    def _give_back(self, mine: _OfOneProcess, connection: Connection) -> None:
        wire = connection.pgconn
        if wire.status != ConnStatus.OK:
            # The others were lost with it, most likely: the next call should not have to find that out one by one.
            connection.close()
            self._close_idle(mine)
        elif wire.transaction_status != TransactionStatus.IDLE or self._closed:
            connection.close()
        else:
            mine.idle.append((connection, monotonic()))

    def _close_idle(self, mine: _OfOneProcess) -> None:
        while True:
            try:
                connection, _ = mine.idle.pop()
            except IndexError:
                return
            connection.close()


@dataclass(frozen=True, slots=True)
class Address:
    """Where to connect, checked and with our defaults filled in. What the connection string itself says wins."""

    parameters: dict[str, str | int] = field(repr=False)

    @classmethod
    def parse(cls, dsn: str, *, timeout_s: float) -> Address:
        """Read a connection string, `postgresql://…` or `key=value …`.

        Raises:
            ConfigurationError: it is neither. The text itself is not repeated: it holds a password.
        """
        given = _parsed(dsn)
        if given is None:
            raise ConfigurationError(
                "DATABASE_URL is no Postgres connection string; it looks like postgresql://user:password@host:5432/database"
            )
        return cls(_defaults(timeout_s) | given)

    @property
    def place(self) -> str:
        """For messages: host, port and database, nothing secret."""
        get = self.parameters.get
        return f"the ledger at {get('host') or get('hostaddr') or 'the local socket'}:{get('port') or 5432}/{get('dbname') or ''}"

    def open(self) -> Connection:
        """Connect.

        Raises:
            ServerFault: the address is right as far as one can tell, and it may be worth trying again.
            ConfigurationError: user, password or database are wrong.
        """
        try:
            return psycopg.connect(autocommit=True, prepare_threshold=None, **self.parameters)  # pyright: ignore[reportArgumentType] - libpq's own parameters, as parsed by libpq
        except psycopg.OperationalError as error:
            fault = ServerFault(refusal_of(str(error)), str(error).strip())
            if fault.sqlstate == "08001":
                raise fault from error
            raise error_for(self.place, fault) from error
        except psycopg.Error as error:
            raise _unusable(error) from None


def _parsed(dsn: str) -> dict[str, str | int] | None:
    """None instead of an exception, whose message or context would carry the password on."""
    try:
        return {key: value for key, value in conninfo_to_dict(dsn).items() if value is not None}
    except psycopg.Error:
        return None


def _defaults(timeout_s: float) -> dict[str, str | int]:
    return {
        "application_name": "ledgerq",
        "connect_timeout": max(2, min(5, int(timeout_s))),
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": int(timeout_s * 1_000),
    }


def _unusable(error: psycopg.Error) -> LedgerqError:
    return ConfigurationError(f"DATABASE_URL holds a parameter that libpq does not accept ({type(error).__name__})")
