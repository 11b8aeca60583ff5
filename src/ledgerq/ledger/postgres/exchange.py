"""One call over one connection: a statement, its parameter, one value back, within a time."""

from __future__ import annotations

import select
from time import monotonic
from typing import TYPE_CHECKING

from psycopg import OperationalError
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus

from ledgerq.ledger.errors_table import ServerFault

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult


def exchange(connection: PGconn, statement: bytes, parameter: bytes, *, timeout_s: float) -> bytes:
    """Run a statement with one text parameter and return its single value.

    libpq is spoken to directly: a cursor would cost twice as much, and cannot give up on a server that stays silent.
    A statement without a transaction around it is one, so nothing is left behind in a session that a pooler shares.

    Raises:
        ServerFault: the server's error; with SQLSTATE 08006 when the connection broke or nothing came in time.
    """
    deadline = monotonic() + timeout_s
    try:
        connection.send_query_params(statement, [parameter])
        _flush(connection, deadline)
        return _value(_last_result(connection, deadline))
    except OperationalError as error:
        raise ServerFault("08006", str(error).strip()) from error


def _flush(connection: PGconn, deadline: float) -> None:
    """Send all of a large request. Reading meanwhile keeps a server that already talks from blocking both sides."""
    while connection.flush():
        _wait(connection, select.POLLIN | select.POLLOUT, deadline)
        connection.consume_input()


def _last_result(connection: PGconn, deadline: float) -> PGresult:
    """The statement's result. The one None behind it says that the server is ready for the next call."""
    last: PGresult | None = None
    while True:
        while connection.is_busy():
            _wait(connection, select.POLLIN, deadline)
            connection.consume_input()
        result = connection.get_result()
        if result is None:
            break
        last = result
    if last is None or connection.status == ConnStatus.BAD:
        raise _fault(last) if last is not None and _sqlstate(last) else ServerFault("08006", connection.get_error_message())
    return last


def _wait(connection: PGconn, events: int, deadline: float) -> None:
    poller = select.poll()
    poller.register(connection.socket, events)
    if not poller.poll(max(0.0, deadline - monotonic()) * 1_000):
        raise ServerFault("08006", "no answer in time")


def _value(result: PGresult) -> bytes:
    if result.status != ExecStatus.TUPLES_OK:
        raise _fault(result)
    value = result.get_value(0, 0)
    return b"null" if value is None else value


def _fault(result: PGresult) -> ServerFault:
    return ServerFault(_sqlstate(result), _field(result, DiagnosticField.MESSAGE_PRIMARY), _field(result, DiagnosticField.MESSAGE_HINT))


def _sqlstate(result: PGresult) -> str:
    return _field(result, DiagnosticField.SQLSTATE)


def _field(result: PGresult, field: DiagnosticField) -> str:
    return (result.error_field(field) or b"").decode("utf-8", "replace")
