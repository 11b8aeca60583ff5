"""Jobs whose work happens outside: a crawl, an import, a person. They end when somebody says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ledgerq.errors import InvalidInput, WrongState
from ledgerq.lifecycle import JobStatus
from ledgerq.manager.base import log
from ledgerq.manager.requests import Id, as_mapping, as_uuid, json_bytes
from ledgerq.manager.steering import Steering
from ledgerq.models import Disposition, JobChanged, Json
from ledgerq.outcomes import TaskError

REPORTABLE: Final = (JobStatus.IN_PROGRESS, JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED)


class External(Steering):
    """Reports on external jobs. A report on a job that ended otherwise is `too_late`, and a repeated one is `applied`."""

    def update_job(
        self,
        job_id: Id,
        *,
        status: JobStatus | str | None = None,
        details: Mapping[str, Json] | None = None,
        progress: Mapping[str, Json] | None = None,
    ) -> JobChanged:
        """Say how an external job stands. `details` are merged into the job's, `progress` replaces the one before.

        A terminal status ends the job: `completed`, `failed` and `cancelled` are what `complete_job`, `fail_job` and
        `cancel_job` do. The others are the ledger's own.

        Raises:
            InvalidInput: such a status is not for callers to set, or a value is not JSON or too large.
            NotFound: there is no such job.
            WrongState: ledgerq works on that job itself.
        """
        wanted = None if status is None else _reportable(status)
        job = as_uuid(job_id, "job_id")
        given_details = None if details is None else _checked(details, "details")
        given_progress = None if progress is None else _checked(progress, "progress")
        changed = self._store.update_job(
            job, status=JobStatus.IN_PROGRESS if wanted is not None else None, details=given_details, progress=given_progress
        )
        self._require_external(job, changed)
        return self._end(job, wanted) if wanted is not None and wanted.is_terminal else changed

    def update_job_progress(
        self, job_id: Id, processed_doc_id: Id | None = None, *, progress: Mapping[str, Json] | None = None
    ) -> JobChanged:
        """Say how far an external job is: any object, and the document that was finished last.

        Jobs that ledgerq works on count by themselves: `job.completed` of `job.total`, and `context.progress` in a handler.
        """
        said = {} if progress is None else as_mapping(progress, "progress")
        if processed_doc_id is not None:
            said["processed_doc_id"] = str(as_uuid(processed_doc_id, "processed_doc_id"))
        return self.update_job(job_id, progress=said)

    def complete_job(self, job_id: Id, result: Json = None) -> JobChanged:
        """End an external job well.

        Raises:
            NotFound: there is no such job.
            WrongState: ledgerq works on that job itself.
        """
        json_bytes(result, "result")
        job = as_uuid(job_id, "job_id")
        return self._told(job, self._store.complete_job(job, result=result), JobStatus.COMPLETED)

    def fail_job(self, job_id: Id, error: TaskError | BaseException | str) -> JobChanged:
        """End an external job badly.

        Raises:
            NotFound: there is no such job.
            WrongState: ledgerq works on that job itself.
        """
        job = as_uuid(job_id, "job_id")
        if not isinstance(error, TaskError | BaseException | str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers err
            raise InvalidInput(f"error: {error!r} is no error; say what happened")
        said = TaskError(type=type(error).__name__, message=str(error)) if isinstance(error, BaseException) else error
        return self._told(job, self._store.fail_job(job, error=said), JobStatus.FAILED)

    def _end(self, job: Id, status: JobStatus) -> JobChanged:
        if status is JobStatus.COMPLETED:
            return self.complete_job(job)
        if status is JobStatus.FAILED:
            return self.fail_job(job, "reported as failed")
        answer = self.cancel_job(job)
        return JobChanged(disposition=answer.disposition, status=answer.status)

    def _told(self, job: object, changed: JobChanged, status: JobStatus) -> JobChanged:
        self._require_external(job, changed)
        log.info("external job ended", job=job, reported=status, disposition=changed.disposition, status=changed.status)
        return changed

    def _require_external(self, job: object, changed: JobChanged) -> None:
        if changed.disposition is Disposition.NOT_FOUND:
            raise self._unknown(job)
        if changed.disposition is Disposition.NOT_EXTERNAL:
            raise WrongState(f"job {job} is not external: its workers report on it themselves")


def _reportable(status: JobStatus | str) -> JobStatus:
    if status in REPORTABLE:
        return JobStatus(status)
    raise InvalidInput(f"status: {str(status)!r} is not one of {', '.join(REPORTABLE)}: the others are for the ledger to decide")


def _checked(value: Mapping[str, Json], name: str) -> dict[str, Json]:
    plain = as_mapping(value, name)
    json_bytes(plain, name)
    return plain
