"""Blocking calls made from coroutines, in threads of our own.

Never the event loop's default executor: it belongs to everybody, and `asyncio.run` waits at its end for whatever hangs in it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any, TypeVar

from ledgerq.errors import WrongState

R = TypeVar("R")


class Lane:
    """At most so many calls at once, in the order of asking; the others wait without a thread.

    Threads are started by the first calls, and end when the lane is closed or forgotten. A lane belongs to no event loop: loops
    may follow one another and run beside each other. After a fork the child has threads of its own, and none of its parent's calls.
    """

    def __init__(self, name: str, *, threads: int) -> None:
        self._name = name
        self._threads = threads
        self._by_process: dict[int, _OfOneProcess] = {}
        self._closed = False

    async def call(self, work: Callable[[], R]) -> R:
        """What the work returns or raises. It sees the caller's context variables.

        Cancelled, this ends at once: work that had not begun never will, and work that had goes on unseen.

        Raises:
            WrongState: the lane is closed, or was before the work began.
        """
        begun = self._submit(work)
        try:
            await _end_of(begun)
        finally:
            begun.cancel()
        try:
            return begun.result()
        except CancelledError:
            raise self._refusal() from None
        finally:
            del begun  # an exception holds this frame, which would hold the exception

    def close(self) -> list[Future[Any]]:
        """Begin nothing more. Returns the calls that have begun and go on; their threads end with them."""
        self._closed = True
        mine = self._mine()
        mine.executor.shutdown(wait=False, cancel_futures=True)
        return list(mine.begun)

    def _submit(self, work: Callable[[], R]) -> Future[R]:
        mine = self._mine()
        if self._closed:
            raise self._refusal()
        try:
            begun = mine.executor.submit(copy_context().run, work)
        except RuntimeError:
            if self._closed:  # meanwhile, by another thread
                raise self._refusal() from None
            raise
        mine.begun.add(begun)
        begun.add_done_callback(mine.begun.discard)
        return begun

    def _mine(self) -> _OfOneProcess:
        """What this process started. A child finds nothing under its pid; `setdefault` is atomic, where a lock might have been
        held by another thread at the fork.
        """
        pid = os.getpid()
        return self._by_process.get(pid) or self._by_process.setdefault(pid, _OfOneProcess(self._name, self._threads))

    def _refusal(self) -> WrongState:
        return WrongState(f"this {self._name} was closed")


async def ended(calls: Sequence[Future[Any]], *, patience_s: float) -> None:
    """Wait until the calls are over, but no longer than that."""
    if calls:
        await asyncio.wait([_end_of(call) for call in calls], timeout=patience_s)


class _OfOneProcess:
    def __init__(self, name: str, threads: int) -> None:
        self.executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self.begun: set[Future[Any]] = set()


def _end_of(call: Future[Any]) -> asyncio.Future[None]:
    """Tells the running loop that the call is over. What came of it stays in the call, where nobody has to fetch it.

    A loop that is closed by then waits for nothing any more: `asyncio.wrap_future` would log an error in this thread.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def tell(_: Future[Any]) -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle, ended)

    call.add_done_callback(tell)
    return ended


def _settle(ended: asyncio.Future[None]) -> None:
    if not ended.done():
        ended.set_result(None)
