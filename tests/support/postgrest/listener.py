"""Hears `notify pgrst`, on a connection of its own that it makes anew when it is lost."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg

from tests.support.postgrest.pool import connect

CHANNEL = "pgrst"
AGAIN_SECONDS = 0.2


@dataclass(slots=True)
class Listener:
    """`hear` is called with the payload of each notification, and with an empty one when a lost connection is made again."""

    dsn: str
    hear: Callable[[str], None]
    _ended: threading.Event = field(default_factory=threading.Event)
    _ready: threading.Event = field(default_factory=threading.Event)
    _wake: tuple[socket.socket, socket.socket] = field(default_factory=socket.socketpair)
    _thread: threading.Thread = field(init=False)

    def start(self) -> None:
        """Returns when it listens, or when the database does not let it."""
        self._thread = threading.Thread(target=self._listen, name="postgrest stand-in listener")
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        self._ended.set()
        self._wake[0].send(b"x")
        self._thread.join()
        for end in self._wake:
            end.close()

    def _listen(self) -> None:
        while not self._ended.is_set():
            with suppress(psycopg.Error), connect(self.dsn) as connection:
                connection.execute(f"listen {CHANNEL}")
                if self._ready.is_set():
                    self.hear("")
                self._ready.set()
                self._pass_on(connection)
            self._ready.set()
            self._ended.wait(AGAIN_SECONDS)

    def _pass_on(self, connection: psycopg.Connection) -> None:
        while not self._ended.is_set():
            select.select([connection, self._wake[1]], [], [])
            for notice in connection.notifies(timeout=0):
                self.hear(notice.payload)
