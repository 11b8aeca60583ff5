"""Waiting for a job by asking, patiently and not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ledgerq.errors import LedgerUnavailable
from ledgerq.models import Job

FIRST_WAIT_S: Final = 0.05
LONGEST_WAIT_S: Final = 2.0
GROWTH: Final = 1.5
LEDGER_AWAY_S: Final = 60.0
"""A ledger that is away for less than this only delays the answer: it restarts in seconds."""


@dataclass(frozen=True, slots=True)
class Waiter:
    """Asks with growing pauses. The clock and the pause are its caller's, so that tests need no time."""

    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep

    def until_finished(self, read: Callable[[], Job], timeout_s: float | None) -> Job:
        """The job once it is terminal.

        Raises:
            TimeoutError: it is not, after that many seconds.
            LedgerUnavailable: the ledger was away for a minute.
        """
        patience = Patience(self.clock, timeout_s)
        while True:
            answer = patience.ask(read)
            if isinstance(answer, Job):
                return answer
            self.pause(answer)


class Patience:
    """How long one wait goes on, and how often it asks."""

    def __init__(self, clock: Callable[[], float], timeout_s: float | None) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self._started = clock()
        self._away_since: float | None = None
        self._wait_s = FIRST_WAIT_S
        self._job: Job | None = None

    def ask(self, read: Callable[[], Job]) -> Job | float:
        """The job when it is terminal, otherwise the seconds to wait before asking again.

        Raises:
            TimeoutError, LedgerUnavailable: see `Waiter.until_finished`.
        """
        try:
            self._job = read()
            self._away_since = None
        except LedgerUnavailable:
            self._away_since = self._clock() if self._away_since is None else self._away_since
            if self._clock() - self._away_since > LEDGER_AWAY_S:
                raise
        if self._job is not None and self._job.status.is_terminal:
            return self._job
        left_s = self.left_s
        if left_s is not None and left_s <= 0:
            raise self.late()
        pause_s = self._wait_s if left_s is None else min(self._wait_s, left_s)
        self._wait_s = min(self._wait_s * GROWTH, LONGEST_WAIT_S)
        return pause_s

    @property
    def left_s(self) -> float | None:
        """Seconds until the timeout, below zero after it; None without one."""
        return None if self._timeout_s is None else self._timeout_s - (self._clock() - self._started)

    def late(self) -> TimeoutError:
        """What to raise at the timeout: says how the job was when it was last heard of."""
        return TimeoutError(self._still())

    def _still(self) -> str:
        if self._job is None:
            return f"the ledger did not say in {self._timeout_s:g} s how the job is"
        done = f"{self._job.done} of {self._job.total} tasks done"
        return f"job {self._job.id} is still {self._job.status} after {self._timeout_s:g} s ({done})"
