"""The handler that makes documents searchable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from ledgerq.documents.ports import DocumentLedger
from ledgerq.documents.stages import Stages
from ledgerq.documents.window import WindowSettings, Workers, outcomes_of
from ledgerq.handlers import TaskContext
from ledgerq.models import Task
from ledgerq.outcomes import Outcome


class DocumentPipeline:
    """Everything that `process_documents` needs, for one process. Made after a fork; closed at the end."""

    def __init__(self, *, ledger: DocumentLedger, stages: Stages, settings: WindowSettings | None = None) -> None:
        self.ledger = ledger
        self.stages = stages
        self.settings = settings or WindowSettings()
        self.workers = Workers(
            loading=ThreadPoolExecutor(1, thread_name_prefix="ledgerq-load"),
            storing=ThreadPoolExecutor(stages.embedder.concurrency + 1, thread_name_prefix="ledgerq-store"),
        )

    def close(self) -> None:
        """End threads, the parser process and connections. Steps that run are not waited for longer than they take to fail."""
        for executor in (self.workers.loading, self.workers.storing):
            executor.shutdown(wait=False, cancel_futures=True)
        self.stages.close()


def process_documents(tasks: Iterable[Task], context: TaskContext, document_pipeline: DocumentPipeline) -> Iterator[Outcome]:
    """Load, chunk, embed and store the documents of the tasks; a window handler.

    Each task names a document (`task.document`, or a payload `{"document": "<uuid>"}`). Its outcome is

    - `Completed` with the counts as result and the effect that makes the new points live; without an effect when content and
      config are those of the live points;
    - `Failed` for what can never be processed: the message names the document's uri and says why;
    - `Retry`, without charge, when the ledger, the storage, the embedder or Qdrant is away or asks to wait;
    - `Cancelled` when its job was cancelled or the document was deleted. Points that were stored by then are never seen; the
      sweeper removes them, because only the ledger knows that no other worker builds the same generation.
    """
    return outcomes_of(
        tasks,
        context,
        ledger=document_pipeline.ledger,
        stages=document_pipeline.stages,
        workers=document_pipeline.workers,
        settings=document_pipeline.settings,
    )
