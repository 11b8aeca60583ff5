"""The statuses of jobs, tasks and runs, and every transition between them.

This is the one place where transitions are written down. The database's guard and the diagram in the
documentation are rendered from these tables (`scripts/render`), and a test fails when they drift.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, TypeVar


class JobStatus(StrEnum):
    """Where a job is. A status is terminal when no worker will touch the job again unless it is retried."""

    PENDING = "pending"
    """Only in the ledger: new, scheduled, waiting for a retry, throttled, paused or beyond the depth. `dispatch` moves it out."""
    QUEUED = "queued"
    """A run addressed to RQ carries a task of it. `start_run` moves it out; a revoked run takes it back to pending."""
    IN_PROGRESS = "in_progress"
    """A worker was handed a task of it. `advance_run` or the status sync moves it out."""
    COMPLETED = "completed"
    """Every task completed. Nothing moves it out."""
    PARTIAL = "partial"
    """Finished; some tasks completed and others failed for good, and no cancel took effect. `retry_jobs` moves it out."""
    FAILED = "failed"
    """Finished, and no task completed. `retry_jobs` moves it out."""
    CANCELLED = "cancelled"
    """Cancel was requested and took effect on at least one task. `retry_jobs` moves it out."""

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL_JOB_STATUSES

    @property
    def coarse(self) -> str:
        """Five names: `pending in_progress completed failed cancelled`. Partial reads as completed; its counts tell the rest."""
        return _COARSE[self]

    @property
    def simple(self) -> str:
        """Four names: `pending processing completed failed`."""
        return _SIMPLE[self]

    @property
    def running_style(self) -> str:
        """Six names: `pending queued running completed failed cancelled`."""
        return _RUNNING_STYLE[self]


class TaskStatus(StrEnum):
    """Where a task is. A task is being worked on when it is `queued` in a live run and was handed out."""

    PENDING = "pending"
    """Waiting in the ledger, ready or due later. `dispatch` moves it out, or a cancel, or the job's deadline."""
    QUEUED = "queued"
    """In a live run. The run's end moves it out, at the latest by the status sync."""
    COMPLETED = "completed"
    """Acknowledged as done. Nothing moves it out."""
    FAILED = "failed"
    """Given up, with cause and history. `retry_jobs` moves it out."""
    CANCELLED = "cancelled"
    """Cancelled before it completed. `retry_jobs` moves it out."""

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL_TASK_STATUSES


class RunStatus(StrEnum):
    """Where one delivery of tasks to a worker is."""

    DISPATCHED = "dispatched"
    """Addressed to RQ, not started. `start_run` moves it out, or the status sync revokes it."""
    RUNNING = "running"
    """One delivery owns it. The last `advance_run` finishes it, or a verdict ends it as lost."""
    FINISHED = "finished"
    """The worker answered for all of it."""
    LOST = "lost"
    """A verdict took it from its owner: died, timeout, stopped, cancel or expired lease."""
    REVOKED = "revoked"
    """Taken back before anyone started it."""

    @property
    def is_live(self) -> bool:
        return self in (RunStatus.DISPATCHED, RunStatus.RUNNING)


S = TypeVar("S", JobStatus, TaskStatus, RunStatus)


@dataclass(frozen=True, slots=True)
class Transition(Generic[S]):
    """One legal step, and the ledger functions that may take it."""

    source: S
    target: S
    moved_by: tuple[str, ...]


TERMINAL_JOB_STATUSES: Final = frozenset({JobStatus.COMPLETED, JobStatus.PARTIAL, JobStatus.FAILED, JobStatus.CANCELLED})
TERMINAL_TASK_STATUSES: Final = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED})

_ENDS_A_JOB: Final = (
    "advance_run",
    "reconcile_runs",
    "start_run",
    "shed",
    "cancel_jobs",
    "create_jobs",
    "seal_job",
    "retry_jobs",
    "complete_job",
    "fail_job",
    "expire_jobs",
)
"""Whoever makes a job's last task terminal, or seals a job whose tasks all are (one without tasks, at once)."""

