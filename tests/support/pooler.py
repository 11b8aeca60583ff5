"""A transaction pooler in front of PostgreSQL, stricter than real ones: each transaction gets the session that rested longest.

Logging in to the server is left to psycopg; then its socket is spoken to directly, below libpq, which is never used again.
The pooler itself asks nobody for a password. TLS is not spoken.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from queue import SimpleQueue
from secrets import token_bytes
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import psycopg

REPORTED: Final = (
    *("server_version", "server_encoding", "client_encoding", "DateStyle", "IntervalStyle", "TimeZone"),
    *("integer_datetimes", "standard_conforming_strings"),
)
"""What a server tells each client of itself at its login."""
ENCRYPTION: Final = frozenset({80877103, 80877104})
"""The codes of SSLRequest and GSSENCRequest."""
CANCEL: Final = 80877102
ENDS_BATCH: Final = frozenset({b"Q", b"S", b"F"})
"""Query, Sync and function call: what the server answers with a ReadyForQuery."""
UNKNOWN: Final = "(ENOTFOUND) tenant/user {} not found"
SESSION_LOST: Final = "(EDBHANDLEREXITED) connection to database closed. Check logs for more information"
"""Two errors of Supavisor's, both with SQLSTATE XX000."""
FATAL: Final = b"SFATAL\0"


class Pooler:
    """Listens on a port of its own. With a tenant it serves only users that are called `role.tenant`, as Supavisor does."""

    def __init__(self, dsn: str, *, sessions: int, tenant: str | None) -> None:
        parts = urlsplit(dsn)
        self._user = f"{parts.username}.{tenant}" if tenant else str(parts.username)
        self._server = dsn
        self._idle: SimpleQueue[_Session] = SimpleQueue()
        self._busy: dict[int, _Session] = {}
        self._secrets: dict[int, bytes] = {}
        self._lock = threading.Lock()
        self._clients: set[_Wire] = set()
        self._numbers = count(1)
        self._threads: list[threading.Thread] = []
        opened = [_Session(dsn) for _ in range(sessions)]
        self._parameters = opened[0].reported()
        for session in opened:
            self._idle.put(session)
        self._sessions = sessions
        self._listener = socket.create_server(("127.0.0.1", 0))
        where = f"{self._user}:{parts.password}@127.0.0.1:{self._listener.getsockname()[1]}"
        self.dsn = urlunsplit(parts._replace(netloc=where))
        self._start(self._accept)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in list(self._clients):
            client.shut()
        for thread in list(self._threads):
            thread.join(10)
        for _ in range(self._sessions):
            self._idle.get(timeout=10).close()

    # --- clients ------------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as libpq has it on its side
            client = _Wire(accepted)
            self._clients.add(client)
            self._start(self._serve, client)

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _serve(self, client: _Wire) -> None:
        number = next(self._numbers)
        try:
            if self._greet(client, number):
                while (message := client.next())[:1] != b"X":
                    with self._lent_to(number) as session:
                        _relay_transaction(client, session.wire, message)
        except (OSError, EOFError):
            with contextlib.suppress(OSError):
                client.send(_fatal(SESSION_LOST))
        finally:
            client.shut()
            self._clients.discard(client)

    def _greet(self, client: _Wire, number: int) -> bool:
        """Whether the client is in."""
        while (code := int.from_bytes((packet := client.first())[4:8])) in ENCRYPTION:
            client.send(b"N")
        if code == CANCEL:
            self._cancel(int.from_bytes(packet[8:12]), packet[12:])
            return False
        if (user := _user_of(packet)) != self._user:
            client.send(_fatal(UNKNOWN.format(user)))
            return False
        self._secrets[number] = token_bytes(4)
        identity = number.to_bytes(4) + self._secrets[number]
        client.send(_message(b"R", bytes(4)) + self._parameters + _message(b"K", identity) + _message(b"Z", b"I"))
        return True

    def _cancel(self, number: int, secret: bytes) -> None:
        """What that client waits for now, in whichever session; the lock keeps the session from passing to another one meanwhile."""
        with self._lock:
            if secret == self._secrets.get(number) and (session := self._busy.get(number)):
                session.cancel()

    # --- sessions -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _lent_to(self, number: int) -> Iterator[_Session]:
        """For one transaction. A session whose transaction did not end is replaced by a new one."""
        session = self._usable(self._idle.get())
        with self._lock:
            self._busy[number] = session
        try:
            yield session
        except BaseException:
            session = self._replaced(session)
            raise
        finally:
            with self._lock:
                del self._busy[number]
            self._idle.put(session)

    def _usable(self, session: _Session) -> _Session:
        """A server that speaks unasked says that it ends."""
        return self._replaced(session) if session.wire.has_news() else session

    def _replaced(self, session: _Session) -> _Session:
        session.close()
        return _Session(self._server)


