"""Durable RQ jobs with Supabase (Postgres) as the source of truth: the ledger decides, RQ only delivers.

Everything that a service or a handler needs is here; other modules are internal unless the documentation names them.
What brings a database, Redis or document libraries with it is loaded when it is first used.
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
from ledgerq.handlers import Handlers, TaskCancelled, TaskContext
from ledgerq.lifecycle import JobStatus, TaskStatus
from ledgerq.models import (
    Disposition,
    Explanation,
    Job,
    JobPriority,
    JobRequest,
    JobType,
    ProcessingJobDetails,
    SourceStatus,
    Task,
    TaskRequest,
)
from ledgerq.outcomes import Cancelled, Completed, Failed, Outcome, Retry, TaskError, Usage, of
from ledgerq.retry import RetryPolicy

if TYPE_CHECKING:
    from ledgerq.documents.chunk import Chunker
    from ledgerq.documents.pipeline import process_documents
    from ledgerq.documents.vectors import VectorDB
    from ledgerq.manager import CreatedJob, CreatedJobs, JobManager
    from ledgerq.settings import ProcessingConfig, Settings

__version__: Final = "0.1.0"

__all__ = [
    "Cancelled",
    "Chunker",
    "Completed",
    "ConfigurationError",
    "CreatedJob",
    "CreatedJobs",
    "Disposition",
    "DocumentError",
    "EmbedderUnavailable",
    "Explanation",
    "Failed",
    "Handlers",
    "InvalidInput",
    "Job",
    "JobManager",
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
    "TaskRequest",
    "TaskStatus",
    "TooLarge",
    "UnknownQueue",
    "UnknownType",
    "Usage",
    "VectorDB",
    "VectorsUnavailable",
    "WrongState",
    "__version__",
    "of",
    "process_documents",
]

_LAZY: Final = {
    "Chunker": "ledgerq.documents.chunk",
    "CreatedJob": "ledgerq.manager",
    "CreatedJobs": "ledgerq.manager",
    "JobManager": "ledgerq.manager",
    "ProcessingConfig": "ledgerq.settings",
    "Settings": "ledgerq.settings",
    "VectorDB": "ledgerq.documents.vectors",
    "process_documents": "ledgerq.documents.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'ledgerq' has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
