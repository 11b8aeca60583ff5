"""The ledger's functions as typed methods: the same names, over any transport."""

from __future__ import annotations

from typing import Self

from ledgerq.ledger.document_calls import DocumentCalls
from ledgerq.ledger.job_calls import JobCalls
from ledgerq.ledger.queue_calls import QueueCalls
from ledgerq.ledger.run_calls import RunCalls


class LedgerStore(JobCalls, RunCalls, QueueCalls, DocumentCalls):
    """All calls of the ledger. Holds no state but its transport, so it may be shared between threads.

    Every method raises what its transport raises (`Transport.call`). An expected race is a disposition in the answer,
    never an exception.
    """

    def close(self) -> None:
        """Close the transport."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
