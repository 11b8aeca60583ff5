"""The job manager: what a service asks for, what it may know about it, and how it steers it.

It orchestrates: the ledger decides and keeps, RQ delivers. No method holds state between two calls, any number of managers
may work on one ledger at once, and every request may be repeated. It is blocking; `AsyncJobManager` is its awaitable face.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Self

from pydantic import ValidationError

from ledgerq.apps import load_app
from ledgerq.dispatch.connection import connect_redis
from ledgerq.dispatch.dispatcher import Dispatcher
from ledgerq.dispatch.run_queue import RunQueue
from ledgerq.errors import ConfigurationError
from ledgerq.handlers import Handlers
from ledgerq.ledger import open_store
from ledgerq.manager.creating import Creating
from ledgerq.manager.external import External
from ledgerq.manager.reading import Reading
from ledgerq.manager.requests import first_fault
from ledgerq.manager.saving import Saving
from ledgerq.settings import Settings
from ledgerq.sync.reconciler import Reconciler


class JobManager(Saving, Creating, Reading, External):
    """Jobs asked for, looked at and steered.

        with JobManager.from_env() as jobs:
            job = jobs.create_processing_job(source_id, document_ids)
            jobs.wait_for(job.id)

    `saving`, `creating`, `reading`, `steering` and `external` hold its methods.
    """

    _closing: ExitStack | None = None

    @classmethod
    def from_env(cls) -> Self:
        """Open one from environment variables (see `Settings`); `LEDGERQ_APP`, when it is set, names the known types.

        Raises:
            ConfigurationError: a variable cannot be read, there is no ledger named, or the app cannot be loaded.
        """
        try:
            settings = Settings()
        except ValidationError as error:
            raise ConfigurationError(f"a setting cannot be read: {first_fault(error)}") from None
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
        dispatcher = Dispatcher(store, run_queue)
        manager = cls(store, dispatcher, Reconciler(store, run_queue, dispatcher), handlers, settings)
        manager._closing = ExitStack()
        manager._closing.callback(store.close)
        manager._closing.callback(redis.close)
        return manager

    def close(self) -> None:
        """Close the connections that `from_settings` opened; a manager built from its parts has none of its own."""
        if self._closing is not None:
            self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
