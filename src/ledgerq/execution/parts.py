"""What the entry point needs of everything else. `assembly.worker_parts(settings)` makes one, before the fork."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias
from uuid import UUID

from redis import Redis

from ledgerq.execution.kill_note import KillNote
from ledgerq.execution.slate import Slate
from ledgerq.handlers import Handlers
from ledgerq.ledger.answers import Shed
from ledgerq.ledger.outcome_json import TaskReport
from ledgerq.models import Dispatched, DocumentGeneration, Heartbeat, Json, RunAdvanced, RunsReconciled, RunStarted, RunTicket, RunVerdict


class RunLedger(Protocol):
    """What a horse and its keeper ask of the ledger. `LedgerStore` has it."""

    def start_run(
        self,
        run: UUID,
        *,
        delivery: UUID,
        window: int,
        worker: str | None = None,
        execution_id: str | None = None,
        host: str | None = None,
        pid: int | None = None,
    ) -> RunStarted: ...

    def advance_run(
        self,
        run: UUID,
        *,
        delivery: UUID,
        step: int,
        reports: Sequence[TaskReport],
        want: int,
        give_back: bool = False,
        progress: Mapping[int, Json] = ...,
    ) -> RunAdvanced: ...

    def heartbeat_run(self, run: UUID, *, delivery: UUID) -> Heartbeat: ...

    def shed(self, run: UUID, *, dispatch: bool = False) -> Shed: ...

    def dispatch(self, queue: str) -> Dispatched: ...

    def reconcile_runs(self, verdicts: Sequence[RunVerdict], *, actor: str, dispatch: bool = True) -> RunsReconciled: ...

    def close(self) -> None: ...


LedgerFactory: TypeAlias = Callable[[], RunLedger]
"""Makes a ledger with connections of its own: called once in the horse and at most once in the keeper, after the fork."""

Push: TypeAlias = Callable[[Sequence[RunTicket]], None]
"""Pushes runs that the ledger returned, or takes them back. Never raises for Redis."""

PushWith: TypeAlias = Callable[[RunLedger, Redis], Push]
"""Binds `Push` to a ledger and a Redis client of this process."""

Remove: TypeAlias = Callable[[Sequence[DocumentGeneration]], None]
"""Removes points that an acknowledgement made garbage. Best effort: the sweeper finds what it leaves."""


class Keeper(Protocol):
    """The horse's handle of its keeper. Use it in the process that made it."""

    @property
    def slate(self) -> Slate: ...

    def goodbye(self, last_word: RunVerdict | None = None) -> None:
        """The run is over for this process, whatever became of it.

        Args:
            last_word: what this process could not tell the ledger; the keeper tries for a minute.
        """
        ...

    def is_alive(self) -> bool:
        """False once it was killed by somebody: then nobody renews the lease, and nobody would report a death."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerParts:
    """Everything that is the same for all runs of one worker. Holds no connection, so it survives a fork."""

    ledger: LedgerFactory
    """Directly: for keepers and parents, and for horses that have no line."""
    handlers: Handlers
    redis: Callable[[], Redis]
    """A client of its own for the keeper and the parent, made when it is needed."""
    push_with: PushWith
    task_timeout_s: float = 300.0
    """For a task whose ledger row and handler name none."""
    remove: Remove | None = None
    open_line: Callable[[], LedgerFactory] | None = None
    """Forks the process that keeps a warm line, and gives what makes a horse's ledger over it. Called once, before any horse."""
    horse_ledger: LedgerFactory | None = None
    """What `open_line` gave."""
    attend: Callable[[Delivery], Keeper] | None = None
    """The worker's standing keeper, when it has one.

    Raises:
        OSError: it is gone, or does not take the delivery.
    """
    modules: tuple[str, ...] = ()
    """To import before the fork: what only these settings need."""
    killed: KillNote | None = None
    """Where keepers note whom they kill, for the worker that reaps it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One start of a run by a worker."""

    run: UUID
    id: UUID
    worker: str
    execution_id: str | None
    host: str
    pid: int
    budget_s: float | None = None
    """RQ's own timeout of the run, when there is one: nothing is waited for beyond it."""
    stop_wanted: Callable[[], bool] = field(default=lambda: False)
    """Whether the worker was asked to stop after this run; asked at most once a second."""
