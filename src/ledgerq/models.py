"""The nouns that cross a boundary: what callers ask for, what the ledger answers, what a handler is given.

All of them are frozen. Unknown fields in an answer are ignored, so an older client works with a newer ledger.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Self, TypeAlias
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from ledgerq.ids import new_id
from ledgerq.lifecycle import JobStatus, RunStatus, TaskStatus

Json: TypeAlias = JsonValue
"""What JSON can say: null, booleans, finite numbers, strings, lists and objects with string keys."""

JsonObject: TypeAlias = dict[str, JsonValue]

NAME_PATTERN = r"^[a-z0-9][a-z0-9_.-]{0,62}$"
"""Names of job types and queues: as the ledger's own checks have it."""

Name = Annotated[str, Field(pattern=NAME_PATTERN)]


class Model(BaseModel):
    """Base of all nouns: frozen, ignoring what it does not know."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Request(BaseModel):
    """Base of what callers write by hand: frozen, and a mistyped field is an error that names it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class JobType(StrEnum):
    """The types that ledgerq knows by itself; any name registered with `Handlers` is a type as well."""

    CRAWL = "crawl"
    """External: something outside does the work and reports it."""
    PROCESS = "process"
    """Load, chunk, embed and store documents; one task per document."""


class JobPriority(StrEnum):
    """Order among ready tasks. Urgent overtakes everything that is not yet in Redis."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    URGENT = "urgent"


class SourceStatus(StrEnum):
    """Where a source of documents is."""

    PENDING = "pending"
    CRAWLING = "crawling"
    PROCESSING = "processing"
    COMPLETED = "completed"
    PARTIAL = "partial"
    FAILED = "failed"


class ProcessingJobDetails(Model):
    """Counts of a processing job, under the names its callers know."""

    source_id: UUID | None
    document_ids: tuple[UUID, ...] = ()
    """The first 1,000 of them; `JobManager.iter_tasks` pages through all."""
    chunk_count: int = 0
    processed_count: int = 0
    error_count: int = 0


# --- what callers ask for -------------------------------------------------------------------------------------


class TaskRequest(Request):
    """One unit of a job. Tasks of one job with the same key are one task."""

    key: str = Field(min_length=1, max_length=200)
    payload: JsonValue = None
    """At most 64 KiB as JSON."""
    document: UUID | None = None
    """The document that the task is about, when it is about one."""


class JobRequest(Request):
    """What a caller asks for. The id is made here, so that a repeated request is recognised as the same one."""

    type: Name
    id: UUID = Field(default_factory=new_id)
    tasks: tuple[TaskRequest, ...] = ()
    queue: Name = "processing"
    tenant: str = Field(default="", max_length=200)
    owner: UUID | None = None
    project: str | None = Field(default=None, max_length=200)
    source: UUID | None = None
    priority: JobPriority = JobPriority.NORMAL
    details: JsonObject = Field(default_factory=dict[str, JsonValue])
    dedupe_key: str | None = Field(default=None, min_length=1, max_length=200)
    due_at: datetime | None = None
    """Not before this moment; must carry a zone."""
    delay_s: float | None = Field(default=None, ge=0)
    """Not before so many seconds from now, by the ledger's clock. Give this or `due_at`."""
    max_attempts: int | None = Field(default=None, ge=1, le=100)
    timeout_s: float | None = Field(default=None, gt=0, le=86_400)
    deadline_s: float | None = Field(default=None, gt=0)
    """Seconds after creation at which what still waits is failed. The queue's default is 7 days."""
    sealed: bool = True
    external: bool = False


class DocumentBody(Request):
    """Where a document's bytes are: `inline` text in the row, a `file` that every worker sees, or Supabase `storage`."""

    kind: str = Field(pattern="^(inline|file|storage)$")
    text: str | None = None
    path: str | None = None
    bucket: str | None = None


class DocumentRequest(Request):
    """A document to save. Its identity is (tenant, source, uri); new content under the same identity is a new revision."""

    uri: str = Field(min_length=1, max_length=4_000)
    body: DocumentBody
    content_hash: str = Field(pattern="^[0-9a-f]{64}$")
    """SHA-256 of the bytes, in hexadecimal."""
    byte_size: int = Field(ge=0)
    id: UUID = Field(default_factory=new_id)
    title: str | None = None
    content_type: str | None = None
    metadata: JsonObject = Field(default_factory=dict[str, JsonValue])

    @classmethod
    def inline(cls, uri: str, text: str, *, title: str | None = None, content_type: str = "text/plain") -> Self:
        """A document whose text, at most 1 MB, is kept in the ledger itself."""
        data = text.encode()
        return cls(
            uri=uri,
            body=DocumentBody(kind="inline", text=text),
            content_hash=sha256(data).hexdigest(),
            byte_size=len(data),
            title=title,
            content_type=content_type,
        )


# --- what the ledger answers ----------------------------------------------------------------------------------


