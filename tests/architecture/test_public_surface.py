"""What `import ledgerq` offers, pinned: a change here is a change for users."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import ledgerq

PUBLIC = [
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

HEAVY = ("rq", "redis", "psycopg", "supabase", "qdrant_client", "openai", "pypdfium2", "numpy", "typer")


def test_the_public_names_are_these() -> None:
    assert sorted(ledgerq.__all__) == sorted(PUBLIC)


def test_every_public_name_can_be_had() -> None:
    for name in PUBLIC:
        assert getattr(ledgerq, name) is not None, name


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    assert not hasattr(ledgerq, "no_such_name")
    assert set(dir(ledgerq)) >= set(PUBLIC)


def test_the_version_is_the_distributions() -> None:
    assert ledgerq.__version__ == version("ledgerq")


def test_a_module_of_handlers_imports_nothing_heavy() -> None:
    code = (
        "import sys; from ledgerq import Completed, Failed, Handlers, Retry, Task, TaskContext, of; "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
