"""What a content service keeps: documents, and where they come from."""

from __future__ import annotations

from typing import Self

from ledgerq.errors import NotFound
from ledgerq.ledger import LedgerStore, open_store
from ledgerq.manager.opening import ledger_of, settings_from_env
from ledgerq.manager.requests import Id, as_uuid
from ledgerq.manager.saving import Saving
from ledgerq.models import DocumentRecord
from ledgerq.settings import Settings


class DataService(Saving):
    """The ledger's documents, and the ledger for a `JobManager`.

        with DataService.from_env() as data, JobManager(data, redis.Redis()) as jobs:
            saved = data.save_documents([DocumentRequest.inline("note:1", "text")])
            jobs.create_processing_job(None, saved)

    Blocking; threads may share it. Closed, it closes the ledger that it opened: a manager that stands on it can do nothing more.
    """

    def __init__(self, store: LedgerStore) -> None:
        """Stand on a ledger that is open, and stays open when this is closed.

        Raises:
            InvalidInput: that is no ledger.
        """
        super().__init__(ledger_of(store))

    @classmethod
    def from_env(cls) -> Self:
        """Open one from environment variables (see `Settings`).

        Raises:
            ConfigurationError: a variable cannot be read, or there is no ledger named.
        """
        return cls.from_settings(settings_from_env())

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Open one on the ledger that the settings name. Nothing is connected before the first call; `close` it.

        Raises:
            ConfigurationError: the settings name none.
        """
        service = cls(open_store(settings))
        service._closing.callback(service.store.close)
        return service

    @property
    def store(self) -> LedgerStore:
        """The ledger itself."""
        return self._ledger

    def get_document(self, document_id: Id) -> DocumentRecord:
        """The document as the ledger has it, with its body.

        Raises:
            NotFound: there is none, or it was deleted.
        """
        document = as_uuid(document_id, "document_id")
        found = self._store.document_get(document)
        if found is None or found.status == "deleted":
            raise NotFound(f"there is no document {document}")
        return found
