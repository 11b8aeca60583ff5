"""Documents that are files: whether this machine, and so a worker on it, can read them where the ledger says they are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from ledgerq.cli.checks.finding import Finding, ok, warn
from ledgerq.cli.session import Session

PART: Final = "files"
LOOKED_AT: Final = 500
"""Documents that are looked at, the oldest first."""


def check_files(session: Session) -> Iterator[Finding]:
    """The `file:` documents that may still have to be read."""
    page = session.store.document_list(limit=LOOKED_AT)
    paths = [Path(unquote(urlsplit(one.uri).path)) for one in page.documents if one.uri.startswith("file:") and one.status != "deleted"]
    if not paths:
        yield ok(PART, "no document is a file")
        return
    closed = [path for path in paths if not os.access(path, os.R_OK)]
    if not closed:
        yield ok(PART, f"the documents that are files can be read here (looked at {len(paths)})")
        return
    more = f" and {len(closed) - 1} more of {len(paths)}" if len(closed) > 1 else f" of {len(paths)}"
    advice = "mount the same folder at the same path on every worker, or delete the documents; a retry of them fails as it is"
    yield warn(PART, f"{closed[0]}{more} cannot be read here by user {os.geteuid()}", advice)
