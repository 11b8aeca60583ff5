"""A TCP proxy in front of PostgreSQL, or of an API over HTTP, that loses what a network loses."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

CALL = b"select ledgerq."
"""What a call of the ledger looks like on the wire; logging in does not."""
HTTP_CALL = b"POST /rest/v1/rpc/"
"""The same over HTTP."""


@dataclass(slots=True)
class Faults:
    """What goes wrong next. All of it concerns calls only: logging in works."""

    replies_to_lose: int = 0
    """Calls that reach the server and are committed there, whose reply is dropped together with the connection."""
    requests_to_lose: int = 0
    """Calls that never reach the server."""
    replies_to_hold: int = 0
    """Calls whose reply never comes, on a connection that stays open."""
    refuse: bool = False
    """New connections are closed at once."""
    loss_rate: float = 0.0
    """The share of calls whose reply is lost like that, at random."""
    random: random.Random = field(default_factory=lambda: random.Random(0))
    connections: int = 0
    """That were accepted so far."""
    calls: int = 0
    """Calls that were sent through so far."""
    lost: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, name: str) -> bool:
        with self.lock:
            left: int = getattr(self, name)
            if left > 0:
                setattr(self, name, left - 1)
                self.lost += 1
            return left > 0

    def count_call(self) -> None:
        with self.lock:
            self.calls += 1

    def loses_reply(self) -> bool:
        """Whether the reply to the call that is sent now gets lost."""
        if self.take("replies_to_lose"):
            return True
        with self.lock:
            lost = self.random.random() < self.loss_rate
            self.lost += lost
        return lost


class Proxy:
    """Listens on a port of its own and passes everything on to the target, except for what `faults` says."""

    def __init__(self, host: str, port: int, *, call: bytes = CALL) -> None:
        self.faults = Faults()
        self._call = call
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_all()
        for thread in self._threads:
            thread.join(5)

    def drop_all(self) -> None:
        """Cut every connection now."""
        for one in list(self._open):
            _shut(one)

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.faults.refuse:
                client.close()
                continue
            self.faults.connections += 1
            server = socket.create_connection(self._target, timeout=5)
            server.settimeout(None)
            self._open |= {client, server}
            self._start(self._serve, client, server)

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        """Both directions in turn: our client speaks, then waits for the answer."""
        fate = _Fate()
        self._start(self._replies, client, server, fate)
        try:
            while data := _received(client):
                if self._call in data:
                    self.faults.count_call()
                    if self.faults.take("requests_to_lose"):
                        break
                    fate.lose = self.faults.loses_reply()
                    fate.hold = fate.hold or self.faults.take("replies_to_hold")
                server.sendall(data)
        except OSError:
            pass
        finally:
            self._part(client, server)

    def _replies(self, client: socket.socket, server: socket.socket, fate: _Fate) -> None:
        try:
            while data := _received(server):
                if fate.lose:
                    break
                if not fate.hold:
                    client.sendall(data)
        except OSError:
            pass
        finally:
            self._part(client, server)

    def _part(self, client: socket.socket, server: socket.socket) -> None:
        for one in (client, server):
            _shut(one)
            self._open.discard(one)


@dataclass(slots=True)
class _Fate:
    lose: bool = False
    hold: bool = False


@contextmanager
def proxied(dsn: str) -> Iterator[tuple[str, Proxy]]:
    """The same database, or the same API, through a proxy: its DSN or URL, and the proxy."""
    parts = urlsplit(dsn)
    assert parts.hostname is not None
    assert parts.port is not None
    proxy = Proxy(parts.hostname, parts.port, call=HTTP_CALL if parts.scheme == "http" else CALL)
    try:
        account, at, _ = parts.netloc.rpartition("@")
        yield urlunsplit(parts._replace(netloc=f"{account}{at}127.0.0.1:{proxy.port}")), proxy
    finally:
        proxy.close()


def _received(one: socket.socket) -> bytes:
    try:
        return one.recv(65_536)
    except OSError:
        return b""


def _shut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
