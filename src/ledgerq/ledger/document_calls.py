"""Calls about sources, documents and the generations of their points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from ledgerq.ledger.answers import (
    DocumentDisposition,
    DocumentPage,
    GarbageGone,
    GarbageItem,
    LiveGenerations,
    SourceRecord,
    SourceSaved,
)
from ledgerq.ledger.calls import Calls, read, request, texts
from ledgerq.models import DocumentRecord, DocumentRequest, DocumentSaved, DocumentWork, JsonObject


class DocumentCalls(Calls):
    """One method per function. All of them may be repeated."""

    def save_source(
        self,
        source: UUID,
        *,
        kind: str,
        tenant: str = "",
        owner: UUID | None = None,
        project: str | None = None,
        uri: str | None = None,
        details: JsonObject | None = None,
    ) -> SourceSaved:
        """Create a source, or change it: what is not given is emptied."""
        return self._ask(
            SourceSaved, "save_source", id=source, kind=kind, tenant=tenant, owner=owner, project=project, uri=uri, details=details
        )

    def source_get(self, source: UUID) -> SourceRecord | None:
        """One source, or None."""
        return self._find(SourceRecord, "source_get", source=source)

    def save_documents(
        self,
        documents: Sequence[DocumentRequest],
        *,
        tenant: str = "",
        owner: UUID | None = None,
        project: str | None = None,
        source: UUID | None = None,
    ) -> tuple[DocumentSaved, ...]:
        """Save at most 500 documents; the answers are in the order given. Known ones with other content get a new revision.

        Raises:
            NotFound: the source is unknown.
            InvalidInput, TooLarge: nothing was saved; names the document and the field.
        """
        given = [document.model_dump(mode="json", exclude_none=True) for document in documents]
        return self._list(
            DocumentSaved, "save_documents", "documents", documents=given, tenant=tenant, owner=owner, project=project, source=source
        )

    def missing_documents(self, documents: Sequence[UUID], *, tenant: str | None = None) -> tuple[UUID, ...]:
        """Those of at most 5,000 documents that are unknown or deleted, or belong to another tenant than the one named."""
        return tuple(UUID(entry) for entry in self._value("missing_documents", "missing", documents=texts(documents), tenant=tenant))

    def begin_documents(
        self, documents: Sequence[UUID], *, config_digest: str, wanting: Mapping[UUID, int] | None = None
    ) -> tuple[DocumentWork, ...]:
        """What is to be done for at most 500 documents under this configuration, each with the generation to write.

        `wanting` names live generations whose points are not all there: an unchanged document gets another one for it.
        """
        again = wanting or {}
        wanted = [
            {"document": str(document), "config_digest": config_digest} | ({"wanting": again[document]} if document in again else {})
            for document in documents
        ]
        answer = self._value("begin_documents", "documents", documents=wanted)
        return tuple(read(DocumentWork, "begin_documents", request(item)) for item in answer)  # a deleted one has no generation

    def document_get(self, document: UUID) -> DocumentRecord | None:
        """One document, or None."""
        return self._find(DocumentRecord, "document_get", document=document)

    def document_list(
        self,
        *,
        tenant: str | None = None,
        source: UUID | None = None,
        owner: UUID | None = None,
        after: UUID | None = None,
        limit: int = 100,
    ) -> DocumentPage:
        """Documents in the order of their ids, at most 500, tombstones included."""
        return self._ask(DocumentPage, "document_list", tenant=tenant, source=source, owner=owner, after=after, limit=limit)

    def delete_documents(self, documents: Sequence[UUID], *, actor: str) -> tuple[DocumentDisposition, ...]:
        """Delete at most 1,000 documents: readers stop seeing them at once, their points follow."""
        return self._list(DocumentDisposition, "delete_documents", "documents", documents=texts(documents), actor=actor)

    def live_generations(self, documents: Sequence[UUID]) -> LiveGenerations:
        """Which generation of at most 1,000 documents readers see now. Unknown ones are absent."""
        return self._ask(LiveGenerations, "live_generations", documents=texts(documents))

    def garbage(self, *, limit: int = 100, reader_grace_s: float = 60.0) -> tuple[GarbageItem, ...]:
        """Points to remove: nobody reads or builds them, and for `reader_grace_s` nobody could still be reading them."""
        return self._list(GarbageItem, "garbage", "items", limit=limit, reader_grace_s=reader_grace_s)

    def garbage_gone(self, items: Sequence[GarbageGone]) -> None:
        """Say how many points were counted after the removal; what was counted gone twice is forgotten."""
        self._transport.call("garbage_gone", {"items": [item.model_dump(mode="json", exclude_none=True) for item in items]})
