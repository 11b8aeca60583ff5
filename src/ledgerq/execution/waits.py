"""What lies between a handler and us: the lock of the desk, the time in which a handler waits for us, and a thread that reports
while a handler is busy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from ledgerq.execution.slate import Slate
from ledgerq.logs import get_logger

SHORTEST_WAIT_S: Final = 0.05
"""What an acknowledgement takes anyway is not worth moving deadlines for."""

log = get_logger("ledgerq.runner")


class Waits:
    """While a handler waits for the ledger, the clocks of its tasks stand still: the keeper reads that on the slate, and
    afterwards their deadlines are moved. Several threads of a handler may wait at once."""

    def __init__(self, slate: Slate, now: Callable[[], float]) -> None:
        self._slate = slate
        self._now = now
        self._mutex = threading.Lock()
        self._depth = 0
        self._since = 0.0

    def __enter__(self) -> None:
        with self._mutex:
            if self._depth == 0:
                self._since = self._now()
                self._slate.wait_since(int(self._since * 1e9))
            self._depth += 1

    def __exit__(self, *details: object) -> None:
        with self._mutex:
            self._depth -= 1
            if self._depth == 0:
                waited = self._now() - self._since
                self._slate.waited(int(waited * 1e9) if waited >= SHORTEST_WAIT_S else 0)


class HandlersLock:
    """A lock that may be taken again by who has it. Waiting for it counts as waiting for us: the reporter may have it."""

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            with self._waits:
                self._lock.acquire()

    def __exit__(self, *details: object) -> None:
        self._lock.release()

    def take_at_once(self) -> bool:
        """Take it if nobody has it; then `release`."""
        return self._lock.acquire(blocking=False)

    def release(self) -> None:
        self._lock.release()


class Reporter:
    """A thread that calls `look` every now and then, from the first time that it is needed to the end of the run.

    A thread and not the keeper, because what it reports is in this process; and not a signal, because it must not interrupt a
    handler. Where C code holds the interpreter's lock it waits, as anything in this process would. A fork does not inherit it.
    """

    def __init__(self, look: Callable[[], float]) -> None:
        """`look` returns the seconds until the next call."""
        self._look = look
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def need(self, within_s: float) -> None:
        """Call `look` for the first time after so many seconds, unless it runs already."""
        if self._thread is None and not self._ended.is_set():
            self._thread = threading.Thread(target=self._run, args=(within_s,), name="ledgerq-reporter", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Not another call; one that is being made is not waited for."""
        self._ended.set()

    def _run(self, pause: float) -> None:
        while not self._ended.wait(pause):
            try:
                pause = self._look()
            except Exception:  # whatever it was, the runner meets it too, and has somebody to tell
                log.exception("reporting failed")
                return