@contextmanager
def pooled(dsn: str, *, sessions: int = 3, tenant: str | None = None) -> Iterator[Pooler]:
    """The same database through a transaction pooler."""
    pooler = Pooler(dsn, sessions=sessions, tenant=tenant)
    try:
        yield pooler
    finally:
        pooler.close()


def _relay_transaction(client: _Wire, server: _Wire, first: bytes) -> None:
    """Pass everything on in both directions, until the server has answered all of it and is in no transaction."""
    requests, unanswered, idle = [first, *client.complete()], 0, False
    while True:
        for request in requests:
            if request[:1] == b"X":
                raise EOFError
            unanswered += request[:1] in ENDS_BATCH
            server.send(request)
        readable, _, _ = select.select([client, server], [], [])
        if server in readable:
            server.receive()
            for answer in server.complete():
                if answer[:1] == b"E" and FATAL in answer:
                    raise EOFError  # the client is told no more than Supavisor tells
                if answer[:1] == b"Z":
                    unanswered, idle = unanswered - 1, answer[5:6] == b"I"
                client.send(answer)
            if idle and not unanswered:
                return
        if client in readable:
            client.receive()
        requests = list(client.complete())


class _Session:
    """One login at the server."""

    def __init__(self, dsn: str) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True)
        self.wire = _Wire(socket.socket(fileno=os.dup(self._connection.fileno())))
        self.wire.socket.setblocking(True)

    def reported(self) -> bytes:
        told = {name: self._connection.pgconn.parameter_status(name.encode()) for name in REPORTED}
        return b"".join(_message(b"S", name.encode() + b"\0" + value + b"\0") for name, value in told.items() if value is not None)

    def cancel(self) -> None:
        self._connection.cancel_safe(timeout=5)

    def close(self) -> None:
        self._connection.close()
        self.wire.shut()


class _Wire:
    """One direction's messages: a type, a length that counts itself, a body."""

    def __init__(self, one: socket.socket) -> None:
        self.socket = one
        self._received = bytearray()

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> None:
        """What there is; EOFError at the end."""
        data = self.socket.recv(65_536)
        if not data:
            raise EOFError
        self._received += data

    def complete(self) -> Iterator[bytes]:
        """The messages that are here as a whole."""
        while message := self._taken(skip=1):
            yield message

    def next(self) -> bytes:
        """One message, waited for."""
        return self._awaited(skip=1)

    def first(self) -> bytes:
        """What a client begins with has no type."""
        return self._awaited(skip=0)

    def has_news(self) -> bool:
        return bool(select.select([self], [], [], 0)[0])

    def shut(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def _awaited(self, *, skip: int) -> bytes:
        while not (message := self._taken(skip=skip)):
            self.receive()
        return message

    def _taken(self, *, skip: int) -> bytes:
        """Empty while it is incomplete."""
        head = self._received[skip : skip + 4]
        end = skip + int.from_bytes(head)
        if len(head) < 4 or len(self._received) < end:
            return b""
        message = bytes(self._received[:end])
        del self._received[:end]
        return message


def _user_of(startup: bytes) -> str:
    words = startup[8:].split(b"\0")
    return dict(zip(words[::2], words[1::2], strict=False)).get(b"user", b"").decode()


def _fatal(text: str) -> bytes:
    return _message(b"E", FATAL + b"VFATAL\0CXX000\0M" + text.encode() + b"\0\0")


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + (len(body) + 4).to_bytes(4) + body
