"""Bounds history: removes what finished long ago, a batch at a time, so that cost follows the active set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from ledgerq.ledger.answers import Pruned

BATCH: Final = 1_000
BATCHES_A_ROUND: Final = 20
"""A round ends after so many batches, so that the duties behind it are not kept waiting; the next round goes on."""


class PrunableLedger(Protocol):
    def prune(self, *, finished_before_s: float, limit: int) -> Pruned: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneReport:
    """What one round removed."""

    jobs: int = 0
    runs: int = 0
    events: int = 0
    webhooks: int = 0
    usage: int = 0
    more: bool = False
    """Whether the next round has something to do at once."""

    def __add__(self, batch: Pruned) -> PruneReport:
        return PruneReport(
            jobs=self.jobs + batch.jobs,
            runs=self.runs + batch.runs,
            events=self.events + batch.events,
            webhooks=self.webhooks + batch.webhooks,
            usage=self.usage + batch.usage,
            more=batch.more,
        )


@dataclass(frozen=True, slots=True)
class Pruner:
    """Removes what finished more than `keep_finished_s` seconds ago. Unfinished work is never touched."""

    ledger: PrunableLedger
    keep_finished_s: float

    def run_once(self, stopped: Callable[[], bool] = lambda: False) -> PruneReport:
        """At most twenty batches; fewer when there is no more, or when `stopped` says so."""
        report = PruneReport()
        for _ in range(BATCHES_A_ROUND):
            report += self.ledger.prune(finished_before_s=self.keep_finished_s, limit=BATCH)
            if not report.more or stopped():
                break
        return report
