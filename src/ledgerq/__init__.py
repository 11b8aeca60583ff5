"""Durable RQ jobs with Supabase (Postgres) as the source of truth: the ledger decides, RQ only delivers.

Everything that a service or a handler needs is here; other modules are internal unless the documentation names them.
All of it but the errors is loaded when it is first used, so that importing one part never brings another.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from ledgerq.errors import (
    ConfigurationError,
    DocumentError,
    EmbedderUnavailable,
    InvalidInput,
    LedgerqError,
    LedgerUnavailable,
    LocalStackError,
    NotFound,
    QueueUnavailable,
    SchemaMismatch,
    ServiceUnavailable,
    TooLarge,
    UnknownQueue,
    UnknownType,
    VectorsUnavailable,
    WrongState,
)

if TYPE_CHECKING:
    from ledgerq.content.data_service import DataService
    from ledgerq.documents.chunk import Chunker
    from ledgerq.documents.pipeline import process_documents
    from ledgerq.documents.vectors import VectorDB
    from ledgerq.handlers import Handlers, TaskCancelled, TaskContext
    from ledgerq.ledger.answers import QueueLimits, WorkerStats
    from ledgerq.lifecycle import JobStatus, TaskStatus
    from ledgerq.manager import AsyncJobManager, CreatedJob, CreatedJobs, JobManager
    from ledgerq.models import (
        Disposition,
        DocumentBody,
        DocumentRecord,
        DocumentRequest,
        Event,
        Explanation,
        Job,
        JobChanged,
        JobDisposition,
        JobPage,
        JobPriority,
        JobRequest,
        JobType,
        ProcessingJobDetails,
        QueueStats,
        SourceStatus,
        Task,
        TaskPage,
        TaskRecord,
        TaskRequest,
    )
    from ledgerq.outcomes import Cancelled, Completed, Failed, Outcome, Retry, TaskError, Usage, of
    from ledgerq.retry import RetryPolicy
    from ledgerq.settings import ProcessingConfig, Settings

__version__: Final = "0.1.0"

__all__ = [
    "AsyncJobManager",
    "Cancelled",
    "Chunker",
    "Completed",
    "ConfigurationError",
    "CreatedJob",
    "CreatedJobs",
    "DataService",
    "Disposition",
    "DocumentBody",
    "DocumentError",
    "DocumentRecord",
    "DocumentRequest",
    "EmbedderUnavailable",
    "Event",
    "Explanation",
    "Failed",
    "Handlers",
    "InvalidInput",
    "Job",
    "JobChanged",
    "JobDisposition",
    "JobManager",
    "JobPage",
    "JobPriority",
    "JobRequest",
    "JobStatus",
    "JobType",
    "LedgerUnavailable",
    "LedgerqError",
    "LocalStackError",
    "NotFound",
    "Outcome",
    "ProcessingConfig",
    "ProcessingJobDetails",
    "QueueLimits",
    "QueueStats",
    "QueueUnavailable",
    "Retry",
    "RetryPolicy",
    "SchemaMismatch",
    "ServiceUnavailable",
    "Settings",
    "SourceStatus",
    "Task",
    "TaskCancelled",
    "TaskContext",
    "TaskError",
    "TaskPage",
    "TaskRecord",
    "TaskRequest",
    "TaskStatus",
    "TooLarge",
    "UnknownQueue",
    "UnknownType",
    "Usage",
    "VectorDB",
    "VectorsUnavailable",
    "WorkerStats",
    "WrongState",
    "__version__",
    "of",
    "process_documents",
]

_HOMES: Final = {
    "ledgerq.content.data_service": ("DataService",),
    "ledgerq.documents.chunk": ("Chunker",),
    "ledgerq.documents.pipeline": ("process_documents",),
    "ledgerq.documents.vectors": ("VectorDB",),
    "ledgerq.handlers": ("Handlers", "TaskCancelled", "TaskContext"),
    "ledgerq.ledger.answers": ("QueueLimits", "WorkerStats"),
    "ledgerq.lifecycle": ("JobStatus", "TaskStatus"),
    "ledgerq.manager": ("AsyncJobManager", "CreatedJob", "CreatedJobs", "JobManager"),
    "ledgerq.models": (
        "Disposition",
        "DocumentBody",
        "DocumentRecord",
        "DocumentRequest",
        "Event",
        "Explanation",
        "Job",
        "JobChanged",
        "JobDisposition",
        "JobPage",
        "JobPriority",
        "JobRequest",
        "JobType",
        "ProcessingJobDetails",
        "QueueStats",
        "SourceStatus",
        "Task",
        "TaskPage",
        "TaskRecord",
        "TaskRequest",
    ),
    "ledgerq.outcomes": ("Cancelled", "Completed", "Failed", "Outcome", "Retry", "TaskError", "Usage", "of"),
    "ledgerq.retry": ("RetryPolicy",),
    "ledgerq.settings": ("ProcessingConfig", "Settings"),
}
_LAZY: Final = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'ledgerq' has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
