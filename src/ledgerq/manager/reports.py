"""What the job manager answers beyond the job itself."""

from __future__ import annotations

from ledgerq.models import Disposition, Job, JobDisposition, Model


class CreatedJob(Job):
    """The job that stands for a request, and what became of the request."""

    disposition: Disposition = Disposition.APPLIED
    """`applied` (also for a repeated request), or `duplicate`: an unfinished job holds the dedupe key, and this is that job."""
    degraded: str | None = None
    """Why its runs could not be pushed to Redis now. The job is safe: a steward pushes them later."""


class CreatedJobs(Model):
    """What became of a batch of requests."""

    jobs: tuple[JobDisposition, ...]
    """In the order of the requests."""
    pushed: int = 0
    """Runs pushed to RQ."""
    degraded: str | None = None
    """Why runs could not be pushed to Redis now. The jobs are safe: a steward pushes them later."""
