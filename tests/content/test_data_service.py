"""The data service keeps documents in the ledger, and has the ledger."""

from __future__ import annotations

from uuid import uuid4

import pytest

from ledgerq import DataService, DocumentRequest
from ledgerq.errors import ConfigurationError, InvalidInput, NotFound, WrongState
from ledgerq.ledger import LedgerStore, open_store
from ledgerq.settings import Settings
from tests.support.databases import Database


@pytest.fixture
def store(module_database: Database) -> LedgerStore:
    return open_store(Settings.model_validate({"database_url": module_database.service_dsn}))


def test_what_is_saved_can_be_had(store: LedgerStore) -> None:
    with store, DataService(store) as data:
        source = data.save_source(uuid4(), kind="crawl", tenant="t")
        saved = data.save_documents([DocumentRequest.inline("page:1", "text", content_type="text/plain")], source=source, tenant="t")
        document = data.get_document(str(saved[0]))
        assert (document.uri, document.source, document.tenant) == ("page:1", source, "t")
        assert document.body is not None
        assert document.body.text == "text"


def test_a_document_that_is_not_there_is_not_found(store: LedgerStore) -> None:
    with store, DataService(store) as data:
        saved = data.save_documents([DocumentRequest.inline("page:2", "text")])
        store.delete_documents(saved, actor="test")
        for document in (*saved, uuid4()):
            with pytest.raises(NotFound, match=str(document)):
                data.get_document(document)
        with pytest.raises(InvalidInput, match="document_id: 'x'"):
            data.get_document("x")


def test_it_closes_the_ledger_that_it_opened(module_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", module_database.service_dsn)
    with DataService.from_env() as data:
        store = data.store
        assert store.document_get(uuid4()) is None
    with pytest.raises(WrongState, match="this DataService was closed"):
        data.get_document(uuid4())
    with pytest.raises(WrongState):
        store.document_get(uuid4())


def test_it_leaves_a_ledger_of_others_open(store: LedgerStore) -> None:
    with store:
        with DataService(store) as data:
            assert data.store is store
        assert store.document_get(uuid4()) is None


def test_without_a_ledger_it_says_what_to_set_or_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "LEDGERQ_DATABASE_URL", "SUPABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match="DATABASE_URL"):
        DataService.from_env()
    monkeypatch.setenv("LEDGERQ_LEDGER_POOL_SIZE", "many")
    with pytest.raises(ConfigurationError, match="LEDGERQ_LEDGER_POOL_SIZE"):
        DataService.from_env()
    with pytest.raises(InvalidInput, match="data_service: NoneType has no ledger"):
        DataService(None)  # type: ignore[arg-type]
