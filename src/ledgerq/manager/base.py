"""What every part of the job manager stands on."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final, Self

from ledgerq.dispatch.dispatcher import Dispatcher
from ledgerq.errors import NotFound, WrongState
from ledgerq.handlers import Handlers
from ledgerq.ledger.store import LedgerStore
from ledgerq.logs import get_logger
from ledgerq.manager.requests import Id, Rules, as_uuid
from ledgerq.manager.waiting import Waiter
from ledgerq.models import Job
from ledgerq.settings import DEFAULT_QUEUE, Settings
from ledgerq.sync.reconciler import Reconciler

ACTOR: Final = "job-manager"

log = get_logger("ledgerq.manager")


class OnLedger:
    """Whatever works on a ledger, until it is closed."""

    def __init__(self, store: LedgerStore, *, closing: ExitStack | None = None) -> None:
        """`closing` is what closes with it: connections that nobody else uses."""
        self._ledger = store
        self._closing = closing or ExitStack()
        self._closed = False

    def close(self) -> None:
        """Close the connections that were opened here, and no others. Calls that begin later raise `WrongState`."""
        self._closed = True
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _store(self) -> LedgerStore:
        """The ledger. What begins after the closing ends here, also where the ledger itself stays open for others.

        Raises:
            WrongState: we were closed.
        """
        if self._closed:
            raise WrongState(f"this {type(self).__name__} was closed")
        return self._ledger


class ManagerBase(OnLedger):
    """The parts a manager works with. It opens none of them, and keeps nothing of a call for the next."""

    def __init__(
        self,
        store: LedgerStore,
        dispatcher: Dispatcher,
        reconciler: Reconciler | None = None,
        handlers: Handlers | None = None,
        settings: Settings | None = None,
        *,
        actor: str = ACTOR,
        waiter: Waiter | None = None,
        closing: ExitStack | None = None,
    ) -> None:
        """Build one from its parts.

        Args:
            store: the ledger.
            dispatcher: pushes what the ledger dispatched.
            reconciler: lets readers of one job reconcile it with RQ on the way; without it a steward does it later.
            handlers: the registry whose types are known and whose defaults apply; without it every type is let through.
            settings: its queue, and the system-wide timeout of tasks.
            actor: who acts, as the history names it, where a call does not say.
            waiter: the clock and the pauses of `wait_for`.
            closing: what closes with it.
        """
        super().__init__(store, closing=closing)
        self._dispatcher = dispatcher
        self._reconciler = reconciler
        self._rules = Rules(handlers, None if settings is None else settings.task_timeout_s)
        self._queue = DEFAULT_QUEUE if settings is None else settings.queue
        self._actor = actor
        self._waiter = waiter or Waiter()

    def get_job(self, job_id: Id) -> Job:
        """The job as the ledger has it.

        Raises:
            NotFound: there is none.
        """
        job = as_uuid(job_id, "job_id")
        found = self._store.job_get(job)
        if found is None:
            raise self._unknown(job)
        return found

    def _unknown(self, job: object) -> NotFound:
        return NotFound(f"there is no job {job}")
