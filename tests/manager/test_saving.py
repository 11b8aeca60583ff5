"""Documents come into the ledger through the manager, and the example of a content service uses it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any, cast
from uuid import UUID, uuid4

import pytest

from ledgerq.errors import InvalidInput, NotFound, TooLarge
from ledgerq.lifecycle import JobStatus
from ledgerq.manager import saving
from ledgerq.models import DocumentRequest
from tests.support.lab import Lab

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "content_service.py"


@pytest.fixture
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("content_service", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_saves_pages_and_creates_the_job_that_processes_them(lab: Lab, example: ModuleType) -> None:
    service, source = example.ContentService(lab.jobs), uuid4()
    pages = {f"https://example.org/{name}": f"# {name}" for name in ("tides", "moons")}
    job = service.pages_arrived(source, pages, tenant="acme")
    assert service.how_is(job)[0] is JobStatus.QUEUED
    record = lab.jobs.get_job(job)
    assert (record.source, record.tenant, record.total) == (source, "acme", 2)
    again = lab.jobs.get_job(service.pages_arrived(source, pages, tenant="acme"))
    assert {task.document for task in lab.jobs.iter_tasks(again.id)} == {task.document for task in lab.jobs.iter_tasks(job)}


def test_any_number_of_documents_is_saved_in_the_order_given(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "DOCUMENTS_A_CALL", 2)
    documents = [DocumentRequest.inline(f"note:{number}", f"text {number}") for number in range(5)]
    saved = lab.jobs.save_documents(iter(documents), project="p")
    assert saved == [document.id for document in documents]
    record = lab.store.document_get(saved[4])
    assert record is not None
    assert (record.uri, record.project) == ("note:4", "p")
    assert lab.jobs.enqueue_document_processing(saved[4]).project == "p"


def test_texts_are_sent_in_calls_that_are_small_enough_in_bytes() -> None:
    """A character of these is three bytes."""
    documents = [DocumentRequest.inline(f"page:{number}", "海" * 300_000) for number in range(6)]
    assert [len(batch) for batch in saving._batches(documents)] == [4, 2]


def test_what_cannot_be_saved_is_named(lab: Lab) -> None:
    with pytest.raises(InvalidInput, match=r"documents\[0\]: 'text' is no DocumentRequest"):
        lab.jobs.save_documents(cast("list[Any]", ["text"]))
    with pytest.raises(NotFound, match="source"):
        lab.jobs.save_documents([DocumentRequest.inline("a", "b")], source=UUID(int=1))
    with pytest.raises(TooLarge, match="document 'big'"):
        lab.jobs.save_documents([DocumentRequest.inline("big", "x" * 4_000_000)])
    with pytest.raises(InvalidInput, match="details: 5 is no object"):
        lab.jobs.save_source(uuid4(), details=cast("Any", 5))


def test_a_job_of_more_documents_than_one_call_takes_grows_and_is_sealed(lab: Lab) -> None:
    """Each call is within the database's statement timeout, which the roles of a Supabase project have as well."""
    saved = lab.jobs.save_documents(DocumentRequest.inline(f"note:{number}", f"text {number}") for number in range(10_500))
    job = lab.jobs.create_processing_job(None, [*saved, *saved[:10]])
    assert (job.total, job.sealed, job.status) == (10_500, True, JobStatus.QUEUED)
    with pytest.raises(NotFound, match="1 of 10501 documents do not exist"):
        lab.jobs.create_processing_job(None, [*saved, uuid4()])
