"""What the ledger answers beside the nouns of `ledgerq.models`: small documents that few callers see."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from pydantic import Field, JsonValue

from ledgerq.models import Disposition, DocumentRecord, Event, JsonObject, LiveGeneration, Model, Request, RunTicket, SourceStatus


class QueueLimits(Request):
    """Limits of a queue. What is not set stays as it is, or takes the default in a new queue."""

    depth: int | None = Field(default=None, ge=1, le=1_000)
    """Dispatched runs that may wait in Redis at once."""
    run_size: int | None = Field(default=None, ge=1, le=500)
    """Most tasks in one run."""
    lease_s: float | None = None
    heartbeat_s: float | None = None
    run_budget_s: float | None = None
    cancel_grace_s: float | None = None
    max_crashes: int | None = None
    max_losses: int | None = None
    timeout_s: float | None = None
    """Timeout of a task where its job has none."""
    max_attempts: int | None = None
    deadline_s: float | None = None
    max_concurrent_jobs: int | None = None
    """Jobs with a task in a live run; set to None: no limit."""
    tenant_concurrent_jobs: int | None = None


class QueueChanged(Model):
    """A queue that was paused, resumed or changed, and the runs that may now be pushed."""

    disposition: Disposition = Disposition.APPLIED
    runs: tuple[RunTicket, ...] = ()
    busy: bool = False


class WorkerStats(Model):
    """One worker that holds runs now, as the ledger sees it."""

    worker: str
    host: str | None = None
    pid: int | None = None
    queue: str | None = None
    runs: int = 0
    held: int = 0
    """Tasks in its hands."""
    heartbeat_at: datetime | None = None
    started_at: datetime | None = None
    suspected: bool = False
    """One of its leases was seen expired once."""


class EventPage(Model):
    """A page of a job's history, oldest first; `next` continues behind the last one."""

    events: tuple[Event, ...] = ()
    next: str | None = None


class Shed(Model):
    """What a run gave back."""

    disposition: Disposition = Disposition.APPLIED
    released: int = 0
    runs: tuple[RunTicket, ...] = ()
    """To be pushed."""


class JobDeleted(Model):
    """What became of the request to delete a job."""

    disposition: Disposition
    more: bool = False
    """Only a part of its tasks is removed yet: the repeat goes on."""


class Expired(Model):
    """What one call of `expire_jobs` did."""

    expired: tuple[UUID, ...] = ()
    """Jobs past their deadline of which waiting tasks failed; a big one is named by each call that takes part of it."""
    more: bool = False
    """The call ended at its bound: the next one goes on."""


class Pruned(Model):
    """What one call of `prune` removed, and whether there is more."""

    jobs: int = 0
    runs: int = 0
    events: int = 0
    webhooks: int = 0
    """Webhook events that were dealt with."""
    usage: int = 0
    more: bool = False


class SourceSaved(Model):
    """A source, and what became of it."""

    source: UUID
    disposition: str
    """`created`, `changed` or `unchanged`."""


class SourceRecord(Model):
    """A source with its derived status."""

    id: UUID
    tenant: str = ""
    owner: UUID | None = None
    project: str | None = None
    kind: str
    uri: str | None = None
    details: JsonObject = Field(default_factory=dict[str, JsonValue])
    status: SourceStatus = SourceStatus.PENDING
    documents: int = 0
    """Counted to 10,000; `documents_more` says that there are more."""
    documents_more: bool = False
    created_at: datetime
    updated_at: datetime


class DocumentDisposition(Model):
    """What became of the request to delete a document."""

    id: UUID
    disposition: Disposition


class DocumentPage(Model):
    """Documents in the order of their ids; `next` continues after the last one."""

    documents: tuple[DocumentRecord, ...] = ()
    next: UUID | None = None


class LiveGenerations(Model):
    """Which generation of each document readers see, at one moment of the ledger's clock."""

    now: datetime
    documents: tuple[LiveGeneration, ...] = ()


class GarbageItem(Model):
    """Points that nobody reads any more."""

    document: UUID
    generation: int | None = None
    """None: every generation of a deleted document."""
    tenant: str = ""


class GarbageGone(Request):
    """How many points of a garbage item were counted after removing them. The item is forgotten after two counts of 0."""

    document: UUID
    generation: int | None = None
    remaining: int = Field(ge=0)
