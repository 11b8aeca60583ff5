"""Short ways to the states that tests of fences start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import psycopg

from ledgerq.ids import new_id
from ledgerq.ledger import LedgerStore, TaskReport
from ledgerq.ledger.answers import QueueLimits
from ledgerq.ledger.outcome_json import Returned
from ledgerq.lifecycle import RunStatus
from ledgerq.models import (
    Disposition,
    DocumentBody,
    DocumentRequest,
    JobRequest,
    Json,
    LiveRun,
    RunAdvanced,
    RunStarted,
    RunVerdict,
    Task,
    TaskRecord,
    TaskRequest,
    Verdict,
)
from ledgerq.outcomes import Completed, DocumentEffect, Outcome
from tests.support.clock import LedgerClock
from tests.support.databases import Database
from tests.support.invariants import broken_invariants


@dataclass(slots=True)
class Hand:
    """One delivery of a run."""

    store: LedgerStore
    run: UUID
    delivery: UUID = field(default_factory=uuid4)
    step: int = 0
    tasks: tuple[Task, ...] = ()

    def start(self, *, window: int = 10, store: LedgerStore | None = None) -> RunStarted:
        answer = (store or self.store).start_run(self.run, delivery=self.delivery, window=window, worker="w", execution_id="execution")
        self.step, self.tasks = answer.step, answer.tasks
        return answer

    def advance(
        self,
        *outcomes: tuple[Task | int, Outcome | Returned],
        want: int = 0,
        step: int | None = None,
        give_back: bool = False,
        store: LedgerStore | None = None,
    ) -> RunAdvanced:
        reports = [TaskReport(task=task if isinstance(task, int) else task.id, outcome=outcome) for task, outcome in outcomes]
        at = self.step if step is None else step
        answer = (store or self.store).advance_run(
            self.run, delivery=self.delivery, step=at, reports=reports, want=want, give_back=give_back
        )
        if answer.disposition is Disposition.APPLIED:
            self.step, self.tasks = answer.step, answer.tasks
        return answer

    def complete(self, *tasks: Task, want: int = 0, store: LedgerStore | None = None) -> RunAdvanced:
        return self.advance(*((task, Completed()) for task in tasks), want=want, store=store)

    def note(self, progress: Mapping[int, Json]) -> None:
        """What a handler says of its tasks, between two acknowledgements."""
        answer = self.store.advance_run(self.run, delivery=self.delivery, step=self.step, reports=(), want=0, progress=progress)
        assert answer.disposition is Disposition.APPLIED
        self.step, self.tasks = answer.step, answer.tasks

    def beat(self) -> Disposition:
        return self.store.heartbeat_run(self.run, delivery=self.delivery).disposition

    def witnessed(self, verdict: Verdict, *, culprit: Task | int | None = None, store: LedgerStore | None = None) -> Disposition:
        """What a keeper or parent says."""
        guilty = culprit.id if isinstance(culprit, Task) else culprit
        said = RunVerdict(run=self.run, verdict=verdict, delivery=self.delivery, culprit=guilty)
        return (store or self.store).reconcile_runs([said], actor="keeper").runs[0].disposition


@dataclass(slots=True)
class Hands:
    """One ledger, its clock, and its owner's connection."""

    store: LedgerStore
    clock: LedgerClock
    database: Database
    owner: psycopg.Connection[Any]

    def job(self, count: int = 1, *, dispatch: bool = False, **fields: object) -> UUID:
        request = JobRequest.model_validate({"type": "work", "tasks": [{"key": str(n)} for n in range(count)]} | fields)
        created = self.store.create_jobs([request], dispatch=dispatch)
        assert created.jobs[0].disposition is Disposition.APPLIED
        return request.id

    def runs(self, count: int) -> list[Hand]:
        """So many dispatched runs of what waits."""
        self.limit(depth=count)
        tickets = self.store.dispatch("processing").runs
        assert len(tickets) == count
        return [Hand(self.store, ticket.run) for ticket in tickets]

    def next(self) -> Hand:
        """The dispatched run that has waited longest, dispatched now if need be."""
        self.store.dispatch("processing")
        waiting = [run for run in self.store.live_runs().runs if run.status is RunStatus.DISPATCHED]
        return Hand(self.store, min(waiting, key=lambda run: run.created_at).run)

    def started(self, count: int = 1, *, window: int = 10, **fields: object) -> tuple[UUID, Hand]:
        """A job in the hands of its one run."""
        job = self.job(count, **fields)
        (hand,) = self.runs(1)
        assert hand.start(window=window).disposition is Disposition.APPLIED
        return job, hand

    def limit(self, **limits: object) -> None:
        self.store.save_queue("processing", QueueLimits.model_validate(limits))

    def tasks(self, job: UUID) -> tuple[TaskRecord, ...]:
        return self.store.job_tasks(job).tasks

    def statuses(self, job: UUID) -> list[str]:
        return [task.status.value for task in self.tasks(job)]

    def status(self, job: UUID) -> str:
        found = self.store.job_get(job)
        assert found is not None
        return found.status.value

    def live(self, hand: Hand) -> LiveRun:
        (found,) = self.store.live_runs(runs=[hand.run]).runs
        return found

    def seen(self, hand: Hand, verdict: Verdict, *, of: LiveRun | None = None, **changed: object) -> RunVerdict:
        """A verdict under the fence of what is seen now (or was, with `of`)."""
        run = of or self.live(hand)
        fence = {"seen_status": run.status, "seen_step": run.step, "seen_heartbeat_at": run.heartbeat_at}
        return RunVerdict.model_validate({"run": hand.run, "verdict": verdict, **fence, **changed})

    def judge(self, verdict: RunVerdict) -> Disposition:
        return self.store.reconcile_runs([verdict], actor="steward").runs[0].disposition

    def lose(self, hand: Hand) -> None:
        """Its lease ends, unnoticed twice."""
        self.clock.advance(100)
        assert self.judge(self.seen(hand, Verdict.EXPIRED)) is Disposition.SUSPECTED
        self.clock.advance(100)
        assert self.judge(self.seen(hand, Verdict.EXPIRED)) is Disposition.APPLIED

    def document(self, uri: str = "a", text: str = "text") -> UUID:
        (saved,) = self.store.save_documents([saving(uri, text)])
        return saved.id

    def effect(self, document: UUID, *, config: str = "c", generation: int | None = None) -> DocumentEffect:
        (work,) = self.store.begin_documents([document], config_digest=config)
        return DocumentEffect(
            document=document, revision=work.revision, generation=generation or work.generation, points=1, digest="d" * 64
        )

    def working_on(self, *documents: UUID) -> Hand:
        """One run with a task for each document."""
        tasks = [TaskRequest(key=str(new_id()), document=document) for document in documents]
        self.store.create_jobs([JobRequest(type="process", tasks=tuple(tasks))], dispatch=False)
        (hand,) = self.runs(1)
        hand.start()
        return hand

    def in_order(self) -> None:
        assert broken_invariants(self.owner) == {}

    def rows(self, query: str, *values: object) -> Sequence[tuple[Any, ...]]:
        return self.owner.execute(query.encode(), values or None).fetchall()


def saving(uri: str, text: str) -> DocumentRequest:
    digest = sha256(text.encode()).hexdigest()
    return DocumentRequest(uri=uri, body=DocumentBody(kind="inline", text=text), content_hash=digest, byte_size=len(text))
