"""Beginning tasks: which of them are documents to work on, and which are answered at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from ledgerq.documents import reports
from ledgerq.documents.opened import OpenDocument
from ledgerq.documents.ports import DocumentLedger
from ledgerq.documents.stages import Stages
from ledgerq.errors import InvalidInput, LedgerqError
from ledgerq.models import DocumentWork, Task
from ledgerq.outcomes import Cancelled, Outcome


@dataclass(slots=True)
class Begun:
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    documents: list[OpenDocument] = field(default_factory=list[OpenDocument])
    error: LedgerqError | None = None
    """Why none of them could be begun."""


def begin(tasks: Sequence[Task], *, ledger: DocumentLedger, stages: Stages) -> Begun:
    """Allot generations to the tasks' documents and see what earlier tries stored: one call each, for all of them."""
    begun = Begun()
    about: list[tuple[Task, UUID]] = []
    for task in tasks:
        document = document_of(task)
        if document is None:
            wrong = InvalidInput(f"task {task.key!r} names no document: give it one, or the payload {{'document': '<uuid>'}}")
            begun.outcomes.append(reports.failed(task.id, wrong))
        else:
            about.append((task, document))
    if about:
        _begin(about, begun, ledger, stages)
    return begun


def document_of(task: Task) -> UUID | None:
    """The document that a task is about, by its own column or by its payload."""
    if task.document is not None:
        return task.document
    named = task.payload.get("document") if isinstance(task.payload, dict) else None
    try:
        return UUID(named) if isinstance(named, str) else None
    except ValueError:
        return None


def _begin(about: Sequence[tuple[Task, UUID]], begun: Begun, ledger: DocumentLedger, stages: Stages) -> None:
    try:
        works = _works({document for _, document in about}, ledger, stages)
    except LedgerqError as error:
        begun.error = error
        begun.outcomes.extend(reports.failure(task.id, error, attempts=task.attempts, uri="") for task, _ in about)
        return
    to_process: list[tuple[Task, DocumentWork]] = []
    for task, document in about:
        work = works.get(document) or DocumentWork(document=document, disposition="not_found")
        if work.disposition == "process":
            to_process.append((task, work))
        else:
            begun.outcomes.append(_answer(task, work))
    if to_process:
        _open(to_process, begun, stages)


def _works(documents: set[UUID], ledger: DocumentLedger, stages: Stages) -> dict[UUID, DocumentWork]:
    config = stages.config_digest
    works = {work.document: work for work in ledger.begin_documents(sorted(documents), config_digest=config)}
    wanting = _wanting(works.values(), stages)
    if wanting:
        works |= {work.document: work for work in ledger.begin_documents(sorted(wanting), config_digest=config, wanting=wanting)}
    for work in list(works.values()):
        if work.disposition == "process" and work.body is None and len(documents) > 1:  # there was no room for its text
            works |= {one.document: one for one in ledger.begin_documents([work.document], config_digest=config, wanting=wanting)}
    return works


def _wanting(works: Iterable[DocumentWork], stages: Stages) -> dict[UUID, int]:
    """Live generations that nothing has changed for, but whose points are not all there: somebody dropped the collection, or
    brought back an older state of it."""
    live = {work.document: work.live for work in works if work.disposition == "unchanged" and work.live and work.live.points}
    short = stages.vectors.short_of({document: (manifest.generation, manifest.points or 0) for document, manifest in live.items()})
    return {document: live[document].generation for document in short}


def _answer(task: Task, work: DocumentWork) -> Outcome:
    if work.disposition == "unchanged":
        return reports.unchanged(task.id, work)
    return Cancelled(task=task.id) if work.disposition == "deleted" else reports.unknown(task.id, work)


def _open(works: Sequence[tuple[Task, DocumentWork]], begun: Begun, stages: Stages) -> None:
    try:
        stages.vectors.ensure_collection()
        existing = stages.vectors.existing_of({work.document: work.generation for _, work in works})
    except LedgerqError as error:
        begun.error = error
        begun.outcomes.extend(reports.failure(task.id, error, attempts=task.attempts, uri=work.uri) for task, work in works)
        return
    begun.documents.extend(OpenDocument(task=task, work=work, existing=existing[work.document]) for task, work in works)
