"""Calls about queues, and about the ledger itself."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from pydantic import TypeAdapter

from ledgerq.ledger.answers import QueueChanged, QueueLimits, WorkerStats
from ledgerq.ledger.calls import Calls
from ledgerq.models import Health, QueueStats

_TIME: Final = TypeAdapter(datetime)


class QueueCalls(Calls):
    """One method per function. All of them may be repeated."""

    def save_queue(self, queue: str, limits: QueueLimits | None = None) -> QueueChanged:
        """Create a queue, or change what `limits` sets."""
        given = {} if limits is None else limits.model_dump(mode="json", exclude_unset=True)
        return self._send(QueueChanged, "save_queue", {"queue": queue, **given})

    def pause_queue(self, queue: str, *, actor: str) -> QueueChanged:
        """Nothing of the queue starts any more until it is resumed; what runs finishes its window."""
        return self._ask(QueueChanged, "pause_queue", queue=queue, actor=actor)

    def resume_queue(self, queue: str, *, actor: str) -> QueueChanged:
        """Undo a pause; the answer names the runs to push."""
        return self._ask(QueueChanged, "resume_queue", queue=queue, actor=actor)

    def queue_stats(self, queue: str | None = None) -> tuple[QueueStats, ...]:
        """Counts of one queue, or of all."""
        return self._list(QueueStats, "queue_stats", "queues", queue=queue)

    def worker_stats(self) -> tuple[WorkerStats, ...]:
        """Workers that hold runs now."""
        return self._list(WorkerStats, "worker_stats", "workers")

    def health(self) -> Health:
        """Whether the ledger answers, and which version it is."""
        return self._ask(Health, "health")

    def moment(self) -> datetime:
        """The ledger's time."""
        return _TIME.validate_python(self._value("moment", "now"))