JOB_TRANSITIONS: Final[tuple[Transition[JobStatus], ...]] = (
    Transition(JobStatus.PENDING, JobStatus.QUEUED, ("dispatch",)),
    Transition(JobStatus.PENDING, JobStatus.IN_PROGRESS, ("start_run", "advance_run", "update_job")),
    Transition(JobStatus.QUEUED, JobStatus.IN_PROGRESS, ("start_run", "advance_run")),
    Transition(JobStatus.QUEUED, JobStatus.PENDING, ("start_run", "advance_run", "reconcile_runs", "shed")),
    Transition(JobStatus.IN_PROGRESS, JobStatus.PENDING, ("start_run", "advance_run", "reconcile_runs", "shed")),
    *(
        Transition(source, target, _ENDS_A_JOB)
        for source in (JobStatus.PENDING, JobStatus.QUEUED, JobStatus.IN_PROGRESS)
        for target in (JobStatus.COMPLETED, JobStatus.PARTIAL, JobStatus.FAILED, JobStatus.CANCELLED)
    ),
    *(Transition(source, JobStatus.PENDING, ("retry_jobs",)) for source in (JobStatus.PARTIAL, JobStatus.FAILED, JobStatus.CANCELLED)),
)

TASK_TRANSITIONS: Final[tuple[Transition[TaskStatus], ...]] = (
    Transition(TaskStatus.PENDING, TaskStatus.QUEUED, ("dispatch",)),
    Transition(TaskStatus.PENDING, TaskStatus.COMPLETED, ("complete_job",)),
    Transition(TaskStatus.PENDING, TaskStatus.FAILED, ("expire_jobs", "fail_job")),
    Transition(TaskStatus.PENDING, TaskStatus.CANCELLED, ("cancel_jobs", "expire_jobs")),
    Transition(TaskStatus.QUEUED, TaskStatus.PENDING, ("advance_run", "reconcile_runs", "start_run", "shed")),
    Transition(TaskStatus.QUEUED, TaskStatus.COMPLETED, ("advance_run",)),
    Transition(TaskStatus.QUEUED, TaskStatus.FAILED, ("advance_run", "reconcile_runs")),
    Transition(
        TaskStatus.QUEUED, TaskStatus.CANCELLED, ("advance_run", "reconcile_runs", "cancel_jobs", "expire_jobs", "start_run", "shed")
    ),
    Transition(TaskStatus.FAILED, TaskStatus.PENDING, ("retry_jobs",)),
    Transition(TaskStatus.CANCELLED, TaskStatus.PENDING, ("retry_jobs",)),
)

RUN_TRANSITIONS: Final[tuple[Transition[RunStatus], ...]] = (
    Transition(RunStatus.DISPATCHED, RunStatus.RUNNING, ("start_run",)),
    Transition(RunStatus.DISPATCHED, RunStatus.REVOKED, ("reconcile_runs", "start_run")),
    Transition(RunStatus.RUNNING, RunStatus.FINISHED, ("advance_run",)),
    Transition(RunStatus.RUNNING, RunStatus.LOST, ("reconcile_runs",)),
)

_COARSE: Final = {
    JobStatus.PENDING: "pending",
    JobStatus.QUEUED: "pending",
    JobStatus.IN_PROGRESS: "in_progress",
    JobStatus.COMPLETED: "completed",
    JobStatus.PARTIAL: "completed",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
}
_SIMPLE: Final = {
    JobStatus.PENDING: "pending",
    JobStatus.QUEUED: "pending",
    JobStatus.IN_PROGRESS: "processing",
    JobStatus.COMPLETED: "completed",
    JobStatus.PARTIAL: "completed",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "failed",
}
_RUNNING_STYLE: Final = {
    JobStatus.PENDING: "pending",
    JobStatus.QUEUED: "queued",
    JobStatus.IN_PROGRESS: "running",
    JobStatus.COMPLETED: "completed",
    JobStatus.PARTIAL: "completed",
    JobStatus.FAILED: "failed",
    JobStatus.CANCELLED: "cancelled",
}
