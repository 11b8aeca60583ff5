"""Removes points that nobody reads any more: replaced and abandoned generations, and deleted documents.

The ledger names them and forgets one only after its points were counted gone twice, so a removal that was lost, or a late
write that slipped in between, is met again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from ledgerq.errors import ServiceUnavailable
from ledgerq.ledger.answers import GarbageGone, GarbageItem
from ledgerq.logs import get_logger

BATCH: Final = 100
BATCHES_A_ROUND: Final = 10

log = get_logger("ledgerq.stewardship")


class GarbageLedger(Protocol):
    def garbage(self, *, limit: int, reader_grace_s: float) -> Sequence[GarbageItem]: ...

    def garbage_gone(self, items: Sequence[GarbageGone]) -> None: ...


class PointRemover(Protocol):
    """Where points are: filled by `assembly` when vectors are configured."""

    def remove(self, item: GarbageItem) -> int:
        """Remove the points of one generation (of all, when it names none) and count what is left of them.

        Raises:
            ServiceUnavailable: the vector store does not answer.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepReport:
    """What one round looked at."""

    removed: int = 0
    """Generations whose points were counted gone."""
    left: int = 0
    """Generations of which points were still there after the removal."""


@dataclass(frozen=True, slots=True)
class Sweeper:
    """Removes garbage that no reader can still be looking at."""

    ledger: GarbageLedger
    points: PointRemover
    reader_grace_s: float

    def run_once(self, stopped: Callable[[], bool] = lambda: False) -> SweepReport:
        """At most ten batches.

        Raises:
            ServiceUnavailable: the ledger or the vector store does not answer; what was counted before is recorded.
            Exception: what the vector store said of an item that it could not remove; the rest of its batch is recorded.
        """
        removed = left = 0
        for _ in range(BATCHES_A_ROUND):
            items = self.ledger.garbage(limit=BATCH, reader_grace_s=self.reader_grace_s)
            gone, error = self._remove(items)
            if gone:
                self.ledger.garbage_gone(gone)
            removed += sum(item.remaining == 0 for item in gone)
            left += sum(item.remaining > 0 for item in gone)
            if error is not None:
                raise error
            if len(items) < BATCH or stopped():
                break
        if removed or left:
            log.info("garbage points removed", generations=removed, left=left)
        return SweepReport(removed=removed, left=left)

    def _remove(self, items: Sequence[GarbageItem]) -> tuple[list[GarbageGone], Exception | None]:
        """What was counted, and what went wrong: a store that is away ends the batch, an item that is refused only itself."""
        gone: list[GarbageGone] = []
        refused: Exception | None = None
        for item in items:
            try:
                remaining = self.points.remove(item)
            except ServiceUnavailable as error:
                return gone, error
            except Exception as error:  # noqa: BLE001 - whatever a vector store says of one item, it is not about the others
                log.info("garbage points not removed", document=item.document, generation=item.generation, cause=str(error))
                refused = error
                continue
            gone.append(GarbageGone(document=item.document, generation=item.generation, remaining=remaining))
        return gone, refused
