"""Changing what becomes of work: jobs and queues."""

from __future__ import annotations

from ledgerq.errors import InvalidInput, WrongState
from ledgerq.ids import new_id
from ledgerq.ledger.answers import QueueLimits
from ledgerq.manager.base import ManagerBase, log
from ledgerq.manager.requests import Id, as_uuid, built, queue_name
from ledgerq.models import Disposition, JobDisposition
from ledgerq.settings import ProcessingConfig


class Steering(ManagerBase):
    """Cancels, retries, deletes, pauses. What a race decides is a disposition in the answer, never an exception."""

    def cancel_job(self, job_id: Id, *, reason: str | None = None, actor: str | None = None) -> JobDisposition:
        """Cancel: waiting tasks at once, those in work as soon as their workers hear of it.

        Returns:
            `applied` (also for a repeat), or `too_late` when the job had finished already; with its status.

        Raises:
            NotFound: there is no such job.
        """
        job = as_uuid(job_id, "job_id")
        answer = self._store.cancel_jobs([job], actor=actor or self._actor, reason=reason).jobs[0]
        self._require_found(answer)
        log.info("job cancelled", job=job, disposition=answer.disposition, status=answer.status, reason=reason)
        return answer

    def retry_job(self, job_id: Id, *, actor: str | None = None, request_id: Id | None = None) -> JobDisposition:
        """Send the failed and cancelled tasks of a finished job around again; what completed stays done.

        Args:
            request_id: the same id again changes nothing more (made here when it is not given).

        Returns:
            `applied`, `not_finished`, `nothing_to_retry`, or `duplicate` when another job holds the dedupe key (`job`) by now.

        Raises:
            NotFound: there is no such job.
        """
        job = as_uuid(job_id, "job_id")
        request = new_id() if request_id is None else as_uuid(request_id, "request_id")
        changed = self._store.retry_jobs([job], actor=actor or self._actor, request_id=request)
        answer = changed.jobs[0]
        self._require_found(answer)
        self._dispatcher.push(changed.runs)
        log.info("job retried", job=job, disposition=answer.disposition)
        return answer

    def delete_job(self, job_id: Id, *, actor: str | None = None) -> None:
        """Remove a finished job with its tasks and history.

        Raises:
            NotFound: there is no such job.
            WrongState: it is not finished; cancel it first.
        """
        job = as_uuid(job_id, "job_id")
        disposition = self._store.delete_job(job, actor=actor or self._actor)
        if disposition is Disposition.NOT_FOUND:
            raise self._unknown(job)
        if disposition is not Disposition.APPLIED:
            raise WrongState(f"job {job} is not finished: cancel it, then delete it")
        log.info("job deleted", job=job)

    def pause_queue(self, queue: str | None = None, *, actor: str | None = None) -> None:
        """Start nothing more of the queue until it is resumed; what runs finishes the tasks it holds.

        Raises:
            UnknownQueue: there is none of that name.
        """
        name = queue_name(queue, self._queue)
        self._store.pause_queue(name, actor=actor or self._actor)
        log.info("queue paused", queue=name)

    def resume_queue(self, queue: str | None = None, *, actor: str | None = None) -> None:
        """Undo a pause.

        Raises:
            UnknownQueue: there is none of that name.
        """
        name = queue_name(queue, self._queue)
        self._dispatcher.push(self._store.resume_queue(name, actor=actor or self._actor).runs)
        log.info("queue resumed", queue=name)

    def save_queue(self, queue: str, limits: QueueLimits | None = None) -> None:
        """Create a queue, or change the limits that are set; the others stay. What they set free goes out at once.

        Raises:
            InvalidInput: the name or a limit is out of its range.
        """
        name = queue_name(queue, self._queue)
        self._store.save_queue(name, limits)
        self._dispatcher.dispatch(name)

    def configure_queue(self, config: ProcessingConfig, queue: str | None = None) -> None:
        """Apply what a `ProcessingConfig` says of a queue.

        | field | means |
        |---|---|
        | `batch_size` | most tasks in one run |
        | `max_retries` | attempts of a task minus one |
        | `max_concurrent_jobs` | most jobs of the queue with work in hand; None: no limit |
        | `poll_interval` | pause between two rounds of a steward: `LEDGERQ_STEWARD_INTERVAL` where it runs |
        | `backoff_factor` | growth of the waits between attempts: `LEDGERQ_BACKOFF_FACTOR` where documents are processed |

        The last two are no properties of a queue and are not written here. Stewards and workers take them from their environment, or
        from a config that is given to `assembly.steward` and `assembly.worker_parts`.

        Raises:
            InvalidInput: a value is beyond what a queue allows.
        """
        if not isinstance(config, ProcessingConfig):  # pyright: ignore[reportUnnecessaryIsInstance] - callers err
            raise InvalidInput(f"config: {config!r} is no ProcessingConfig")
        limits = {
            "run_size": config.batch_size,
            "max_attempts": config.max_retries + 1,
            "max_concurrent_jobs": config.max_concurrent_jobs,
        }
        self.save_queue(queue_name(queue, self._queue), built(QueueLimits, limits))

    def _require_found(self, answer: JobDisposition) -> None:
        if answer.disposition is Disposition.NOT_FOUND:
            raise self._unknown(answer.id)
