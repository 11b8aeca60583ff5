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
        started = heard = self.clock()
        wait_s = FIRST_WAIT_S
        job: Job | None = None
        while True:
            try:
                job = read()
                heard = self.clock()
            except LedgerUnavailable:
                if self.clock() - heard > LEDGER_AWAY_S:
                    raise
            if job is not None and job.status.is_terminal:
                return job
            left_s = float("inf") if timeout_s is None else timeout_s - (self.clock() - started)
            if left_s <= 0:
                raise TimeoutError(_still(job, timeout_s))
            self.pause(min(wait_s, left_s))
            wait_s = min(wait_s * GROWTH, LONGEST_WAIT_S)


def _still(job: Job | None, timeout_s: float | None) -> str:
    if job is None:
        return f"the ledger did not say in {timeout_s:g} s how the job is"
    return f"job {job.id} is still {job.status} after {timeout_s:g} s ({job.done} of {job.total} tasks done)"
