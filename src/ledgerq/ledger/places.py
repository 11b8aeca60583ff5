"""Connections that are opened when they are needed, kept for the next call, and never shared: neither by two threads at once nor
across a fork.

Not psycopg's pool, which works with threads of its own: they do not survive a fork, and cost a short-lived horse more than its one
connection. Nor httpx's: its threads take a connection that has just been given to another for one that the server closed.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from threading import Semaphore
from time import monotonic
from typing import Final, Generic, Protocol, TypeVar

from ledgerq.errors import LedgerUnavailable, WrongState

CLOSED: Final = "this way to the ledger was closed"


class Condition(Enum):
    """What a connection is after a call."""

    GOOD = auto()
    SPOILED = auto()
    """Not to be used again: something is left in it."""
    LOST = auto()
    """The other end is gone, and the others went with it, most likely: the next call should not have to find that out one by one."""


class Closable(Protocol):
    def close(self) -> None: ...


C = TypeVar("C", bound=Closable)


@dataclass(slots=True)
class _OfOneProcess(Generic[C]):
    places: Semaphore
    idle: deque[tuple[C, float]] = field(default_factory=deque)  # pyright: ignore[reportUnknownVariableType] - of nothing yet


class Places(Generic[C]):
    """At most `size` connections a process, opened by `open_one`, the one used last given out first.

    One that was idle for `longest_idle_s` seconds is not used again: whatever is in between forgets it silently.
    """

    def __init__(self, open_one: Callable[[], C], condition: Callable[[C], Condition], *, size: int, longest_idle_s: float) -> None:
        self._open_one = open_one
        self._condition = condition
        self._size = size
        self._longest_idle_s = longest_idle_s
        self._by_process: dict[int, _OfOneProcess[C]] = {}
        self._closed = False

    @contextmanager
    def borrow(self, *, timeout_s: float) -> Generator[C]:
        """A connection for one call. It is kept afterwards if it is still good, whatever happened.

        Raises:
            LedgerUnavailable: all are in use for that long.
            WrongState: this was closed.
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

    def _mine(self) -> _OfOneProcess[C]:
        """What this process opened. A child finds nothing under its pid, and leaves its parent's connections alone:
        they stay referenced, because closing one would end the parent's session. `setdefault` is atomic, where a lock
        might have been held by another thread at the fork.
        """
        pid = os.getpid()
        return self._by_process.get(pid) or self._by_process.setdefault(pid, _OfOneProcess(Semaphore(self._size)))

    def _take(self, mine: _OfOneProcess[C]) -> C:
        if self._closed:
            raise WrongState(CLOSED)
        while True:
            try:
                connection, since = mine.idle.pop()
            except IndexError:
                return self._open_one()
            if monotonic() - since < self._longest_idle_s:
                return connection
            connection.close()

    def _give_back(self, mine: _OfOneProcess[C], connection: C) -> None:
        condition = self._condition(connection)
        if condition is Condition.GOOD and not self._closed:
            mine.idle.append((connection, monotonic()))
            return
        connection.close()
        if condition is Condition.LOST:
            self._close_idle(mine)

    def _close_idle(self, mine: _OfOneProcess[C]) -> None:
        while True:
            try:
                connection, _ = mine.idle.pop()
            except IndexError:
                return
            connection.close()
