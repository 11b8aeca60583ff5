"""A document that is at work, between being taken and its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from ledgerq.documents import reports
from ledgerq.documents.embed import Embedder
from ledgerq.documents.stages import Plan, Prepared
from ledgerq.handlers import TaskContext
from ledgerq.ids import new_id
from ledgerq.models import DocumentWork, Task
from ledgerq.outcomes import Cancelled, Outcome, Usage


@dataclass(slots=True, eq=False)
class OpenDocument:
    """What is known about it so far. Written by one thread only."""

    task: Task
    work: DocumentWork
    existing: set[UUID]
    """Points that an earlier try stored."""
    prepared: Prepared | None = None
    plan: Plan | None = None
    unstored: int = 0
    """Chunks that are to be embedded and are not stored yet."""
    steps: int = 0
    """Steps that threads are carrying out for it."""
    tokens: int = 0
    cost: float = 0.0
    error: BaseException | None = None
    cancelled: bool = False

    @property
    def is_given_up(self) -> bool:
        return self.cancelled or self.error is not None

    @property
    def is_over(self) -> bool:
        """Nothing is running for it, and nothing more will. An outcome before that could be overtaken by a late write."""
        return not self.steps and (self.is_given_up or (self.plan is not None and not self.unstored))

    def outcome(self, context: TaskContext, embedder: Embedder) -> Outcome:
        """What became of it. What was spent is recorded whatever that is."""
        if not self.is_given_up and self.prepared is not None and self.plan is not None:
            usage = self._usage(embedder, saved_tokens=self.plan.saved_tokens)
            return reports.indexed(self.task.id, self.prepared, self.plan, tokens=self.tokens, usage=usage)
        for spent in self._usage(embedder, saved_tokens=0):
            context.usage(spent, self.task)
        if self.cancelled or self.error is None:
            return Cancelled(task=self.task.id)
        context.log.info("document not indexed", uri=self.work.uri, error=str(self.error))
        return reports.failure(self.task.id, self.error, attempts=self.task.attempts, uri=self.work.uri)

    def _usage(self, embedder: Embedder, *, saved_tokens: int) -> tuple[Usage, ...]:
        """One entry for all that was spent and saved for this document in this try, with an id of its own: counted once. What an
        earlier try stored was paid for then, and is nothing saved."""
        if not self.tokens and not saved_tokens:
            return ()
        return (
            Usage(
                id=new_id(), provider=embedder.provider, model=embedder.name, tokens=self.tokens, cost=self.cost, saved_tokens=saved_tokens
            ),
        )