class Disposition(StrEnum):
    """What became of a request to the ledger. An expected race is one of these, never an exception."""

    APPLIED = "applied"
    SUPERSEDED = "superseded"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    NOT_FOUND = "not_found"
    TOO_LATE = "too_late"
    NOT_FINISHED = "not_finished"
    NOTHING_TO_RETRY = "nothing_to_retry"
    NOT_EXTERNAL = "not_external"
    SEALED = "sealed"
    PAUSED = "paused"
    EMPTY = "empty"
    SUSPECTED = "suspected"
    REFUSED = "refused"


class RunTicket(Model):
    """A run to push to RQ."""

    run: UUID
    queue: str
    type: str
    at_front: bool = False
    description: str = ""
    job_ids: tuple[UUID, ...] = ()
    """At most 10, for the dashboard."""
    tasks: int = 0
    timeout_s: float = 0
    """RQ's own timeout: only a backstop behind the keeper."""


class JobDisposition(Model):
    id: UUID
    disposition: Disposition
    job: UUID | None = None
    """The job that stands: its own id, or the holder of the dedupe key."""
    status: JobStatus | None = None


class JobsCreated(Model):
    jobs: tuple[JobDisposition, ...]
    runs: tuple[RunTicket, ...] = ()
    busy: tuple[str, ...] = ()


class JobsChanged(Model):
    jobs: tuple[JobDisposition, ...]
    runs: tuple[RunTicket, ...] = ()
    more: bool = False
    """A cancel that was too much for one call: its repeat goes on."""


class JobChanged(Model):
    disposition: Disposition
    status: JobStatus | None = None


class TasksAdded(Model):
    disposition: Disposition
    added: int = 0
    total: int = 0
    runs: tuple[RunTicket, ...] = ()


class Dispatched(Model):
    runs: tuple[RunTicket, ...] = ()
    busy: bool = False
    next_due_at: datetime | None = None
    now: datetime | None = None
    """The ledger's clock, to read `next_due_at` by."""


class Task(Model):
    """The smallest unit that can succeed, fail, be retried or be blamed: what a handler is given."""

    id: int
    job: UUID
    type: str
    key: str
    payload: JsonValue = None
    tenant: str = ""
    owner: UUID | None = None
    document: UUID | None = None
    attempts: int = 0
    """Answered tries before this one."""
    max_attempts: int = 1
    crashes: int = 0
    losses: int = 0
    timeout_s: float = 0
    """Seconds from being taken to the outcome."""
    cancelled: bool = False


class RunStarted(Model):
    disposition: Disposition
    step: int = 0
    lease_s: float = 0
    heartbeat_s: float = 0
    cancel_grace_s: float = 0
    tasks: tuple[Task, ...] = ()
    runs: tuple[RunTicket, ...] = ()


class DocumentGeneration(Model):
    document: UUID
    generation: int
    tenant: str = ""


class RunAdvanced(Model):
    disposition: Disposition
    step: int = 0
    finished: bool = False
    tasks: tuple[Task, ...] = ()
    cancelled: tuple[int, ...] = ()
    ignored: tuple[int, ...] = ()
    stale: tuple[int, ...] = ()
    remove: tuple[DocumentGeneration, ...] = ()
    runs: tuple[RunTicket, ...] = ()


class Heartbeat(Model):
    disposition: Disposition
    cancelled: tuple[int, ...] = ()
    shed_wanted: bool = False


class Verdict(StrEnum):
    """What the status sync, a keeper or a parent says of a run."""

    REVOKE = "revoke"
    DIED = "died"
    TIMEOUT = "timeout"
    CANCEL_KILL = "cancel_kill"
    STOPPED = "stopped"
    EXPIRED = "expired"


class RunVerdict(Request):
    """A verdict with the fence that it was reached under."""

    run: UUID
    verdict: Verdict
    seen_status: RunStatus | None = None
    seen_step: int | None = None
    seen_heartbeat_at: datetime | None = None
    delivery: UUID | None = None
    """Given by a direct witness (keeper or parent), who is fenced by it alone."""
    culprit: int | None = None
    evidence: JsonObject = Field(default_factory=dict[str, JsonValue])


class RunDisposition(Model):
    run: UUID
    disposition: Disposition


class RunsReconciled(Model):
    runs: tuple[RunDisposition, ...] = ()
    to_push: tuple[RunTicket, ...] = ()


class LiveRun(Model):
    """A run that is dispatched or running, as the status sync reads it."""

    run: UUID
    queue: str
    status: RunStatus
    step: int = 0
    worker: str | None = None
    execution_id: str | None = None
    delivery: UUID | None = None
    created_at: datetime
    started_at: datetime | None = None
    heartbeat_at: datetime | None = None
    lease_until: datetime | None = None
    suspected_at: datetime | None = None
    heartbeat_s: float = 5
    lease_s: float = 20
    single_job: bool = False
    ticket: RunTicket


class LiveRuns(Model):
    runs: tuple[LiveRun, ...] = ()
    now: datetime


