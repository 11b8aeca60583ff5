"""Asking for work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from ledgerq.durations import Duration, seconds
from ledgerq.errors import InvalidInput, LedgerUnavailable, NotFound, WrongState
from ledgerq.manager.base import ManagerBase
from ledgerq.manager.creation import JobCreator
from ledgerq.manager.reports import CreatedJob, CreatedJobs
from ledgerq.manager.requests import Id, above_zero, as_mapping, as_uuid, as_uuids, built, given, queue_name, task_requests
from ledgerq.models import Disposition, JobDisposition, JobPriority, JobRequest, JobType, Json, TaskRequest

DOCUMENTS_A_CALL: Final = 5_000
"""The ledger's bound for one `missing_documents`."""


class Creating(ManagerBase):
    """Creates jobs. A job is safe in the ledger before Redis is asked at all."""

    def create_job(
        self,
        type: str,  # noqa: A002 - the word of the domain
        payload: Json = None,
        *,
        tasks: Iterable[TaskRequest | Mapping[str, Any]] | None = None,
        id: Id | None = None,  # noqa: A002
        queue: str | None = None,
        tenant: str = "",
        owner: Id | None = None,
        project: str | None = None,
        source: Id | None = None,
        priority: JobPriority | str = JobPriority.NORMAL,
        details: Mapping[str, Json] | None = None,
        dedupe_key: str | None = None,
        due_at: datetime | None = None,
        delay: Duration | None = None,
        max_attempts: int | None = None,
        timeout: Duration | None = None,
        deadline: Duration | None = None,
        external: bool = False,
        sealed: bool = True,
    ) -> CreatedJob:
        """Create one job: with one task that carries the payload, or with the given tasks (none at all: complete at once).

        Args:
            type: a type with a handler, or an external one.
            queue: where it waits; `LEDGERQ_QUEUE` where it is not given.
            tenant: who is limited and kept apart; "" is the default one. At most 200 characters, like `project`.
            owner: the user who may see it (`auth.uid()`).
            project: a label inside the tenant to list by.
            source: where its documents come from.
            priority: `low`, `normal`, `high` or `urgent`.
            details: what you want to keep with the job, an object of at most 64 KiB.
            max_attempts: 1 to 100 tries of each task; the handler's, then the queue's, where it is not given.
            payload: anything JSON can say, at most 64 KiB.
            tasks: more than one unit of work. Tasks with the same key are one task.
            id: your own id (UUID); asking again under the same id is the same request, also after a crash in between.
            dedupe_key: while an unfinished job of this tenant and type holds the key, that job is answered (`duplicate`).
            due_at: not before this moment (with a time zone); or `delay` from now by the ledger's clock.
            timeout: of each task, from being taken to its outcome.
            deadline: what still waits after this long is failed (the queue's default: 7 days).
            external: the work happens outside and is reported with `update_job`, `complete_job` and `fail_job`. Such a job has
                no tasks to give; what it is about goes into `details`.
            sealed: False keeps the job open for `add_tasks` until `seal_job`.

        Raises:
            InvalidInput: names the field and the value (`UnknownType`, `UnknownQueue`, `TooLarge` are such); nothing was written.
            WrongState: another request was made under that id.
            LedgerUnavailable: the ledger did not answer. Asking again under the same id is safe.
        """
        if not isinstance(type, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers err
            raise InvalidInput(f"type: {type!r} is no name of a type")
        external = external or self._rules.is_external(type)
        if external and (payload is not None or tasks is not None):
            raise InvalidInput(f"type {type!r}: an external job has no payload and no tasks; say what it is about in `details`")
        fields: dict[str, Any] = {
            "type": type,
            "id": None if id is None else as_uuid(id, "id"),
            "queue": queue_name(queue, self._queue),
            "tenant": tenant,
            "owner": None if owner is None else as_uuid(owner, "owner"),
            "project": project,
            "source": None if source is None else as_uuid(source, "source"),
            "priority": priority,
            "details": None if details is None else as_mapping(details, "details"),
            "dedupe_key": dedupe_key,
            "due_at": due_at,
            "delay_s": None if delay is None else seconds(delay, name="delay"),
            "max_attempts": max_attempts,
            "timeout_s": above_zero(timeout, "timeout"),
            "deadline_s": above_zero(deadline, "deadline"),
            "external": external,
            "sealed": sealed,
            "tasks": () if external else task_requests(payload, tasks),
        }
        return self._create_one(built(JobRequest, given(fields)))

    def create_jobs(self, requests: Iterable[JobRequest]) -> CreatedJobs:
        """Create any number of jobs; thousands a second when they are small.

        Raises:
            InvalidInput: one of them is wrong; nothing was written. What only the ledger can know (whether a queue, a source or a
                document exists) refuses the batch of at most 1,000 requests that it is in; earlier batches stand.
            LedgerUnavailable: the ledger did not answer; earlier batches stand, and the same requests again complete the rest.
        """
        if not isinstance(requests, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] - callers err
            raise InvalidInput(f"requests: {requests!r} is no list of requests")
        wanted = list(requests)
        for number, request in enumerate(wanted):
            if not isinstance(request, JobRequest):  # pyright: ignore[reportUnnecessaryIsInstance] - callers err
                raise InvalidInput(f"requests[{number}]: {request!r} is no JobRequest")
        return self._creator().create(wanted)

    def create_processing_job(
        self,
        source_id: Id | None,
        document_ids: Iterable[Id],
        *,
        id: Id | None = None,  # noqa: A002
        queue: str | None = None,
        tenant: str | None = None,
        owner: Id | None = None,
        project: str | None = None,
        priority: JobPriority | str = JobPriority.NORMAL,
        details: Mapping[str, Json] | None = None,
        dedupe_key: str | None = None,
        due_at: datetime | None = None,
        delay: Duration | None = None,
        max_attempts: int | None = None,
        timeout: Duration | None = None,
        deadline: Duration | None = None,
    ) -> CreatedJob:
        """Create the job that makes documents searchable, one task a document: any number of them.

        All documents are looked up first. Tenant, owner and project are the source's where they are not given. Beyond 5,000
        documents the job starts with the first of them and grows; it cannot end before it is complete, and a crash in the
        middle is repaired by asking again under the same `id`.

        Raises:
            NotFound: the source or some documents do not exist, or are another tenant's; the message names up to five. Nothing was
                written.
            InvalidInput: names the field and the value (`UnknownQueue` is such).
            WrongState: another request was made under that id.
            LedgerUnavailable: the ledger did not answer. Asking again under the same id is safe.
        """
        documents = as_uuids(document_ids, "document_ids")
        fields: dict[str, Any] = {"tenant": tenant, "owner": owner, "project": project}
        if source_id is not None:
            fields = self._of_source(as_uuid(source_id, "source_id"), fields)
        self._require_documents(documents, fields["tenant"] or "")
        return self.create_job(
            JobType.PROCESS,
            tasks=[TaskRequest(key=str(document), document=document) for document in documents],
            id=id,
            queue=queue,
            source=source_id,
            priority=priority,
            details=details,
            dedupe_key=dedupe_key,
            due_at=due_at,
            delay=delay,
            max_attempts=max_attempts,
            timeout=timeout,
            deadline=deadline,
            **given(fields),
        )

    def enqueue_document_processing(
        self, document_id: Id, *, queue: str | None = None, priority: JobPriority | str = JobPriority.NORMAL, delay: Duration | None = None
    ) -> CreatedJob:
        """Process one document. While such a job of it is unfinished, that job is answered: nothing is done twice.

        Raises:
            NotFound: there is no such document.
            UnknownQueue: there is no such queue.
            LedgerUnavailable: the ledger did not answer. Asking again is safe.
        """
        document = self._store.document_get(as_uuid(document_id, "document_id"))
        if document is None or document.status == "deleted":
            raise NotFound(f"there is no document {document_id}")
        return self.create_job(
            JobType.PROCESS,
            tasks=[TaskRequest(key=str(document.id), document=document.id)],
            queue=queue,
            tenant=document.tenant,
            owner=document.owner,
            project=document.project,
            source=document.source,
            priority=priority,
            dedupe_key=f"doc:{document.id}",
            delay=delay,
        )

    def add_tasks(self, job_id: Id, tasks: Iterable[TaskRequest | Mapping[str, Any]]) -> int:
        """Add tasks to a job that was created unsealed; those it has already are left. Returns how many it has now.

        Raises:
            NotFound: there is no such job.
            WrongState: it was sealed.
        """
        job = as_uuid(job_id, "job_id")
        if tasks is None:  # pyright: ignore[reportUnnecessaryComparison] - callers err
            raise InvalidInput("tasks: None is no list of tasks")
        added = self._creator().grow(job, task_requests(None, tasks))
        if added.disposition is Disposition.NOT_FOUND:
            raise self._unknown(job)
        if added.disposition is Disposition.SEALED:
            raise WrongState(f"job {job} was sealed: it takes no more tasks")
        return added.total

    def seal_job(self, job_id: Id) -> None:
        """Say that a job is complete: it ends when its tasks do. Repeatable.

        Raises:
            NotFound: there is no such job.
        """
        job = as_uuid(job_id, "job_id")
        if self._store.seal_job(job).disposition is Disposition.NOT_FOUND:
            raise self._unknown(job)

    def _creator(self) -> JobCreator:
        return JobCreator(self._store, self._dispatcher, self._rules, self._actor)

    def _create_one(self, request: JobRequest) -> CreatedJob:
        report = self._creator().create([request])
        answer = report.jobs[0]
        if answer.disposition is Disposition.CONFLICT:
            raise WrongState(f"id: job {request.id} exists, and was asked for differently; use a new id for another request")
        return self._described(answer, report.degraded)

    def _described(self, answer: JobDisposition, degraded: str | None) -> CreatedJob:
        stands = answer.job or answer.id
        try:
            job = self.get_job(stands)
        except LedgerUnavailable as error:
            raise LedgerUnavailable(f"job {stands} was accepted, but the ledger did not answer how it is: {error}") from error
        return CreatedJob(**dict(job), disposition=answer.disposition, degraded=degraded)

    def _require_documents(self, documents: Sequence[UUID], tenant: str) -> None:
        missing: list[UUID] = []
        for start in range(0, len(documents), DOCUMENTS_A_CALL):
            missing += self._store.missing_documents(documents[start : start + DOCUMENTS_A_CALL], tenant=tenant)
        if missing:
            named = ", ".join(map(str, missing[:5]))
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            whose = f"tenant {tenant!r}" if tenant else "the default tenant"
            raise NotFound(
                f"document_ids: {len(missing)} of {len(documents)} documents do not exist for {whose}: {named}{more};"
                " save them first, under the same tenant"
            )

    def _of_source(self, source: UUID, fields: Mapping[str, Any]) -> dict[str, Any]:
        found = self._store.source_get(source)
        if found is None:
            raise NotFound(f"source_id: there is no source {source}")
        return {"tenant": found.tenant, "owner": found.owner, "project": found.project, **given(fields)}
