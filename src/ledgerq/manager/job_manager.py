"""The job manager: what a service asks for, what it may know about it, and how it steers it.

It orchestrates: the ledger decides and keeps, RQ delivers. No method holds state between two calls, any number of managers
may work on one ledger at once, and every request may be repeated. It is blocking; `AsyncJobManager` is its awaitable face.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Self

from ledgerq.apps import load_app
from ledgerq.dispatch.connection import RedisClient, connect_redis, own_client
from ledgerq.dispatch.dispatcher import Dispatcher
from ledgerq.dispatch.run_queue import DEFAULT_RESULT_TTL_S, RunQueue
from ledgerq.handlers import Handlers
from ledgerq.ledger import LedgerStore, open_store
from ledgerq.manager.base import ACTOR, ManagerBase
from ledgerq.manager.creating import Creating
from ledgerq.manager.external import External
from ledgerq.manager.opening import HasLedger, ledger_of, settings_from_env
from ledgerq.manager.reading import Reading
from ledgerq.manager.saving import Saving
from ledgerq.manager.waiting import Waiter
from ledgerq.settings import Settings
from ledgerq.sync.reconciler import Reconciler


class JobManager(Saving, Creating, Reading, External):
    """Jobs asked for, looked at and steered.

        with JobManager.from_env() as jobs:
            job = jobs.create_processing_job(source_id, document_ids)
            jobs.wait_for(job.id)

    `saving`, `creating`, `reading`, `steering` and `external` hold its methods.
    """

    def __init__(
        self,
        data_service: HasLedger | LedgerStore,
        redis_client: RedisClient,
        *,
        handlers: Handlers | None = None,
        settings: Settings | None = None,
    ) -> None:
        """Build one on what a service has already. Nothing is connected before the first call; `close` it.

        Args:
            data_service: has the ledger (`DataService`). It stays yours: closing the manager does not close it.
            redis_client: says where Redis is, and who we are there. It stays yours and is never used: RQ's commands need a client
                that neither decodes replies nor tries twice, so the manager makes one to the same server.
            handlers: the registry whose types are known and whose defaults apply; without it every type is let through.
            settings: the queue of jobs that name none, the system-wide timeout of tasks, how long RQ keeps what ended. The
                environment is not read.

        Raises:
            InvalidInput: one of them is something else; says what to give.
        """
        store = ledger_of(data_service)
        redis = own_client(redis_client)
        run_queue = RunQueue(redis, result_ttl_s=DEFAULT_RESULT_TTL_S if settings is None else settings.result_ttl_s)
        super().__init__(store, *_delivery(store, run_queue), handlers, settings)
        self._closing.callback(redis.close)

    @classmethod
    def from_env(cls) -> Self:
        """Open one from environment variables (see `Settings`); `LEDGERQ_APP`, when it is set, names the known types.

        Raises:
            ConfigurationError: a variable cannot be read, there is no ledger named, or the app cannot be loaded.
        """
        settings = settings_from_env()
        return cls.from_settings(settings, handlers=load_app(settings.app) if settings.app else None)

    @classmethod
    def from_settings(cls, settings: Settings, *, handlers: Handlers | None = None) -> Self:
        """Open one on the services that the settings name. Nothing is connected before the first call; `close` it.

        Raises:
            ConfigurationError: the settings name no ledger.
        """
        store = open_store(settings)
        redis = connect_redis(settings)
        run_queue = RunQueue(redis, result_ttl_s=settings.result_ttl_s)
        closing = ExitStack()
        closing.callback(store.close)
        closing.callback(redis.close)
        return cls.from_parts(store, *_delivery(store, run_queue), handlers, settings, closing=closing)

    @classmethod
    def from_parts(
        cls,
        store: LedgerStore,
        dispatcher: Dispatcher,
        reconciler: Reconciler | None = None,
        handlers: Handlers | None = None,
        settings: Settings | None = None,
        *,
        actor: str = ACTOR,
        waiter: Waiter | None = None,
        closing: ExitStack | None = None,
    ) -> Self:
        """Build one from parts (see `ManagerBase`). `closing` closes with it; other parts stay open."""
        manager = cls.__new__(cls)
        ManagerBase.__init__(manager, store, dispatcher, reconciler, handlers, settings, actor=actor, waiter=waiter, closing=closing)
        return manager


def _delivery(store: LedgerStore, run_queue: RunQueue) -> tuple[Dispatcher, Reconciler]:
    dispatcher = Dispatcher(store, run_queue)
    return dispatcher, Reconciler(store, run_queue, dispatcher)
