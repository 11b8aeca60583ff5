"""What documents need from the rest, as protocols. `assembly` fills them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from ledgerq.models import DocumentWork, LiveGeneration


class LiveGenerations(Protocol):
    """Which generations readers see."""

    @property
    def documents(self) -> Sequence[LiveGeneration]: ...


class DocumentLedger(Protocol):
    """The ledger's view of documents; `ledger.LedgerStore` has it. Every method may raise `LedgerUnavailable`."""

    def begin_documents(
        self, documents: Sequence[UUID], *, config_digest: str, wanting: Mapping[UUID, int] | None = None
    ) -> Sequence[DocumentWork]:
        """What is to be done for at most 500 documents, each with the generation to write; asked again, the same one.

        `wanting` names live generations whose points are not all there: as long as such a one is the live one, its document is to
        be processed although nothing has changed.

        An answer holds inline texts up to 8 MiB in all: beyond that `body` is None and the document is to be asked for alone.
        """
        ...

    def moment(self) -> datetime:
        """The ledger's time: the only clock that generations are compared by."""
        ...

    def live_generations(self, documents: Sequence[UUID]) -> LiveGenerations:
        """Which generation of at most 1,000 documents is live, and which was before. Unknown documents are left out."""
        ...


class Blobs(Protocol):
    """Where the bytes of documents are."""

    def read(self, work: DocumentWork, *, max_bytes: int) -> bytes:
        """All bytes of the document's present revision.

        Raises:
            DocumentError: they can never be had (gone, not permitted, more than `max_bytes`); names the document's uri.
            ServiceUnavailable: the storage does not answer.
            OSError: what reading a file says; a missing or closed file is permanent.
        """
        ...
