"""From checked requests to committed jobs: in batches that one call to the ledger takes, growing what is bigger than that.

Every step is repeatable under the job's id, so a caller that crashed in the middle simply asks again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol
from uuid import UUID

from ledgerq.dispatch.dispatcher import PushReport
from ledgerq.errors import InvalidInput, LedgerUnavailable
from ledgerq.logs import get_logger
from ledgerq.manager.reports import CreatedJobs
from ledgerq.manager.requests import Rules, check_tasks, json_bytes
from ledgerq.models import Disposition, JobChanged, JobDisposition, JobRequest, JobsCreated, RunTicket, TaskRequest, TasksAdded

JOBS_A_CALL: Final = 1_000
TASKS_A_CALL: Final = 5_000
BYTES_A_CALL: Final = 4 * 1024 * 1024 * 9 // 10
"""The ledger's bounds for one call; a tenth of the 4 MiB is left for what surrounds the payloads."""

TASK_OVERHEAD: Final = 120
"""Bytes of a task's id, key and punctuation as JSON, beyond its key and payload."""
JOB_OVERHEAD: Final = 600

log = get_logger("ledgerq.manager")


class JobLedger(Protocol):
    """What creating jobs asks of the ledger."""

    def create_jobs(self, jobs: Sequence[JobRequest], *, dispatch: bool = True, actor: str | None = None) -> JobsCreated: ...

    def add_tasks(self, job: UUID, tasks: Sequence[TaskRequest], *, dispatch: bool = True) -> TasksAdded: ...

    def seal_job(self, job: UUID) -> JobChanged: ...


class RunPusher(Protocol):
    """What creating jobs asks of the dispatcher."""

    def push(self, tickets: Sequence[RunTicket]) -> PushReport: ...

    def dispatch(self, queue: str) -> PushReport: ...


@dataclass(slots=True)
class JobCreator:
    """Creates jobs of any number and size."""

    ledger: JobLedger
    pusher: RunPusher
    rules: Rules
    actor: str

    def create(self, requests: Sequence[JobRequest]) -> CreatedJobs:
        """Check all requests, then commit them batch by batch and push what the ledger dispatched.

        Raises:
            InvalidInput: one of the requests is wrong; nothing was written. What only the ledger can know (whether a queue, a source or
                a document exists) refuses the batch of at most 1,000 requests that it is in; earlier batches stand.
            LedgerUnavailable: earlier batches stand; the same call again completes the rest.
        """
        checked = [_Sized.of(self.rules.complete(request)) for request in requests]
        _require_ids_once(requests)
        tally = _Tally()
        for batch in _batches([sized for sized in checked if sized.fits]):
            self._create_batch(batch, tally)
        for sized in checked:
            if not sized.fits:
                self._create_big(sized.request, tally)
        jobs = tuple(tally.jobs[sized.request.id] for sized in checked)
        return CreatedJobs(jobs=jobs, pushed=tally.report.pushed, degraded=tally.report.degraded)

    def grow(self, job: UUID, tasks: Sequence[TaskRequest]) -> TasksAdded:
        """Add checked tasks to an unsealed job, batch by batch, and push what the ledger dispatched. The last answer counts."""
        check_tasks(tasks)
        added = TasksAdded(disposition=Disposition.APPLIED)
        for batch in _task_batches(tasks):
            added = self._add(job, batch, _Tally())
            if added.disposition is not Disposition.APPLIED:
                break
        return added

    def _create_batch(self, batch: Sequence[JobRequest], tally: _Tally) -> None:
        answer = self.ledger.create_jobs(batch, actor=self.actor)
        tally.add(answer.jobs)
        tally.report += self.pusher.push(answer.runs)
        for queue in answer.busy:
            tally.report += self._dispatch(queue)
        _tell(batch, answer.jobs)

    def _dispatch(self, queue: str) -> PushReport:
        try:
            return self.pusher.dispatch(queue)
        except LedgerUnavailable as error:
            # The jobs are committed: an error would say that they are not. The next dispatch, or a steward, sends them out.
            return PushReport(degraded=f"the ledger went away after it took the jobs ({error})")

    def _create_big(self, request: JobRequest, tally: _Tally) -> None:
        """Create it unsealed with its first tasks, so that it starts at once and cannot end before it is complete; grow it; seal it.

        A job that turns out to be sealed was completed by an earlier call of the same request: sealing was its last step. With
        another number of tasks it was another request; the first 5,000 of them are compared by the ledger.
        """
        first, *rest = _task_batches(request.tasks)
        self._create_batch([request.model_copy(update={"tasks": first, "sealed": False})], tally)
        if tally.jobs[request.id].disposition is not Disposition.APPLIED:
            return
        for batch in rest:
            added = self._add(request.id, batch, tally)
            if added.disposition is not Disposition.APPLIED:
                if added.disposition is Disposition.SEALED and added.total != len(request.tasks):
                    tally.add([JobDisposition(id=request.id, disposition=Disposition.CONFLICT)])
                return
        if request.sealed:
            self.ledger.seal_job(request.id)

    def _add(self, job: UUID, batch: Sequence[TaskRequest], tally: _Tally) -> TasksAdded:
        added = self.ledger.add_tasks(job, batch)
        tally.report += self.pusher.push(added.runs)
        return added


