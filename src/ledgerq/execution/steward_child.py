"""A steward in a process of its own beside a worker: the worker forks horses, and a process that forks must have no threads
that talk to a database."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from types import FrameType
from typing import Final, NoReturn, Protocol, TypeAlias

from ledgerq.logs import get_logger

LONGEST_STOP_S: Final = 5.0
PARENT_SEEN_EVERY_S: Final = 1.0
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0

log = get_logger("ledgerq.worker")


class StewardLoop(Protocol):
    """What runs there: `stewardship.Steward`."""

    def run_forever(self, stop: threading.Event) -> None: ...


MakeSteward: TypeAlias = Callable[[], AbstractContextManager[StewardLoop]]
"""Opens a steward with connections of its own, in the process that calls it."""


class StewardChild:
    """Starts, restarts and ends the steward's process. Use it from the process that made it."""

    def __init__(self, make: MakeSteward) -> None:
        self._make = make
        self._pid = 0
        self._owner = os.getpid()

    def ensure(self) -> None:
        """Start it if it does not run. A horse, which inherited this object, is not its owner and does nothing."""
        if os.getpid() != self._owner or self._runs():
            return
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _live(self._make, parent)
        self._pid = pid
        log.info("steward process started", pid=pid)

    def stop(self) -> None:
        """End it, and wait until it has."""
        if os.getpid() != self._owner or not self._runs():
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.kill(self._pid, number)
            if self._gone(LONGEST_STOP_S):
                return

    @property
    def pid(self) -> int:
        """Its process id; 0 when none was started or it was seen to have ended."""
        return self._pid

    def _runs(self) -> bool:
        """Our own child's pid cannot be anybody else's before we reap it."""
        if self._pid == 0:
            return False
        try:
            ended, _status = os.waitpid(self._pid, os.WNOHANG)
        except ChildProcessError:
            ended = self._pid
        if ended != 0:
            self._pid = 0
        return self._pid != 0

    def _gone(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self._runs():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True


def _live(make: MakeSteward, parent: int) -> NoReturn:
    """The child's whole life: rounds until it is told to stop or its parent is gone."""
    code = 1
    try:
        os.setsid()
        stop = threading.Event()

        def end(_number: int, _frame: FrameType | None) -> None:
            stop.set()

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        threading.Thread(target=_end_with, args=(parent, stop), daemon=True).start()
        _steward(make, stop)
        code = 0
    except BaseException:
        with suppress(BaseException):
            log.exception("steward process failed")
    finally:
        os._exit(code)


def _steward(make: MakeSteward, stop: threading.Event) -> None:
    """A steward meets what is away by itself; this is for what nobody thought of."""
    pause = FIRST_PAUSE_S
    while not stop.is_set():
        try:
            with make() as steward:
                steward.run_forever(stop)
        except Exception:
            log.exception("steward failed", again_in_s=pause)
            stop.wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)


def _end_with(parent: int, stop: threading.Event) -> None:
    while not stop.wait(PARENT_SEEN_EVERY_S):
        if os.getppid() != parent:
            stop.set()
