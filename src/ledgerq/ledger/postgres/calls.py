"""Calls of the ledger's functions over direct connections."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Final

from psycopg import Error
from psycopg.pq import TransactionStatus
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, stop_after_delay

from ledgerq.errors import LedgerqError
from ledgerq.ledger import json_text
from ledgerq.ledger.errors_table import ServerFault, error_for, is_repeatable
from ledgerq.ledger.postgres.connections import Address, Connection, Connections
from ledgerq.ledger.postgres.exchange import exchange
from ledgerq.logs import get_logger
from ledgerq.models import Json

log = get_logger("ledgerq.ledger")

MOST_TRIES: Final = 7
"""With the waits below about 2 s of trying when every try is refused at once."""
FIRST_WAIT_S: Final = 0.05
LONGEST_WAIT_S: Final = 1.0


class PostgresTransport:
    """`ledgerq.ledger.Transport` over psycopg. Opens nothing until the first call; safe for threads, and across a fork.

    `timeout_s` bounds one try and must exceed the database's statement timeout (8 s in a Supabase project), so that the
    database gives up first and a repeated call does not meet itself. All tries together end within twice that time.
    """

    def __init__(self, dsn: str, *, pool_size: int = 4, timeout_s: float = 10.0) -> None:
        self._address = Address.parse(dsn, timeout_s=timeout_s)
        self._connections = Connections(self._address.open, size=pool_size)
        self._timeout_s = timeout_s
        self._retrying = Retrying(
            retry=retry_if_exception(_worth_repeating),
            stop=stop_after_attempt(MOST_TRIES) | stop_after_delay(timeout_s),
            wait=_wait,
            before_sleep=_log_repeat,
            reraise=True,
        )

    def call(self, function: str, arguments: Mapping[str, Json]) -> Json:
        """See `Transport.call`."""
        if not function.isidentifier():
            raise ValueError(f"{function!r} is no name of a function")
        request = json_text.encode(arguments, doing=function)
        statement = f"select ledgerq.{function}($1::jsonb)".encode()
        try:
            answer = self._retrying(self._try, statement, request)
        except ServerFault as fault:
            raise self._error(function, fault, arguments) from fault
        return json_text.decode(answer)

    def close(self) -> None:
        """See `Transport.close`."""
        self._connections.close()

    def _try(self, statement: bytes, request: bytes) -> bytes:
        with self._connections.borrow(timeout_s=self._timeout_s) as connection:
            try:
                return exchange(connection.pgconn, statement, request, timeout_s=self._timeout_s)
            except ServerFault:
                _abandon(connection)
                raise

    def _error(self, function: str, fault: ServerFault, arguments: Mapping[str, Json]) -> LedgerqError:
        if fault.sqlstate.startswith("22"):
            found = json_text.find_unstorable(arguments)
            fault = ServerFault(fault.sqlstate, found, fault.hint) if found else fault
        return error_for(f"{function} on {self._address.place}", fault)


def _abandon(connection: Connection) -> None:
    """Stop a statement that we no longer wait for, so that it does not hold its locks against our next try."""
    if connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
        try:
            connection.cancel_safe(timeout=1.0)
        except Error:
            return


def _worth_repeating(error: BaseException) -> bool:
    return isinstance(error, ServerFault) and is_repeatable(error.sqlstate)


def _log_repeat(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    log.info("call_repeated", attempt=state.attempt_number, statement=str(state.args[0]), error=str(error))


def _wait(state: RetryCallState) -> float:
    """From half to all of a doubling wait: clients that collided do not meet again."""
    longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (state.attempt_number - 1))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
