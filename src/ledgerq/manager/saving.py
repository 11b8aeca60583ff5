"""Putting documents into the ledger, where jobs find them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final
from uuid import UUID

from ledgerq.errors import InvalidInput, TooLarge
from ledgerq.manager.base import OnLedger
from ledgerq.manager.requests import Id, as_mapping, as_uuid, json_bytes
from ledgerq.models import DocumentRequest, DocumentSaved, Json

DOCUMENTS_A_CALL: Final = 500
"""The ledger's bound for one `save_documents`."""
BYTES_A_CALL: Final = 4 * 1024 * 1024 * 9 // 10
"""As JSON. The ledger takes 32 MiB; a small part of it keeps each call far inside the statement timeout."""


class Saving(OnLedger):
    """Saves documents and where they come from. What they are is kept; what is made of them is a job's."""

    def save_source(
        self,
        source_id: Id,
        *,
        kind: str = "files",
        tenant: str = "",
        owner: Id | None = None,
        project: str | None = None,
        uri: str | None = None,
        details: Mapping[str, Json] | None = None,
    ) -> UUID:
        """Say where documents come from, under an id of yours. The same id again changes it: what is not given is emptied.

        Raises:
            InvalidInput: names the field and the value.
        """
        source = as_uuid(source_id, "source_id")
        said = as_mapping(details or {}, "details")
        json_bytes(said, "details")
        owned_by = None if owner is None else as_uuid(owner, "owner")
        self._store.save_source(source, kind=kind, tenant=tenant, owner=owned_by, project=project, uri=uri, details=said)
        return source

    def save_documents(
        self,
        documents: Iterable[DocumentRequest],
        *,
        source: Id | None = None,
        tenant: str = "",
        owner: Id | None = None,
        project: str | None = None,
    ) -> list[UUID]:
        """Save any number of documents and return their ids, in the order given: what `create_processing_job` takes.

        A document is known by tenant, source and uri: saved again it keeps its id, and other content makes a new revision.

        Raises:
            InvalidInput, TooLarge: one of them is wrong; names it. Batches of 500 before it stand, and the same call repeats them.
            NotFound: there is no such source.
            LedgerUnavailable: earlier batches stand; the same call again completes the rest.
        """
        asked = list(documents)
        for number, document in enumerate(asked):
            if not isinstance(document, DocumentRequest):  # pyright: ignore[reportUnnecessaryIsInstance] - callers err
                raise InvalidInput(f"documents[{number}]: {document!r} is no DocumentRequest")
        origin = None if source is None else as_uuid(source, "source")
        owned_by = None if owner is None else as_uuid(owner, "owner")
        saved: list[DocumentSaved] = []
        for batch in _batches(asked):
            saved += self._store.save_documents(batch, tenant=tenant, owner=owned_by, project=project, source=origin)
        return [answer.id for answer in saved]


def _batches(documents: list[DocumentRequest]) -> Iterable[list[DocumentRequest]]:
    batch: list[DocumentRequest] = []
    size = 0
    for document in documents:
        more = _bytes(document)
        if batch and (len(batch) == DOCUMENTS_A_CALL or size + more > BYTES_A_CALL):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += more
    if batch:
        yield batch


def _bytes(document: DocumentRequest) -> int:
    size = len(document.model_dump_json(exclude_none=True).encode())
    if size > BYTES_A_CALL:
        raise TooLarge(f"document {document.uri!r}: {size} bytes as JSON; texts over 1 MB belong into a file or a bucket")
    return size
