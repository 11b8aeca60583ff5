"""From files to searchable documents: save them in the ledger, create the jobs, and tell what became of each file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid5

from ledgerq.cli.files import FileSet, FoundFile, LeftOut
from ledgerq.cli.jobs_show import error_line
from ledgerq.cli.watch import Watched, watch

if TYPE_CHECKING:
    from ledgerq.ledger import LedgerStore
    from ledgerq.manager import CreatedJob, JobManager
    from ledgerq.models import DocumentRequest, Job, Json, TaskRecord

DOCUMENTS_A_CALL: Final = 500
"""The ledger's bound for one `save_documents`."""
SOURCES: Final = UUID("5d0a6d52-8f0c-5b7e-9a53-0c5f3b1c7a11")
"""Namespace of the ids of sources that are named on the command line."""


class DocumentStatus(StrEnum):
    """What became of a file."""

    INDEXED = "indexed"
    """Its text is searchable now."""
    FAILED = "failed"
    """It was given up; the error says why."""
    CANCELLED = "cancelled"
    """Its job was cancelled before it was done."""
    SKIPPED = "skipped"
    """A folder held it, and it is nothing that is taken from folders."""
    PENDING = "pending"
    """Not known yet: nobody waited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentReport:
    """One file: `{"uri", "document_id", "status", "error"}` as JSON."""

    uri: str
    document_id: UUID | None
    status: DocumentStatus
    error: str | None
    result: Json = None
    """What the handler said of it."""

    def as_json(self) -> dict[str, object]:
        return {"uri": self.uri, "document_id": self.document_id, "status": self.status, "error": self.error}


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A job, and the files that it is about."""

    title: str
    job: CreatedJob
    files: Mapping[UUID, FoundFile]


def start(
    store: LedgerStore, jobs: JobManager, sets: Sequence[FileSet], *, tenant: str, source: str | None, queue: str | None = None
) -> list[Started]:
    """Save the documents and create a job for each set that has files.

    Raises:
        LedgerUnavailable: what was saved stands; the same call again completes it.
    """
    source_id = None if source is None else _save_source(store, source, tenant)
    return [_start_one(store, jobs, one, tenant, source_id, queue) for one in sets if one.files]


def wait(jobs: JobManager, started: Sequence[Started]) -> list[Job]:
    """The jobs once they have ended, with their progress on stderr."""
    return watch(jobs, [Watched(title=one.title, job=one.job) for one in started])


def report(jobs: JobManager, started: Sequence[Started], left_out: Sequence[LeftOut]) -> list[DocumentReport]:
    """Every file, in the order of the jobs, and then those that were left out."""
    found = [line for one in started for line in _outcomes(jobs, one)]
    return [*found, *map(_left_out, left_out)]


def report_pending(started: Sequence[Started], left_out: Sequence[LeftOut]) -> list[DocumentReport]:
    """As `report`, where nobody waited."""
    found = [
        DocumentReport(uri=file.uri, document_id=document, status=DocumentStatus.PENDING, error=None)
        for one in started
        for document, file in one.files.items()
    ]
    return [*found, *map(_left_out, left_out)]


def _save_source(store: LedgerStore, name: str, tenant: str) -> UUID:
    """The same name is the same source, so that a file which is ingested again is recognised."""
    source = uuid5(SOURCES, f"{tenant}\0{name}")
    store.save_source(source, kind="files", tenant=tenant, details={"name": name})
    return source


def _start_one(store: LedgerStore, jobs: JobManager, one: FileSet, tenant: str, source: UUID | None, queue: str | None) -> Started:
    files: dict[UUID, FoundFile] = {}
    for batch in _batches(one.files):
        saved = store.save_documents([_request(file) for file in batch], tenant=tenant, source=source)
        files |= {answer.id: file for answer, file in zip(saved, batch, strict=True)}
    job = jobs.create_processing_job(source, files, tenant=tenant, queue=queue, details={"title": one.title})
    return Started(title=one.title, job=job, files=files)


def _batches(files: Sequence[FoundFile]) -> Iterator[Sequence[FoundFile]]:
    return (files[start : start + DOCUMENTS_A_CALL] for start in range(0, len(files), DOCUMENTS_A_CALL))


def _request(file: FoundFile) -> DocumentRequest:
    from ledgerq.models import DocumentBody, DocumentRequest

    return DocumentRequest(
        uri=file.uri,
        content_type=file.content_type,
        content_hash=file.content_hash,
        byte_size=file.byte_size,
        body=DocumentBody(kind="file", path=str(file.path)),
    )


def _outcomes(jobs: JobManager, one: Started) -> Iterator[DocumentReport]:
    for task in jobs.iter_tasks(one.job.id):
        if task.document is not None and task.document in one.files:
            yield _outcome(one.files[task.document].uri, task)


def _outcome(uri: str, task: TaskRecord) -> DocumentReport:
    statuses = {"completed": DocumentStatus.INDEXED, "failed": DocumentStatus.FAILED, "cancelled": DocumentStatus.CANCELLED}
    status = statuses.get(task.status, DocumentStatus.PENDING)
    error = error_line(task.error) if status is DocumentStatus.FAILED else None
    return DocumentReport(uri=uri, document_id=task.document, status=status, error=error, result=task.result)


def _left_out(file: LeftOut) -> DocumentReport:
    status = DocumentStatus.FAILED if file.failed else DocumentStatus.SKIPPED
    return DocumentReport(uri=file.path.as_uri(), document_id=None, status=status, error=file.reason)
