"""Documents that are files: whether this machine, and so a worker on it, can read them where the ledger says they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from ledgerq.cli.checks.finding import Finding, ok, warn
from ledgerq.cli.files import shown
from ledgerq.cli.ingest import path_of
from ledgerq.cli.session import Session

if TYPE_CHECKING:
    from uuid import UUID

    from ledgerq.models import DocumentRecord

PART: Final = "files"
PAGE: Final = 500
"""The ledger's bound for one list of documents."""
PAGES: Final = 20
"""Pages that are looked through at most."""
NEEDED: Final = frozenset({"pending", "processing", "failed"})
"""A document that is indexed, or deleted, needs its bytes no more; one that failed does when it is tried again."""


def check_files(session: Session) -> Iterator[Finding]:
    """The `file:` documents that still have to be read."""
    paths = [path for one in _documents(session) if one.status in NEEDED and (path := path_of(one.uri)) is not None]
    if not paths:
        yield ok(PART, "no file has to be read")
        return
    closed = [path for path in paths if not os.access(path, os.R_OK)]
    if not closed:
        yield ok(PART, f"the files that have to be read can be read here ({len(paths)})")
        return
    more = f" and {len(closed) - 1} more of {len(paths)}" if len(closed) > 1 else f" of {len(paths)}"
    advice = "mount the same folder at the same path on every worker, or delete the documents; a retry of them fails as it is"
    yield warn(PART, f"{shown(closed[0])}{more} cannot be read here by user {os.geteuid()}", advice)


def _documents(session: Session) -> Iterator[DocumentRecord]:
    after: UUID | None = None
    for _ in range(PAGES):
        page = session.store.document_list(after=after, limit=PAGE)
        yield from page.documents
        after = page.next
        if after is None:
            return
