"""Calls of the ledger's functions over direct connections."""

from __future__ import annotations

from collections.abc import Mapping

from psycopg import Error
from psycopg.pq import TransactionStatus

from ledgerq.ledger import json_text
from ledgerq.ledger.errors_table import ServerFault, refused
from ledgerq.ledger.places import Places
from ledgerq.ledger.postgres.connections import LONGEST_IDLE_S, Address, Connection, condition
from ledgerq.ledger.postgres.exchange import exchange
from ledgerq.ledger.repeating import repeating
from ledgerq.models import Json


class PostgresTransport:
    """`ledgerq.ledger.Transport` over psycopg. Opens nothing until the first call; safe for threads, and across a fork.

    `timeout_s` bounds one try and must exceed the database's statement timeout (8 s in a Supabase project), so that the
    database gives up first and a repeated call does not meet itself. All tries together end within twice that time.
    """

    def __init__(self, dsn: str, *, pool_size: int = 4, timeout_s: float = 10.0) -> None:
        self._address = Address.parse(dsn, timeout_s=timeout_s)
        self._connections = Places(self._address.open, condition, size=pool_size, longest_idle_s=LONGEST_IDLE_S)
        self._timeout_s = timeout_s
        self._repeating = repeating(timeout_s=timeout_s)

    def call(self, function: str, arguments: Mapping[str, Json]) -> Json:
        """See `Transport.call`."""
        if not function.isidentifier():
            raise ValueError(f"{function!r} is no name of a function")
        request = json_text.encode(arguments, doing=function)
        try:
            answer = self._repeating(self._try, function, request)
        except ServerFault as fault:
            raise refused(f"{function} on {self._address.place}", fault, arguments) from fault
        return json_text.decode(answer)

    def close(self) -> None:
        """See `Transport.close`."""
        self._connections.close()

    def _try(self, function: str, request: bytes) -> bytes:
        statement = f"select ledgerq.{function}($1::jsonb)".encode()
        with self._connections.borrow(timeout_s=self._timeout_s) as connection:
            try:
                return exchange(connection.pgconn, statement, request, timeout_s=self._timeout_s)
            except ServerFault:
                _abandon(connection)
                raise


def _abandon(connection: Connection) -> None:
    """Stop a statement that we no longer wait for, so that it does not hold its locks against our next try."""
    if connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
        try:
            connection.cancel_safe(timeout=1.0)
        except Error:
            return