class Job(Model):
    """A job as the ledger has it."""

    id: UUID
    type: str
    queue: str
    status: JobStatus
    tenant: str = ""
    owner: UUID | None = None
    project: str | None = None
    source: UUID | None = None
    priority: JobPriority = JobPriority.NORMAL
    total: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    sealed: bool = True
    external: bool = False
    details: JsonObject = Field(default_factory=dict[str, JsonValue])
    progress: JsonValue = None
    """What was reported of an external job, or by the handler of a job of one task."""
    result: JsonValue = None
    error: JsonValue = None
    dedupe_key: str | None = None
    max_attempts: int = 1
    timeout_s: float = 0
    due_at: datetime | None = None
    deadline_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    cancel_actor: str | None = None
    cancel_reason: str | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    run_ids: tuple[UUID, ...] = ()
    """Newest first, at most 100."""
    sequence: int = 0
    """Counts the changes of the job: of two readings, the one with the higher number is the newer."""

    @property
    def job_id(self) -> UUID:
        return self.id

    @property
    def rq_job_id(self) -> str | None:
        """The id of the RQ job that carries or carried this job last: the newest run's id."""
        return str(self.run_ids[0]) if self.run_ids else None

    @property
    def done(self) -> int:
        """Tasks that need no more work."""
        return self.completed + self.failed + self.cancelled


class JobPage(Model):
    jobs: tuple[Job, ...] = ()
    next: str | None = None


class TaskRecord(Model):
    """A task as an operator sees it."""

    id: int
    key: str
    status: TaskStatus
    document: UUID | None = None
    uri: str | None = None
    attempts: int = 0
    crashes: int = 0
    losses: int = 0
    alone: bool = False
    due_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_s: float | None = None
    progress: JsonValue = None
    """What its handler said last of how far it is."""
    result: JsonValue = None
    error: JsonValue = None
    run: UUID | None = None


class TaskPage(Model):
    tasks: tuple[TaskRecord, ...] = ()
    next: int | None = None


class Event(Model):
    """One entry of a job's history."""

    at: datetime
    kind: str
    task: int | None = None
    run: UUID | None = None
    cause: str | None = None
    actor: str | None = None
    data: JsonValue = None


class QueueStats(Model):
    queue: str
    paused: bool = False
    depth: int = 0
    dispatched: int = 0
    running: int = 0
    ready: int = 0
    due_later: int = 0
    in_progress: int = 0
    """Tasks in workers' hands."""
    queued: int = 0
    """Tasks in live runs that nobody was handed yet."""
    suspected: int = 0
    """Running runs whose lease was seen expired once."""
    oldest_ready_s: float | None = None
    next_due_at: datetime | None = None
    last_started_at: datetime | None = None
    """When a worker last began a run of the queue."""
    ready_more: bool = False
    """The count stopped at 10,000; so for the next two."""
    due_later_more: bool = False
    in_runs_more: bool = False


class Explanation(Model):
    """Why a job waits, or how it ended: one sentence, and what to do next."""

    sentence: str
    next_action: str | None = None
    cause: str
    evidence: JsonValue = None


class Health(Model):
    schema_version: str
    now: datetime
    server_version: str
    started_at: datetime


# --- documents ------------------------------------------------------------------------------------------------


class DocumentSaved(Model):
    id: UUID
    uri: str
    revision: int
    disposition: str
    """`created`, `changed` or `unchanged`."""


class LiveGeneration(Model):
    """The generation of a document's points that readers see now, and the one before it."""

    document: UUID
    tenant: str = ""
    owner: UUID | None = None
    uri: str = ""
    title: str | None = None
    live_generation: int | None = None
    live_since: datetime | None = None
    previous_generation: int | None = None
    previous_since: datetime | None = None
    deleted_at: datetime | None = None


class LiveManifest(Model):
    generation: int
    config_digest: str
    points: int


class DocumentWork(Model):
    """A document with the generation that was allotted for its present revision."""

    document: UUID
    disposition: str
    """`process`, `unchanged`, `deleted` or `not_found`."""
    revision: int = 0
    generation: int = 0
    tenant: str = ""
    owner: UUID | None = None
    source: UUID | None = None
    uri: str = ""
    title: str | None = None
    content_type: str | None = None
    content_hash: str = ""
    byte_size: int = 0
    body: DocumentBody | None = None
    metadata: JsonObject = Field(default_factory=dict[str, JsonValue])
    live: LiveManifest | None = None


class DocumentRecord(Model):
    id: UUID
    tenant: str = ""
    owner: UUID | None = None
    project: str | None = None
    source: UUID | None = None
    uri: str
    title: str | None = None
    content_type: str | None = None
    content_hash: str = ""
    byte_size: int = 0
    body: DocumentBody | None = None
    """Only where one document is read by itself."""
    metadata: JsonObject = Field(default_factory=dict[str, JsonValue])
    revision: int = 0
    status: str
    """`pending`, `processing`, `indexed`, `failed` or `deleted`."""
    error: JsonValue = None
    live_generation: int | None = None
    points: int | None = None
    created_at: datetime
    updated_at: datetime | None = None