@dataclass(slots=True)
class _Tally:
    """A report in the making."""

    jobs: dict[UUID, JobDisposition] = field(default_factory=dict[UUID, JobDisposition])
    report: PushReport = field(default_factory=PushReport)

    def add(self, jobs: Sequence[JobDisposition]) -> None:
        self.jobs.update({job.id: job for job in jobs})


@dataclass(frozen=True, slots=True)
class _Sized:
    """A request with its size as JSON, counted once."""

    request: JobRequest
    size: int

    @classmethod
    def of(cls, request: JobRequest) -> _Sized:
        return cls(request, JOB_OVERHEAD + json_bytes(request.details, "details") + sum(map(_task_bytes, request.tasks)))

    @property
    def fits(self) -> bool:
        """Whether one call takes the whole job."""
        return len(self.request.tasks) <= TASKS_A_CALL and self.size <= BYTES_A_CALL


def _require_ids_once(requests: Sequence[JobRequest]) -> None:
    twice = [one for one, times in Counter(request.id for request in requests).items() if times > 1]
    if twice:
        raise InvalidInput(f"requests: {twice[0]} is the id of more than one of them")


def _batches(requests: Sequence[_Sized]) -> Iterator[list[JobRequest]]:
    batch: list[JobRequest] = []
    tasks = size = 0
    for sized in requests:
        count = len(sized.request.tasks)
        if batch and (len(batch) == JOBS_A_CALL or tasks + count > TASKS_A_CALL or size + sized.size > BYTES_A_CALL):
            yield batch
            batch, tasks, size = [], 0, 0
        batch.append(sized.request)
        tasks += count
        size += sized.size
    if batch:
        yield batch


def _task_batches(tasks: Sequence[TaskRequest]) -> Iterator[tuple[TaskRequest, ...]]:
    start = size = 0
    for end, task in enumerate(tasks):
        more = _task_bytes(task)
        if end > start and (end - start == TASKS_A_CALL or size + more > BYTES_A_CALL):
            yield tuple(tasks[start:end])
            start, size = end, 0
        size += more
    yield tuple(tasks[start:])


def _task_bytes(task: TaskRequest) -> int:
    payload = 4 if task.payload is None else json_bytes(task.payload, "payload")
    return TASK_OVERHEAD + 4 * len(task.key) + payload


def _tell(requests: Sequence[JobRequest], answers: Sequence[JobDisposition]) -> None:
    by_id = {request.id: request for request in requests}
    for answer in answers:
        request = by_id[answer.id]
        log.info(
            "job created",
            job=request.id,
            type=request.type,
            queue=request.queue,
            tasks=len(request.tasks),
            disposition=answer.disposition,
            stands=answer.job,
        )
