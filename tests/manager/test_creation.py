"""Creating, when the ledger goes away right after it took the jobs."""

from collections.abc import Sequence
from uuid import UUID

from ledgerq.dispatch.dispatcher import PushReport
from ledgerq.errors import LedgerUnavailable
from ledgerq.manager.creation import JobCreator
from ledgerq.manager.requests import Rules
from ledgerq.models import Disposition, JobChanged, JobDisposition, JobRequest, JobsCreated, RunTicket, TaskRequest, TasksAdded


class BusyLedger:
    """Takes every job and says that its queue's caps are being counted elsewhere."""

    def create_jobs(self, jobs: Sequence[JobRequest], *, dispatch: bool = True, actor: str | None = None) -> JobsCreated:
        taken = tuple(JobDisposition(id=job.id, disposition=Disposition.APPLIED, job=job.id) for job in jobs)
        return JobsCreated(jobs=taken, busy=("processing",))

    def add_tasks(self, job: UUID, tasks: Sequence[TaskRequest], *, dispatch: bool = True) -> TasksAdded:
        raise AssertionError

    def seal_job(self, job: UUID) -> JobChanged:
        raise AssertionError


class LostDispatcher:
    def push(self, tickets: Sequence[RunTicket]) -> PushReport:
        return PushReport(pushed=len(tickets))

    def dispatch(self, queue: str) -> PushReport:
        raise LedgerUnavailable("connection refused")


def test_committed_jobs_are_reported_when_the_dispatch_after_them_fails() -> None:
    creator = JobCreator(ledger=BusyLedger(), pusher=LostDispatcher(), rules=Rules(None), actor="test")
    request = JobRequest(type="note", tasks=(TaskRequest(key="1"),))
    created = creator.create([request])
    assert [job.job for job in created.jobs] == [request.id]
    assert "connection refused" in (created.degraded or "")
